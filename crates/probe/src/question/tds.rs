//! SQL Server itself (MS-TDS): the pre-login exchange.
//!
//! Before anybody logs in, client and server tell each other their version and
//! whether they want encryption. That is all that is exchanged here; no login
//! follows. A server set to TDS 8.0 "strict" expects TLS from the first byte
//! and closes the connection instead.

use std::fmt::Write as _;

use event::Protocol;

use super::{Asked, Question};
use crate::{Answer, Fault, Reader, Stream};

/// Exchanges pre-login messages.
#[derive(Debug)]
pub(super) struct Tds;

/// Types of packet (MS-TDS §2.2.3.1.1).
const PRELOGIN: u8 = 0x12;
const TABULAR_RESULT: u8 = 0x04;
/// The status bit of the last packet of a message (§2.2.3.1.2).
const END_OF_MESSAGE: u8 = 1;

/// Options of a pre-login message (§2.2.6.5).
mod option {
    pub(super) const VERSION: u8 = 0;
    pub(super) const ENCRYPTION: u8 = 1;
    pub(super) const INSTANCE: u8 = 2;
    pub(super) const THREAD: u8 = 3;
    pub(super) const MARS: u8 = 4;
    pub(super) const FED_AUTH_REQUIRED: u8 = 6;
    pub(super) const TERMINATOR: u8 = 0xff;
}

/// The token of an error in a result (§2.2.7.10).
const ERROR_TOKEN: u8 = 0xaa;

impl Question for Tds {
    fn name(&self) -> &'static str {
        "ms-sql-s"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["tds", "mssql"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        stream.send(&request())?;
        read(&message(stream)?)
    }
}

/// A pre-login message with what must be in it; encryption "off" means that it
/// would be used for the login alone, which both old and new servers accept.
fn request() -> Vec<u8> {
    let options: [(u8, &[u8]); 5] = [
        (option::VERSION, &[0, 0, 0, 0, 0, 0]),
        (option::ENCRYPTION, &[0]),
        (option::INSTANCE, &[0]),
        (option::THREAD, &[0, 0, 0, 0]),
        (option::MARS, &[0]),
    ];
    let mut table = Vec::new();
    let mut data = Vec::new();
    for (token, value) in options {
        let at = 5 * options.len() + 1 + data.len();
        table.push(token);
        for number in [at, value.len()] {
            table.extend(u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
        }
        data.extend_from_slice(value);
    }
    table.push(option::TERMINATOR);
    let length = u16::try_from(8 + table.len() + data.len()).unwrap_or(u16::MAX);
    let mut packet = vec![PRELOGIN, END_OF_MESSAGE];
    packet.extend(length.to_be_bytes());
    // Channel, number and window of the packet.
    packet.extend([0, 0, 1, 0]);
    packet.extend(table);
    packet.extend(data);
    packet
}

/// The content of all packets of one message.
fn message(stream: &mut Stream<'_>) -> Result<Vec<u8>, Fault> {
    let mut message = Vec::new();
    loop {
        let header = stream.exact(8)?;
        let mut reader = Reader::new(&header);
        if reader.u8("type of a packet")? != TABULAR_RESULT {
            return Err(Fault::Malformed {
                what: "a packet of a server",
                at: 0,
            });
        }
        let status = reader.u8("status of a packet")?;
        let length = usize::from(reader.u16("length of a packet")?);
        let Some(length) = length.checked_sub(8) else {
            return Err(Fault::Malformed {
                what: "a length of at least eight",
                at: 2,
            });
        };
        // `Stream` bounds what all packets hold together.
        message.extend(stream.exact(length)?);
        if status & END_OF_MESSAGE != 0 {
            return Ok(message);
        }
    }
}

fn read(message: &[u8]) -> Result<Answer, Fault> {
    if message.first() == Some(&ERROR_TOKEN) {
        return read_error(message);
    }
    let mut answer = Answer::of("ms-sql-s");
    let mut table = Reader::new(message);
    loop {
        let token = table.u8("an option")?;
        if token == option::TERMINATOR {
            break;
        }
        let at = table.u16("place of an option")?;
        let length = table.u16("length of an option")?;
        let mut value = Reader::new(message);
        value.seek(usize::from(at), "place of an option")?;
        let mut value = Reader::new(value.bytes(usize::from(length), "value of an option")?);
        match token {
            option::VERSION => {
                let [major, minor] = value.array("version")?;
                let build = value.u16("build")?;
                let sub = value.u16("sub-build")?;
                let mut version = format!("{major}.{minor}.{build}");
                if sub != 0 {
                    // Writing to a string cannot fail.
                    let _ = write!(version, ".{sub}");
                }
                answer.summary = match product(major, minor) {
                    Some(product) => format!("{product} ({version})"),
                    None => version.clone(),
                };
                answer.add("version", version);
                if let Some(product) = product(major, minor) {
                    answer.add("product", product);
                }
            }
            option::ENCRYPTION => {
                let encryption = encryption(value.u8("encryption")?);
                answer.add("encryption", encryption);
            }
            option::FED_AUTH_REQUIRED => {
                answer.add("federated authentication", value.u8("a truth")? != 0);
            }
            option::MARS => answer.add("mars", value.u8("a truth")? != 0),
            _ => {}
        }
    }
    if answer.get("version").is_none() {
        return Err(table.malformed("a version among the options"));
    }
    Ok(answer)
}

/// A server that does not want to talk says so with an error of its own.
fn read_error(message: &[u8]) -> Result<Answer, Fault> {
    let mut reader = Reader::new(message);
    reader.u8("token")?;
    reader.u16_le("length of an error")?;
    let number = reader.u32_le("number of an error")?;
    reader.bytes(2, "state and class of an error")?;
    let units = reader.u16_le("length of a text")?;
    let text = reader.bytes(2 * usize::from(units), "text of an error")?;
    let text: Vec<u16> = text
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    let text = String::from_utf16_lossy(&text);
    let mut answer = Answer::of("ms-sql-s");
    answer.add("number", number);
    answer.add("error", text.as_str());
    answer.summary = text;
    Ok(answer)
}

/// §2.2.6.5, ENCRYPTION; a client certificate adds 0x80.
fn encryption(byte: u8) -> String {
    match byte & 0x7f {
        0 => "for the login only".to_owned(),
        1 => "on".to_owned(),
        2 => "not supported".to_owned(),
        3 => "required".to_owned(),
        other => format!("unknown ({other})"),
    }
}

/// Under what name a version was sold.
fn product(major: u8, minor: u8) -> Option<&'static str> {
    Some(match (major, minor) {
        (8, _) => "SQL Server 2000",
        (9, _) => "SQL Server 2005",
        (10, 50) => "SQL Server 2008 R2",
        (10, _) => "SQL Server 2008",
        (11, _) => "SQL Server 2012",
        (12, _) => "SQL Server 2014",
        (13, _) => "SQL Server 2016",
        (14, _) => "SQL Server 2017",
        (15, _) => "SQL Server 2019",
        (16, _) => "SQL Server 2022",
        (17, _) => "SQL Server 2025",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Value;
    use crate::question::{Script, trial};

    /// A reply by the rules of MS-TDS §2.2.6.5, as SQL Server 2019 would make
    /// it: version 15.0.2000.5, encryption off.
    const REPLY: &[u8] = b"\x04\x01\0\x2b\0\0\x01\0\
        \0\0\x1a\0\x06\x01\0\x20\0\x01\x02\0\x21\0\x01\x03\0\x22\0\0\x04\0\x22\0\x01\xff\
        \x0f\0\x07\xd0\0\x05\0\0\0";

    #[test]
    fn asks_as_ms_tds_says() {
        assert_eq!(
            request(),
            b"\x12\x01\0\x2f\0\0\x01\0\
              \0\0\x1a\0\x06\x01\0\x20\0\x01\x02\0\x21\0\x01\x03\0\x22\0\x04\x04\0\x26\0\x01\xff\
              \0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn tells_version_and_encryption() {
        let answer = trial::stream(&Tds, Script::of(&[REPLY])).unwrap();
        assert_eq!(answer.summary, "SQL Server 2019 (15.0.2000.5)");
        assert_eq!(answer.get("version"), Some(&"15.0.2000.5".into()));
        assert_eq!(answer.get("encryption"), Some(&"for the login only".into()));
        assert_eq!(answer.get("mars"), Some(&false.into()));
    }

    #[test]
    fn a_message_may_come_in_packets() {
        let (first, second) = REPLY[8..].split_at(20);
        let mut packets = vec![4, 0, 0, 28, 0, 0, 1, 0];
        packets.extend_from_slice(first);
        packets.extend([4, 1, 0, 23, 0, 0, 2, 0]);
        packets.extend_from_slice(second);
        let pieces: Vec<&[u8]> = packets.chunks(3).collect();
        let answer = trial::stream(&Tds, Script::of(&pieces)).unwrap();
        assert_eq!(answer.get("version"), Some(&"15.0.2000.5".into()));
    }

    #[test]
    fn an_error_is_an_answer() {
        let mut message = vec![ERROR_TOKEN, 0, 0, 0x14, 0x48, 0, 0, 1, 14, 4, 0];
        message.extend("busy".encode_utf16().flat_map(u16::to_le_bytes));
        let answer = read(&message).unwrap();
        assert_eq!(answer.get("error"), Some(&"busy".into()));
        assert_eq!(answer.get("number"), Some(&Value::from(18_452_u32)));
        for cut in trial::cut(&message) {
            assert!(read(cut).is_err());
        }
    }

    #[test]
    fn hostile_replies_are_refused() {
        for cut in trial::cut(REPLY) {
            let fault = trial::stream(&Tds, Script::of(&[cut])).unwrap_err();
            assert!(matches!(fault, Fault::Closed));
        }
        for reply in trial::altered(REPLY) {
            // Some are still right; none may panic.
            let _ = trial::stream(&Tds, Script::of(&[&reply]));
        }
        // Packets without end and without content.
        let endless = [4, 0, 0, 8, 0, 0, 1, 0].repeat(Stream::LIMIT / 8 + 1);
        let fault = trial::stream(&Tds, Script::of(&[&endless])).unwrap_err();
        assert!(matches!(fault, Fault::Long(_)));
    }

    proptest! {
        #[test]
        fn any_message_can_be_read(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(answer) = read(&message) {
                prop_assert!(!answer.facts.is_empty());
            }
        }
    }
}
