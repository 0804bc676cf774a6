//! Names of `NetBIOS` over UDP (RFC 1002 §4.2.17): the adapter status of the node that
//! is asked, which is every name it has registered and the address of its
//! network adapter.
//!
//! Sessions, on TCP port 139, carry SMB and are asked by [`super::smb`].

use event::{Protocol, text};

use super::nonce::nonce;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fact, Fault, Reader, Value};

/// Asks for the adapter status.
pub(super) struct NetbiosNames;

/// The resource type of an adapter status.
const NBSTAT: u16 = 0x0021;
/// The Internet class.
const INTERNET: u16 = 1;

impl Question for NetbiosNames {
    fn name(&self) -> &'static str {
        "netbios-ns"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["nbname", "netbios"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let id: [u8; 2] = nonce();
        let reply = datagrams.exchange(&request(id), |reply| {
            // A response, with that id.
            reply.starts_with(&id) && reply.get(2).is_some_and(|flags| flags & 0x80 != 0)
        })?;
        read(&reply)
    }
}

/// A node status request for the name `*`, which every node answers to.
fn request(id: [u8; 2]) -> Vec<u8> {
    let mut request = id.to_vec();
    // No flags; one question and nothing else.
    request.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    request.extend(encoded(b"*\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
    request.extend(NBSTAT.to_be_bytes());
    request.extend(INTERNET.to_be_bytes());
    request
}

/// A name in the first-level encoding (RFC 1001 §14.1): each half of a byte as a
/// letter from `A` on, in a label of 32 bytes, without a scope.
pub(super) fn encoded(name: &[u8; 16]) -> Vec<u8> {
    let mut label = vec![32];
    for byte in name {
        label.push(b'A' + (byte >> 4));
        label.push(b'A' + (byte & 15));
    }
    label.push(0);
    label
}

fn read(datagram: &[u8]) -> Result<Answer, Fault> {
    let mut reader = Reader::new(datagram);
    reader.u16("an id")?;
    let flags = reader.u16("flags")?;
    let questions = reader.u16("counts")?;
    let answers = reader.u16("counts")?;
    reader.u32("counts")?;
    let mut answer = Answer::of("netbios-ns");
    let code = flags & 15;
    if code != 0 {
        let error = format!("response code {code}");
        answer.summary.clone_from(&error);
        answer.add("error", error);
        return Ok(answer);
    }
    if questions != 0 || answers == 0 {
        return Err(reader.malformed("one answer"));
    }
    skip_name(&mut reader)?;
    if reader.u16("a type")? != NBSTAT || reader.u16("a class")? != INTERNET {
        return Err(reader.malformed("an adapter status"));
    }
    reader.u32("a time to live")?;
    let length = reader.u16("a length")?;
    let mut status = Reader::new(reader.bytes(length.into(), "an adapter status")?);
    let count = status.u8("the number of names")?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(Name::read(&mut status)?);
    }
    // Some leave out the statistics that follow the names.
    let mac: Option<[u8; 6]> = status.array("an adapter's address").ok();
    answer.summary = summary(&names, mac);
    if let Some(mac) = mac {
        answer.add("mac", hexadecimal(mac));
    }
    for name in names {
        answer.add("name", name.into_facts());
    }
    Ok(answer)
}

/// Passes over a name, which is labels or a pointer (RFC 1002 §4.1.3).
fn skip_name(reader: &mut Reader<'_>) -> Result<(), Fault> {
    loop {
        match reader.u8("a name")? {
            0 => return Ok(()),
            length @ 1..=63 => drop(reader.bytes(length.into(), "a label")?),
            0xc0.. => return reader.u8("a pointer").map(drop),
            _ => return Err(reader.malformed("a label")),
        }
    }
}

/// One registered name.
#[derive(Debug)]
struct Name {
    text: String,
    /// The 16th byte: whose name it is.
    suffix: u8,
    flags: u16,
}

impl Name {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let name = reader.bytes(15, "a name")?;
        let end = name.iter().rposition(|byte| !matches!(byte, b' ' | 0));
        Ok(Self {
            text: text::from_bytes(&name[..end.map_or(0, |end| end + 1)]),
            suffix: reader.u8("the suffix of a name")?,
            flags: reader.u16("the flags of a name")?,
        })
    }

    fn is_group(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Whose name it is, by its suffix; the same suffix means another thing on a
    /// group's name.
    fn meaning(&self) -> Option<&'static str> {
        let browser = "\u{1}\u{2}__MSBROWSE__\u{2}";
        Some(match (self.suffix, self.is_group()) {
            (0x00, false) => "workstation",
            (0x00, true) => "domain or workgroup",
            (0x01, true) if self.text == browser => "master browser",
            (0x01 | 0x03, false) => "messenger",
            (0x06, false) => "remote access server",
            (0x1b, false) => "domain master browser",
            (0x1c, true) => "domain controllers",
            (0x1d, false) => "master browser",
            (0x1e, true) => "browser elections",
            (0x1f, false) => "network DDE",
            (0x20, false) => "file server",
            (0x21, false) => "remote access client",
            (0xbe, false) => "network monitor agent",
            (0xbf, false) => "network monitor",
            _ => return None,
        })
    }

    /// The node's flags for it (RFC 1002 §4.2.18).
    fn states(&self) -> Vec<Value> {
        let states = [
            (0x1000, "deregistering"),
            (0x0800, "conflict"),
            (0x0400, "active"),
            (0x0200, "permanent"),
        ];
        let set = states.iter().filter(|(bit, _)| self.flags & bit != 0);
        set.map(|(_, state)| Value::from(*state)).collect()
    }

    fn into_facts(self) -> Vec<Fact> {
        let mut facts = Answer::default();
        facts.add("suffix", format!("{:02x}", self.suffix));
        facts.add("kind", if self.is_group() { "group" } else { "unique" });
        if let Some(meaning) = self.meaning() {
            facts.add("meaning", meaning);
        }
        facts.add("state", self.states());
        let name = Fact {
            name: "name".to_owned(),
            value: self.text.into(),
        };
        std::iter::once(name).chain(facts.facts).collect()
    }
}

fn hexadecimal(mac: [u8; 6]) -> String {
    let pairs = mac.map(|byte| format!("{byte:02x}"));
    pairs.join(":")
}

/// `DC1, domain PORTS, MAC address 00:03:ff:01:02:03`.
fn summary(names: &[Name], mac: Option<[u8; 6]>) -> String {
    let named = |group| {
        let mut names = names.iter();
        names.find(|name| name.suffix == 0 && name.is_group() == group)
    };
    let mut parts = Vec::new();
    if let Some(host) = named(false) {
        parts.push(host.text.clone());
    }
    if let Some(domain) = named(true) {
        parts.push(format!("domain {}", domain.text));
    }
    if let Some(mac) = mac {
        parts.push(format!("MAC address {}", hexadecimal(mac)));
    }
    if parts.is_empty() {
        parts.push(format!("{} names", names.len()));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;

    /// The reply of Samba 4.17 as a domain controller.
    const SAMBA: &[u8] = include_bytes!("../../tests/data/netbios-samba.bin");

    fn names(answer: &Answer) -> Vec<String> {
        let names = answer.facts.iter().filter(|fact| fact.name == "name");
        let words = names.map(|fact| match &fact.value {
            Value::Facts(facts) => {
                let words = facts.iter().filter_map(|fact| match &fact.value {
                    Value::Text(text) => Some(text.as_str()),
                    _ => None,
                });
                words.collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        });
        words.collect()
    }

    #[test]
    fn the_request_as_in_the_rfc() {
        let expected = b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\
            \x20CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\x00\x00\x21\x00\x01";
        assert_eq!(request([0x12, 0x34]), expected);
    }

    #[test]
    fn a_real_server() {
        let script = Script::of(&[b"noise", SAMBA]).echoing(0..2, 0);
        let answer = trial::datagrams(&NetbiosNames, script).unwrap();
        assert_eq!(
            names(&answer),
            [
                "DC1 00 unique workstation",
                "DC1 03 unique messenger",
                "DC1 20 unique file server",
                "PORTS 1b unique domain master browser",
                "PORTS 1c group domain controllers",
                "PORTS 00 group domain or workgroup",
                "__SAMBA__ 00 group domain or workgroup",
                "__SAMBA__ 20 group",
            ]
        );
        assert!(
            answer
                .summary
                .starts_with("DC1, domain PORTS, MAC address ")
        );
    }

    #[test]
    fn an_answer_without_names_or_statistics() {
        let mut reply = SAMBA[..12].to_vec();
        // A pointer for a name, the type, the class, a time, one byte: no names.
        reply.extend(b"\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x00\x00\x01\x00");
        let answer = read(&reply).unwrap();
        assert_eq!(
            (answer.summary.as_str(), answer.facts.len()),
            ("0 names", 0)
        );
    }

    #[test]
    fn the_browsers_own_name() {
        let mut bytes = b"\x01\x02__MSBROWSE__\x02\x01".to_vec();
        bytes.extend([0xe4, 0x00]);
        let name = Name::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(name.meaning(), Some("master browser"));
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let mut reply = SAMBA.to_vec();
        reply[3] = 3;
        let answer = read(&reply).unwrap();
        assert_eq!(answer.get("error"), Some(&"response code 3".into()));
    }

    #[test]
    fn hostile_replies() {
        for reply in trial::cut(SAMBA) {
            assert!(read(reply).is_err());
        }
        for reply in trial::altered(SAMBA) {
            let _ = read(&reply);
        }
        // More names than there is room for.
        let mut reply = SAMBA.to_vec();
        reply[56] = 0xff;
        assert!(read(&reply).is_err());
    }
}
