//! What happens to a socket.

use crate::socket::{Protocol, TcpState};

/// One thing that happened to a socket. [`Action::name`] is the `event` of
/// PR-EVENTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An inbound connection was established.
    Accept,
    /// A UDP port was taken, explicitly or by the first send; or a socket was
    /// made that takes packets without a port.
    Bind,
    /// The socket is gone.
    Close {
        /// Why.
        reason: CloseReason,
        /// Payload bytes sent, without retransmissions; none if not counted.
        bytes_sent: Option<u64>,
        /// Payload bytes received; none if not counted.
        bytes_received: Option<u64>,
        /// Microseconds since the socket came into use.
        duration_us: Option<u64>,
    },
    /// A SYN was sent.
    Connect,
    /// Reconciliation found a socket that had been missed.
    Discover,
    /// An outbound connection is up.
    Established {
        /// Microseconds from the SYN to the connection.
        connect_us: Option<u64>,
    },
    /// A TCP socket listens.
    Listen,
    /// A socket in use when a log set was opened.
    Snapshot,
    /// Any other change of the TCP state.
    State {
        /// The state before it.
        old: TcpState,
    },
    /// Reconciliation no longer finds a socket.
    Vanish,
}

impl Action {
    /// The value of `event` in PR-EVENTS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Bind => "bind",
            Self::Close { .. } => "close",
            Self::Connect => "connect",
            Self::Discover => "discover",
            Self::Established { .. } => "established",
            Self::Listen => "listen",
            Self::Snapshot => "snapshot",
            Self::State { .. } => "state",
            Self::Vanish => "vanish",
        }
    }

    /// Does a port come into use with this?
    pub fn opens_port(self) -> bool {
        matches!(
            self,
            Self::Accept | Self::Bind | Self::Connect | Self::Listen
        )
    }

    /// Does it have a row in PR-PORTS? A port that comes into use has, also if
    /// that is only noticed later, if it is one of TCP or UDP.
    pub fn has_row(self, protocol: Protocol) -> bool {
        protocol.is_classic() && (self.opens_port() || self == Self::Discover)
    }

    /// Is the socket gone after this?
    pub fn ends_socket(self) -> bool {
        matches!(self, Self::Close { .. } | Self::Vanish)
    }
}

/// Why a socket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// By its process, in order.
    Closed,
    /// The peer refused the connection (RST to the SYN).
    Refused,
    /// A reset ended it, sent by either side.
    Reset,
    /// The peer did not answer in time.
    Timeout,
    /// Not known, or an error of another kind (such as host unreachable).
    Unknown,
}

impl CloseReason {
    /// The value of `reason` in PR-EVENTS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }

    /// The reason of that name in PR-EVENTS.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Closed,
            Self::Refused,
            Self::Reset,
            Self::Timeout,
            Self::Unknown,
        ]
        .into_iter()
        .find(|reason| reason.name() == name)
    }
}
