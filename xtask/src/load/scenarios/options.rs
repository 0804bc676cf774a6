//! Socket options that change who a socket is: its device, its address, its
//! port, its family.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::ensure;
use rustix::net::sockopt;

use super::fact::Fact;
use super::stage::{
    ANY_V4, Pair, accepted, address, connected, ip, listener, own_network, read_to_the_end, tcp,
    udp,
};
use super::transfer::set_option;

/// Sockets tied to an interface.
pub(super) fn bind_to_device() -> anyhow::Result<()> {
    own_network()?;
    let listener = tcp(ANY_V4)?;
    tie(&listener)?;
    rustix::net::bind(&listener, &any_address())?;
    rustix::net::listen(&listener, 16)?;
    Fact::listen("listener", &listener)?.tell()?;
    let port = address(&listener)?.port();
    let client = tcp(ANY_V4)?;
    tie(&client)?;
    rustix::net::connect(&client, &SocketAddr::new(ANY_V4.ip(), port))?;
    let server = accepted(&listener)?;
    Fact::connect("client", &client)?.tell()?;
    Fact::accept("server", &server)?.tell()?;
    let datagrams = udp(ANY_V4)?;
    tie(&datagrams)?;
    rustix::net::bind(&datagrams, &any_address())?;
    Fact::bind("udp", &datagrams)?.tell()?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}

/// A listener at an address that is not this machine's, which gets
/// connections to it nevertheless.
pub(super) fn transparent() -> anyhow::Result<()> {
    own_network()?;
    ip(&["route", "add", "local", "203.0.113.0/24", "dev", "lo"])?;
    let at: SocketAddr = "203.0.113.7:4747".parse()?;
    let listener = tcp(at)?;
    set_option(&listener, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)?;
    rustix::net::bind(&listener, &at)?;
    rustix::net::listen(&listener, 16)?;
    let client = tcp(at)?;
    set_option(&client, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)?;
    rustix::net::bind(&client, &"203.0.113.8:4848".parse::<SocketAddr>()?)?;
    rustix::net::connect(&client, &at)?;
    let server = accepted(&listener)?;
    let pair = Pair {
        listener,
        client,
        server,
    };
    pair.tell(0, 0)?;
    pair.close()
}

/// Bound to an address that nobody has.
pub(super) fn free_bind() -> anyhow::Result<()> {
    let at: SocketAddr = "203.0.113.9:0".parse()?;
    let listener = tcp(at)?;
    sockopt::set_ip_freebind(&listener, true)?;
    rustix::net::bind(&listener, &at)?;
    rustix::net::listen(&listener, 16)?;
    Fact::listen("listener", &listener)?.tell()?;
    let datagrams = udp(at)?;
    sockopt::set_ip_freebind(&datagrams, true)?;
    rustix::net::bind(&datagrams, &at)?;
    Fact::bind("udp", &datagrams)?.tell()
}

/// Bound to an address; the port is taken no earlier than by the connect.
pub(super) fn late_port() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    let client = tcp(ANY_V4)?;
    set_option(&client, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    rustix::net::bind(
        &client,
        &SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), 0),
    )?;
    ensure!(address(&client)?.port() == 0, "the port is there already");
    rustix::net::connect(&client, &address(&listener)?)?;
    let server = accepted(&listener)?;
    let pair = Pair {
        listener,
        client,
        server,
    };
    pair.tell(0, 0)?;
    pair.close()
}

/// Two listeners and two UDP sockets on one port, one for each family.
pub(super) fn v6_only() -> anyhow::Result<()> {
    own_network()?;
    let six = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 4747);
    let four = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 4747);
    let mut kept = Vec::new();
    for at in [six, four] {
        let (stream, datagrams) = (tcp(at)?, udp(at)?);
        if at.is_ipv6() {
            sockopt::set_ipv6_v6only(&stream, true)?;
            sockopt::set_ipv6_v6only(&datagrams, true)?;
        }
        rustix::net::bind(&stream, &at)?;
        rustix::net::listen(&stream, 16)?;
        rustix::net::bind(&datagrams, &at)?;
        let family = if at.is_ipv6() { "v6" } else { "v4" };
        Fact::listen(&format!("{family} listener"), &stream)?.tell()?;
        Fact::bind(&format!("{family} udp"), &datagrams)?.tell()?;
        kept.push((stream, datagrams));
    }
    for to in ["[::1]:4747", "127.0.0.1:4747"] {
        let to: SocketAddr = to.parse()?;
        let client = connected(to)?;
        let server = accepted(&kept[usize::from(to.is_ipv4())].0)?;
        let family = if to.is_ipv6() { "v6" } else { "v4" };
        Fact::connect(&format!("{family} client"), &client)?.tell()?;
        Fact::accept(&format!("{family} server"), &server)?.tell()?;
        drop(client);
        read_to_the_end(&server)?;
    }
    Ok(())
}

/// An IPv6 socket becomes an IPv4 one (`IPV6_ADDRFORM`) in mid-life.
pub(super) fn changed_family() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let SocketAddr::V4(to) = address(&listener)? else {
        anyhow::bail!("not an IPv4 address");
    };
    let mapped = SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port());
    let client = connected(mapped)?;
    let server = accepted(&listener)?;
    set_option(
        &client,
        libc::IPPROTO_IPV6,
        libc::IPV6_ADDRFORM,
        libc::AF_INET,
    )?;
    Fact::connect("client", &client)?.tell()?;
    Fact::accept("server", &server)?.tell()?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}

fn any_address() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
}

fn tie(socket: &std::os::fd::OwnedFd) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd as _;

    let name = b"lo";
    // SAFETY: the name outlives the call, which reads as many bytes as it has.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            u32::try_from(name.len())?,
        )
    };
    ensure!(code == 0, std::io::Error::last_os_error());
    Ok(())
}
