//! What was found out about a port, and how.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use event::Protocol;

use crate::{Answer, Fault, Status};

/// What was found out about one port of one address.
#[derive(Debug)]
pub struct Verdict {
    /// Who was asked.
    pub address: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
    /// The service that the database names for the port.
    pub service: Option<String>,
    /// What the port is after the plain probe (the original's first line).
    pub first: Status,
    /// What it is in the end.
    pub status: Status,
    /// How that is known.
    pub reason: Reason,
    /// How often it was tried: connections, or datagrams.
    pub attempts: u32,
    /// From the last try to what came back, if something did.
    pub round_trip: Option<Duration>,
    /// The question that was put, by its name.
    pub asked: Option<&'static str>,
    /// What came of it.
    pub answer: Option<Result<Answer, Fault>>,
    /// The question left from another port than the one that was chosen.
    pub ephemeral: bool,
}

/// How a status is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The connection was made.
    SynAck,
    /// The host reset the connection.
    Reset,
    /// A datagram came back.
    Reply,
    /// Nothing came back.
    Silence,
    /// Somebody on the way, or the host, sent an ICMP message.
    Icmp(Icmp),
    /// This machine would not send it: no route, a route that forbids it, its
    /// own packet filter.
    Refused(Refusal),
}

/// An ICMP message (RFC 792, RFC 1812, RFC 4443).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// It is of IPv6 (RFC 4443).
    pub v6: bool,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Who sent it.
    pub from: Option<IpAddr>,
}

/// Why this machine would not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no route to the network (`ENETUNREACH`).
    NoRoute,
    /// The route says unreachable, or no neighbour answers for the address
    /// (`EHOSTUNREACH`).
    HostUnreachable,
    /// A route of the type `prohibit` (`EACCES`).
    Prohibited,
    /// A route of the type `blackhole` (`EINVAL`).
    Blackhole,
    /// The packet filter of this machine (`EPERM`).
    PacketFilter,
}

impl Verdict {
    /// What is known before there is an answer to the question `asked`.
    pub(crate) fn without_answer(&self, asked: &'static str) -> Self {
        Self {
            service: self.service.clone(),
            reason: self.reason.clone(),
            asked: Some(asked),
            answer: None,
            ..*self
        }
    }
}

impl Reason {
    /// What an error of a socket says about the port, if it does.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Reset,
            io::ErrorKind::NetworkUnreachable => Self::Refused(Refusal::NoRoute),
            io::ErrorKind::HostUnreachable => Self::Refused(Refusal::HostUnreachable),
            io::ErrorKind::InvalidInput => Self::Refused(Refusal::Blackhole),
            io::ErrorKind::TimedOut => Self::Silence,
            io::ErrorKind::PermissionDenied => Self::Refused(crate::system::refusal(error)),
            _ => return None,
        })
    }

    /// What the port is, when this is the answer to a plain probe of `asked`.
    pub fn status(&self, protocol: Protocol, asked: IpAddr) -> Status {
        match self {
            Self::SynAck | Self::Reply => Status::Listening,
            Self::Reset => Status::NotListening,
            Self::Silence if protocol == Protocol::Udp => Status::ListeningOrFiltered,
            // TCP answers for itself; that ICMP does so for it is a filter.
            Self::Icmp(icmp)
                if protocol == Protocol::Udp
                    && icmp.is_port_unreachable()
                    && icmp.from.is_none_or(|from| from == asked) =>
            {
                Status::NotListening
            }
            Self::Silence | Self::Icmp(_) | Self::Refused(_) => Status::Filtered,
        }
    }
}

impl Icmp {
    /// Whether it says that nobody listens on the port.
    pub fn is_port_unreachable(self) -> bool {
        (self.v6, self.kind, self.code) == (false, 3, 3)
            || (self.v6, self.kind, self.code) == (true, 1, 4)
    }

    /// What it says.
    pub fn words(self) -> &'static str {
        match (self.v6, self.kind, self.code) {
            (false, 3, 0) => "network unreachable",
            (false, 3, 1) | (true, 1, 3) => "host unreachable",
            (false, 3, 2) => "protocol unreachable",
            (false, 3, 3) | (true, 1, 4) => "port unreachable",
            (false, 3, 5) => "source route failed",
            (false, 3, 6) => "network unknown",
            (false, 3, 7) => "host unknown",
            (false, 3, 9) => "network administratively prohibited",
            (false, 3, 10) => "host administratively prohibited",
            (false, 3, 13) | (true, 1, 1) => "administratively prohibited",
            (true, 1, 0) => "no route",
            (true, 1, 2) => "beyond the scope of the address",
            (true, 1, 5) => "refused by the source address policy",
            (true, 1, 6) => "route rejected",
            (false, 3, 4) | (true, 2, _) => "packet too big",
            (false, 11, _) | (true, 3, _) => "time exceeded on the way",
            (false, 12, _) | (true, 4, _) => "parameter problem",
            _ => "ICMP message",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "no route from here",
            Self::HostUnreachable => "host unreachable from here",
            Self::Prohibited => "prohibited by a route of this machine",
            Self::Blackhole => "blackhole route of this machine",
            Self::PacketFilter => "refused by this machine's own packet filter",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SynAck => f.write_str("connected"),
            Self::Reset => f.write_str("reset"),
            Self::Reply => f.write_str("reply"),
            Self::Silence => f.write_str("no answer"),
            Self::Icmp(icmp) => {
                f.write_str(icmp.words())?;
                if icmp.words() == "ICMP message" {
                    write!(f, " {}/{}", icmp.kind, icmp.code)?;
                }
                match icmp.from {
                    Some(from) => write!(f, " (says {from})"),
                    None => Ok(()),
                }
            }
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}
