//! SNMP, versions 1 (RFC 1157) and 2c (RFC 1901, RFC 3416): the `system` group of
//! MIB-2 (RFC 3418 §2), read with the community that the caller gives.
//!
//! An agent that does not know the community stays silent, so silence says
//! nothing about the port. The community is never part of the answer.

use event::{Protocol, text};

use super::nonce::nonce;
use super::{Asked, Question};
use crate::ber::{Ber, Element, Tag, Writer};
use crate::{Answer, Datagrams, Fault, Value};

/// Asks for the system group.
pub(super) struct Snmp;

/// What is asked for: `1.3.6.1.2.1.1.N.0`.
const SYSTEM: [(u8, &str); 7] = [
    (1, "sysDescr"),
    (2, "sysObjectID"),
    (3, "sysUpTime"),
    (4, "sysContact"),
    (5, "sysName"),
    (6, "sysLocation"),
    (7, "sysServices"),
];

/// The contents of `1.3.6.1.2.1.1`.
const PREFIX: [u8; 6] = [0x2b, 6, 1, 2, 1, 1];

const GET_REQUEST: Tag = Tag::context(0);
const RESPONSE: Tag = Tag::context(2);

/// Of the application's types (RFC 3416 §3).
const IP_ADDRESS: Tag = Tag::application_value(0);
const COUNTER: Tag = Tag::application_value(1);
const UNSIGNED: Tag = Tag::application_value(2);
const TIME_TICKS: Tag = Tag::application_value(3);
const COUNTER_64: Tag = Tag::application_value(6);

/// The protocol's versions, as they are numbered in a message.
const V1: i64 = 0;
const V2C: i64 = 1;

impl Question for Snmp {
    fn name(&self) -> &'static str {
        "snmp"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn ask_datagrams(
        &self,
        asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        // Of four bytes whatever it is.
        let id = u32::from_be_bytes(nonce()) & 0x3fff_ffff | 0x4000_0000;
        let newer = request(V2C, asked.community, id);
        let older = request(V1, asked.community, id);
        // The newer one first: it gets what there is of a group, where the older
        // one fails as a whole. Each twice, since a datagram may be lost.
        let requests: [&[u8]; 4] = [&newer, &older, &newer, &older];
        let reply = datagrams.exchange_any(&requests, |reply| answers(reply, id))?;
        read(&reply)
    }
}

/// A `GetRequest` for the whole group.
fn request(version: i64, community: &str, id: u32) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.wrap(Tag::SEQUENCE, |writer| {
        writer.integer(version);
        writer.octets(community.as_bytes());
        writer.wrap(GET_REQUEST, |writer| {
            writer.integer(id.into());
            writer.integer(0); // error-status
            writer.integer(0); // error-index
            writer.wrap(Tag::SEQUENCE, |writer| {
                for (number, _) in SYSTEM {
                    writer.wrap(Tag::SEQUENCE, |writer| {
                        writer.element(Tag::OID, &[&PREFIX[..], &[number, 0]].concat());
                        writer.null();
                    });
                }
            });
        });
    });
    writer.into_bytes()
}

/// Whether a datagram is a response with that request id.
fn answers(datagram: &[u8], id: u32) -> bool {
    Response::read(datagram).is_ok_and(|response| response.id == i64::from(id))
}

/// A response as far as its variables.
struct Response<'a> {
    version: i64,
    id: i64,
    status: i64,
    index: i64,
    variables: Ber<'a>,
}

impl<'a> Response<'a> {
    fn read(datagram: &'a [u8]) -> Result<Self, Fault> {
        let mut message = Ber::new(datagram).enter(Tag::SEQUENCE, "an SNMP message")?;
        let version = message.integer("a version")?;
        message.octets("a community")?;
        let mut response = message.enter(RESPONSE, "a response")?;
        Ok(Self {
            version,
            id: response.integer("a request id")?,
            status: response.integer("an error status")?,
            index: response.integer("an error index")?,
            variables: response.enter(Tag::SEQUENCE, "variables")?,
        })
    }
}

fn read(datagram: &[u8]) -> Result<Answer, Fault> {
    let mut response = Response::read(datagram)?;
    let mut answer = Answer::of("snmp");
    answer.add(
        "version",
        match response.version {
            V1 => "1",
            V2C => "2c",
            _ => return Err(response.variables.malformed("version 1 or 2c")),
        },
    );
    while !response.variables.is_empty() {
        let mut variable = response.variables.enter(Tag::SEQUENCE, "a variable")?;
        let oid = variable.oid("the name of a variable")?;
        let value = value(&variable.any("the value of a variable")?)?;
        let name = match oid.contents().strip_prefix(&PREFIX) {
            Some([number, 0]) => SYSTEM.iter().find(|(known, _)| known == number),
            _ => None,
        };
        let name = name.map_or_else(|| oid.to_string(), |(_, name)| (*name).to_owned());
        if let Some(value) = value {
            answer.add(name, value);
        }
    }
    if response.status != 0 {
        let name = usize::try_from(response.status).ok();
        let name = name.and_then(|status| ERRORS.get(status.checked_sub(1)?));
        let name = name.map_or_else(|| response.status.to_string(), |name| (*name).to_owned());
        let at = usize::try_from(response.index).ok();
        let at = at.and_then(|index| SYSTEM.get(index.checked_sub(1)?));
        answer.add(
            "error",
            at.map_or(name.clone(), |(_, variable)| format!("{name}: {variable}")),
        );
    }
    answer.summary = summary(&answer);
    Ok(answer)
}

/// A variable's value; none where the agent says that there is none.
fn value(element: &Element<'_>) -> Result<Option<Value>, Fault> {
    let value = match element.tag() {
        Tag::INTEGER => element.integer("a number")?.into(),
        Tag::OCTET_STRING => text::from_bytes(element.contents()).into(),
        Tag::OID => element.oid("an object identifier")?.to_string().into(),
        IP_ADDRESS => match element.contents() {
            [a, b, c, d] => format!("{a}.{b}.{c}.{d}").into(),
            _ => return Err(element.malformed("an address")),
        },
        COUNTER | UNSIGNED | TIME_TICKS | COUNTER_64 => {
            let number = element.unsigned("a counter")?;
            i64::try_from(number).map_or_else(|_| number.to_string().into(), Value::Number)
        }
        // NULL, and the three exceptions of RFC 3416 §3.
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// `dc1: Linux dc1 6.1.0 …, up 3 days 04:05:06`.
fn summary(answer: &Answer) -> String {
    let text = |name| match answer.get(name) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    };
    let mut summary = match (text("sysName"), text("sysDescr")) {
        (Some(name), Some(description)) => format!("{name}: {description}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => match text("error") {
            Some(error) => error.to_owned(),
            None => "SNMP".to_owned(),
        },
    };
    if let Some(Value::Number(ticks)) = answer.get("sysUpTime") {
        let seconds = ticks / 100;
        let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        let days = match days {
            0 => String::new(),
            1 => "1 day ".to_owned(),
            _ => format!("{days} days "),
        };
        summary = format!("{summary}, up {days}{hours:02}:{minutes:02}:{seconds:02}");
    }
    summary
}

/// The error statuses from 1 on (RFC 3416 §3).
const ERRORS: [&str; 18] = [
    "tooBig",
    "noSuchName",
    "badValue",
    "readOnly",
    "genErr",
    "noAccess",
    "wrongType",
    "wrongLength",
    "wrongEncoding",
    "wrongValue",
    "noCreation",
    "inconsistentValue",
    "resourceUnavailable",
    "commitFailed",
    "undoFailed",
    "authorizationError",
    "notWritable",
    "inconsistentName",
];

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;

    /// Responses of Net-SNMP 5.9 in both versions.
    const V2C_REPLY: &[u8] = include_bytes!("../../tests/data/snmp-snmpd-2c.bin");
    const V1_REPLY: &[u8] = include_bytes!("../../tests/data/snmp-snmpd-1.bin");

    /// Where the request id is in a request with the community `public`, and in
    /// those responses.
    const SENT: std::ops::Range<usize> = 17..21;
    const CAME: usize = 19;

    fn response(status: i64, index: i64, variables: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.wrap(Tag::SEQUENCE, |writer| {
            writer.integer(V2C);
            writer.octets(b"secret");
            writer.wrap(RESPONSE, |writer| {
                writer.integer(1);
                writer.integer(status);
                writer.integer(index);
                writer.wrap(Tag::SEQUENCE, variables);
            });
        });
        writer.into_bytes()
    }

    fn variable(writer: &mut Writer, oid: &str, tag: Tag, value: &[u8]) {
        writer.wrap(Tag::SEQUENCE, |writer| {
            writer.oid(&oid.parse().unwrap());
            writer.element(tag, value);
        });
    }

    #[test]
    fn the_request() {
        let request = request(V2C, "public", 0x4102_0304);
        let begin = b"\x30\x7d\x02\x01\x01\x04\x06public\xa0\x70\x02\x04\x41\x02\x03\x04\x02\x01\x00\x02\x01\x00\
            \x30\x62\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\x00\x05\x00";
        assert_eq!(request[..begin.len()], begin[..]);
        assert_eq!(request.len(), 127);
    }

    #[test]
    fn real_agents() {
        for (reply, version) in [(V2C_REPLY, "2c"), (V1_REPLY, "1")] {
            let script = Script::of(&[b"noise", reply]).echoing(SENT, CAME);
            let answer = trial::datagrams(&Snmp, script).unwrap();
            assert_eq!(answer.get("version"), Some(&version.into()));
            assert_eq!(answer.get("sysLocation"), Some(&"behind the mirror".into()));
            assert_eq!(answer.get("sysServices"), Some(&72_i64.into()));
            let oid = "1.3.6.1.4.1.8072.3.2.10";
            assert_eq!(answer.get("sysObjectID"), Some(&oid.into()));
            let begin = "agent.ports.example: Agent of a test, up 00:00:03";
            assert_eq!(answer.summary, begin);
            assert!(!format!("{answer:?}").contains("public"));
        }
    }

    #[test]
    fn both_versions_are_tried() {
        let script = Script::silent(&[V2C_REPLY]);
        let fault = trial::datagrams(&Snmp, script.clone()).unwrap_err();
        assert!(matches!(fault, Fault::Silent(_)), "of another request");
        let sent = script.sent();
        let versions: Vec<u8> = sent.chunks(127).map(|request| request[4]).collect();
        assert_eq!(versions, [1, 0, 1, 0]);
    }

    #[test]
    fn values_of_all_kinds() {
        let reply = response(0, 0, |writer| {
            variable(
                writer,
                "1.3.6.1.2.1.1.3.0",
                TIME_TICKS,
                &[0x7f, 0xff, 0xff, 0xff],
            );
            variable(writer, "1.3.6.1.2.1.1.5.0", Tag::context_value(0), b"");
            variable(writer, "1.3.6.1.2.1.1.4.0", Tag::OCTET_STRING, b"a\x00\xff");
            variable(writer, "1.3.6.1.2.1.1.9.9", IP_ADDRESS, &[192, 0, 2, 1]);
            variable(writer, "2.999", COUNTER_64, &[0xff; 8]);
        });
        let answer = read(&reply).unwrap();
        assert_eq!(answer.get("sysUpTime"), Some(&0x7fff_ffff_i64.into()));
        assert_eq!(answer.get("sysName"), None);
        assert_eq!(answer.get("sysContact"), Some(&"a\0\\xff".into()));
        assert_eq!(answer.get("1.3.6.1.2.1.1.9.9"), Some(&"192.0.2.1".into()));
        assert_eq!(answer.get("2.999"), Some(&"18446744073709551615".into()));
        assert_eq!(answer.summary, "SNMP, up 248 days 13:13:56");
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let answer = read(&response(2, 3, |_| ())).unwrap();
        assert_eq!(answer.get("error"), Some(&"noSuchName: sysUpTime".into()));
        for (status, index, error) in [
            (16, 0, "authorizationError"),
            (99, -1, "99"),
            (-1, 99, "-1"),
        ] {
            let answer = read(&response(status, index, |_| ())).unwrap();
            assert_eq!(answer.get("error"), Some(&error.into()));
            assert_eq!(answer.summary, error);
        }
    }

    #[test]
    fn hostile_replies() {
        for reply in trial::cut(V2C_REPLY) {
            assert!(read(reply).is_err());
        }
        for reply in trial::altered(V2C_REPLY) {
            let _ = read(&reply);
        }
    }
}
