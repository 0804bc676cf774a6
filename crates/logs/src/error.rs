//! What can go wrong with a log directory, and whose fault it is.
//!
//! Each variant keeps the path, so that the message is complete without its
//! caller, and says what to do where something can be done. What the program
//! exits with follows from [`Error::kind`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The family of an [`Error`], for a caller that must choose an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The output cannot be created where it was asked for.
    CannotCreate,
    /// A file that exists cannot be read or written.
    Io,
    /// It is not allowed, or another recorder was first.
    Permission,
}

/// Why log sets cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path of the log directory leads to something else: the user's fault.
    #[error("{}: not a directory; remove it or name another directory", .path.display())]
    NotADirectory {
        /// The directory that was asked for.
        path: PathBuf,
    },
    /// The last part of the path is a symbolic link, which others could turn
    /// elsewhere: the user's fault.
    #[error("{}: a symbolic link is not followed; name the directory that it leads to", .path.display())]
    SymbolicLink {
        /// The directory that was asked for.
        path: PathBuf,
    },
    /// Everybody may write into the directory, so anybody could forge logs:
    /// the administrator's fault.
    #[error(
        "{}: everybody may write into this directory; take that away (chmod o-w) or name a directory below it",
        .path.display()
    )]
    WorldWritable {
        /// The directory that was asked for.
        path: PathBuf,
    },
    /// The directory belongs to someone who is neither this user nor root.
    #[error(
        "{}: the directory belongs to user {owner}; give it to this user (chown) or name another directory",
        .path.display()
    )]
    ForeignOwner {
        /// The directory that was asked for.
        path: PathBuf,
        /// The user ID of its owner.
        owner: u32,
    },
    /// The file system is mounted read-only: the administrator's choice.
    #[error("{}: the file system is read-only; name a directory on another one", .path.display())]
    ReadOnly {
        /// What was to be created.
        path: PathBuf,
    },
    /// The system does not allow it to this user.
    #[error("{}: permission denied; run as a user who may write there or name another directory", .path.display())]
    Denied {
        /// What was to be opened or created.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another recorder writes to this directory: nobody's fault, but only one
    /// can.
    #[error(
        "{}: another recorder{} writes to this directory; stop it or name another directory",
        .path.display(), by(*.pid)
    )]
    Locked {
        /// The log directory.
        path: PathBuf,
        /// The process number that the other recorder left in its lock file.
        pid: Option<u32>,
    },
    /// The disk is full, or the quota used up: the administrator can make room.
    #[error(
        "cannot {} {}: {cause}; make room on that file system (old log sets may go) or name a directory on another one",
        verb(*.kind), .path.display()
    )]
    Full {
        /// What was to be created or written.
        path: PathBuf,
        /// Which of the two.
        kind: ErrorKind,
        /// The system's answer.
        cause: io::Error,
    },
    /// Somebody deleted or moved what was being written, and it could not be
    /// made again: the administrator's fault.
    #[error("{}: deleted or moved away while it was being written; leave it alone or name another directory", .path.display())]
    Gone {
        /// The file or the directory.
        path: PathBuf,
    },
    /// A directory or file cannot be created: the system's fault.
    #[error("cannot create {}", .path.display())]
    Create {
        /// What was to be created.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the log set cannot be written: a failing disk.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The directory or a file in it cannot be read: a failing disk.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The thread that compresses closed files cannot be started: the machine
    /// is out of memory or of threads.
    #[error("cannot start the thread that compresses closed files")]
    Thread {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The family of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotADirectory { .. }
            | Self::SymbolicLink { .. }
            | Self::WorldWritable { .. }
            | Self::ReadOnly { .. }
            | Self::Create { .. } => ErrorKind::CannotCreate,
            Self::ForeignOwner { .. } | Self::Denied { .. } | Self::Locked { .. } => {
                ErrorKind::Permission
            }
            Self::Write { .. } | Self::Gone { .. } | Self::Read { .. } | Self::Thread { .. } => {
                ErrorKind::Io
            }
            Self::Full { kind, .. } => *kind,
        }
    }

    /// Something could not be created: tells the causes apart that have a
    /// remedy of their own.
    pub(crate) fn create(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                kind: ErrorKind::CannotCreate,
                cause: source,
            },
            _ => Self::Create { path, source },
        }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                kind: ErrorKind::Io,
                cause: source,
            },
            _ => Self::Write { path, source },
        }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path, source },
            _ => Self::Read { path, source },
        }
    }
}

fn verb(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::CannotCreate => "create",
        ErrorKind::Io | ErrorKind::Permission => "write",
    }
}

/// ` (PID 4711)`, or nothing where the number is not known.
fn by(pid: Option<u32>) -> impl fmt::Display {
    pid.map(|pid| format!(" (PID {pid})")).unwrap_or_default()
}
