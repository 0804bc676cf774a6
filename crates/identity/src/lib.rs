//! Who owns a socket.
//!
//! The kernel says that process 4711 did something. This crate says who that
//! is: the executable, its arguments, the parent, the user's name, the systemd
//! unit, the container and the loaded modules. [`Identifier`] answers; where
//! it looks is [`Roots`], which a test replaces by a made-up tree.
//!
//! It does not watch anything, keeps no table of processes and never decides
//! what is written. It is asked, by one thread, and must not hold that thread
//! up: a process costs a dozen small reads, whatever can be remembered is
//! remembered for a limited time, and the one thing that may take long, the
//! name service, works on a thread of its own with a limit to the wait.
//!
//! A process number can be given to another process at any moment. Everything
//! about one process is therefore read through one open directory, which the
//! kernel binds to the process and not to its number, and is compared with the
//! start time that the caller knows.
//!
//! All that is read here was written by somebody else. What does not parse is
//! unknown; what is unknown is [`None`]; what the machine does not allow us to
//! see is an [`event::Degradation`].

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub use crate::linux::{Identifier, Roots, parse};

/// Why the modules of a process are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModulesError {
    /// The process has ended; nobody's fault.
    #[error("process {pid}: has ended")]
    Gone {
        /// Its number.
        pid: u32,
    },
    /// The caller lacks the privilege to look into the process.
    #[error("process {pid}: not permitted to see its modules")]
    Denied {
        /// Its number.
        pid: u32,
    },
    /// The system failed to say.
    #[error("process {pid}: cannot read its modules")]
    System {
        /// Its number.
        pid: u32,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}
