//! What probing needs of Linux: sockets that do not wait, many of them at once,
//! and the ICMP messages that concern them.

mod icmp;
mod name;
mod poller;
mod socket;

use std::io;
use std::path::PathBuf;

pub(crate) use self::icmp::last_message;
pub(crate) use self::poller::Poller;
pub(crate) use self::socket::{Begun, ProbeSocket, disconnect};
use crate::verdict::Refusal;

/// Where the services database is.
pub fn default_services() -> PathBuf {
    PathBuf::from("/etc/services")
}

/// Which refusal a "permission denied" is.
pub(crate) fn refusal(error: &io::Error) -> Refusal {
    if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) {
        Refusal::PacketFilter
    } else {
        Refusal::Prohibited
    }
}

/// How many sockets may be open at once, leaving some for everything else: of
/// few, half.
pub(crate) fn sockets_at_once() -> usize {
    const OTHERS: u64 = 64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = limit.current.unwrap_or(u64::MAX);
    let room = limit - OTHERS.min(limit / 2);
    usize::try_from(room).unwrap_or(usize::MAX).max(1)
}

/// The name of an address, as the system's resolver knows it (`getnameinfo`);
/// none if it would only give the number back.
pub(crate) fn name_of(address: std::net::SocketAddr) -> Option<String> {
    name::name_of(address)
}

/// Whether the system lacks something that becomes free when other sockets are
/// closed.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
