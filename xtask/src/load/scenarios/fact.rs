//! The truth about a socket, as the process that made it knows it.
//!
//! A fact is taken with calls that no watcher has a part in (`getsockname`,
//! `SO_COOKIE`, `getpid`), and with what the scenario itself decides: who makes
//! which call, how many bytes go where, how the socket ends. It goes to the
//! suite as one line of JSON on standard output. What a scenario cannot know
//! for certain it leaves out, and nobody is judged by it.

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use anyhow::Context;
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

/// One socket that came into use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fact {
    /// What the socket is in its scenario.
    pub(crate) role: String,
    /// How it came into use.
    pub(crate) kind: Kind,
    /// `tcp`, `udp`, `raw`, `icmp`, `packet`.
    pub(crate) protocol: String,
    /// The kernel's number for it; none where the socket that the process
    /// holds is not the one that is on the wire (MPTCP).
    pub(crate) cookie: Option<u64>,
    /// Its network namespace.
    pub(crate) netns: Option<u64>,
    /// Its own end.
    pub(crate) local: Option<SocketAddr>,
    /// The other end.
    pub(crate) remote: Option<SocketAddr>,
    /// The process that made the call which brought it into use.
    pub(crate) pid: u32,
    /// That process's effective user.
    pub(crate) uid: Option<u32>,
    /// That process's executable.
    pub(crate) exe: Option<String>,
    /// The container in which that process is.
    pub(crate) container: Option<String>,
    /// The payload that went out.
    pub(crate) sent: Option<u64>,
    /// The payload that came in.
    pub(crate) received: Option<u64>,
    /// How it ended, if it has while it was watched.
    pub(crate) end: Option<End>,
    /// It was in use before the watcher came.
    #[serde(default)]
    pub(crate) before: bool,
}

/// How a socket comes into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// TCP listens.
    Listen,
    /// A UDP port is taken.
    Bind,
    /// A process connects.
    Connect,
    /// A process accepts.
    Accept,
    /// A socket without ports is made.
    Create,
}

/// How a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// In order, by its process.
    Closed,
    /// By a reset of either side.
    Reset,
    /// It never came up: refused.
    Refused,
    /// It never came up: no answer.
    Timeout,
    /// Somehow.
    Somehow,
}

/// What a scenario prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    /// The truth about one socket.
    Fact(Box<Fact>),
    /// Everything is in place; waits for one line on standard input.
    Ready,
    /// This machine cannot show it, and why.
    Ignored(String),
}

impl Fact {
    /// The truth about a socket of the calling process.
    pub(crate) fn of(kind: Kind, role: &str, socket: impl AsFd) -> anyhow::Result<Self> {
        let socket = socket.as_fd();
        let remote = match kind {
            Kind::Connect | Kind::Accept => rustix::net::getpeername(socket)
                .ok()
                .flatten()
                .and_then(|peer| SocketAddr::try_from(peer).ok()),
            _ => None,
        };
        let protocol = match kind {
            Kind::Bind => "udp",
            _ => "tcp",
        };
        Ok(Self {
            role: role.to_owned(),
            kind,
            protocol: protocol.to_owned(),
            cookie: Some(sockopt::socket_cookie(socket).context("no cookie")?),
            netns: netns(),
            local: local(socket),
            remote,
            pid: std::process::id(),
            uid: Some(rustix::process::geteuid().as_raw()),
            exe: None,
            container: None,
            sent: None,
            received: None,
            end: Some(End::Closed),
            before: false,
        })
    }

    /// A listener.
    pub(crate) fn listen(role: &str, socket: impl AsFd) -> anyhow::Result<Self> {
        Self::of(Kind::Listen, role, socket)
    }

    /// A UDP socket with a port.
    pub(crate) fn bind(role: &str, socket: impl AsFd) -> anyhow::Result<Self> {
        Self::of(Kind::Bind, role, socket)
    }

    /// The end that connected, in order and without payload.
    pub(crate) fn connect(role: &str, socket: impl AsFd) -> anyhow::Result<Self> {
        Ok(Self::of(Kind::Connect, role, socket)?.bytes(0, 0))
    }

    /// The end that was accepted, in order and without payload.
    pub(crate) fn accept(role: &str, socket: impl AsFd) -> anyhow::Result<Self> {
        Ok(Self::of(Kind::Accept, role, socket)?.bytes(0, 0))
    }

    /// With so much payload out and in.
    pub(crate) fn bytes(mut self, sent: u64, received: u64) -> Self {
        (self.sent, self.received) = (Some(sent), Some(received));
        self
    }

    /// With an end of that kind.
    pub(crate) fn ends(mut self, end: End) -> Self {
        self.end = Some(end);
        self
    }

    /// Made by another process than the one that says so.
    pub(crate) fn by(mut self, pid: u32) -> Self {
        self.pid = pid;
        self
    }

    /// With that other end, where the kernel no longer says it.
    pub(crate) fn to(mut self, remote: SocketAddr) -> Self {
        self.remote = Some(remote);
        self
    }

    /// With that own end, where the kernel no longer says it.
    pub(crate) fn from(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Tells the suite.
    pub(crate) fn tell(self) -> anyhow::Result<()> {
        say(&Said::Fact(Box::new(self)))
    }
}

/// Tells the suite that everything is in place, and waits until it answers.
pub(crate) fn wait_for_the_suite() -> anyhow::Result<()> {
    say(&Said::Ready)?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Prints one line. Processes that share the pipe do not mix their lines: each
/// is written at once and is shorter than `PIPE_BUF`.
pub(crate) fn say(said: &Said) -> anyhow::Result<()> {
    let line = format!("{}\n", serde_json::to_string(said)?);
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn local(socket: impl AsFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}

/// The network namespace of the calling thread.
fn netns() -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;

    Some(std::fs::metadata("/proc/thread-self/ns/net").ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_can_be_read_back() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fact = Fact::listen("listener", &listener).unwrap();
        let line = serde_json::to_string(&Said::Fact(Box::new(fact.clone()))).unwrap();
        let Said::Fact(read) = serde_json::from_str(&line).unwrap() else {
            panic!("{line}");
        };
        assert_eq!(read.local, Some(listener.local_addr().unwrap()));
        assert_eq!(read.cookie, fact.cookie);
        assert_eq!(read.pid, std::process::id());
        assert!(line.len() < 4096, "a line fits into a pipe at once");
    }
}
