//! Sockets without ports: raw, ping and packet. That somebody made one is
//! worth knowing.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use super::fact::{End, Fact, Kind};
use super::stage::{needs, own_network};

/// A socket that sends and receives whole IP packets of a protocol.
pub(super) fn raw() -> anyhow::Result<()> {
    created("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
}

/// The same over IPv6.
pub(super) fn raw_v6() -> anyhow::Result<()> {
    created("raw", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)
}

/// A socket for pings, which needs no privilege where the system allows it.
pub(super) fn ping() -> anyhow::Result<()> {
    own_network()?;
    needs(
        "ping sockets",
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0"),
    )?;
    created("icmp", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)
}

/// A socket that sees every frame.
pub(super) fn packet() -> anyhow::Result<()> {
    own_network()?;
    let all = i32::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
    created("packet", libc::AF_PACKET, libc::SOCK_RAW, all)
}

fn created(protocol: &str, family: i32, kind: i32, number: i32) -> anyhow::Result<()> {
    // SAFETY: makes a descriptor, which is checked and owned below.
    let raw = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, number) };
    let made = match raw {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: it is new and nobody else's.
        raw => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
    };
    let socket = needs("such a socket", made)?;
    let mut fact = Fact::of(Kind::Create, protocol, &socket)?;
    protocol.clone_into(&mut fact.protocol);
    (fact.local, fact.remote) = (None, None);
    if family == libc::AF_PACKET {
        // That it is gone can be seen, but not that nothing else ended it.
        fact.end = Some(End::Somehow);
    }
    fact.tell()
}
