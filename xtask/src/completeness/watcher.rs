//! The watchers: Port Reporter with each of its engines, and what else an
//! administrator could use to see who opens ports.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;

use super::peers::{opensnitch, rustnet, ss, tcplife, tcpspy, tcpstates};
use super::recorder::Recording;
use super::sighting::Watched;

/// A watcher at work.
pub(super) trait Watcher {
    /// The processor time that it has used.
    fn cpu(&self) -> anyhow::Result<Duration>;

    /// Waits until it has said what it saw.
    fn settle(&mut self) -> anyhow::Result<()>;

    /// Ends it and gives what it said.
    fn stop(self: Box<Self>) -> anyhow::Result<Watched>;
}

/// A watcher that cannot be had here, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotHere(pub(super) String);

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Who {
    /// Port Reporter, programs in the kernel.
    Ebpf,
    /// Port Reporter, netlink.
    SockDiag,
    /// Port Reporter, `/proc` alone.
    Proc,
    /// `tcpstates` of libbpf-tools: each change of a TCP state.
    Tcpstates,
    /// `tcplife` of libbpf-tools: each TCP connection when it is over.
    Tcplife,
    /// `tcpspy` of Debian: reads `/proc/net/tcp` ten times a second.
    Tcpspy,
    /// `ss -tunap` once a second.
    Ss,
    /// rustnet, which captures packets.
    Rustnet,
    /// The application firewall of Debian's package opensnitch.
    Opensnitch,
}

/// What can be asked of a watcher.
#[derive(Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent answers, not states"
)]
pub(super) struct Claims {
    /// It says how a socket comes into use, so it has to say the right thing.
    pub(super) kinds: bool,
    /// It names the process.
    pub(super) owners: bool,
    /// It says when a socket is gone.
    pub(super) closes: bool,
    /// It counts payload.
    pub(super) bytes: bool,
    /// It says why a socket is gone.
    pub(super) reasons: bool,
    /// How far its counts of payload may be off, because it rounds them.
    pub(super) grain: u64,
}

impl Who {
    /// Starts it. Fails with [`NotHere`] where that is no fault of ours.
    pub(super) fn start(self, binary: &Path) -> anyhow::Result<Box<dyn Watcher>> {
        Ok(match self {
            Self::Ebpf => Box::new(Recording::start(binary, "ebpf")?),
            Self::SockDiag => Box::new(Recording::start(binary, "sock-diag")?),
            Self::Proc => Box::new(Recording::start(binary, "proc")?),
            Self::Tcpstates => Box::new(tcpstates::start()?),
            Self::Tcplife => Box::new(tcplife::start()?),
            Self::Tcpspy => Box::new(tcpspy::start()?),
            Self::Ss => Box::new(ss::start()?),
            Self::Rustnet => Box::new(rustnet::start()?),
            Self::Opensnitch => opensnitch::start()?,
        })
    }

    /// What is asked of it.
    pub(super) fn claims(self) -> Claims {
        let all = Claims {
            kinds: true,
            owners: true,
            closes: true,
            bytes: true,
            reasons: true,
            grain: 0,
        };
        let polling = Claims {
            kinds: false,
            ..all
        };
        match self {
            Self::Ebpf => all,
            Self::SockDiag | Self::Proc => polling,
            Self::Tcpstates => Claims {
                bytes: false,
                reasons: false,
                ..polling
            },
            Self::Tcplife => Claims {
                reasons: false,
                grain: 8,
                ..polling
            },
            Self::Tcpspy => Claims {
                owners: false,
                bytes: false,
                reasons: false,
                ..polling
            },
            Self::Rustnet => Claims {
                owners: false,
                closes: false,
                bytes: false,
                reasons: false,
                ..polling
            },
            Self::Ss | Self::Opensnitch => Claims {
                closes: false,
                bytes: false,
                reasons: false,
                ..polling
            },
        }
    }

    /// What the tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::SockDiag => "sock-diag",
            Self::Proc => "proc",
            Self::Tcpstates => "tcpstates",
            Self::Tcplife => "tcplife",
            Self::Tcpspy => "tcpspy",
            Self::Ss => "ss",
            Self::Rustnet => "rustnet",
            Self::Opensnitch => "opensnitch",
        }
    }
}
