//! A socket that asks about one port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use event::Protocol;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind, connect,
    connect_unspec, getpeername, getsockname, ipproto, recv, send, socket_with, sockopt,
};

use super::icmp;

/// A connected or connecting socket that does not wait.
pub(crate) struct ProbeSocket(OwnedFd);

/// How far a connection got at once.
pub(crate) enum Begun {
    /// It is on its way.
    Waiting(ProbeSocket),
    /// It is connected (always, with UDP).
    Connected(ProbeSocket),
    /// It failed, and this says the socket of it.
    Failed(ProbeSocket, io::Error),
}

impl ProbeSocket {
    /// Begins to connect to `address`, from the port `source` if one is given.
    /// An error is one of this machine: no descriptor, no free port, the source
    /// port is taken.
    pub(crate) fn begin(
        address: SocketAddr,
        protocol: Protocol,
        source: Option<u16>,
    ) -> io::Result<Begun> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let (kind, number) = match protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            // It is asked of no others.
            _ => (SocketType::DGRAM, ipproto::UDP),
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = Self(socket_with(family, kind, flags, Some(number))?);
        icmp::listen(&socket.0, address.is_ipv4())?;
        if let Some(port) = source {
            // Several addresses may be asked from the same port.
            sockopt::set_socket_reuseaddr(&socket.0, protocol == Protocol::Tcp)?;
            let any: SocketAddr = if address.is_ipv4() {
                (Ipv4Addr::UNSPECIFIED, port).into()
            } else {
                (Ipv6Addr::UNSPECIFIED, port).into()
            };
            bind(&socket.0, &any)?;
        }
        match connect(&socket.0, &address) {
            Ok(()) => Ok(Begun::Connected(socket)),
            // Over loopback the answer has come already.
            Err(Errno::INPROGRESS) => Ok(match socket.outcome() {
                Ok(()) => Begun::Waiting(socket),
                Err(error) => Begun::Failed(socket, error),
            }),
            Err(
                errno @ (Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::NOBUFS | Errno::NOMEM),
            ) => Err(errno.into()),
            Err(errno) => Ok(Begun::Failed(socket, errno.into())),
        }
    }

    /// How the connection went; taking it clears it.
    pub(crate) fn outcome(&self) -> io::Result<()> {
        match sockopt::socket_error(&self.0)? {
            Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the connection is made.
    pub(crate) fn is_connected(&self) -> bool {
        getpeername(&self.0).is_ok()
    }

    /// Whether the socket is connected to itself: over loopback a port chosen
    /// from the ephemeral range can be the very one that is asked about (RFC
    /// 9293 section 3.5, simultaneous open).
    pub(crate) fn is_own_peer(&self) -> bool {
        let address = |any: SocketAddrAny| SocketAddr::try_from(any).ok();
        let own = getsockname(&self.0).ok().and_then(address);
        let peer = getpeername(&self.0).ok().flatten().and_then(address);
        own.is_some() && own == peer
    }

    /// Has the connection reset when it is closed, which leaves no `TIME_WAIT`
    /// behind.
    pub(crate) fn reset_at_close(&self) {
        // Where that is refused it is closed as usual.
        let _ = sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
    }

    /// Sends a datagram.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        send(&self.0, datagram, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Whether a datagram is there; an error is what the socket was told.
    pub(crate) fn receive(&self) -> io::Result<bool> {
        let mut buffer = [0; 1];
        match recv(&self.0, &mut buffer, RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// As a stream that waits.
    pub(crate) fn into_stream(self) -> io::Result<TcpStream> {
        let stream = TcpStream::from(self.0);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// As a datagram socket that waits.
    pub(crate) fn into_datagrams(self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::from(self.0);
        socket.set_nonblocking(false)?;
        Ok(socket)
    }
}

impl AsFd for ProbeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets a connected datagram socket hear from everybody. If it was bound to a
/// port it keeps that, and ICMP messages about what it sends still reach it.
pub(crate) fn disconnect(socket: impl AsFd) -> io::Result<()> {
    Ok(connect_unspec(socket)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn connected(address: SocketAddr) -> UdpSocket {
        match ProbeSocket::begin(address, Protocol::Udp, None).unwrap() {
            Begun::Connected(socket) => socket.into_datagrams().unwrap(),
            _ => panic!("UDP connects at once"),
        }
    }

    #[test]
    fn a_disconnected_socket_hears_other_ports() {
        let asked = UdpSocket::bind("127.0.0.1:0").unwrap();
        let answering = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = asked.local_addr().unwrap();
        let socket = connected(address);
        disconnect(&socket).unwrap();
        socket.send_to(b"question", address).unwrap();
        let (_, client) = asked.recv_from(&mut [0; 8]).unwrap();
        answering.send_to(b"answer", client).unwrap();
        let (length, sender) = socket.recv_from(&mut [0; 8]).unwrap();
        assert_eq!((length, sender), (6, answering.local_addr().unwrap()));
    }

    #[test]
    fn a_disconnected_socket_still_hears_of_icmp() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let socket = connected(address);
        disconnect(&socket).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        socket.send_to(b"question", address).unwrap();
        let error = socket.recv_from(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(icmp::last_message(&socket).is_some());
    }
}
