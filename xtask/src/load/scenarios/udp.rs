//! UDP: ports that change, and datagrams that go to many.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::bail;
use rustix::net::{SendFlags, sockopt};

use super::fact::Fact;
use super::stage::{ANY_V4, address, ip, needs, own_network, receive, udp, udp_at};

/// Three datagrams in one call, which takes the port.
pub(super) fn sendmmsg() -> anyhow::Result<()> {
    let peer = udp_at(ANY_V4)?;
    Fact::bind("peer", &peer)?.bytes(0, 0).tell()?;
    let to = address(&peer)?;
    let socket = udp(ANY_V4)?;
    send_many(&socket, to, 3)?;
    Fact::bind("sender", &socket)?.bytes(12, 0).tell()
}

/// Connects to one peer, then to another. The port stays.
pub(super) fn reconnect() -> anyhow::Result<()> {
    let (one, two) = (udp_at(ANY_V4)?, udp_at(ANY_V4)?);
    let socket = udp(ANY_V4)?;
    for peer in [&one, &two] {
        rustix::net::connect(&socket, &address(peer)?)?;
        rustix::net::send(&socket, b"peer", SendFlags::empty())?;
        receive(peer, 4)?;
    }
    Fact::bind("one", &one)?.bytes(0, 4).tell()?;
    Fact::bind("two", &two)?.bytes(0, 4).tell()?;
    Fact::bind("socket", &socket)?.bytes(8, 0).tell()
}

/// Connects, gives the connection and with it the port up (`AF_UNSPEC`), and
/// takes another port by sending.
pub(super) fn unspec() -> anyhow::Result<()> {
    let peer = udp_at(ANY_V4)?;
    Fact::bind("peer", &peer)?.tell()?;
    let to = address(&peer)?;
    let socket = udp(ANY_V4)?;
    rustix::net::connect(&socket, &to)?;
    rustix::net::send(&socket, b"one", SendFlags::empty())?;
    Fact::bind("first port", &socket)?.tell()?;
    rustix::net::connect_unspec(&socket)?;
    if address(&socket)?.port() != 0 {
        bail!("the port is still there");
    }
    rustix::net::sendto(&socket, b"two", SendFlags::empty(), &to)?;
    Fact::bind("second port", &socket)?.tell()
}

/// Connected, and never sent: only the connect took the port.
pub(super) fn connect_only() -> anyhow::Result<()> {
    let peer = udp_at(ANY_V4)?;
    Fact::bind("peer", &peer)?.bytes(0, 0).tell()?;
    let socket = udp(ANY_V4)?;
    rustix::net::connect(&socket, &address(&peer)?)?;
    Fact::bind("socket", &socket)?.bytes(0, 0).tell()
}

/// A receiver of a multicast group.
pub(super) fn multicast() -> anyhow::Result<()> {
    own_network()?;
    ip(&["route", "add", "239.0.0.0/8", "dev", "lo"])?;
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let receiver = udp_at(SocketAddr::new(group.into(), 0))?;
    sockopt::set_ip_add_membership(&receiver, &group, &Ipv4Addr::LOCALHOST)?;
    let sender = udp_at(ANY_V4)?;
    sockopt::set_ip_multicast_if(&sender, &Ipv4Addr::LOCALHOST)?;
    let to = address(&receiver)?;
    rustix::net::sendto(&sender, b"group", SendFlags::empty(), &to)?;
    receive(&receiver, 5)?;
    Fact::bind("receiver", &receiver)?.bytes(0, 5).tell()?;
    Fact::bind("sender", &sender)?.bytes(5, 0).tell()
}

/// A receiver of broadcasts.
pub(super) fn broadcast() -> anyhow::Result<()> {
    let everybody = Ipv4Addr::new(127, 255, 255, 255);
    let receiver = udp_at(SocketAddr::new(everybody.into(), 0))?;
    let sender = udp(ANY_V4)?;
    sockopt::set_socket_broadcast(&sender, true)?;
    let to = address(&receiver)?;
    rustix::net::sendto(&sender, b"all", SendFlags::empty(), &to)?;
    receive(&receiver, 3)?;
    Fact::bind("receiver", &receiver)?.bytes(0, 3).tell()?;
    Fact::bind("sender", &sender)?.bytes(3, 0).tell()
}

/// UDP-Lite takes ports too; they are not those of UDP.
pub(super) fn lite() -> anyhow::Result<()> {
    // SAFETY: makes a descriptor, which is checked and owned below.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE) };
    let made = match raw {
        -1 => Err(std::io::Error::last_os_error()),
        // SAFETY: it is new and nobody else's.
        raw => Ok(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) }),
    };
    let socket = needs("UDP-Lite", made)?;
    rustix::net::bind(&socket, &ANY_V4)?;
    let mut fact = Fact::bind("lite", &socket)?;
    "udplite".clone_into(&mut fact.protocol);
    fact.tell()
}

/// Sends that many datagrams of four bytes in one call.
fn send_many(socket: &OwnedFd, to: SocketAddr, count: usize) -> anyhow::Result<()> {
    let SocketAddr::V4(to) = to else {
        bail!("not an IPv4 address");
    };
    let mut name = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(to.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    let mut payload = *b"four";
    let mut part = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    let mut messages = vec![
        // SAFETY: all zeroes is a value of `mmsghdr`: no addresses, no buffers.
        unsafe { std::mem::zeroed::<libc::mmsghdr>() };
        count
    ];
    for message in &mut messages {
        message.msg_hdr.msg_name = (&raw mut name).cast();
        message.msg_hdr.msg_namelen = u32::try_from(size_of_val(&name))?;
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: every pointer in the messages is to a local that outlives the call.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            u32::try_from(count)?,
            0,
        )
    };
    if usize::try_from(sent) != Ok(count) {
        bail!("sendmmsg sent {sent} of {count}");
    }
    Ok(())
}
