//! Who owns a socket.

use std::sync::Arc;

use crate::time::BootTime;

/// A process for as long as the machine runs: its number can come back, its
/// number together with its start cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// The process number (thread group leader) in the initial PID namespace.
    pub pid: u32,
    /// When it started; `BootTime(0)` where that is not known.
    pub start: BootTime,
}

/// What is known of a process. Each part may be unknown on its own.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Process {
    /// The process number in the recorder's PID namespace.
    pub pid: u32,
    /// The parent's number.
    pub ppid: Option<u32>,
    /// When it started, in nanoseconds since boot.
    pub start: Option<BootTime>,
    /// The image name: the last part of the path of the executable, or the
    /// kernel's name for a process without one.
    pub name: Option<String>,
    /// The path of the executable. A deleted file is marked ` (deleted)`.
    pub exe: Option<String>,
    /// The arguments, quoted as for a shell where they need it.
    pub cmdline: Option<String>,
    /// The effective user ID.
    pub uid: Option<u32>,
    /// The user's name by the system's name service.
    pub user: Option<String>,
    /// The systemd unit or Windows service.
    pub service: Option<Service>,
    /// The container: its runtime and ID, as `docker:0123456789ab`.
    pub container: Option<String>,
}

impl Process {
    /// The key of this process.
    pub fn key(&self) -> ProcessKey {
        ProcessKey {
            pid: self.pid,
            start: self.start.unwrap_or_default(),
        }
    }
}

/// A systemd unit or a Windows service that a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, such as `ssh.service`.
    pub name: String,
    /// Its description, such as `OpenBSD Secure Shell server`.
    pub description: Option<String>,
    /// Whether it shares its process with other services.
    pub kind: Option<ServiceKind>,
}

/// How a service lives (a Windows notion; a systemd unit owns its processes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// It runs in its own process.
    Own,
    /// It shares a process with other services.
    Shared,
}

/// A file that a process has mapped for execution.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module {
    /// Its path. A deleted file is marked ` (deleted)`.
    pub path: String,
    /// The lowest address at which it is mapped.
    pub base: u64,
}

/// A part of a file that a process mapped for execution, as the kernel told it
/// when it happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// The file's path as the process saw it. One that was deleted before is
    /// marked ` (deleted)`.
    pub path: Vec<u8>,
    /// The first address.
    pub address: u64,
    /// Where in the file that is.
    pub offset: u64,
    /// The file system, in major and minor part.
    pub device: (u32, u32),
    /// The file's number there.
    pub inode: u64,
}

/// How the owner of a socket is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribution {
    /// It made the call (bind, listen, connect, accept) that was recorded.
    Creator,
    /// It owns the listener from which the connection came.
    Inherited,
    /// It was found to hold the socket when a snapshot was taken.
    Snapshot,
    /// Nobody is known.
    Unknown,
}

impl Attribution {
    /// The value of `owner` in PR-EVENTS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creator => "creator",
            Self::Inherited => "inherited",
            Self::Snapshot => "snapshot",
            Self::Unknown => "unknown",
        }
    }

    /// The attribution of that name in PR-EVENTS.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Creator,
            Self::Inherited,
            Self::Snapshot,
            Self::Unknown,
        ]
        .into_iter()
        .find(|attribution| attribution.name() == name)
    }
}

/// The owner of a socket and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// How.
    pub attribution: Attribution,
    /// Who; none exactly when the attribution is [`Attribution::Unknown`].
    pub process: Option<Arc<Process>>,
}

impl Owner {
    /// Nobody is known.
    pub const UNKNOWN: Self = Self {
        attribution: Attribution::Unknown,
        process: None,
    };
}
