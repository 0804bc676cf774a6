//! The ping by which a Windows client looks for a domain controller (MS-ADTS
//! §6.3.3): a search over UDP for the attribute `Netlogon`, whose value is a
//! structure that names forest, domain, host and site.

use event::text;

use super::super::guid::Guid;
use crate::ber::{Tag, Writer};
use crate::{Fact, Fault, Reader, Value};

/// `NETLOGON_NT_VERSION_5 | NETLOGON_NT_VERSION_5EX`: the newest structure.
const VERSION: u32 = 0x0000_0002 | 0x0000_0004;

/// `LOGON_SAM_LOGON_RESPONSE_EX` and the same for a user of no account.
const RESPONSES: [u16; 2] = [23, 25];

/// A name has at most 255 bytes, of labels of at least two.
const LABELS: usize = 128;

/// The bits of `DS_FLAG` (§6.3.1.2).
const FLAGS: [(u32, &str); 17] = [
    (0x0000_0001, "PDC"),
    (0x0000_0004, "GC"),
    (0x0000_0008, "LDAP"),
    (0x0000_0010, "DS"),
    (0x0000_0020, "KDC"),
    (0x0000_0040, "TIMESERV"),
    (0x0000_0080, "CLOSEST"),
    (0x0000_0100, "WRITABLE"),
    (0x0000_0200, "GOOD_TIMESERV"),
    (0x0000_0400, "NDNC"),
    (0x0000_0800, "SELECT_SECRET_DOMAIN_6"),
    (0x0000_1000, "FULL_SECRET_DOMAIN_6"),
    (0x0000_2000, "WS"),
    (0x0000_4000, "DS_8"),
    (0x0000_8000, "DS_9"),
    (0x0001_0000, "DS_10"),
    (0x0002_0000, "KEY_LIST"),
];

/// The search. No domain is named, so the controller speaks of its own.
pub(super) fn request(id: u32) -> Vec<u8> {
    super::search(id, &["Netlogon"], |writer: &mut Writer| {
        let version = |writer: &mut Writer| {
            writer.octets(b"NtVer");
            writer.octets(&VERSION.to_le_bytes());
        };
        // `and`, of one `equalityMatch`.
        writer.wrap(Tag::context(0), |writer| {
            writer.wrap(Tag::context(3), version);
        });
    })
}

/// Reads a `NETLOGON_SAM_LOGON_RESPONSE_EX` (§6.3.1.9).
pub(super) fn read(value: &[u8]) -> Result<Vec<Fact>, Fault> {
    let mut reader = Reader::new(value);
    let code = reader.u16_le("an operation code")?;
    if !RESPONSES.contains(&code) {
        return Err(reader.malformed("a response to a ping"));
    }
    reader.u16_le("padding")?;
    let flags = reader.u32_le("flags")?;
    let guid = Guid::read(&mut reader)?;
    let mut facts = vec![fact("DomainGuid", guid.to_string())];
    for name in [
        "DnsForestName",
        "DnsDomainName",
        "DnsHostName",
        "NetbiosDomainName",
        "NetbiosComputerName",
        "UserName",
        "DcSiteName",
        "ClientSiteName",
    ] {
        let text = compressed(&mut reader)?;
        if !text.is_empty() {
            facts.push(fact(name, text));
        }
    }
    let set = FLAGS.iter().filter(|(bit, _)| flags & bit != 0);
    let set: Vec<Value> = set.map(|(_, name)| Value::from(*name)).collect();
    facts.push(fact("Flags", set));
    Ok(facts)
}

fn fact(name: &str, value: impl Into<Value>) -> Fact {
    Fact {
        name: name.to_owned(),
        value: value.into(),
    }
}

/// A name, compressed as those of DNS are (RFC 1035 §4.1.4). Each pointer leads
/// before the place where the last one led, so there is no loop.
fn compressed(reader: &mut Reader<'_>) -> Result<String, Fault> {
    let mut name = String::new();
    let mut place = reader.clone();
    let mut jumped = false;
    let mut start = place.at();
    for _ in 0..LABELS {
        let length = place.u8("a name")?;
        match length {
            0 => {
                if !jumped {
                    *reader = place;
                }
                return Ok(name);
            }
            1..=63 => {
                if !name.is_empty() {
                    name.push('.');
                }
                let label = place.bytes(length.into(), "a label")?;
                name.push_str(&text::from_bytes(label));
            }
            0xc0.. => {
                let low = place.u8("a pointer")?;
                let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                if !jumped {
                    *reader = place.clone();
                    jumped = true;
                }
                if to >= start {
                    return Err(place.malformed("a pointer that leads backwards"));
                }
                start = to;
                place.seek(to, "a pointer")?;
            }
            _ => return Err(place.malformed("a label")),
        }
    }
    Err(place.malformed("a name that ends"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(names: &[u8]) -> Vec<u8> {
        let mut value = vec![23, 0, 0, 0, 0x09, 0, 0, 0];
        value.extend(0..16);
        value.extend(names);
        value.extend(VERSION.to_le_bytes());
        value.extend([0xff; 4]);
        value
    }

    #[test]
    fn names_are_unpacked() {
        // ports.example; the same; dc1.ports.example; PORTS; DC1; none; Site; Site.
        let names = b"\x05ports\x07example\0\xc0\x18\x03dc1\xc0\x18\x05PORTS\0\x03DC1\0\0\x04Site\0\xc0\x3c";
        let facts = read(&response(names)).unwrap();
        let get = |name: &str| {
            let fact = facts.iter().find(|fact| fact.name == name);
            fact.map(|fact| fact.value.clone())
        };
        assert_eq!(
            get("DomainGuid"),
            Some("03020100-0504-0706-0809-0a0b0c0d0e0f".into())
        );
        assert_eq!(get("DnsForestName"), Some("ports.example".into()));
        assert_eq!(get("DnsDomainName"), Some("ports.example".into()));
        assert_eq!(get("DnsHostName"), Some("dc1.ports.example".into()));
        assert_eq!(get("NetbiosDomainName"), Some("PORTS".into()));
        assert_eq!(get("NetbiosComputerName"), Some("DC1".into()));
        assert_eq!(get("UserName"), None);
        assert_eq!(get("DcSiteName"), Some("Site".into()));
        assert_eq!(
            get("Flags"),
            Some(Value::List(vec!["PDC".into(), "LDAP".into()]))
        );
    }

    #[test]
    fn pointers_do_not_go_round() {
        for names in [
            &b"\xc0\x18"[..],
            b"\x01a\xc0\x18",
            b"\xc0\xff",
            b"\xff\xff",
            b"\x40",
            b"",
        ] {
            assert!(read(&response(names)).is_err(), "{names:x?}");
        }
    }
}
