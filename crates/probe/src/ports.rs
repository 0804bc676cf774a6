//! Ports as people write them: `22,80,443`, `1-1024`, `tcp:22,udp:53`, `https`.

use std::fmt;
use std::ops::RangeInclusive;

use event::Protocol;

use crate::Services;

/// A port of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number, never 0.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.name())
    }
}

/// Ports in the order in which they were named, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Vec<Port>);

/// Why a text names no ports. The user's fault; the part is named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPorts {
    /// Nothing stands there.
    #[error("no port is named")]
    Empty,
    /// A number that is no port.
    #[error("{0:?}: a port is a number from 1 to 65535")]
    Number(String),
    /// A range that ends before it begins.
    #[error("{0:?}: the range ends before it begins")]
    Reversed(String),
    /// Neither a number nor a service that is known.
    #[error("{0:?}: no such service in the services database; name the port by its number")]
    Service(String),
}

impl Ports {
    /// Reads a list. Parts are divided by commas; `tcp:`, `udp:` and `both:`
    /// hold for one part, the others take `protocols`. A service that has a
    /// port for only one protocol means that one.
    pub fn parse(
        text: &str,
        protocols: &[Protocol],
        services: &Services,
    ) -> Result<Self, BadPorts> {
        let mut ports = Self::default();
        for part in text.split(',') {
            let part = part.trim();
            let (protocols, what, told) = match part.split_once(':') {
                Some(("tcp" | "TCP", rest)) => (&[Protocol::Tcp][..], rest, true),
                Some(("udp" | "UDP", rest)) => (&[Protocol::Udp][..], rest, true),
                Some(("both" | "BOTH", rest)) => (BOTH, rest, true),
                _ => (protocols, part, false),
            };
            if what.is_empty() {
                return Err(BadPorts::Empty);
            }
            if what.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
                let range = range(what)?;
                for &protocol in protocols {
                    ports.extend(range.clone().map(|number| Port { protocol, number }));
                }
            } else {
                ports.extend(named(what, protocols, told, services)?);
            }
        }
        ports.dedup();
        Ok(ports)
    }

    /// The ports, in order.
    pub fn as_slice(&self) -> &[Port] {
        &self.0
    }

    /// Whether there is no port.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn extend(&mut self, ports: impl IntoIterator<Item = Port>) {
        self.0.extend(ports);
    }

    fn dedup(&mut self) {
        let mut seen = std::collections::HashSet::with_capacity(self.0.len());
        self.0.retain(|port| seen.insert(*port));
    }
}

impl FromIterator<Port> for Ports {
    fn from_iter<T: IntoIterator<Item = Port>>(ports: T) -> Self {
        let mut ports = Self(ports.into_iter().collect());
        ports.dedup();
        ports
    }
}

const BOTH: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];

/// `80` or `1-1024`.
fn range(text: &str) -> Result<RangeInclusive<u16>, BadPorts> {
    let number = |part: &str| match part.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(BadPorts::Number(part.to_owned())),
    };
    let Some((first, last)) = text.split_once('-') else {
        return number(text).map(|number| number..=number);
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(BadPorts::Reversed(text.to_owned()));
    }
    Ok(first..=last)
}

/// A service's ports for those of `protocols` that it has; if they were not
/// `told` and it has none of them, for those that it has.
fn named(
    name: &str,
    protocols: &[Protocol],
    told: bool,
    services: &Services,
) -> Result<Vec<Port>, BadPorts> {
    let of = |protocols: &[Protocol]| -> Vec<_> {
        let port = |protocol: &Protocol| {
            let number = services.port(name, *protocol)?;
            Some(Port {
                protocol: *protocol,
                number,
            })
        };
        protocols.iter().filter_map(port).collect()
    };
    let mut ports = of(protocols);
    if ports.is_empty() && !told {
        ports = of(BOTH);
    }
    if ports.is_empty() {
        return Err(BadPorts::Service(name.to_owned()));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, BadPorts> {
        let services = Services::parse(b"domain 53/tcp\ndomain 53/udp\ntftp 69/udp\nssh 22/tcp");
        let ports = Ports::parse(text, &[Protocol::Tcp], &services)?;
        let ports: Vec<_> = ports.as_slice().iter().map(Port::to_string).collect();
        Ok(ports.join(" "))
    }

    #[test]
    fn lists_ranges_names_and_protocols() {
        assert_eq!(parse("22,80, 443").unwrap(), "22/tcp 80/tcp 443/tcp");
        assert_eq!(parse("1-3,2").unwrap(), "1/tcp 2/tcp 3/tcp");
        assert_eq!(
            parse("tcp:22,udp:53,both:7").unwrap(),
            "22/tcp 53/udp 7/tcp 7/udp"
        );
        assert_eq!(
            parse("ssh,domain,both:domain").unwrap(),
            "22/tcp 53/tcp 53/udp"
        );
        assert_eq!(parse("TFTP").unwrap(), "69/udp");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let number = |text: &str| BadPorts::Number(text.to_owned());
        assert_eq!(parse("80,0").unwrap_err(), number("0"));
        assert_eq!(parse("65536").unwrap_err(), number("65536"));
        assert_eq!(parse("1-").unwrap_err(), number(""));
        assert_eq!(parse("-5").unwrap_err(), number(""));
        assert_eq!(parse("8x").unwrap_err(), number("8x"));
        assert_eq!(
            parse("9-3").unwrap_err(),
            BadPorts::Reversed("9-3".to_owned())
        );
        assert_eq!(parse("80,,81").unwrap_err(), BadPorts::Empty);
        assert_eq!(parse("tcp:").unwrap_err(), BadPorts::Empty);
        assert_eq!(
            parse("tcp:tftp").unwrap_err(),
            BadPorts::Service("tftp".to_owned())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_range_has_its_length(first in 1_u16.., more in 0_u16..500) {
            let last = first.saturating_add(more);
            let ports = Ports::parse(&format!("{first}-{last}"), BOTH, &Services::known()).unwrap();
            prop_assert_eq!(ports.as_slice().len(), 2 * (usize::from(last - first) + 1));
        }
    }
}
