//! PostgreSQL: the certificate behind `SSLRequest`, and the reply to a startup
//! message (PostgreSQL's documentation, "Frontend/Backend Protocol", sections
//! "Message Flow" and "Message Formats").
//!
//! The version is told only to those who are let in, so it comes where the
//! server trusts the role [`USER`] without a password. Everyone else learns how
//! it wants to be asked, or its refusal. No password is sent.

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question, tls};
use crate::{Answer, Fault, Reader, Stream, Value};

/// Asks for TLS and for a session.
#[derive(Debug)]
pub(super) struct Postgresql;

/// The role that asks for a session.
const USER: &str = "portreporter";

/// The database that it asks for: one that every server has.
const DATABASE: &str = "postgres";

/// How many bytes a message may have.
const MESSAGE: usize = 64 << 10;

/// How many messages are read.
const MESSAGES: usize = 256;

/// How long the words of one may be that refuses before it knows the protocol.
const LINE: usize = 4096;

/// "I want TLS": a length and a number that is no protocol version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// "I go": the session is closed in order.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

impl Question for Postgresql {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["postgres"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let mut answer = Answer::of("postgresql");
        "PostgreSQL".clone_into(&mut answer.summary);
        stream.send(&SSL_REQUEST)?;
        match stream.exact(1)?[0] {
            b'S' => {
                answer.add("SSLRequest", "S");
                tls::within(&mut answer, asked, stream, session);
            }
            b'N' => {
                answer.add("SSLRequest", "N");
                session(&mut answer, stream);
            }
            b'E' => refusal(&mut answer, stream)?,
            _ => {
                return Err(Fault::Malformed {
                    what: "no reply to SSLRequest",
                    at: 0,
                });
            }
        }
        Ok(answer)
    }
}

/// `StartupMessage` of protocol 3.0.
fn startup() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 3, 0, 0];
    let pairs = [
        "user",
        USER,
        "database",
        DATABASE,
        "application_name",
        "portreporter",
    ];
    for text in pairs {
        message.extend(text.as_bytes());
        message.push(0);
    }
    message.push(0);
    // Far below the limits of either side.
    let length = u32::try_from(message.len()).unwrap_or(0);
    message[..4].copy_from_slice(&length.to_be_bytes());
    message
}

/// Asks for a session and tells what came of it.
fn session(answer: &mut Answer, stream: &mut Stream<'_>) {
    if let Err(fault) = begin(answer, stream) {
        answer.broke_off(&fault);
    }
}

fn begin(answer: &mut Answer, stream: &mut Stream<'_>) -> Result<(), Fault> {
    stream.send(&startup())?;
    for _ in 0..MESSAGES {
        let (kind, message) = receive(stream)?;
        if !tell(answer, kind, &mut Reader::new(&message))? {
            // Nothing more is asked; it may be gone by now.
            let _ = stream.send(&TERMINATE);
            return Ok(());
        }
    }
    Err(Fault::Malformed {
        what: "a session that does not begin",
        at: 0,
    })
}

/// Takes a message off `stream`: what it is, and its contents.
fn receive(stream: &mut Stream<'_>) -> Result<(u8, Vec<u8>), Fault> {
    let head = stream.exact(5)?;
    let mut reader = Reader::new(&head);
    let kind = reader.u8("a message type")?;
    let length = reader.u32("a message length")?;
    let length = usize::try_from(length).ok();
    let length = length.and_then(|length| length.checked_sub(4));
    match length {
        Some(length) if length <= MESSAGE => Ok((kind, stream.exact(length)?)),
        Some(_) => Err(Fault::Long(MESSAGE)),
        None => Err(reader.malformed("a message length")),
    }
}

/// Adds what a message says to `answer`; true if more is to come.
fn tell(answer: &mut Answer, kind: u8, message: &mut Reader<'_>) -> Result<bool, Fault> {
    match kind {
        b'R' => authentication(answer, message),
        b'E' => {
            for (field, text) in fields(message)? {
                match field {
                    b'M' => {
                        answer.summary = format!("PostgreSQL: {text}");
                        answer.add("error", text);
                    }
                    b'C' => answer.add("error code", text),
                    b'S' => answer.add("severity", text),
                    _ => {}
                }
            }
            Ok(false)
        }
        // ParameterStatus
        b'S' => {
            let name = from_bytes(string(message, "a parameter's name")?);
            let value = from_bytes(string(message, "a parameter's value")?);
            if name == "server_version" {
                answer.summary = format!("PostgreSQL {value}");
            }
            answer.add(name, value);
            Ok(true)
        }
        // NegotiateProtocolVersion, BackendKeyData, NoticeResponse
        b'v' | b'K' | b'N' => Ok(true),
        // ReadyForQuery
        b'Z' => Ok(false),
        _ => Err(message.malformed("an unexpected message")),
    }
}

/// How the server wants to know who it is; true if it does not want to.
fn authentication(answer: &mut Answer, message: &mut Reader<'_>) -> Result<bool, Fault> {
    let method = match message.u32("an authentication method")? {
        0 => {
            answer.add("authentication", "trust");
            return Ok(true);
        }
        2 => "Kerberos V5".into(),
        3 => "password".into(),
        5 => "md5".into(),
        7 => "GSS".into(),
        9 => "SSPI".into(),
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                let name = string(message, "an authentication mechanism")?;
                if name.is_empty() {
                    break;
                }
                mechanisms.push(Value::from(from_bytes(name)));
            }
            Value::List(mechanisms)
        }
        number => number.into(),
    };
    answer.add("authentication", method);
    Ok(false)
}

/// The fields of an `ErrorResponse`.
fn fields(message: &mut Reader<'_>) -> Result<Vec<(u8, String)>, Fault> {
    let mut fields = Vec::new();
    loop {
        match message.u8("a field type")? {
            0 => return Ok(fields),
            kind => fields.push((kind, from_bytes(string(message, "a field")?))),
        }
    }
}

/// An error instead of a yes or no: from a server that cannot begin a process
/// (words up to a zero, without a length), or from one that knows no TLS.
fn refusal(answer: &mut Answer, stream: &mut Stream<'_>) -> Result<(), Fault> {
    let head = stream.exact(4)?;
    let length = Reader::new(&head).u32("a message length")?;
    // A length is far below what four letters would be.
    if (8..=30_000).contains(&length)
        && let Ok(length) = usize::try_from(length - 4)
    {
        let message = stream.exact(length)?;
        tell(answer, b'E', &mut Reader::new(&message))?;
        return Ok(());
    }
    let mut words = head;
    while !words.contains(&0) && words.len() < LINE {
        words.extend(stream.exact(1)?);
    }
    words.retain(|byte| *byte != 0);
    let words = from_bytes(words.trim_ascii());
    answer.summary = format!("PostgreSQL: {words}");
    answer.add("error", words);
    Ok(())
}

/// The bytes up to a zero, which is passed over.
fn string<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], Fault> {
    let length = reader.clone().rest().iter().position(|byte| *byte == 0);
    let length = length.ok_or_else(|| reader.malformed(what))?;
    let bytes = reader.bytes(length, what)?;
    reader.u8(what)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Script, trial};
    use super::*;

    /// A message of the server's.
    fn message(kind: u8, contents: &[u8]) -> Vec<u8> {
        let length = u32::try_from(contents.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], contents].concat()
    }

    fn good() -> Vec<u8> {
        [
            b"N".to_vec(),
            message(b'R', &[0; 4]),
            message(b'S', b"server_version\x0015.6 (Debian 15.6-0+deb12u1)\0"),
            message(b'K', &[1; 8]),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Postgresql, Script::of(&[reply]))
    }

    #[test]
    fn a_trusted_session_tells_the_version() {
        let script = Script::of(&[&good()]);
        let answer = trial::stream(&Postgresql, script.clone()).unwrap();
        assert_eq!(answer.summary, "PostgreSQL 15.6 (Debian 15.6-0+deb12u1)");
        assert_eq!(answer.get("authentication"), Some(&"trust".into()));
        let sent = script.sent();
        assert_eq!(sent[..8], SSL_REQUEST);
        assert_eq!(sent[8..], [&startup()[..], &TERMINATE].concat());
        let start = b"\0\0\0\x4b\0\x03\0\0user\0portreporter\0database\0postgres\0";
        assert!(sent[8..].starts_with(&start[..]), "{:?}", startup());
    }

    #[test]
    fn how_it_wants_to_be_asked_is_told() {
        let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        let answer = ask(&[b"N", &sasl[..]].concat()).unwrap();
        let mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"].map(Value::from);
        let mechanisms = Value::List(mechanisms.to_vec());
        assert_eq!(answer.get("authentication"), Some(&mechanisms));
        let md5 = message(b'R', b"\0\0\0\x05salt");
        let answer = ask(&[b"N", &md5[..]].concat()).unwrap();
        assert_eq!(answer.get("authentication"), Some(&"md5".into()));
    }

    #[test]
    fn refusals_are_answers() {
        let error = message(b'E', b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry\0\0");
        for first in ["N", ""] {
            let answer = ask(&[first.as_bytes(), &error].concat()).unwrap();
            assert_eq!(answer.get("error"), Some(&"no pg_hba.conf entry".into()));
            assert_eq!(answer.get("error code"), Some(&"28000".into()));
        }
        let answer = ask(b"Ecould not fork new process\n\0").unwrap();
        let error = "could not fork new process";
        assert_eq!(answer.get("error"), Some(&error.into()));
    }

    #[test]
    fn tls_comes_before_the_session() {
        let script = Script::of(&[b"S"]);
        let answer = trial::stream(&Postgresql, script.clone()).unwrap();
        assert!(script.sent()[8..].starts_with(b"\x16\x03\x01"));
        assert!(answer.get("incomplete").is_some());
    }

    #[test]
    fn careless_and_hostile_replies_come_to_an_end() {
        let good = good();
        for piece in trial::cut(&good) {
            match ask(piece) {
                Ok(answer) => assert!(answer.get("incomplete").is_some()),
                Err(fault) => assert!(piece.is_empty(), "{fault}"),
            }
        }
        for reply in trial::altered(&good) {
            let _ = ask(&reply);
        }
        for reply in [
            &b"NR\0\0\0\x03"[..],
            b"NR\xff\xff\xff\xff",
            b"NR\0\0\0\x06\0\0",
            b"NE\0\0\0\x04",
            &[b"N", &message(b'N', b"").repeat(100_000)[..]].concat(),
            &[b"N", &message(b'?', b"")[..]].concat(),
        ] {
            let answer = ask(reply).unwrap();
            assert!(answer.get("incomplete").is_some(), "{answer:?}");
        }
        assert!(ask(&[&b"E"[..], &[b'x'; 2 * LINE]].concat()).is_ok());
        assert!(matches!(ask(b"HTTP/1.1 400"), Err(Fault::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn messages_come_back(kind: u8, contents in prop::collection::vec(any::<u8>(), 0..300)) {
            let message = message(kind, &contents);
            let mut stream = Stream::new(Script::of(&[&message]), std::time::Duration::from_mins(1));
            prop_assert_eq!(receive(&mut stream).unwrap(), (kind, contents));
        }
    }
}
