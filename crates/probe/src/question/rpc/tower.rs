//! Protocol towers (C706 appendix L): a way to reach an interface, one floor for
//! each layer, the interface on top. Numbers of the floors are little-endian
//! whoever sends them, addresses and ports big-endian.

use std::net::Ipv4Addr;

use event::text;

use super::super::guid::Guid;
use crate::{Fault, Reader};

/// What a tower leads to and how. Floors that are not known here are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tower {
    pub(super) interface: Option<Interface>,
    /// The protocol sequence: `ncacn_ip_tcp`.
    pub(super) protocol: Option<&'static str>,
    /// An IP address, or the name of a host: `\\MYSERVER`.
    pub(super) address: Option<String>,
    /// A port, or the name of a pipe.
    pub(super) endpoint: Option<String>,
}

/// An interface with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) uuid: Guid,
    major: u16,
    minor: u16,
}

impl Interface {
    /// `3.0`.
    pub(super) fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// The identifiers of floors (C706 appendix I, MS-RPCE §2.2.1.2.x).
mod floor {
    pub(super) const TCP: u8 = 0x07;
    pub(super) const UDP: u8 = 0x08;
    pub(super) const IP: u8 = 0x09;
    pub(super) const CONNECTIONLESS: u8 = 0x0a;
    pub(super) const CONNECTION: u8 = 0x0b;
    pub(super) const LOCAL: u8 = 0x0c;
    pub(super) const UUID: u8 = 0x0d;
    pub(super) const NAMED_PIPE: u8 = 0x0f;
    pub(super) const LOCAL_PIPE: u8 = 0x10;
    pub(super) const NETBIOS: u8 = 0x11;
    pub(super) const HTTP: u8 = 0x1f;
}

impl Tower {
    pub(super) fn read(octets: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(octets);
        let count = reader.u16_le("the number of floors")?;
        let mut tower = Self::default();
        let mut carrier = None;
        for number in 0..count {
            let length = reader.u16_le("the length of a floor")?;
            let (left, right) = {
                let left = reader.bytes(length.into(), "a floor")?;
                let length = reader.u16_le("the length of a floor")?;
                (left, reader.bytes(length.into(), "a floor")?)
            };
            let [kind, left @ ..] = left else {
                return Err(reader.malformed("a floor that says what it is"));
            };
            match (number, *kind) {
                (0, floor::UUID) => tower.interface = Some(interface(left, right)?),
                // The second one names the representation, always NDR.
                (1, _) => {}
                (2, kind) => carrier = Some(kind),
                (_, kind) => tower.take(carrier, kind, right),
            }
        }
        Ok(tower)
    }

    /// Takes in a floor below the third one.
    fn take(&mut self, carrier: Option<u8>, kind: u8, right: &[u8]) {
        let protocol = match (carrier, kind) {
            (Some(floor::CONNECTION), floor::TCP) => Some("ncacn_ip_tcp"),
            (Some(floor::CONNECTION), floor::NAMED_PIPE) => Some("ncacn_np"),
            (Some(floor::CONNECTION), floor::HTTP) => Some("ncacn_http"),
            (Some(floor::CONNECTIONLESS), floor::UDP) => Some("ncadg_ip_udp"),
            (Some(floor::LOCAL), floor::LOCAL_PIPE | floor::NAMED_PIPE) => Some("ncalrpc"),
            _ => None,
        };
        if let Some(protocol) = protocol {
            self.protocol = Some(protocol);
            self.endpoint = match (kind, right) {
                (floor::TCP | floor::UDP | floor::HTTP, [high, low]) => {
                    Some(u16::from_be_bytes([*high, *low]).to_string())
                }
                (floor::TCP | floor::UDP | floor::HTTP, _) => None,
                _ => Some(string(right)),
            };
        } else if kind == floor::IP {
            self.address = match right {
                [a, b, c, d] => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
                _ => None,
            };
        } else if kind == floor::NETBIOS {
            self.address = Some(string(right)).filter(|name| !name.is_empty());
        }
    }

    /// As such a way is written: `ncacn_ip_tcp:10.0.0.1[1030]`.
    pub(super) fn binding(&self) -> Option<String> {
        let address = self.address.as_deref().unwrap_or_default();
        let endpoint = self.endpoint.as_deref().unwrap_or_default();
        Some(format!("{}:{address}[{endpoint}]", self.protocol?))
    }
}

fn interface(left: &[u8], right: &[u8]) -> Result<Interface, Fault> {
    let mut left = Reader::new(left);
    Ok(Interface {
        uuid: Guid::read(&mut left)?,
        major: left.u16_le("a version")?,
        minor: Reader::new(right).u16_le("a version")?,
    })
}

/// Text up to the zero that ends it.
fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    text::from_bytes(&bytes[..end.unwrap_or(bytes.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Floors of an identifier with what belongs to it.
    fn tower(floors: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut octets = u16::try_from(floors.len()).unwrap().to_le_bytes().to_vec();
        for (left, right) in floors {
            for side in [left, right] {
                octets.extend(u16::try_from(side.len()).unwrap().to_le_bytes());
                octets.extend(*side);
            }
        }
        octets
    }

    const TOP: (&[u8], &[u8]) = (
        &[0x0d, 1, 0, 0, 0, 2, 0, 3, 0, 4, 5, 6, 7, 8, 9, 10, 11, 4, 0],
        &[7, 0],
    );
    const NDR: (&[u8], &[u8]) = (&[0x0d], &[]);

    fn binding(floors: &[(&[u8], &[u8])]) -> Option<String> {
        let floors = [&[TOP, NDR], floors].concat();
        Tower::read(&tower(&floors)).unwrap().binding()
    }

    #[test]
    fn protocol_sequences() {
        let connection: (&[u8], &[u8]) = (&[0x0b], &[0, 0]);
        let address: (&[u8], &[u8]) = (&[0x09], &[10, 0, 0, 1]);
        assert_eq!(
            binding(&[connection, (&[0x07], &[4, 6]), address]).unwrap(),
            "ncacn_ip_tcp:10.0.0.1[1030]"
        );
        assert_eq!(
            binding(&[
                connection,
                (&[0x0f], b"\\PIPE\\lsass\0"),
                (&[0x11], b"\\\\MYSERVER\0")
            ])
            .unwrap(),
            "ncacn_np:\\\\MYSERVER[\\PIPE\\lsass]"
        );
        assert_eq!(
            binding(&[connection, (&[0x1f], &[2, 0x51]), address]).unwrap(),
            "ncacn_http:10.0.0.1[593]"
        );
        assert_eq!(
            binding(&[(&[0x0a], &[0, 0]), (&[0x08], &[4, 6]), address]).unwrap(),
            "ncadg_ip_udp:10.0.0.1[1030]"
        );
        assert_eq!(
            binding(&[(&[0x0c], &[0, 0]), (&[0x10], b"OLE1\0")]).unwrap(),
            "ncalrpc:[OLE1]"
        );
        assert_eq!(binding(&[connection, (&[0x42], b"x"), address]), None);
    }

    #[test]
    fn the_interface_is_on_top() {
        let read = Tower::read(&tower(&[TOP, NDR])).unwrap();
        let interface = read.interface.unwrap();
        assert_eq!(
            interface.uuid.to_string(),
            "00000001-0002-0003-0405-060708090a0b"
        );
        assert_eq!(interface.version(), "4.7");
    }

    #[test]
    fn floors_that_are_not_there_are_malformed() {
        let octets = tower(&[TOP, NDR, (&[0x0b], &[0, 0])]);
        for length in 0..octets.len() {
            assert!(Tower::read(&octets[..length]).is_err(), "{length}");
        }
        assert!(Tower::read(&[1, 0, 0, 0, 0, 0]).is_err());
        assert!(Tower::read(&[0xff, 0xff]).is_err());
    }
}
