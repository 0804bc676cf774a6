//! Why a question has no answer.

use std::io;
use std::time::Duration;

use event::Protocol;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The other side said nothing at all in the time it was given.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The other side said something, but did not come to an end in time.
    #[error("the answer was not complete within {0:?}")]
    Slow(Duration),
    /// The other side closed the connection before its answer was complete.
    #[error("the connection was closed before the answer was complete")]
    Closed,
    /// The other side sent more than a question is ready to hold.
    #[error("the answer is longer than {0} bytes")]
    Long(usize),
    /// The answer is not of this protocol, or breaks its rules.
    #[error("the answer is malformed: {what} (at byte {at})")]
    Malformed {
        /// What is wrong, or what was expected and is missing.
        what: &'static str,
        /// Where in the message.
        at: usize,
    },
    /// The question is not asked over this protocol.
    #[error("not asked over {0:?}")]
    Unasked(Protocol),
    /// The question was held back, for this reason: it could do harm.
    #[error("not asked: {0}")]
    Withheld(&'static str),
    /// The system refused to send or receive: the port was reset or became
    /// unreachable, or a fault of this machine.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Fault {
    /// Whether something arrived that must have come from a listener.
    pub fn proves_listener(&self) -> bool {
        match self {
            Self::Slow(_) | Self::Closed | Self::Long(_) | Self::Malformed { .. } => true,
            Self::Silent(_) | Self::Unasked(_) | Self::Withheld(_) | Self::Io(_) => false,
        }
    }
}
