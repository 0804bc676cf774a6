//! What a watcher said about a socket, in one form for all watchers.
//!
//! Nothing here is cleverer than the watcher: what it did not say is none.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::load::scenarios::fact::{End, Kind};

/// One thing that a watcher said about one socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Sighting {
    /// When, in microseconds since 1970: its own time, or else when it said so.
    pub(super) at: i64,
    /// The kernel's number for the socket.
    pub(super) cookie: Option<u64>,
    /// The network namespace.
    pub(super) netns: Option<u64>,
    /// `tcp`, `udp` …
    pub(super) protocol: String,
    /// What happened.
    pub(super) what: What,
    /// The socket's own end.
    pub(super) local: Option<SocketAddr>,
    /// The other end.
    pub(super) remote: Option<SocketAddr>,
    /// Whose it is.
    pub(super) pid: Option<u32>,
    /// That process's executable.
    pub(super) exe: Option<String>,
    /// That process's user.
    pub(super) uid: Option<u32>,
    /// That process's container.
    pub(super) container: Option<String>,
    /// Payload out.
    pub(super) sent: Option<u64>,
    /// Payload in.
    pub(super) received: Option<u64>,
}

/// What happened to a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum What {
    /// It came into use, and how.
    Opened(Kind),
    /// It is in use; how it came to that is not said.
    #[default]
    Found,
    /// It is gone, and why if that is said.
    Closed(Option<End>),
}

/// What is left when a watcher has ended.
pub(super) struct Watched {
    /// Everything that it said, in that order.
    pub(super) sightings: Vec<Sighting>,
    /// What it says that it lost; none if it does not count.
    pub(super) lost: Option<u64>,
    /// Its processor time.
    pub(super) cpu: Duration,
    /// The most memory that it had, in bytes; none if nobody could look.
    pub(super) peak: Option<u64>,
    /// What in its record contradicts itself.
    pub(super) contradictions: Vec<String>,
}

/// The same end, whatever its notation: v4-mapped addresses are IPv4, a scope
/// is not part of an address.
pub(super) fn same_end(one: SocketAddr, other: SocketAddr) -> bool {
    plain(one) == plain(other)
}

/// An address and a port without what notation adds.
pub(super) fn plain(end: SocketAddr) -> (IpAddr, u16) {
    (end.ip().to_canonical(), end.port())
}
