//! Service sets: the ports that one service as a whole needs, and one verdict.
//!
//! `PortQueryUI` asked a list of ports for "Domains and Trusts" and left it to
//! the reader to find out whether that means that a trust can work. Here each
//! set says which of its ports are needed and which belong to it only
//! sometimes, so that [`ServiceSet::judge`] can give the answer.
//!
//! The eight sets are those of `PortQueryUI`. The ports of the first are its own;
//! for the others only the names are documented, and the ports are the ones on
//! which these services listen. More come from a TOML file:
//!
//! ```toml
//! [my-shop]
//! title = "Our shop"            # may be left out
//! ports = "443,tcp:8443"        # needed
//! optional = "udp:8125"         # may be left out
//! ```

use std::collections::BTreeMap;

use event::Protocol;
use serde::Deserialize;

use crate::{BadPorts, Port, Ports, Services, Status};

/// Name, title, needed ports and optional ports of the sets of `PortQueryUI`.
const KNOWN: &[(&str, &str, &str, &str)] = &[
    (
        "domains-and-trusts",
        "Domains and Trusts",
        "135,both:389,both:53,both:88,445",
        // A global catalogue, TLS, NetBIOS and WINS are not everywhere.
        "636,3268,3269,udp:137,udp:138,139,42",
    ),
    ("dns", "DNS Queries", "both:53", ""),
    // Nothing answers on the datagram service; it only takes.
    ("netbios", "NetBIOS communication", "udp:137,139", "udp:138"),
    ("ipsec", "IPSEC", "udp:500", "udp:4500"),
    // The browser serves named instances only.
    ("sql", "SQL Service", "1433", "udp:1434"),
    ("web", "WEB Service", "80,443", ""),
    (
        "exchange",
        "Exchange Server",
        "25,443",
        "80,110,135,143,587,993,995",
    ),
    (
        "netmeeting",
        "Netmeeting and other services",
        "1503,1720",
        "389,522,1731",
    ),
];

/// The ports of one service as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSet {
    /// What it is called on a command line: `domains-and-trusts`.
    pub name: String,
    /// What it is called for people: `Domains and Trusts`.
    pub title: String,
    /// Each of these has to listen.
    pub needed: Ports,
    /// Each of these may listen.
    pub optional: Ports,
}

/// Sets by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSets(Vec<ServiceSet>);

/// Why a file of sets is not understood. Its author's fault.
#[derive(Debug, thiserror::Error)]
pub enum BadSets {
    /// It is no TOML, or not a table of sets.
    #[error("{0}")]
    Toml(String),
    /// A name that could not be typed as one word.
    #[error("[{0}]: a set's name consists of letters, digits and hyphens")]
    Name(String),
    /// A list of ports that is none.
    #[error("[{set}], {key}: {source}")]
    Ports {
        /// The set.
        set: String,
        /// The key.
        key: &'static str,
        /// What is wrong.
        #[source]
        source: BadPorts,
    },
}

/// Whether a service as a whole can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Works {
    /// Every needed port listens.
    Yes,
    /// A needed port does not.
    No,
    /// No needed port is known not to listen, but not all are known to.
    Unknown,
}

/// The verdict about a set on one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetVerdict {
    /// The answer.
    pub works: Works,
    /// The needed ports that are not known to listen; without a status where
    /// one was not asked.
    pub missing: Vec<(Port, Option<Status>)>,
    /// The optional ports that listen.
    pub extras: Vec<Port>,
}

impl ServiceSets {
    /// Those of `PortQueryUI`.
    pub fn known() -> Self {
        let set = |&(name, title, needed, optional): &(&str, &str, &str, &str)| {
            let ports = |text| Ports::parse(text, &[Protocol::Tcp], &Services::default());
            ServiceSet {
                name: name.to_owned(),
                title: title.to_owned(),
                // A list of ours that were wrong would show in the tests.
                needed: ports(needed).unwrap_or_default(),
                optional: ports(optional).unwrap_or_default(),
            }
        };
        Self(KNOWN.iter().map(set).collect())
    }

    /// Adds those of a TOML file; one of the same name takes the place of the
    /// other.
    pub fn add(&mut self, toml: &str, services: &Services) -> Result<(), BadSets> {
        let entries: BTreeMap<String, Entry> =
            toml::from_str(toml).map_err(|error| BadSets::Toml(error.to_string()))?;
        for (name, entry) in entries {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if name.is_empty() || !name.chars().all(is_word) {
                return Err(BadSets::Name(name));
            }
            let ports = |key, text: &str| {
                Ports::parse(text, &[Protocol::Tcp], services).map_err(|source| BadSets::Ports {
                    set: name.clone(),
                    key,
                    source,
                })
            };
            let needed = ports("ports", &entry.ports)?;
            let optional = match &entry.optional {
                Some(text) => ports("optional", text)?,
                None => Ports::default(),
            };
            self.0.retain(|set| !set.name.eq_ignore_ascii_case(&name));
            self.0.push(ServiceSet {
                title: entry.title.unwrap_or_else(|| name.clone()),
                name,
                needed,
                optional,
            });
        }
        Ok(())
    }

    /// The set of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&ServiceSet> {
        let named = |set: &&ServiceSet| set.name.eq_ignore_ascii_case(name);
        self.0.iter().find(named)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceSet> {
        self.0.iter()
    }
}

impl ServiceSet {
    /// All its ports, the needed ones first.
    pub fn ports(&self) -> Ports {
        let all = self.needed.as_slice().iter();
        all.chain(self.optional.as_slice()).copied().collect()
    }

    /// What the status of its ports on one address means for the service.
    pub fn judge(&self, status: impl Fn(Port) -> Option<Status>) -> SetVerdict {
        let listens = |port: &Port| status(*port) == Some(Status::Listening);
        let needed = self.needed.as_slice().iter().copied();
        let missing: Vec<_> = needed
            .filter(|port| !listens(port))
            .map(|port| (port, status(port)))
            .collect();
        let is_no = |status: Option<Status>| {
            matches!(status, Some(Status::NotListening | Status::Filtered))
        };
        let works = if missing.is_empty() {
            Works::Yes
        } else if missing.iter().any(|(_, status)| is_no(*status)) {
            Works::No
        } else {
            Works::Unknown
        };
        let optional = self.optional.as_slice().iter().copied();
        SetVerdict {
            works,
            missing,
            extras: optional.filter(listens).collect(),
        }
    }
}

/// A set as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    title: Option<String>,
    ports: String,
    optional: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(ports: &Ports) -> Vec<String> {
        ports.as_slice().iter().map(Port::to_string).collect()
    }

    #[test]
    fn every_list_of_ours_is_understood() {
        for (name, _, needed, optional) in KNOWN {
            for text in [needed, optional] {
                let ports = Ports::parse(text, &[Protocol::Tcp], &Services::default());
                assert!(ports.is_ok() || text.is_empty(), "{name}: {text}");
            }
        }
        let sets = ServiceSets::known();
        assert_eq!(sets.iter().count(), 8);
        // The twelve lines of PortQueryUI, three of them for both protocols.
        let domains = sets.get("Domains-And-Trusts").unwrap();
        assert_eq!(domains.ports().as_slice().len(), 15);
        assert_eq!(
            numbers(&sets.get("dns").unwrap().ports()),
            ["53/tcp", "53/udp"]
        );
    }

    #[test]
    fn own_sets_come_from_a_file() {
        let mut sets = ServiceSets::known();
        let services = Services::parse(b"radius 1812/udp");
        let text = "[shop]\nports = '443,radius'\n[DNS]\ntitle = 'Ours'\nports = '5353'\n\
                    optional = 'udp:53'\n";
        sets.add(text, &services).unwrap();
        let shop = sets.get("shop").unwrap();
        assert_eq!(shop.title, "shop");
        assert_eq!(numbers(&shop.needed), ["443/tcp", "1812/udp"]);
        assert_eq!(sets.get("dns").unwrap().title, "Ours");
        assert_eq!(sets.iter().count(), 9);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let why = |text: &str| {
            let mut sets = ServiceSets::known();
            sets.add(text, &Services::default())
                .unwrap_err()
                .to_string()
        };
        assert!(why("[a]\nports = '80,0'").contains("[a], ports: \"0\""));
        assert!(why("[a]\nports = '80'\noptional = '9-3'").contains("optional"));
        assert!(why("['a b']\nports = '80'").contains("[a b]"));
        assert!(why("[a]").contains("ports"));
        assert!(why("[a]\nport = '80'\nports = '80'").contains("port"));
        assert!(why("a = 1").contains('a'));
    }

    #[test]
    fn one_verdict() {
        let sets = ServiceSets::known();
        let set = sets.get("netbios").unwrap();
        let judge = |name_service, session| {
            set.judge(|port: Port| match port.number {
                137 => name_service,
                139 => session,
                _ => Some(Status::ListeningOrFiltered),
            })
        };
        let (yes, no) = (Some(Status::Listening), Some(Status::NotListening));
        assert_eq!(judge(yes, yes).works, Works::Yes);
        assert_eq!(judge(yes, no).works, Works::No);
        assert_eq!(judge(None, yes).works, Works::Unknown);
        assert_eq!(
            judge(Some(Status::ListeningOrFiltered), yes).works,
            Works::Unknown
        );
        assert_eq!(judge(None, no).works, Works::No);
        assert_eq!(judge(Some(Status::Filtered), yes).missing.len(), 1);
        assert!(judge(yes, yes).extras.is_empty());
    }

    proptest! {
        #[test]
        fn any_file_is_survived(text in ".{0,80}") {
            let _ = ServiceSets::known().add(&text, &Services::default());
        }
    }
}
