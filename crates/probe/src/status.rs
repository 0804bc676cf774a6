//! The four words of the original for what a port is.

use std::fmt;

use serde::Serialize;

/// What is known of a port after it was asked (KB 310099, KB 832919).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Status {
    /// Something on the port answered.
    #[serde(rename = "LISTENING")]
    Listening,
    /// The host itself said that nothing is there: a TCP reset, or ICMP port
    /// unreachable from the address that was asked.
    #[serde(rename = "NOT LISTENING")]
    NotListening,
    /// Nothing came back, or something on the way said that it may not pass.
    #[serde(rename = "FILTERED")]
    Filtered,
    /// UDP only: nothing came back, which is what a listener that has nothing
    /// to say and a filter have in common.
    #[serde(rename = "LISTENING or FILTERED")]
    ListeningOrFiltered,
}

impl Status {
    /// The exit code that the original gives for it: 0, 1 or 2.
    pub fn code(self) -> u8 {
        match self {
            Self::Listening => 0,
            Self::NotListening => 1,
            Self::Filtered | Self::ListeningOrFiltered => 2,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Listening => "LISTENING",
            Self::NotListening => "NOT LISTENING",
            Self::Filtered => "FILTERED",
            Self::ListeningOrFiltered => "LISTENING or FILTERED",
        })
    }
}
