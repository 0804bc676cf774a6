//! Messages of RFC 1035, as far as they are asked and answered here.
//!
//! A name may point back to where it was written before. A pointer is followed
//! only towards the message's beginning, each further than the last, so that
//! none can loop; and no name grows beyond the 255 bytes that one may have.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use event::text;

use crate::{Fault, Reader};

/// The type of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(pub(super) u16);

impl Kind {
    const A: Self = Self(1);
    pub(super) const NS: Self = Self(2);
    const CNAME: Self = Self(5);
    const SOA: Self = Self(6);
    const PTR: Self = Self(12);
    pub(super) const TXT: Self = Self(16);
    const AAAA: Self = Self(28);
    const OPT: Self = Self(41);

    fn name(self) -> String {
        match self {
            Self::A => "A".to_owned(),
            Self::NS => "NS".to_owned(),
            Self::CNAME => "CNAME".to_owned(),
            Self::SOA => "SOA".to_owned(),
            Self::PTR => "PTR".to_owned(),
            Self::TXT => "TXT".to_owned(),
            Self::AAAA => "AAAA".to_owned(),
            // RFC 3597 §5.
            Self(other) => format!("TYPE{other}"),
        }
    }
}

/// The class of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u16);

impl Class {
    pub(super) const IN: Self = Self(1);
    pub(super) const CH: Self = Self(3);

    fn name(self) -> String {
        match self {
            Self::IN => "IN".to_owned(),
            Self::CH => "CH".to_owned(),
            Self(other) => format!("CLASS{other}"),
        }
    }
}

/// The largest answer that is welcome over UDP: what passes any network
/// without being cut in pieces.
const ROOM: u16 = 1232;

/// The option in which a server tells its identity (RFC 5001).
const NSID: u16 = 3;

/// A question with recursion desired, for `labels` (none is the root).
pub(super) fn query(id: u16, labels: &[&[u8]], kind: Kind, class: Class, edns: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    // A standard query with RD: one question, and EDNS as additional record.
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    for label in labels {
        debug_assert!(label.len() < 64, "a label is shorter than 64 bytes");
        message.extend(u8::try_from(label.len()));
        message.extend_from_slice(label);
    }
    message.push(0);
    message.extend(kind.0.to_be_bytes());
    message.extend(class.0.to_be_bytes());
    if edns {
        message.push(0);
        message.extend(Kind::OPT.0.to_be_bytes());
        message.extend(ROOM.to_be_bytes());
        // Extended rcode, version and flags; then an empty NSID.
        message.extend([0, 0, 0, 0, 0, 4]);
        message.extend(NSID.to_be_bytes());
        message.extend([0, 0]);
    }
    message
}

/// Whether `reply` is a response to the query of that id.
pub(super) fn answers(reply: &[u8], id: u16) -> bool {
    reply.len() >= 12 && reply[..2] == id.to_be_bytes() && reply[2] & 0x80 != 0
}

/// A response.
#[derive(Debug)]
pub(super) struct Message<'a> {
    bits: u16,
    /// The higher bits of the rcode, from EDNS.
    extended: u8,
    pub(super) answers: Vec<Record<'a>>,
    pub(super) authorities: Vec<Record<'a>>,
    pub(super) additionals: Vec<Record<'a>>,
    /// What the server calls itself (RFC 5001).
    pub(super) identity: Option<&'a [u8]>,
}

/// One record.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    /// As a line of a zone file.
    pub(super) text: String,
    data: &'a [u8],
    /// In the pseudo-record of EDNS the higher bits of the rcode, elsewhere
    /// part of the record's life.
    extended: u8,
}

impl<'a> Message<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(message);
        reader.u16("id")?;
        let bits = reader.u16("flags")?;
        if bits & 0x8000 == 0 {
            return Err(reader.malformed("a response"));
        }
        let questions = reader.u16("count of questions")?;
        let counts = [
            reader.u16("count of answers")?,
            reader.u16("count of authorities")?,
            reader.u16("count of additionals")?,
        ];
        for _ in 0..questions {
            name(&mut reader)?;
            reader.bytes(4, "type and class of a question")?;
        }
        let [answers, authorities, additionals] = counts;
        let answers = records(&mut reader, answers)?;
        let authorities = records(&mut reader, authorities)?;
        let mut additionals = records(&mut reader, additionals)?;
        // The pseudo-record of EDNS is no record of the zone.
        let at = additionals
            .iter()
            .position(|record| record.kind == Kind::OPT);
        let options = at.map(|at| additionals.remove(at));
        let (extended, identity) = match options {
            Some(options) => (options.extended, identity(options.data)?),
            None => (0, None),
        };
        Ok(Self {
            bits,
            extended,
            answers,
            authorities,
            additionals,
            identity,
        })
    }

    /// The response code by its name (IANA, DNS RCODEs).
    pub(super) fn rcode(&self) -> String {
        let code = u16::from(self.extended) << 4 | self.bits & 0x000f;
        let name = match code {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            6 => "YXDOMAIN",
            7 => "YXRRSET",
            8 => "NXRRSET",
            9 => "NOTAUTH",
            10 => "NOTZONE",
            16 => "BADVERS",
            23 => "BADCOOKIE",
            _ => return format!("RCODE{code}"),
        };
        name.to_owned()
    }

    /// The flags that are set, by the names that RFC 1035 and 4035 give them.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        let names = [
            (0x8000, "qr"),
            (0x0400, "aa"),
            (0x0200, "tc"),
            (0x0100, "rd"),
            (0x0080, "ra"),
            (0x0020, "ad"),
            (0x0010, "cd"),
        ];
        names
            .into_iter()
            .filter(|(bit, _)| self.bits & bit != 0)
            .map(|(_, name)| name)
            .collect()
    }
}

/// A record has at least 11 bytes, which bounds a count that lies.
fn records<'a>(reader: &mut Reader<'a>, count: u16) -> Result<Vec<Record<'a>>, Fault> {
    (0..count).map(|_| Record::read(reader)).collect()
}

impl<'a> Record<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let owner = name(reader)?;
        let kind = Kind(reader.u16("type of a record")?);
        let class = Class(reader.u16("class of a record")?);
        let life = reader.u32("life of a record")?;
        let length = reader.u16("length of a record's data")?;
        let begin = reader.at();
        let data = reader.bytes(usize::from(length), "data of a record")?;
        let content = content(reader.message(), begin, kind, data)?;
        Ok(Self {
            kind,
            text: format!("{owner} {life} {} {} {content}", class.name(), kind.name()),
            data,
            extended: life.to_be_bytes()[0],
        })
    }

    /// The strings of a TXT record.
    pub(super) fn strings(&self) -> Option<Vec<&'a [u8]>> {
        strings(self.data).ok()
    }
}

/// What follows the type in a zone file's line.
fn content(message: &[u8], begin: usize, kind: Kind, data: &[u8]) -> Result<String, Fault> {
    // Names in the data may point back, so they are read in the whole message;
    // the data's own end is theirs too.
    let end = begin + data.len();
    let mut reader = Reader::new(&message[..end]);
    reader.seek(begin, "data of a record")?;
    Ok(match kind {
        Kind::A => Ipv4Addr::from(reader.array("an IPv4 address")?).to_string(),
        Kind::AAAA => Ipv6Addr::from(reader.array("an IPv6 address")?).to_string(),
        Kind::NS | Kind::CNAME | Kind::PTR => name(&mut reader)?,
        Kind::SOA => {
            let mut line = format!("{} {}", name(&mut reader)?, name(&mut reader)?);
            for _ in 0..5 {
                // Writing to a string cannot fail.
                let _ = write!(line, " {}", reader.u32("numbers of an SOA")?);
            }
            line
        }
        Kind::TXT => {
            let quoted = strings(data)?.into_iter().map(|string| {
                let string = text::from_bytes(string);
                format!("\"{}\"", string.replace('\\', "\\\\").replace('"', "\\\""))
            });
            quoted.collect::<Vec<_>>().join(" ")
        }
        _ => {
            let mut line = format!("\\# {}", data.len());
            for (at, byte) in data.iter().enumerate() {
                let gap = if at == 0 { " " } else { "" };
                let _ = write!(line, "{gap}{byte:02x}");
            }
            line
        }
    })
}

fn strings(data: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let mut reader = Reader::new(data);
    let mut strings = Vec::new();
    while !reader.is_empty() {
        let length = reader.u8("length of a string")?;
        strings.push(reader.bytes(usize::from(length), "a string")?);
    }
    Ok(strings)
}

/// The NSID among the options of EDNS.
fn identity(options: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let mut reader = Reader::new(options);
    while !reader.is_empty() {
        let code = reader.u16("code of an option")?;
        let length = reader.u16("length of an option")?;
        let value = reader.bytes(usize::from(length), "an option")?;
        if code == NSID {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A name, as text with a dot at its end; moves the reader behind it.
fn name(reader: &mut Reader<'_>) -> Result<String, Fault> {
    let mut text = String::new();
    let mut length = 1;
    // Behind the first pointer, once one was followed.
    let mut behind = None;
    // Each pointer has to lead before this place.
    let mut bound = reader.at();
    loop {
        let at = reader.at();
        let first = reader.u8("a name")?;
        match first {
            0 => break,
            1..64 => {
                let label = reader.bytes(usize::from(first), "a label of a name")?;
                length += 1 + label.len();
                if length > 255 {
                    return Err(Fault::Malformed {
                        what: "a name of at most 255 bytes",
                        at,
                    });
                }
                write_label(&mut text, label);
                text.push('.');
            }
            0xc0.. => {
                let to = usize::from(u16::from_be_bytes([
                    first & 0x3f,
                    reader.u8("a pointer of a name")?,
                ]));
                if to >= bound {
                    return Err(Fault::Malformed {
                        what: "a pointer that leads back",
                        at,
                    });
                }
                behind.get_or_insert(reader.at());
                bound = to;
                reader.seek(to, "a pointer of a name")?;
            }
            _ => {
                return Err(Fault::Malformed {
                    what: "a label or a pointer",
                    at,
                });
            }
        }
    }
    if let Some(behind) = behind {
        reader.seek(behind, "a name")?;
    }
    if text.is_empty() {
        text.push('.');
    }
    Ok(text)
}

/// A dot inside a label must not look like one between labels.
fn write_label(text: &mut String, label: &[u8]) {
    for c in text::from_bytes(label).chars() {
        if c == '.' || c == '"' || c == ' ' {
            text.push('\\');
        }
        text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A response without questions and with one answer, whose bytes follow the
    /// header.
    fn response(record: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 7, 0x84, 0x00, 0, 0, 0, 1, 0, 0, 0, 0];
        message.extend_from_slice(record);
        message
    }

    #[test]
    fn asks_as_rfc_1035_says() {
        assert_eq!(
            query(0x1234, &[b"version", b"bind"], Kind::TXT, Class::CH, false),
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03"
        );
        assert_eq!(
            query(1, &[], Kind::NS, Class::IN, true),
            b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x02\x00\x01\
              \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x04\x00\x03\x00\x00"
        );
    }

    #[test]
    fn only_a_response_of_the_same_id_answers() {
        let mut reply = response(&[]);
        assert!(answers(&reply, 7));
        assert!(!answers(&reply, 8));
        assert!(!answers(&reply[..11], 7));
        reply[2] = 0;
        assert!(!answers(&reply, 7));
    }

    /// The example of RFC 1035 §4.1.4: F.ISI.ARPA at 20, FOO.F.ISI.ARPA at 40,
    /// ARPA at 64, the root at 92.
    #[test]
    fn follows_pointers() {
        let mut message = vec![0; 93];
        message[20..32].copy_from_slice(b"\x01F\x03ISI\x04ARPA\x00");
        message[40..46].copy_from_slice(b"\x03FOO\xc0\x14");
        message[64..66].copy_from_slice(b"\xc0\x1a");
        for (at, text, behind) in [
            (20, "F.ISI.ARPA.", 32),
            (40, "FOO.F.ISI.ARPA.", 46),
            (64, "ARPA.", 66),
            (92, ".", 93),
        ] {
            let mut reader = Reader::new(&message);
            reader.seek(at, "name").unwrap();
            assert_eq!(name(&mut reader).unwrap(), text);
            assert_eq!(reader.at(), behind);
        }
    }

    #[test]
    fn pointers_that_loop_are_refused() {
        // To itself, forward, and to each other.
        for record in [b"\xc0\x0c".as_slice(), b"\xc0\x0e\x00", b"\x01a\xc0\x0c"] {
            assert!(matches!(
                Message::read(&response(record)),
                Err(Fault::Malformed {
                    what: "a pointer that leads back",
                    ..
                })
            ));
        }
    }

    #[test]
    fn a_name_ends_at_255_bytes() {
        // 60 labels of one byte with pointers back to each other, 120 bytes
        // each time, would make 600 bytes of five names.
        let mut message = response(&[]);
        for round in 0..5 {
            let before = message.len() - 122 * usize::from(round > 0);
            message.extend(b"\x01a".repeat(60));
            if round == 0 {
                message.extend([0, 0]);
            } else {
                message.extend((0xc000 | u16::try_from(before).unwrap()).to_be_bytes());
            }
        }
        let mut reader = Reader::new(&message);
        reader.seek(message.len() - 122, "name").unwrap();
        assert!(matches!(
            name(&mut reader),
            Err(Fault::Malformed {
                what: "a name of at most 255 bytes",
                ..
            })
        ));
    }

    #[test]
    fn labels_cannot_forge_other_labels() {
        let mut reader = Reader::new(b"\x03a.b\x02c\xff\x00");
        assert_eq!(name(&mut reader).unwrap(), "a\\.b.c\\xff.");
    }

    #[test]
    fn reads_the_data_of_each_type() {
        for (kind, data, line) in [
            (1, b"\x7f\x00\x00\x01".as_slice(), ". 1 IN A 127.0.0.1"),
            (2, b"\x02ns\x00", ". 1 IN NS ns."),
            (16, b"\x01a\x03b\"\\", ". 1 IN TXT \"a\" \"b\\\"\\\\\""),
            (99, b"\x01\xab", ". 1 IN TYPE99 \\# 2 01ab"),
        ] {
            let mut record = vec![0, 0, kind, 0, 1, 0, 0, 0, 1, 0];
            record.push(u8::try_from(data.len()).unwrap());
            record.extend_from_slice(data);
            let message = response(&record);
            assert_eq!(Message::read(&message).unwrap().answers[0].text, line);
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_read(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            let message = response(&record);
            if let Ok(message) = Message::read(&message) {
                prop_assert_eq!(message.answers.len(), 1);
            }
        }

        #[test]
        fn what_is_asked_can_be_read(labels in proptest::collection::vec("[a-z]{1,60}", 0..4)) {
            let labels: Vec<&[u8]> = labels.iter().map(String::as_bytes).collect();
            let mut message = query(9, &labels, Kind::TXT, Class::CH, true);
            message[2] |= 0x80;
            let message = Message::read(&message).unwrap();
            prop_assert_eq!(message.rcode(), "NOERROR");
            prop_assert_eq!(message.identity, Some(b"".as_slice()));
        }
    }
}
