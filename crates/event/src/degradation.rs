//! What a machine does not let us see, as values that reach the status line,
//! PR-EVENTS and the application events 106 and 107.

use std::fmt;

/// The ways to capture, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// Programs in the kernel report each event.
    Ebpf,
    /// The kernel's socket tables are read again and again over netlink.
    SockDiag,
    /// The files below `/proc` are read again and again.
    Proc,
}

impl Engine {
    /// The name on the command line and in PR-EVENTS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::SockDiag => "sock-diag",
            Self::Proc => "proc",
        }
    }
}

/// One thing that cannot be seen or done, why, and what would lift that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degradation {
    /// A short, stable name of the facility, such as `ebpf` or `hook sock_release`.
    pub what: String,
    /// Why it is not there.
    pub why: String,
    /// What the records lack because of it.
    pub consequence: String,
    /// What the administrator can do about it, if anything.
    pub remedy: Option<String>,
}

impl fmt::Display for Degradation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.consequence)?;
        if let Some(remedy) = &self.remedy {
            write!(f, " ({remedy})")?;
        }
        Ok(())
    }
}
