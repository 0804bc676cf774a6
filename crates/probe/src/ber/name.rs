//! Names of X.501, as a certificate has them.

use std::fmt;

use super::{Ber, Oid, Tag};
use crate::Fault;

/// A distinguished name. Shown as RFC 4514 writes it: `CN=dc1,O=Example`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name {
    /// Its parts in the order of the encoding, the most general first. Parts
    /// that stand in one set follow each other.
    pub attributes: Vec<Attribute>,
}

/// One part of a name: `CN=dc1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// What kind of name it is.
    pub kind: Oid,
    /// The name, unescaped.
    pub value: String,
    /// Whether it stands in one set with the part before it.
    pub joined: bool,
}

/// The names of RFC 4514, section 3, and three more that certificates carry.
const KINDS: [(&str, &[u8]); 12] = [
    ("CN", &[0x55, 4, 3]),
    ("SN", &[0x55, 4, 4]),
    ("serialNumber", &[0x55, 4, 5]),
    ("C", &[0x55, 4, 6]),
    ("L", &[0x55, 4, 7]),
    ("ST", &[0x55, 4, 8]),
    ("STREET", &[0x55, 4, 9]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
    (
        "emailAddress",
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1],
    ),
    (
        "DC",
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
    ),
    (
        "UID",
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1],
    ),
];

impl Name {
    /// Reads an `RDNSequence`.
    pub(super) fn read(ber: &mut Ber<'_>, what: &'static str) -> Result<Self, Fault> {
        let mut attributes = Vec::new();
        let mut parts = ber.enter(Tag::SEQUENCE, what)?;
        while !parts.is_empty() {
            let mut set = parts.enter(Tag::SET, what)?;
            let mut joined = false;
            while !set.is_empty() {
                let mut pair = set.enter(Tag::SEQUENCE, what)?;
                attributes.push(Attribute {
                    kind: pair.oid(what)?,
                    value: pair.text(what)?,
                    joined,
                });
                joined = true;
            }
        }
        Ok(Self { attributes })
    }

    /// The last common name, which is the most particular one.
    pub fn common_name(&self) -> Option<&str> {
        let common = |attribute: &&Attribute| attribute.kind.is(KINDS[0].1);
        let attribute = self.attributes.iter().rev().find(common)?;
        Some(&attribute.value)
    }

    /// Whether it has no parts.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The order is turned round, but not within a set.
        let mut end = self.attributes.len();
        while let Some(start) = self.attributes[..end].iter().rposition(|a| !a.joined) {
            if end < self.attributes.len() {
                f.write_str(",")?;
            }
            for (at, attribute) in self.attributes[start..end].iter().enumerate() {
                if at > 0 {
                    f.write_str("+")?;
                }
                attribute.fmt(f)?;
            }
            end = start;
        }
        Ok(())
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KINDS.iter().find(|(_, kind)| self.kind.is(kind)) {
            Some((kind, _)) => write!(f, "{kind}=")?,
            None => write!(f, "{}=", self.kind)?,
        }
        let last = self.value.chars().count().saturating_sub(1);
        for (at, c) in self.value.chars().enumerate() {
            match c {
                '\0' => f.write_str("\\00")?,
                '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{c}")?,
                ' ' if at == 0 || at == last => f.write_str("\\ ")?,
                '#' if at == 0 => f.write_str("\\#")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    fn name(sets: &[&[(&str, Tag, &[u8])]]) -> Name {
        let mut writer = Writer::new();
        writer.wrap(Tag::SEQUENCE, |writer| {
            for set in sets {
                writer.wrap(Tag::SET, |writer| {
                    for (oid, tag, value) in *set {
                        writer.wrap(Tag::SEQUENCE, |writer| {
                            writer.oid(&oid.parse().unwrap());
                            writer.element(*tag, value);
                        });
                    }
                });
            }
        });
        Ber::new(&writer.into_bytes()).name("name").unwrap()
    }

    #[test]
    fn the_most_particular_part_comes_first() {
        let name = name(&[
            &[("2.5.4.6", Tag::PRINTABLE_STRING, b"DE")],
            &[("0.9.2342.19200300.100.1.25", Tag::IA5_STRING, b"example")],
            &[
                ("2.5.4.3", Tag::UTF8_STRING, b"dc1"),
                ("2.5.4.11", Tag::BMP_STRING, &[0, b'a', 0x20, 0xac]),
            ],
        ]);
        assert_eq!(name.to_string(), "CN=dc1+OU=a\u{20ac},DC=example,C=DE");
        assert_eq!(name.common_name(), Some("dc1"));
    }

    #[test]
    fn values_cannot_forge_parts() {
        let name = name(&[
            &[("1.2.3", Tag::UTF8_STRING, b" a,O=b ")],
            &[("2.5.4.3", Tag::UTF8_STRING, b"#\"x\\\0")],
        ]);
        assert_eq!(name.to_string(), "CN=\\#\\\"x\\\\\\00,1.2.3=\\ a\\,O=b\\ ");
        assert_eq!(Name::default().to_string(), "");
    }

    #[test]
    fn a_name_that_breaks_off_is_malformed() {
        let mut writer = Writer::new();
        writer.wrap(Tag::SEQUENCE, |writer| {
            writer.wrap(Tag::SET, |writer| {
                writer.wrap(Tag::SEQUENCE, |writer| writer.octets(b"no identifier"));
            });
        });
        assert!(Ber::new(&writer.into_bytes()).name("name").is_err());
    }
}
