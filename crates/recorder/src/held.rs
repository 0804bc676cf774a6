//! Lines that wait, because something about them is known only a moment later.
//!
//! *The port* of a socket that connects or listens without having been bound:
//! the kernel chooses it just after it says so. What it says next about the
//! socket has it; if it says nothing (nobody answers the SYN), it is asked.
//!
//! *The number* of a packet socket that is about to be made, where the kernel
//! side can tell no more. A look finds it with its holder, or it is gone
//! already.
//!
//! *The process* of a connection that came in. A connection is established
//! before anybody accepts it; until then only its listener's owner is known,
//! which need not be the process that will serve it. Its lines wait a moment for
//! the accept; they are written as soon as that or its close is seen. When the
//! moment is over, who holds it by then is looked up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use event::{Action, Attribution, Protocol};
use sensor::SocketObservation;

use crate::table::SocketKey;

/// How long lines wait.
const PATIENCE: Duration = Duration::from_millis(250);

/// Does this have to wait for a port?
pub(crate) fn needs_port(seen: &SocketObservation) -> bool {
    seen.socket.local.port == 0 && matches!(seen.action, Action::Connect | Action::Listen)
}

/// Do these lines wait for a port?
pub(crate) fn lacks_port(held: &[SocketObservation]) -> bool {
    held.first().is_some_and(needs_port)
}

/// Does this have to wait for the socket's number? Engines that only look have
/// none, and never see who made it.
pub(crate) fn needs_number(seen: &SocketObservation) -> bool {
    seen.socket.cookie.is_none()
        && seen.attribution == Attribution::Creator
        && matches!(seen.socket.protocol, Protocol::Packet(_))
}

/// Do these lines wait for the socket's number?
pub(crate) fn lacks_number(held: &[SocketObservation]) -> bool {
    held.first().is_some_and(needs_number)
}

/// Does this have to wait for the process that accepts?
pub(crate) fn needs_process(seen: &SocketObservation) -> bool {
    let is_open = matches!(
        seen.attribution,
        Attribution::Inherited | Attribution::Unknown
    );
    seen.action == Action::Accept && is_open
}

/// Do these lines wait for the process that accepts?
pub(crate) fn lacks_process(held: &[SocketObservation]) -> bool {
    held.first().is_some_and(needs_process)
}

/// The port is known.
pub(crate) fn set_port(held: &mut [SocketObservation], port: u16) {
    for seen in held {
        seen.socket.local.port = port;
    }
}

/// The sockets whose lines wait, the oldest first. Some may have been released
/// since.
#[derive(Debug, Default)]
pub(crate) struct Held(VecDeque<(SocketKey, Instant)>);

impl Held {
    pub(crate) fn push(&mut self, key: SocketKey, now: Instant) {
        self.0.push_back((key, now + PATIENCE));
    }

    /// One whose time is over.
    pub(crate) fn due(&mut self, now: Instant) -> Option<SocketKey> {
        self.0
            .pop_front_if(|(_, until)| *until <= now)
            .map(|(key, _)| key)
    }

    /// Any one.
    pub(crate) fn any(&mut self) -> Option<SocketKey> {
        self.0.pop_front().map(|(key, _)| key)
    }

    /// How long to sleep at most, so as not to miss the next.
    pub(crate) fn wait(&self, longest: Duration) -> Duration {
        match self.0.front() {
            Some((_, until)) => longest.min(until.saturating_duration_since(Instant::now())),
            None => longest,
        }
    }
}
