//! MySQL and MariaDB: the handshake that the server begins with, and the
//! certificate behind `SSLRequest` (MySQL Internals, "Connection Phase";
//! MariaDB's knowledge base, "Connection"). Nobody logs on.

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question, tls};
use crate::{Answer, Fault, Reader, Stream, Value};

/// Reads the handshake.
#[derive(Debug)]
pub(super) struct Mysql;

/// How many bytes a packet of the handshake may have.
const PACKET: usize = 64 << 10;

const HANDSHAKE_9: u8 = 9;
const HANDSHAKE_10: u8 = 10;
const ERROR: u8 = 0xff;

const CLIENT_MYSQL: u64 = 1;
const CLIENT_PROTOCOL_41: u64 = 1 << 9;
const CLIENT_SSL: u64 = 1 << 11;
const CLIENT_SECURE_CONNECTION: u64 = 1 << 15;
const CLIENT_PLUGIN_AUTH: u64 = 1 << 19;

/// The capabilities by their bit, `CLIENT_` left out. Those from 32 on are
/// MariaDB's.
const CAPABILITIES: [(u32, &str); 31] = [
    (0, "LONG_PASSWORD"),
    (1, "FOUND_ROWS"),
    (2, "LONG_FLAG"),
    (3, "CONNECT_WITH_DB"),
    (4, "NO_SCHEMA"),
    (5, "COMPRESS"),
    (6, "ODBC"),
    (7, "LOCAL_FILES"),
    (8, "IGNORE_SPACE"),
    (9, "PROTOCOL_41"),
    (10, "INTERACTIVE"),
    (11, "SSL"),
    (12, "IGNORE_SIGPIPE"),
    (13, "TRANSACTIONS"),
    (15, "SECURE_CONNECTION"),
    (16, "MULTI_STATEMENTS"),
    (17, "MULTI_RESULTS"),
    (18, "PS_MULTI_RESULTS"),
    (19, "PLUGIN_AUTH"),
    (20, "CONNECT_ATTRS"),
    (21, "PLUGIN_AUTH_LENENC_CLIENT_DATA"),
    (22, "CAN_HANDLE_EXPIRED_PASSWORDS"),
    (23, "SESSION_TRACK"),
    (24, "DEPRECATE_EOF"),
    (26, "ZSTD_COMPRESSION_ALGORITHM"),
    (27, "QUERY_ATTRIBUTES"),
    (28, "MULTI_FACTOR_AUTHENTICATION"),
    (32, "PROGRESS"),
    (34, "STMT_BULK_OPERATIONS"),
    (35, "EXTENDED_METADATA"),
    (36, "CACHE_METADATA"),
];

impl Question for Mysql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["mariadb", "mysql-proxy"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let packet = receive(stream)?;
        let (mut answer, offers_tls) = greeting(&packet)?;
        if offers_tls {
            match stream.send(&ssl_request()) {
                Ok(()) => tls::started(&mut answer, asked, stream, b""),
                Err(fault) => answer.broke_off(&fault),
            }
        }
        Ok(answer)
    }
}

/// Takes a packet off `stream`, without its length and number.
fn receive(stream: &mut Stream<'_>) -> Result<Vec<u8>, Fault> {
    let head = stream.exact(4)?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    if length > PACKET {
        return Err(Fault::Long(PACKET));
    }
    stream.exact(length)
}

/// What the server's first packet says, and whether it offers TLS.
fn greeting(packet: &[u8]) -> Result<(Answer, bool), Fault> {
    let mut reader = Reader::new(packet);
    let mut answer = Answer::of("mysql");
    match reader.u8("a protocol version")? {
        ERROR => {
            error(&mut answer, &mut reader)?;
            Ok((answer, false))
        }
        version @ (HANDSHAKE_9 | HANDSHAKE_10) => {
            answer.add("protocol version", u32::from(version));
            let capabilities = handshake(&mut answer, &mut reader, version)?;
            Ok((answer, capabilities & CLIENT_SSL != 0))
        }
        _ => Err(Fault::Malformed {
            what: "neither a handshake nor an error of MySQL",
            at: 0,
        }),
    }
}

/// `Protocol::HandshakeV10` after its version, or the start of its forerunner;
/// gives the capabilities.
fn handshake(answer: &mut Answer, reader: &mut Reader<'_>, protocol: u8) -> Result<u64, Fault> {
    let version = from_bytes(terminated(reader, "a server version")?);
    // MariaDB 10 and 11 say so, lest old replicas take them for version 1.
    let is_mariadb = version.contains("MariaDB");
    let own = version.strip_prefix("5.5.5-").filter(|_| is_mariadb);
    let own = own.unwrap_or(&version);
    answer.summary = format!("{} {own}", if is_mariadb { "MariaDB" } else { "MySQL" });
    answer.add("server version", version.as_str());
    answer.add("connection", reader.u32_le("a connection number")?);
    if protocol == HANDSHAKE_9 {
        return Ok(0);
    }
    reader.bytes(9, "random bytes")?;
    let mut capabilities = u64::from(reader.u16_le("capabilities")?);
    if !reader.is_empty() {
        answer.add("character set", u32::from(reader.u8("a character set")?));
        answer.add("status", u32::from(reader.u16_le("a status")?));
        capabilities |= u64::from(reader.u16_le("capabilities")?) << 16;
        let length = usize::from(reader.u8("a length of random bytes")?);
        reader.bytes(6, "filling")?;
        let more = reader.u32_le("capabilities")?;
        if capabilities & CLIENT_MYSQL == 0 {
            capabilities |= u64::from(more) << 32;
        }
        if capabilities & CLIENT_SECURE_CONNECTION != 0 {
            reader.bytes(length.saturating_sub(8).max(13), "random bytes")?;
        }
        if capabilities & CLIENT_PLUGIN_AUTH != 0 {
            // Some old ones forget the zero at the end.
            let plugin = match terminated(&mut reader.clone(), "an authentication plugin") {
                Ok(plugin) => plugin,
                Err(_) => reader.rest(),
            };
            answer.add("authentication plugin", from_bytes(plugin));
        }
    }
    let names = CAPABILITIES
        .iter()
        .filter(|(bit, _)| capabilities & (1 << bit) != 0)
        .map(|(_, name)| Value::from(*name));
    answer.add("capabilities", names.collect::<Vec<_>>());
    Ok(capabilities)
}

/// `ERR_Packet` after its first byte: 1130, the host is not allowed; 1040, too
/// many connections; 1129, blocked for its errors.
fn error(answer: &mut Answer, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let code = reader.u16_le("an error code")?;
    let text = from_bytes(reader.rest());
    // `#HY000`, in newer ones.
    let (state, text) = match text
        .strip_prefix('#')
        .and_then(|rest| rest.split_at_checked(5))
    {
        Some((state, rest)) => (Some(state), rest),
        None => (None, text.as_str()),
    };
    answer.summary = format!("error {code}: {text}");
    answer.add("error", text);
    answer.add("error code", u32::from(code));
    if let Some(state) = state {
        answer.add("SQL state", state);
    }
    Ok(())
}

/// `Protocol::SSLRequest`.
fn ssl_request() -> [u8; 36] {
    let flags = CLIENT_MYSQL | CLIENT_PROTOCOL_41 | CLIENT_SSL | CLIENT_SECURE_CONNECTION;
    let mut packet = [0; 36];
    // 32 bytes, the second packet of the connection.
    packet[0] = 32;
    packet[3] = 1;
    packet[4..8].copy_from_slice(&flags.to_le_bytes()[..4]);
    // As long as the command-line client allows packets to be.
    packet[8..12].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    // utf8mb3, which all of them know.
    packet[12] = 33;
    packet
}

/// The bytes up to a zero, which is passed over.
fn terminated<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], Fault> {
    let length = reader.clone().rest().iter().position(|byte| *byte == 0);
    let length = length.ok_or_else(|| reader.malformed(what))?;
    let bytes = reader.bytes(length, what)?;
    reader.u8(what)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;

    /// The example of `Protocol::HandshakeV10` in MySQL Internals, which has
    /// no SSL.
    const GOOD: &[u8] = b"\x50\0\0\0\x0a5.6.4-m7-log\0\x56\x0a\0\0RB3vz&Gr\0\xff\xf7\x08\x02\0\
        \x0f\xc0\x15\0\0\0\0\0\0\0\0\0\0+yD&/ZZ305ZG\0mysql_native_password\0";

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Mysql, Script::of(&[reply]))
    }

    #[test]
    fn the_handshake_is_told() {
        let script = Script::of(&[GOOD]);
        let answer = trial::stream(&Mysql, script.clone()).unwrap();
        assert!(script.sent().is_empty());
        assert_eq!(answer.summary, "MySQL 5.6.4-m7-log");
        assert_eq!(answer.get("connection"), Some(&Value::Number(2646)));
        assert_eq!(
            answer.get("authentication plugin"),
            Some(&"mysql_native_password".into())
        );
        let Some(Value::List(names)) = answer.get("capabilities") else {
            panic!("no capabilities");
        };
        assert!(names.contains(&"PLUGIN_AUTH".into()));
        assert!(!names.contains(&"SSL".into()));
    }

    #[test]
    fn tls_is_started_where_it_is_offered() {
        let mut reply = GOOD.to_vec();
        let flags = reply.windows(2).position(|two| two == b"\xff\xf7").unwrap();
        reply[flags + 1] |= 0x08;
        let script = Script::of(&[&reply]);
        let answer = trial::stream(&Mysql, script.clone()).unwrap();
        let sent = script.sent();
        assert_eq!(sent[..8], [32, 0, 0, 1, 0x01, 0x8a, 0, 0]);
        assert!(sent[36..].starts_with(b"\x16\x03\x01"));
        assert!(answer.get("incomplete").is_some());
    }

    #[test]
    fn errors_are_answers() {
        let text = b"\x46\0\0\0\xff\x6a\x04Host '192.0.2.9' is not allowed to connect to this MySQL server.";
        let mut reply = text.to_vec();
        reply[0] = u8::try_from(text.len() - 4).unwrap();
        let answer = ask(&reply).unwrap();
        assert_eq!(answer.get("error code"), Some(&Value::Number(1130)));
        let error = "Host '192.0.2.9' is not allowed to connect to this MySQL server.";
        assert_eq!(answer.get("error"), Some(&error.into()));
        let answer = ask(b"\x0c\0\0\0\xff\x10\x04#08004Too").unwrap();
        assert_eq!(answer.get("SQL state"), Some(&"08004".into()));
        assert_eq!(answer.summary, "error 1040: Too");
    }

    #[test]
    fn mariadb_is_told_by_its_own_version() {
        let (answer, _) =
            greeting(b"\x0a5.5.5-10.6.1-MariaDB\0\x01\0\0\x0012345678\0\0\0").unwrap();
        assert_eq!(answer.summary, "MariaDB 10.6.1-MariaDB");
        let (answer, _) = greeting(b"\x093.20\0\x01\0\0\x0012345678\0").unwrap();
        assert_eq!(answer.summary, "MySQL 3.20");
    }

    #[test]
    fn careless_and_hostile_replies_come_to_an_end() {
        for piece in trial::cut(GOOD) {
            assert!(ask(piece).is_err());
        }
        for packet in trial::cut(&GOOD[4..]) {
            // Short of the last zero, or of what newer servers add.
            let _ = greeting(packet);
        }
        for reply in trial::altered(GOOD) {
            let _ = ask(&reply);
        }
        assert!(matches!(ask(&[0xff; 10]), Err(Fault::Long(PACKET))));
        assert!(matches!(
            ask(b"\x01\0\0\0\x47"),
            Err(Fault::Malformed { .. })
        ));
    }
}
