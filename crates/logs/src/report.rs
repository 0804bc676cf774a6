//! What a [`Logs`] tells its caller.
//!
//! Nothing here is a failure of a call ([`crate::Error`] is): these are things
//! that happened on the way, for the status line and the application events.

use std::fmt;
use std::path::PathBuf;

use crate::error::Error;
use crate::roll::RollReason;
use crate::stamp::Stamp;
#[cfg(doc)]
use crate::writer::Logs;

/// A set that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOpened {
    /// Its stamp.
    pub stamp: Stamp,
    /// Why.
    pub reason: RollReason,
    /// The set before it.
    pub previous: Option<Stamp>,
    /// The hash of the whole PR-EVENTS of that set.
    pub previous_sha256: Option<String>,
}

/// Something that the administrator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An earlier run did not close its last set. What it wrote is kept.
    Recovered {
        /// The set.
        set: Stamp,
        /// So many bytes of a line that was not finished were cut off.
        torn_bytes: u64,
    },
    /// Retention removed a set.
    Removed {
        /// The set.
        set: Stamp,
        /// The bytes of its files.
        bytes: u64,
    },
    /// Retention cannot remove a set. Said once for each.
    NotRemoved {
        /// The set.
        set: Stamp,
        /// The system's answer.
        error: String,
    },
    /// A closed file stays as it is.
    NotCompressed {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: String,
    },
    /// Writing fails. Recording goes on in memory. Said once until it works.
    WriteFailed {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: String,
    },
    /// Writing works again.
    WriteWorks {
        /// How many events were lost, all inside a `gap`.
        lost: u64,
        /// How many rows of PR-PORTS and entries of PR-PIDS are missing there.
        rows_lost: u64,
    },
    /// Somebody deleted or moved what is being written. A new set is due.
    Gone {
        /// The file or the directory.
        path: PathBuf,
        /// Deleted: what was written is gone, too. Else it is elsewhere.
        deleted: bool,
    },
    /// The end of the recording could not be written.
    Unfinished {
        /// The set.
        set: Stamp,
        /// How many events are not in its PR-EVENTS.
        events: u64,
        /// How many rows and entries are not in its PR-PORTS and PR-PIDS.
        rows: u64,
        /// Why.
        error: String,
    },
}

/// Whether something was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is in PR-EVENTS or waits to be.
    Kept,
    /// It is lost, and counted in the next `gap`.
    Dropped,
}

/// What was written from [`Logs::open`] to [`Logs::close`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many sets; without those that somebody deleted or moved meanwhile.
    pub sets: u64,
    /// How many lines of PR-EVENTS are in them.
    pub lines: u64,
    /// How many bytes, before compression.
    pub bytes: u64,
    /// How many sets somebody deleted or moved away while they were written or
    /// together with the directory.
    pub gone: u64,
    /// How many events were lost because they could not be written.
    pub lost: u64,
    /// What was not told yet.
    pub notices: Vec<Notice>,
}

/// The end of a recording that could not be written: the disk is full, or what
/// was being written is gone.
#[derive(Debug)]
pub struct Unfinished {
    /// What was written all the same.
    pub summary: Summary,
    /// The last set.
    pub set: Stamp,
    /// How many events were taken as [`Written::Kept`] and are lost after all.
    /// The next run declares a `gap` for them.
    pub events: u64,
    /// How many rows of PR-PORTS and entries of PR-PIDS are lost.
    pub rows: u64,
    /// Why.
    pub error: Error,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            set, events, rows, ..
        } = self;
        match (events, rows) {
            (0, 0) => write!(
                f,
                "the log set {set} holds every event but could not be closed"
            ),
            _ => write!(
                f,
                "{events} events and {rows} rows of the classic files are missing at the end of \
                 the log set {set}, and lost; the next recording there will mark the gap"
            ),
        }
    }
}

impl std::error::Error for Unfinished {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
