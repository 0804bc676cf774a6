//! Proves that the hooks fire, with sockets and a process of our own.
//!
//! A hook that attaches without an error may still never be called (a kernel
//! that moved the function, a control group outside the hierarchy). So each
//! path is walked once: listen, connect, accept and close over TCP; bind, send
//! and connect over UDP; both families; a program run. The kernel side marks
//! each hook that ran, and keeps silent about our own sockets meanwhile.
//!
//! A packet filter may drop what this machine sends to itself. Then a path ends
//! early and the others are walked all the same; nothing is waited for without
//! a limit, for nothing is recorded before all this is over.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// How long a connection to ourselves may take: a SYN that a busy machine drops
/// is sent again after one second and after three.
const PATIENCE: Duration = Duration::from_secs(5);

/// Walks every path once. A machine without IPv6 walks those of IPv4 only.
pub(super) fn exercise() -> io::Result<()> {
    let walked = [
        tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        process(),
    ];
    // IPv6 may be switched off; its hooks then have nothing to report.
    let _ = tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    let _ = udp(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    walked.into_iter().collect()
}

/// Makes a packet socket that takes no packets. Who may trace need not be
/// permitted to do that.
pub(super) fn packet() -> bool {
    socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .is_ok()
}

/// Is IPv6 there to be proved?
pub(super) fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn tcp(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    // It may be there a moment later.
    let patience = Timespec::try_from(PATIENCE).ok();
    poll(
        &mut [PollFd::new(&listener, PollFlags::IN)],
        patience.as_ref(),
    )?;
    listener.set_nonblocking(true)?;
    let (server, _) = listener.accept()?;
    drop(client);
    drop(server);
    Ok(())
}

fn udp(address: SocketAddr) -> io::Result<()> {
    let receiver = UdpSocket::bind(address)?;
    let to = receiver.local_addr()?;
    let sender = UdpSocket::bind(address)?;
    sender.send_to(b"", to)?;
    let connected = UdpSocket::bind(address)?;
    connected.connect(to)
}

/// A fork, an exec and an exit, with the smallest program that every system
/// has. A host without it leaves those hooks unproved.
fn process() -> io::Result<()> {
    std::process::Command::new("/bin/true")
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .map(drop)
}
