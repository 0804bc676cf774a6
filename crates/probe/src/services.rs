//! The services database: which name belongs to which port.
//!
//! As in the original it decides what is asked: an entry `ldap 1025/tcp` makes
//! the program speak LDAP to port 1025. The system's own file
//! ([`Services::read`]) counts first; where it is silent about a port for which
//! there is a question, a small table of our own ([`KNOWN`]) steps in.
//!
//! The format is that of `services(5)`: name, `port/protocol`, aliases, and a
//! comment after `#`. Lines that are something else are passed over: the file
//! also serves others, and a mistake in one line must not hide the rest.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use event::Protocol;

/// Ports with a question of ours that services databases often lack.
const KNOWN: &[(&str, u16, Protocol)] = &[
    ("epmap", 135, Protocol::Udp),
    ("ldap", 389, Protocol::Udp),
    ("ms-sql-s", 1433, Protocol::Tcp),
    ("ms-sql-m", 1434, Protocol::Udp),
    ("l2tp", 1701, Protocol::Udp),
    ("remote-winsock", 1745, Protocol::Tcp),
    ("remote-winsock", 1745, Protocol::Udp),
    ("msft-gc", 3268, Protocol::Tcp),
    ("msft-gc-ssl", 3269, Protocol::Tcp),
    ("ms-wbt-server", 3389, Protocol::Tcp),
    ("redis", 6379, Protocol::Tcp),
];

/// Names by port, and ports by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    names: HashMap<(u16, Protocol), Vec<String>>,
    ports: HashMap<(String, Protocol), u16>,
}

impl Services {
    /// Reads a services file, such as `/etc/services`
    /// ([`default_path`](crate::default_services)).
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read(path)?))
    }

    /// Our own table alone, for a machine without the file.
    pub fn known() -> Self {
        Self::parse(b"")
    }

    /// Reads the text of a services file.
    pub fn parse(text: &[u8]) -> Self {
        let mut services = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let line = event::text::from_bytes(line);
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(place)) = (words.next(), words.next()) else {
                continue;
            };
            let Some((port, protocol)) = place.split_once('/') else {
                continue;
            };
            let protocol = match protocol.to_ascii_lowercase().as_str() {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => continue,
            };
            if let Ok(port @ 1..) = port.parse() {
                services.add(name, port, protocol);
                for alias in words {
                    services.add(alias, port, protocol);
                }
            }
        }
        for (name, port, protocol) in KNOWN {
            if !services.names.contains_key(&(*port, *protocol)) {
                services.add(name, *port, *protocol);
            }
        }
        services
    }

    fn add(&mut self, name: &str, port: u16, protocol: Protocol) {
        let names = self.names.entry((port, protocol)).or_default();
        names.push(name.to_owned());
        // The first entry of a name counts, as with getservbyname(3).
        self.ports
            .entry((name.to_ascii_lowercase(), protocol))
            .or_insert(port);
    }

    /// The name of a port.
    pub fn name(&self, port: u16, protocol: Protocol) -> Option<&str> {
        self.names(port, protocol).first().map(String::as_str)
    }

    /// The name of a port and its aliases.
    pub fn names(&self, port: u16, protocol: Protocol) -> &[String] {
        self.names
            .get(&(port, protocol))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The port of a service, by name or alias in any case.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let key = (name.to_ascii_lowercase(), protocol);
        self.ports.get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_both_ways() {
        let services = Services::parse(
            b"# a comment\nldap\t\t1025/tcp  our-ldap # moved\nhttp 80/tcp www\nhttp 80/udp\n",
        );
        assert_eq!(services.name(1025, Protocol::Tcp), Some("ldap"));
        assert_eq!(services.port("OUR-LDAP", Protocol::Tcp), Some(1025));
        assert_eq!(services.names(80, Protocol::Tcp), ["http", "www"]);
        assert_eq!(services.name(80, Protocol::Udp), Some("http"));
        assert_eq!(services.name(81, Protocol::Tcp), None);
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let services =
            Services::parse(b"x\ny 80\nz 0/tcp\nz 70000/tcp\nz 5/sctp\n\xff\xfe 6/tcp\nok 7/tcp");
        assert_eq!(services.port("ok", Protocol::Tcp), Some(7));
        for name in ["x", "y", "z"] {
            assert_eq!(services.port(name, Protocol::Tcp), None, "{name}");
        }
    }

    #[test]
    fn our_own_table_fills_gaps_and_no_more() {
        assert_eq!(
            Services::known().name(1434, Protocol::Udp),
            Some("ms-sql-m")
        );
        let services = Services::parse(b"other 1434/udp");
        assert_eq!(services.name(1434, Protocol::Udp), Some("other"));
    }
}
