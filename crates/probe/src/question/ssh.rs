//! SSH: who is there (RFC 4253, section 4.2), and which algorithms it offers
//! (section 7.1).
//!
//! Both sides begin with a line; then the server sends its `SSH_MSG_KEXINIT`
//! in the clear. After it the conversation is ended with `SSH_MSG_DISCONNECT`.
//! Deliberately left out is the key exchange: it would cost the server
//! arithmetic, and show only the host key that its algorithms already name.

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question};
use crate::{Answer, Fault, Reader, Stream, Value};

/// Asks for identification and algorithms.
#[derive(Debug)]
pub(super) struct Ssh;

/// What is said in reply to the server's identification.
const IDENTIFICATION: &[u8] =
    concat!("SSH-2.0-PortReporter_", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes();

/// How many bytes a line may have. The identification has at most 255; for
/// those before it no limit is set.
const LINE: usize = 1024;

/// How many lines may come before the identification.
const LINES: usize = 64;

/// How long a packet may be (section 6.1).
const PACKET: usize = 35_000;

/// How many messages without meaning may come before `SSH_MSG_KEXINIT`.
const MESSAGES: usize = 16;

const DISCONNECT: u8 = 1;
const IGNORE: u8 = 2;
const DEBUG: u8 = 4;
const KEXINIT: u8 = 20;

impl Question for Ssh {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let mut answer = Answer::of("ssh");
        let mut lines = Vec::new();
        let is_identification = |line: &String| line.starts_with("SSH-");
        while !lines.last().is_some_and(is_identification) {
            if lines.len() == LINES {
                return Err(malformed("no SSH identification"));
            }
            lines.push(from_bytes(&stream.line(LINE)?));
        }
        let goes_on = introduce(&mut answer, lines.last().map_or("", String::as_str))?;
        answer.text = Some(lines.join("\n"));
        if goes_on && let Err(fault) = algorithms(&mut answer, stream) {
            answer.broke_off(&fault);
        }
        Ok(answer)
    }
}

/// Tells who the server says it is, and whether it speaks version 2.
fn introduce(answer: &mut Answer, identification: &str) -> Result<bool, Fault> {
    let mut parts = identification.splitn(3, '-').skip(1);
    let (Some(protocol), Some(rest)) = (parts.next(), parts.next()) else {
        return Err(malformed("an SSH identification without a version"));
    };
    rest.clone_into(&mut answer.summary);
    let (software, comments) = match rest.split_once(' ') {
        Some((software, comments)) => (software, Some(comments)),
        None => (rest, None),
    };
    answer.add("protoversion", protocol);
    answer.add("softwareversion", software);
    if let Some(comments) = comments {
        answer.add("comments", comments);
    }
    // 1.99 speaks both (section 5.1).
    Ok(protocol == "1.99" || !protocol.starts_with("1."))
}

/// Asks for the algorithms and adds them to `answer`.
fn algorithms(answer: &mut Answer, stream: &mut Stream<'_>) -> Result<(), Fault> {
    stream.send(IDENTIFICATION)?;
    for _ in 0..MESSAGES {
        let packet = receive(stream)?;
        let mut payload = payload(&packet)?;
        match payload.u8("a message number")? {
            IGNORE | DEBUG => {}
            DISCONNECT => {
                let code = payload.u32("a reason code")?;
                let description = string(&mut payload, "a description")?;
                answer.add("error", from_bytes(description));
                answer.add("reason code", code);
                return Ok(());
            }
            KEXINIT => {
                kexinit(answer, &mut payload)?;
                // Nothing more is asked; it may be gone by now.
                let _ = stream.send(&packet_of(&farewell()));
                return Ok(());
            }
            _ => return Err(payload.malformed("another message than SSH_MSG_KEXINIT")),
        }
    }
    Err(malformed("no SSH_MSG_KEXINIT"))
}

/// Takes a packet off `stream`, without its length.
fn receive(stream: &mut Stream<'_>) -> Result<Vec<u8>, Fault> {
    let length = Reader::new(&stream.exact(4)?).u32("a packet length")?;
    match usize::try_from(length) {
        Ok(length @ 2..=PACKET) => stream.exact(length),
        _ => Err(malformed("a packet length")),
    }
}

/// What is in a packet besides its padding.
fn payload(packet: &[u8]) -> Result<Reader<'_>, Fault> {
    let mut reader = Reader::new(packet);
    let padding = usize::from(reader.u8("a padding length")?);
    let length = reader.left().checked_sub(padding);
    let length = length.ok_or_else(|| reader.malformed("a padding length"))?;
    Ok(Reader::new(reader.bytes(length, "a payload")?))
}

/// Adds the lists of `SSH_MSG_KEXINIT`, each under its name there. Where both
/// directions have the same, as is usual, they are told once.
fn kexinit(answer: &mut Answer, payload: &mut Reader<'_>) -> Result<(), Fault> {
    payload.bytes(16, "a cookie")?;
    for name in ["kex_algorithms", "server_host_key_algorithms"] {
        answer.add(name, list(string(payload, name)?));
    }
    for [name, to_server, to_client] in [
        [
            "encryption_algorithms",
            "encryption_algorithms_client_to_server",
            "encryption_algorithms_server_to_client",
        ],
        [
            "mac_algorithms",
            "mac_algorithms_client_to_server",
            "mac_algorithms_server_to_client",
        ],
        [
            "compression_algorithms",
            "compression_algorithms_client_to_server",
            "compression_algorithms_server_to_client",
        ],
    ] {
        let there = string(payload, to_server)?;
        let back = string(payload, to_client)?;
        if there == back {
            answer.add(name, list(there));
        } else {
            answer.add(to_server, list(there));
            answer.add(to_client, list(back));
        }
    }
    Ok(())
}

/// A string of RFC 4251, section 5.
fn string<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], Fault> {
    let length = reader.u32(what)?;
    let length = usize::try_from(length).map_err(|_| reader.malformed(what))?;
    reader.bytes(length, what)
}

/// A name-list of RFC 4251, section 5.
fn list(names: &[u8]) -> Vec<Value> {
    let names = names.split(|byte| *byte == b',');
    names
        .filter(|name| !name.is_empty())
        .map(|name| from_bytes(name).into())
        .collect()
}

/// `SSH_MSG_DISCONNECT`: the reason `BY_APPLICATION` and two empty strings.
fn farewell() -> [u8; 13] {
    let mut message = [0; 13];
    message[0] = DISCONNECT;
    message[4] = 11;
    message
}

/// Makes a packet of a payload: padded to a multiple of 8 by at least 4 bytes
/// (section 6). The padding need not be random where nothing is encrypted.
fn packet_of(payload: &[u8]) -> Vec<u8> {
    let padding = 8 - (payload.len() + 5) % 8;
    let padding = if padding < 4 { padding + 8 } else { padding };
    let length = payload.len() + padding + 1;
    let mut packet = Vec::with_capacity(length + 4);
    // A payload of ours is a few bytes long.
    packet.extend(u32::try_from(length).unwrap_or(0).to_be_bytes());
    packet.push(u8::try_from(padding).unwrap_or(0));
    packet.extend(payload);
    packet.resize(length + 4, 0);
    packet
}

fn malformed(what: &'static str) -> Fault {
    Fault::Malformed { what, at: 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Script, trial};
    use super::*;

    /// `SSH_MSG_KEXINIT` with these ten lists.
    fn kexinit_of(lists: [&str; 10]) -> Vec<u8> {
        let mut payload = vec![KEXINIT];
        payload.extend([7; 16]);
        for list in lists {
            payload.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            payload.extend(list.as_bytes());
        }
        payload.extend([0; 5]);
        packet_of(&payload)
    }

    fn good() -> Vec<u8> {
        let mut reply = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n".to_vec();
        reply.extend(packet_of(&[IGNORE, 0, 0, 0, 0]));
        reply.extend(kexinit_of([
            "curve25519-sha256,diffie-hellman-group14-sha256",
            "ssh-ed25519",
            "aes256-ctr",
            "aes256-ctr",
            "hmac-sha2-256",
            "hmac-sha2-512",
            "none,zlib@openssh.com",
            "none,zlib@openssh.com",
            "",
            "",
        ]));
        reply
    }

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Ssh, Script::of(&[reply]))
    }

    fn texts(names: &[&str]) -> Value {
        Value::List(names.iter().map(|name| Value::from(*name)).collect())
    }

    #[test]
    fn identification_and_algorithms_are_told() {
        let script = Script::of(&[b"Welcome\r\n", &good()]);
        let answer = trial::stream(&Ssh, script.clone()).unwrap();
        assert_eq!(answer.summary, "OpenSSH_9.2p1 Debian-2+deb12u3");
        assert_eq!(
            answer.text.as_deref(),
            Some("Welcome\nSSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3")
        );
        assert_eq!(answer.get("protoversion"), Some(&"2.0".into()));
        assert_eq!(answer.get("comments"), Some(&"Debian-2+deb12u3".into()));
        let kex = texts(&["curve25519-sha256", "diffie-hellman-group14-sha256"]);
        assert_eq!(answer.get("kex_algorithms"), Some(&kex));
        let cipher = answer.get("encryption_algorithms");
        assert_eq!(cipher, Some(&texts(&["aes256-ctr"])));
        assert_eq!(answer.get("mac_algorithms"), None);
        let back = answer.get("mac_algorithms_server_to_client");
        assert_eq!(back, Some(&texts(&["hmac-sha2-512"])));
        let sent = script.sent();
        assert!(sent.starts_with(IDENTIFICATION));
        // RFC 4253, sections 6 and 11.1, written out.
        let farewell = b"\0\0\0\x14\x06\x01\0\0\0\x0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(sent[IDENTIFICATION.len()..], farewell[..]);
    }

    #[test]
    fn version_1_is_not_asked_on() {
        let script = Script::of(&[b"SSH-1.5-OldSSH_1.2.27\n"]);
        let answer = trial::stream(&Ssh, script.clone()).unwrap();
        assert_eq!(answer.summary, "OldSSH_1.2.27");
        assert!(script.sent().is_empty());
        let script = Script::of(&[b"SSH-1.99-Cisco-1.25\n"]);
        let answer = trial::stream(&Ssh, script.clone()).unwrap();
        assert_eq!(answer.get("softwareversion"), Some(&"Cisco-1.25".into()));
        assert!(answer.get("incomplete").is_some());
        assert!(script.sent().starts_with(IDENTIFICATION));
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let mut payload = vec![DISCONNECT, 0, 0, 0, 12, 0, 0, 0, 4];
        payload.extend(b"full\0\0\0\0");
        let mut reply = b"SSH-2.0-x\r\n".to_vec();
        reply.extend(packet_of(&payload));
        let answer = ask(&reply).unwrap();
        assert_eq!(answer.get("error"), Some(&"full".into()));
        assert_eq!(answer.get("reason code"), Some(&Value::Number(12)));
    }

    #[test]
    fn what_is_not_ssh_is_malformed() {
        for reply in [&b"SSH-2.0\r\n"[..], "x\n".repeat(LINES).as_bytes()] {
            assert!(matches!(ask(reply), Err(Fault::Malformed { .. })));
        }
        assert!(matches!(ask(b"220 ftp\r\n"), Err(Fault::Closed)));
        assert!(matches!(ask(&[b'x'; 2000]), Err(Fault::Long(LINE))));
    }

    #[test]
    fn careless_and_hostile_packets_end_the_conversation() {
        let reply = good();
        let line = reply.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for piece in trial::cut(&reply) {
            // Without the whole line there is no answer; with it there is.
            assert_eq!(ask(piece).is_ok(), piece.len() >= line);
        }
        for reply in trial::altered(&reply) {
            let _ = ask(&reply);
        }
        for packet in [
            &[0xff; 64][..],
            &[0, 0, 0, 1, 0],
            &[0, 0, 0, 4, 4, 20, 0, 0],
            &packet_of(&[IGNORE]).repeat(MESSAGES + 1),
            &packet_of(&[99]),
        ] {
            let answer = ask(&[b"SSH-2.0-x\r\n", packet].concat()).unwrap();
            assert!(answer.get("incomplete").is_some(), "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn packets_come_back(payload in prop::collection::vec(any::<u8>(), 0..600)) {
            let packet = packet_of(&payload);
            prop_assert_eq!(packet.len() % 8, 0);
            prop_assert!(packet[4] >= 4);
            let mut stream = Stream::new(Script::of(&[&packet]), std::time::Duration::from_mins(1));
            let received = receive(&mut stream).unwrap();
            prop_assert_eq!(super::payload(&received).unwrap().rest(), payload);
        }
    }
}
