//! What happens to sockets, from the kernel.
//!
//! A [`Sensor`] is made by trying the engines from the best down
//! ([`open`]); it has two halves that live on two threads:
//!
//! * the [`Stream`] hands over [`Observation`]s in the order in which the
//!   kernel made them, each with the number of its stream (a CPU) and a
//!   sequence number without holes, so that the reader can prove what is
//!   missing;
//! * the [`Inspector`] answers questions: which sockets are there now
//!   ([`Snapshot`]), and how many observations the kernel has made so far.
//!
//! **Subscribe, then snapshot, then events:** the stream exists, and fills,
//! before the first snapshot is taken; whatever happens in between is in both.
//!
//! This crate says *what happened*; it does not know what a user's name or a
//! unit is (that is `identity`) and keeps no table of sockets (`recorder`).
//! What it cannot see is a [`Degradation`], never silence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use event::{
    Action, Attribution, BootTime, Cookie, Degradation, Engine, Mapping, ProcessKey, Socket,
};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use crate::linux::fuzzing;
#[cfg(target_os = "linux")]
pub use crate::linux::{
    Backlog, Fate, Filtering, Obstacle, Options, Packet, backlogs, filtering, open, record,
    snapshot, snapshot_while,
};

/// A source of observations that is attached and running.
pub struct Sensor {
    /// The engine in use.
    pub engine: Engine,
    /// The places in the kernel that report, each seen to fire.
    pub hooks: Vec<String>,
    /// What this sensor cannot see.
    pub degradations: Vec<Degradation>,
    /// The flow of observations.
    pub stream: Box<dyn Stream>,
    /// Questions about now.
    pub inspector: Box<dyn Inspector>,
    /// What programs have mapped, where the engine is told.
    pub mappings: Option<Box<dyn Mappings>>,
}

/// The flow of observations.
pub trait Stream: Send {
    /// Waits until there is something to hand over, at most `timeout`, and
    /// appends it to `batch`. An interrupted wait is an empty batch.
    fn read(&mut self, batch: &mut Vec<Observation>, timeout: Duration) -> Result<(), Error>;
}

/// Questions about now.
pub trait Inspector: Send {
    /// Every socket that uses a port, with its holder where one is found.
    fn snapshot(&mut self) -> Result<Snapshot, Error>;

    /// How many socket observations each stream has made since it was
    /// attached, handed over or not. The last sequence number of a stream is
    /// one less. What was counted but never arrives is lost.
    fn produced(&mut self) -> Result<BTreeMap<u16, u64>, Error>;

    /// Events that the kernel could not even number (a program that was
    /// entered while it ran on the same CPU): a further loss.
    fn unnumbered(&mut self) -> Result<u64, Error>;

    /// Why observations of this engine are lost, if they are.
    fn loss_reason(&self) -> &'static str {
        "ring buffer full"
    }

    /// Observations about processes that found no room: the owner of a socket
    /// may lack its name because of it.
    fn processes_lost(&mut self) -> Result<u64, Error> {
        Ok(0)
    }

    /// Stops the production of observations; those already made can still be
    /// read from the stream.
    fn detach(&mut self);
}

/// What programs have mapped, also of processes that are gone.
pub trait Mappings: Send {
    /// The files that a process has mapped for execution since it ran its
    /// program, each at the lowest address; the program itself first. None if
    /// not all of it was seen, or if the process has been gone for too long.
    fn of(&mut self, process: ProcessKey) -> Option<Vec<Mapping>>;

    /// How many pieces of this news found no room.
    fn lost(&mut self) -> u64;
}

/// Something the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Something happened to a socket.
    Socket(SocketObservation),
    /// Another process than the one known before uses the socket: it accepted
    /// the connection.
    Owner(OwnerObservation),
    /// A process ran a new program.
    Exec(Box<Execution>),
    /// A process was forked; it is what its parent is.
    Fork {
        /// The parent.
        parent: ProcessKey,
        /// The new process.
        child: ProcessKey,
    },
    /// A process is gone.
    Exit(ProcessKey),
    /// A control group was made (cgroup2 only).
    Cgroup {
        /// Its number.
        id: u64,
        /// Its path below the root of the hierarchy.
        path: String,
    },
}

/// Something happened to a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketObservation {
    /// When.
    pub at: BootTime,
    /// The stream that numbers it.
    pub stream: u16,
    /// Its number in that stream, from 0 without holes.
    pub sequence: u64,
    /// What happened.
    pub action: Action,
    /// The socket after it happened. Where it connects or listens without
    /// having been bound, its local port is 0: the kernel chooses one just
    /// after, and what comes next about the socket has it.
    pub socket: Socket,
    /// How the owner is known.
    pub attribution: Attribution,
    /// The owner.
    pub owner: Option<ProcessKey>,
    /// The owner's effective user ID at the time.
    pub uid: Option<u32>,
    /// The error that ended the socket, as its number (`errno`).
    pub error: Option<u16>,
}

/// Another process uses the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerObservation {
    /// The socket.
    pub cookie: Cookie,
    /// The process that accepted it.
    pub owner: ProcessKey,
    /// Its effective user ID at the time.
    pub uid: u32,
}

/// A process ran a new program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The process.
    pub key: ProcessKey,
    /// Its parent's number.
    pub ppid: u32,
    /// Its effective user ID.
    pub uid: u32,
    /// The number of its control group (cgroup2).
    pub cgroup: Option<u64>,
    /// The kernel's name for it.
    pub comm: String,
    /// The path of the executable.
    pub exe: Option<String>,
    /// The arguments, joined ([`event::text::join_arguments`]).
    pub cmdline: Option<String>,
}

/// The sockets that are there at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The sockets, in no particular order: those that use a port, and those
    /// that take packets without one.
    pub sockets: Vec<FoundSocket>,
    /// The network namespaces, by inode number, whose sockets are all here,
    /// also those that nobody holds.
    pub namespaces: BTreeSet<u32>,
    /// All network namespaces that the kernel has, by inode number, whether one
    /// can look into them or not; none if that is not known. A socket whose
    /// namespace is not among them is gone. A number that is nobody's may be
    /// there, too.
    pub existing_namespaces: Option<BTreeSet<u32>>,
    /// Sockets that are neither TCP nor UDP are here too.
    pub has_others: bool,
    /// What could not be looked at.
    pub degradations: Vec<Degradation>,
}

/// A socket in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSocket {
    /// The socket.
    pub socket: Socket,
    /// The processes that hold it, the likely owner first. Empty if nobody
    /// was found (TIME_WAIT, not yet accepted, or not permitted to look).
    pub holders: Vec<u32>,
    /// The likely owner as the kernel keeps it, where the engine can tell; it
    /// is among the holders.
    pub owner: Option<ProcessKey>,
    /// The user ID that the socket belongs to.
    pub uid: Option<u32>,
}

/// Why a sensor cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine that was asked for does not work here: the machine's or the
    /// caller's privileges' fault.
    #[error("engine {}: {reason}", .engine.name())]
    Unavailable {
        /// The engine.
        engine: Engine,
        /// Why, and what would help.
        reason: String,
    },
    /// A call to the operating system failed.
    #[error("{what}")]
    System {
        /// What was attempted.
        what: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The kernel sent something that this program does not understand: a bug
    /// here or a kernel too new.
    #[error("{what}: unexpected data from the kernel")]
    Protocol {
        /// Where.
        what: String,
    },
}
