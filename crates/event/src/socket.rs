//! What a socket is: protocol, addresses, state.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a socket speaks: a transport protocol with ports, or one of the kinds
/// that have none and by which a process sees or makes packets by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Transmission Control Protocol, RFC 9293.
    Tcp,
    /// User Datagram Protocol, RFC 768.
    Udp,
    /// UDP-Lite, RFC 3828, whose ports are not those of UDP.
    UdpLite,
    /// Whole IP packets of the protocol with this number (1 ICMP, 6 TCP, 255
    /// any, to send only).
    Raw(u16),
    /// Echo requests of ICMP or ICMPv6 and their answers ("ping socket"). Its
    /// port is the identifier.
    Icmp,
    /// Whole frames with this EtherType (3 every frame, 0 none yet).
    Packet(u16),
}

impl Protocol {
    /// The name in PR-EVENTS, such as `tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Raw(_) => "raw",
            Self::Icmp => "icmp",
            Self::Packet(_) => "packet",
        }
    }

    /// The name in the classic files and on a terminal, such as `TCP`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::UdpLite => "UDPLITE",
            Self::Raw(_) => "RAW",
            Self::Icmp => "ICMP",
            Self::Packet(_) => "PACKET",
        }
    }

    /// The protocol of that name, in either case. `number` is the one that
    /// [`Protocol::number`] tells, without which some are not known.
    pub fn from_name(name: &str, number: Option<u16>) -> Option<Self> {
        match name {
            "tcp" | "TCP" => Some(Self::Tcp),
            "udp" | "UDP" => Some(Self::Udp),
            "udplite" | "UDPLITE" => Some(Self::UdpLite),
            "raw" | "RAW" => number.map(Self::Raw),
            "icmp" | "ICMP" => Some(Self::Icmp),
            "packet" | "PACKET" => number.map(Self::Packet),
            _ => None,
        }
    }

    /// The IP protocol or the EtherType of a socket that takes whole packets.
    pub fn number(self) -> Option<u16> {
        match self {
            Self::Raw(number) | Self::Packet(number) => Some(number),
            Self::Tcp | Self::Udp | Self::UdpLite | Self::Icmp => None,
        }
    }

    /// Is it TCP or UDP, the two that the classic files and their readers know?
    pub fn is_classic(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// The address family as it shows on the wire: a v4-mapped IPv6 address is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Internet Protocol version 4.
    Ipv4,
    /// Internet Protocol version 6.
    Ipv6,
}

impl Family {
    /// The name in PR-EVENTS: `ipv4` or `ipv6`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// A connection's state, by the names of RFC 9293 §3.3.2 (`LISTENING` is the
/// original tools' word for LISTEN).
///
/// The discriminants are Linux's (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// The connection is open.
    Established = 1,
    /// A SYN was sent.
    SynSent = 2,
    /// A SYN arrived and was answered.
    SynReceived = 3,
    /// Closed on this side, the FIN is not yet acknowledged.
    FinWait1 = 4,
    /// Closed on this side, waiting for the peer's FIN.
    FinWait2 = 5,
    /// Both sides are closed; waiting for stray segments to die.
    TimeWait = 6,
    /// No connection.
    Closed = 7,
    /// The peer closed; this side has not.
    CloseWait = 8,
    /// The peer closed, then this side; its FIN is not yet acknowledged.
    LastAck = 9,
    /// Waiting for connections.
    Listening = 10,
    /// Both sides closed at once.
    Closing = 11,
}

impl TcpState {
    /// Every state, in the order in which the classic files count them (that
    /// of the TCP MIB, RFC 4022 `tcpConnectionState`).
    pub const ALL: [Self; 11] = [
        Self::Closed,
        Self::Listening,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::LastAck,
        Self::Closing,
        Self::TimeWait,
    ];

    /// The state that Linux numbers so (`include/net/tcp_states.h`).
    /// `TCP_NEW_SYN_RECV` (12), a request that has no socket yet, is
    /// [`TcpState::SynReceived`] too.
    pub fn from_linux(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listening,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// The name in PR-EVENTS, with underscores: `FIN_WAIT_1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECEIVED",
            Self::FinWait1 => "FIN_WAIT_1",
            Self::FinWait2 => "FIN_WAIT_2",
            Self::TimeWait => "TIME_WAIT",
            Self::Closed => "CLOSED",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listening => "LISTENING",
            Self::Closing => "CLOSING",
        }
    }

    /// The name in the classic files, with spaces: `FIN WAIT 1`.
    pub fn label(self) -> &'static str {
        match self {
            Self::SynSent => "SYN SENT",
            Self::SynReceived => "SYN RECEIVED",
            Self::FinWait1 => "FIN WAIT 1",
            Self::FinWait2 => "FIN WAIT 2",
            Self::TimeWait => "TIME WAIT",
            Self::CloseWait => "CLOSE WAIT",
            Self::LastAck => "LAST ACK",
            Self::Established | Self::Closed | Self::Listening | Self::Closing => self.name(),
        }
    }

    /// The state of that name: case does not matter, and a space, a hyphen and
    /// an underscore are one. `LISTEN` is accepted for `LISTENING`.
    pub fn from_name(name: &str) -> Option<Self> {
        let wanted: String = name
            .chars()
            .map(|c| {
                if c == ' ' || c == '-' {
                    '_'
                } else {
                    c.to_ascii_uppercase()
                }
            })
            .collect();
        if wanted == "LISTEN" {
            return Some(Self::Listening);
        }
        Self::ALL.into_iter().find(|state| state.name() == wanted)
    }
}

/// The kernel's number for a socket, unique until the machine restarts
/// (`SO_COOKIE`, `sock_gen_cookie`). Written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; never a v4-mapped one if made by [`Endpoint::new`].
    pub ip: IpAddr,
    /// The port, in host byte order.
    pub port: u16,
}

impl Endpoint {
    /// Joins an address and a port; a v4-mapped address becomes IPv4.
    pub fn new(ip: IpAddr, port: u16) -> Self {
        Self {
            ip: ip.to_canonical(),
            port,
        }
    }

    /// The family of the address.
    pub fn family(self) -> Family {
        match self.ip {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// A socket that uses a port, or takes packets without one, as it was at one
/// moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The kernel's number for it; none in engines that cannot learn it.
    pub cookie: Option<Cookie>,
    /// The inode number of its network namespace, as in `/proc/PID/ns/net`.
    pub netns: Option<u32>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its own address and port. Port 0: the kernel has not chosen yet, or there
    /// is none. A [`Protocol::Packet`] has no address either; it stands as
    /// `0.0.0.0`.
    pub local: Endpoint,
    /// The peer; none for a listener and for a UDP socket that is not connected.
    pub remote: Option<Endpoint>,
    /// The TCP state; none for what is not TCP.
    pub state: Option<TcpState>,
}

impl Socket {
    /// The family on the wire: the peer's where there is one (a dual-stack
    /// socket may be bound to `::` and talk IPv4), else the local address's.
    pub fn family(&self) -> Family {
        self.remote.unwrap_or(self.local).family()
    }

    /// Is this a TCP listener?
    pub fn is_listener(&self) -> bool {
        self.state == Some(TcpState::Listening)
    }

    /// The unspecified address (`0.0.0.0` or `::`) of this socket's family.
    pub fn unspecified(&self) -> IpAddr {
        match self.family() {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_ipv4() {
        let mapped = Endpoint::new("::ffff:192.0.2.1".parse().unwrap(), 80);
        assert_eq!(mapped.to_string(), "192.0.2.1:80");
        assert_eq!(mapped.family(), Family::Ipv4);
    }

    #[test]
    fn every_protocol_is_found_by_its_names_and_its_number() {
        for protocol in [
            Protocol::Tcp,
            Protocol::Udp,
            Protocol::UdpLite,
            Protocol::Raw(255),
            Protocol::Icmp,
            Protocol::Packet(3),
        ] {
            let number = protocol.number();
            for name in [protocol.name(), protocol.label()] {
                assert_eq!(Protocol::from_name(name, number), Some(protocol));
            }
        }
        assert_eq!(Protocol::from_name("raw", None), None);
        assert_eq!(Protocol::from_name("sctp", None), None);
    }

    #[test]
    fn every_state_is_found_by_its_names_and_its_number() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_name(state.name()), Some(state));
            assert_eq!(
                TcpState::from_name(&state.label().to_lowercase()),
                Some(state)
            );
            assert_eq!(TcpState::from_linux(state as u8), Some(state));
        }
        assert_eq!(TcpState::from_linux(0), None);
        assert_eq!(TcpState::from_linux(13), None);
    }
}
