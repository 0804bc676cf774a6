//! Who is to be asked: names, addresses, and ranges of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A host: the name under which it was asked for, and one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As the user wrote it, without brackets.
    pub name: Arc<str>,
    /// An address of it, with its zone if it has one; the port is 0.
    pub address: SocketAddr,
}

/// Why a host cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// The name has no address, as far as the resolver can tell.
    #[error("{name:?}: cannot be resolved: {why}")]
    Name {
        /// The name.
        name: String,
        /// What the resolver says.
        why: String,
    },
    /// A prefix that is none, or one with too many addresses.
    #[error("{0:?}: not a range of at most 65536 addresses such as 10.0.0.0/16")]
    Range(String),
}

/// The addresses of a name, in the resolver's order (RFC 6724), each once; of a
/// range such as `10.0.0.0/24` all of it. Names may be in brackets, addresses
/// may have a zone (`fe80::1%eth0`).
pub fn resolve(text: &str) -> Result<Vec<Host>, Unresolved> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Some((base, length)) = bare.split_once('/') {
        let addresses = range(base, length).ok_or_else(|| Unresolved::Range(bare.to_owned()))?;
        return Ok(addresses
            .map(|address| Host {
                name: address.to_string().into(),
                address: SocketAddr::new(address, 0),
            })
            .collect());
    }
    let refuse = |why: String| Unresolved::Name {
        name: bare.to_owned(),
        why,
    };
    if bare.is_empty() || bare.contains(char::is_whitespace) || bare.contains('\0') {
        return Err(refuse("not a host name".to_owned()));
    }
    let found = (bare, 0).to_socket_addrs();
    let mut addresses: Vec<SocketAddr> =
        found.map_err(|error| refuse(error.to_string()))?.collect();
    let mut seen = Vec::new();
    addresses.retain(|address| {
        let new = !seen.contains(address);
        seen.push(*address);
        new
    });
    if addresses.is_empty() {
        return Err(refuse("it has no address".to_owned()));
    }
    let name: Arc<str> = bare.into();
    Ok(addresses
        .into_iter()
        .map(|address| Host {
            name: name.clone(),
            address,
        })
        .collect())
}

/// The addresses of a prefix, at most 65,536.
fn range(base: &str, length: &str) -> Option<Box<dyn Iterator<Item = IpAddr>>> {
    let length: u32 = length.parse().ok()?;
    if let Ok(v4) = Ipv4Addr::from_str(base) {
        let host_bits = 32_u32.checked_sub(length).filter(|bits| *bits <= 16)?;
        let first = v4.to_bits() >> host_bits << host_bits;
        let last = first | ((1 << host_bits) - 1);
        return Some(Box::new(
            (first..=last).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        ));
    }
    let v6 = Ipv6Addr::from_str(base).ok()?;
    let host_bits = 128_u32.checked_sub(length).filter(|bits| *bits <= 16)?;
    let first = v6.to_bits() >> host_bits << host_bits;
    let last = first | ((1 << host_bits) - 1);
    Some(Box::new(
        (first..=last).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ))
}

/// Whether `address` is one of this machine, in the calling thread's network
/// namespace.
pub fn is_own(mut address: SocketAddr) -> bool {
    // Only an own address can be bound; nothing is sent.
    address.set_port(0);
    address.ip().is_loopback() || UdpSocket::bind(address).is_ok()
}

/// The name of an address, waited for at most `wait`: a resolver that hangs must
/// not hang the question.
pub fn reverse(address: SocketAddr, wait: Duration) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    let ask = move || {
        // Nobody listens any more when it comes too late.
        let _ = sender.send(crate::system::name_of(address));
    };
    thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(ask)
        .ok()?;
    receiver.recv_timeout(wait).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        let hosts = resolve(text).unwrap();
        hosts
            .iter()
            .map(|host| host.address.ip().to_string())
            .collect()
    }

    #[test]
    fn addresses_need_no_resolver() {
        assert_eq!(addresses("127.0.0.1"), ["127.0.0.1"]);
        assert_eq!(addresses("[::1]"), ["::1"]);
    }

    #[test]
    fn zones_are_kept() {
        let host = &resolve("fe80::1%lo").unwrap()[0];
        let SocketAddr::V6(address) = host.address else {
            panic!("{host:?}")
        };
        assert_eq!(address.scope_id(), 1);
        assert_eq!(&*host.name, "fe80::1%lo");
    }

    #[test]
    fn addresses_of_this_machine() {
        let own = |text: &str| is_own(text.parse().unwrap());
        assert!(own("127.3.2.1:80"));
        assert!(own("[::1]:80"));
        // TEST-NET-1 (RFC 5737).
        assert!(!own("192.0.2.1:80"));
    }

    #[test]
    fn ranges() {
        assert_eq!(addresses("10.1.2.3/30").len(), 4);
        assert_eq!(addresses("10.1.2.3/30")[0], "10.1.2.0");
        assert_eq!(addresses("10.1.2.3/32"), ["10.1.2.3"]);
        assert_eq!(addresses("2001:db8::/127").len(), 2);
        for bad in ["10.0.0.0/8", "10.0.0.0/33", "10.0.0/24", "::/0", "x/24"] {
            assert!(matches!(resolve(bad), Err(Unresolved::Range(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "[]", "a b", "host\0"] {
            assert!(
                matches!(resolve(bad), Err(Unresolved::Name { .. })),
                "{bad}"
            );
        }
    }
}
