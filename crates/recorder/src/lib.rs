//! From sensor to log sets: what happened, by whom, and what is missing.
//!
//! Three threads. The *capture* thread empties the kernel's buffer into a bounded
//! queue and does nothing else. The *recorder* thread keeps the table of
//! sockets and the table of processes, joins the two, and writes. The *look*
//! thread asks the kernel for its table of sockets now and then. No lock is
//! shared and nothing is asynchronous; when the disk blocks, the queue fills,
//! then the kernel's buffer, then events are lost in the kernel, numbered, and
//! declared in the log as a gap.
//!
//! **Subscribe, snapshot, then events.** The sensor is attached before the
//! snapshot is taken. What happened in between is in both: the snapshot makes
//! the table, and the events are written on top of it as they come, so the
//! first lines after the snapshot may be a few milliseconds older than it.
//!
//! **The ledger** ([`ledger`]) proves what is missing. Each socket observation
//! becomes exactly one line of PR-EVENTS, so that at every `counters` line
//! `kernel = written + lost`.
//!
//! **The sink** ([`Sink`]) is where it goes: log sets, or the terminal of somebody
//! who watches.
//!
//! What this crate does not do: it knows no file format (`logs`), no kernel
//! interface (`sensor`), no `/proc` (`identity`), and prints nothing; what the
//! administrator should hear of goes to [`Events`].

mod capture;
mod clock;
mod end;
mod errno;
mod held;
mod ledger;
mod lookout;
mod pids;
mod processes;
mod reconcile;
mod recorder;
mod release;
mod sink;
mod sockets;
mod state;
mod table;

use std::path::Path;
use std::sync::Arc;

use event::Degradation;
use logs::format::events::Counters;
use logs::{Notice, SetOpened, Stamp};

pub use crate::clock::wall_now;
pub use crate::recorder::{Control, Recorder, Setup, describe};
pub use crate::sink::{Change, Sink};
pub use crate::state::{Owner, State};

/// What a recording tells while it is under way.
pub trait Events {
    /// How things stand; once a second.
    fn status(&mut self, status: &Status);

    /// A set was opened (application event 102).
    fn opened(&mut self, directory: &Path, set: &SetOpened);

    /// A set could not be opened; the one before is still in use (103).
    fn not_opened(&mut self, directory: &Path, error: &Error);

    /// Something that the logs tell (104, 105, 111).
    fn notice(&mut self, notice: &Notice);

    /// Something cannot be seen (106).
    fn degraded(&mut self, degradation: &Degradation);

    /// Events were lost (108).
    fn lost(&mut self, events: u64, reason: &str);

    /// The table of sockets was not what the kernel has, and was put right;
    /// `explained` if events were lost before, so that this was to be expected.
    fn reconciled(&mut self, found: &Reconciled, explained: bool);
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// How many ports are in use, TIME_WAIT included.
    pub ports: u64,
    /// How many events came in the last second.
    pub events_a_second: u64,
    /// How many events were lost so far.
    pub lost: u64,
    /// The set that is being written.
    pub set: Option<Stamp>,
}

/// What reconciliation put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Sockets that had been missed.
    pub discovered: u64,
    /// Sockets whose end had been missed.
    pub vanished: u64,
}

/// What a recording amounted to.
#[derive(Clone, Debug)]
pub struct Summary<E = Files> {
    /// The ledger at the end.
    pub counters: Counters,
    /// What reconciliation put right.
    pub reconciled: Reconciled,
    /// How many sockets were recorded.
    pub sockets: u64,
    /// How many processes owned them.
    pub processes: u64,
    /// What is left of it.
    pub end: E,
}

/// What is left of a recording in log sets.
#[derive(Clone, Debug)]
pub struct Files {
    /// What was written.
    pub written: logs::Summary,
    /// Where.
    pub directory: Arc<Path>,
    /// The end that could not be written; the ledger takes account of it.
    pub unfinished: Option<Arc<logs::Unfinished>>,
}

/// Why a recording could not begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log sets: the directory's, the disk's or another recorder's fault.
    #[error(transparent)]
    Logs(#[from] logs::Error),
    /// The sensor: the kernel's or the caller's privileges' fault.
    #[error(transparent)]
    Sensor(#[from] sensor::Error),
    /// No thread could be started: the machine's fault.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}
