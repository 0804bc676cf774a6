//! The Winsock proxy of Microsoft Proxy Server and ISA Server, port 1745.
//!
//! What is known. No specification was ever published. What is sent here was
//! found out by others from the traffic of real clients: a head with numbers of
//! client and server, the mark `RWSP` and a command, then a body of which only
//! the strings at its end are understood (a user, an application, a host). The
//! client's first message is a hello (0x05xx), the server's reply to it 0x10xx,
//! in which it names an address and port for UDP.
//!
//! What is not. The original "downloads Mspclnt.ini", the clients' configuration,
//! over TCP; with which request is not documented, and nobody seems to have
//! written it down. So over TCP the same hello is sent, and whatever comes is
//! taken: a message of this protocol, or text, which is kept as it is. None of
//! this was tried on a real server, since none can be had.

use std::net::Ipv4Addr;

use event::{Protocol, text};

use super::{Asked, Question};
use crate::{Answer, Datagrams, Fault, Reader, Stream};

/// Says hello.
#[derive(Debug)]
pub(super) struct WinsockProxy;

/// Where things are in a message.
mod place {
    pub(super) const VERSION: usize = 4;
    pub(super) const MARK: usize = 24;
    pub(super) const COMMAND: usize = 36;
    pub(super) const UDP_PORT: usize = 98;
    pub(super) const STRINGS: usize = 220;
}

const MARK: &[u8; 4] = b"RWSP";

/// The least that a message may have.
const SHORTEST: usize = 172;

/// The high byte of the reply to a hello.
const HELLO_REPLY: u8 = 0x10;

/// How much text is kept.
const TEXT: usize = 64 << 10;

impl Question for WinsockProxy {
    fn name(&self) -> &'static str {
        "winsock-proxy"
    }

    fn aliases(&self) -> &'static [&'static str] {
        // IANA's name for the port, and the protocol's among its finders.
        &["remote-winsock", "msproxy"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp, Protocol::Udp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        stream.send(&hello())?;
        let mut reply = stream.some()?;
        while reply.len() < TEXT {
            if is_message(&reply) && reply.len() >= SHORTEST {
                return read(&reply);
            }
            // Text ends when the server closes or has nothing more to say.
            match stream.some() {
                Ok(more) if more.is_empty() => break,
                Ok(more) => reply.extend(more),
                Err(_) => break,
            }
        }
        if reply.is_empty() {
            return Err(Fault::Closed);
        }
        if is_message(&reply) {
            return read(&reply);
        }
        read_text(&reply)
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        read(&datagrams.exchange(&hello(), is_message)?)
    }
}

/// The first message of a client, with the numbers that real clients send in
/// places whose meaning is not known.
fn hello() -> Vec<u8> {
    let mut hello = vec![0; place::STRINGS];
    let mut put = |at: usize, bytes: &[u8]| hello[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x0a]);
    put(place::VERSION, &[0, 1, 2, 0]);
    put(place::MARK, MARK);
    put(place::COMMAND, &[0x05, 0x00]);
    put(172, &[0x4b]);
    put(176, &[0x14]);
    put(180, &[0x04]);
    put(188, &[0x57, 0x04, 0x00, 0x04, 0x01]);
    put(196, &[0x4a, 0x02]);
    put(208, &[0x30]);
    put(212, &[0x44]);
    put(216, &[0x39]);
    // User, nothing, application, host.
    hello.extend_from_slice(b"portreporter\0\0portreporter\0localhost\0");
    hello
}

fn is_message(reply: &[u8]) -> bool {
    reply.get(place::MARK..place::MARK + MARK.len()) == Some(MARK)
}

fn read(reply: &[u8]) -> Result<Answer, Fault> {
    let mut reader = Reader::new(reply);
    reader.bytes(8, "client and version")?;
    let server = reader.u32_le("server")?;
    reader.seek(place::COMMAND, "command")?;
    let command = reader.u16("command")?;
    let mut answer = Answer::of("winsock-proxy");
    answer.add("command", format!("0x{command:04x}"));
    answer.add("server id", format!("0x{server:08x}"));
    answer.summary = format!("Winsock proxy, command 0x{command:04x}");
    if command.to_be_bytes()[0] == HELLO_REPLY {
        reader.seek(place::UDP_PORT, "port for UDP")?;
        let port = reader.u16("port for UDP")?;
        let address = Ipv4Addr::from(reader.array("address for UDP")?);
        answer.add("udp", format!("{address}:{port}"));
    }
    Ok(answer)
}

/// Text is an answer too, if it is text: a configuration, or an error message.
fn read_text(reply: &[u8]) -> Result<Answer, Fault> {
    if reply.contains(&0) {
        return Err(Fault::Malformed {
            what: "a message of the Winsock proxy, or text",
            at: 0,
        });
    }
    let text = text::from_bytes(reply);
    let mut answer = Answer::of("winsock-proxy");
    let first = text.lines().next().unwrap_or_default();
    first.clone_into(&mut answer.summary);
    answer.add("bytes", i64::try_from(reply.len()).unwrap_or(i64::MAX));
    answer.text = Some(text);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::question::{Script, trial};

    /// A reply made by what is known of one; there is no real one to be had.
    fn reply() -> Vec<u8> {
        let mut reply = vec![0; SHORTEST];
        reply[8..12].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        reply[place::MARK..][..4].copy_from_slice(MARK);
        reply[place::COMMAND] = HELLO_REPLY;
        reply[place::UDP_PORT..][..6].copy_from_slice(&[0x06, 0xd2, 192, 0, 2, 7]);
        reply
    }

    #[test]
    fn says_hello_as_clients_do() {
        let hello = hello();
        assert_eq!(&hello[..8], b"\x0a\0\0\0\0\x01\x02\0");
        assert_eq!(&hello[24..28], b"RWSP");
        assert_eq!(hello[36..38], [5, 0]);
        assert_eq!(hello[188..198], [0x57, 4, 0, 4, 1, 0, 0, 0, 0x4a, 2]);
        assert!(hello.ends_with(b"\0\0portreporter\0localhost\0"));
    }

    #[test]
    fn a_hello_is_answered() {
        let reply = reply();
        let pieces: Vec<&[u8]> = reply.chunks(50).collect();
        for answer in [
            trial::datagrams(&WinsockProxy, Script::of(&[b"other", &reply])).unwrap(),
            trial::stream(&WinsockProxy, Script::silent(&pieces)).unwrap(),
        ] {
            assert_eq!(answer.get("udp"), Some(&"192.0.2.7:1746".into()));
            assert_eq!(answer.get("server id"), Some(&"0x12345678".into()));
        }
    }

    #[test]
    fn text_is_kept() {
        let pieces: [&[u8]; 2] = [b"[Common]\r\nPort=1745\r\n", b"[Servers Ip Addresses]\r\n"];
        for script in [Script::of(&pieces), Script::silent(&pieces)] {
            let answer = trial::stream(&WinsockProxy, script).unwrap();
            assert_eq!(answer.summary, "[Common]");
            assert_eq!(answer.get("bytes"), Some(&Value::from(45_u32)));
            assert!(answer.text.unwrap().contains("Port=1745"));
        }
    }

    #[test]
    fn hostile_replies_are_refused() {
        let good = reply();
        for cut in trial::cut(&good) {
            let result = trial::datagrams(&WinsockProxy, Script::of(&[cut]));
            // All that is read lies before byte 104.
            assert_eq!(result.is_ok(), cut.len() >= 104, "{}", cut.len());
            let _ = trial::stream(&WinsockProxy, Script::of(&[cut]));
        }
        let nothing = trial::stream(&WinsockProxy, Script::of(&[]));
        assert!(matches!(nothing, Err(Fault::Closed)));
        let silence = trial::stream(&WinsockProxy, Script::silent(&[]));
        assert!(matches!(silence, Err(Fault::Silent(_))));
        let binary = trial::stream(&WinsockProxy, Script::of(&[&[0; 300]]));
        assert!(matches!(binary, Err(Fault::Malformed { .. })));
        let endless = vec![b'x'; 2 * TEXT];
        let long = trial::stream(&WinsockProxy, Script::of(&[&endless])).unwrap();
        assert!(long.text.unwrap().len() < TEXT + (32 << 10));
    }
}
