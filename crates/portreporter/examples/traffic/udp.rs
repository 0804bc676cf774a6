//! UDP scenarios: every way in which a port is taken.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Outcome;
use crate::facts::report;
use crate::tcp::{ANY_V4, address};

/// A UDP socket of the family of an address.
pub(crate) fn socket(like: SocketAddr) -> io::Result<OwnedFd> {
    let family = match like {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    Ok(rustix::net::socket_with(
        family,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Binds and closes. The argument `6` asks for IPv6.
pub(crate) fn bind(arguments: &[String]) -> Outcome {
    let at = SocketAddr::new(loopback(arguments), 0);
    let udp = socket(at)?;
    rustix::net::bind(&udp, &at)?;
    report("udp", &udp)?;
    Ok(())
}

/// Takes a port without a bind: `udp-autobind 4|6 sendto|sendmsg|connect`.
/// Sends twice, so that a second datagram is seen to report nothing new.
pub(crate) fn autobind(arguments: &[String]) -> Outcome {
    let peer_address = SocketAddr::new(loopback(arguments), 0);
    let peer = socket(peer_address)?;
    rustix::net::bind(&peer, &peer_address)?;
    let to = address(&peer)?;
    let udp = socket(to)?;
    match arguments.get(1).map(String::as_str) {
        Some("sendto") => {
            for _ in 0..2 {
                rustix::net::sendto(&udp, b"x", SendFlags::empty(), &to)?;
            }
        }
        Some("sendmsg") => {
            for _ in 0..2 {
                rustix::net::sendmsg_addr(
                    &udp,
                    &to,
                    &[IoSlice::new(b"x")],
                    &mut rustix::net::SendAncillaryBuffer::default(),
                    SendFlags::empty(),
                )?;
            }
        }
        Some("connect") => {
            rustix::net::connect(&udp, &to)?;
            rustix::net::send(&udp, b"x", SendFlags::empty())?;
        }
        other => return Err(format!("how is the port taken? {other:?}").into()),
    }
    report("udp", &udp)?;
    Ok(())
}

/// A server that only receives.
pub(crate) fn receive() -> Outcome {
    let server = socket(ANY_V4)?;
    rustix::net::bind(&server, &ANY_V4)?;
    let sender = socket(ANY_V4)?;
    rustix::net::sendto(&sender, b"datagram", SendFlags::empty(), &address(&server)?)?;
    let mut buffer = [0_u8; 16];
    let (received, _) = rustix::net::recv(&server, &mut buffer, RecvFlags::empty())?;
    if received != 8 {
        return Err(format!("{received} bytes were received").into());
    }
    report("server", &server)?;
    report("sender", &sender)?;
    Ok(())
}

/// Connects and sends, gives the peer and the port up (`AF_UNSPEC`), connects to
/// another one, gives that up, and binds.
pub(crate) fn reconnect() -> Outcome {
    let peers = [socket(ANY_V4)?, socket(ANY_V4)?];
    let udp = socket(ANY_V4)?;
    for (role, peer) in ["first", "second"].into_iter().zip(&peers) {
        rustix::net::bind(peer, &ANY_V4)?;
        rustix::net::connect(&udp, &address(peer)?)?;
        rustix::net::send(&udp, b"x", SendFlags::empty())?;
        report(role, &udp)?;
        rustix::net::connect_unspec(&udp)?;
        if address(&udp)?.port() != 0 {
            return Err("the kernel did not take the port back".into());
        }
    }
    rustix::net::bind(&udp, &ANY_V4)?;
    report("third", &udp)?;
    Ok(())
}

fn loopback(arguments: &[String]) -> IpAddr {
    if arguments.first().is_some_and(|family| family == "6") {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    }
}
