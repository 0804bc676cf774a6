//! Where the recorder's stream ends for somebody who watches: what is not
//! asked for is left out, the rest goes to a [`Printer`].

use std::sync::Arc;

use event::{Attribution, Degradation, Process, Socket, WallTime};
use logs::format::events::{Counters, Gap};
use logs::{RollReason, Written};
use recorder::{Change, Events, Owner, Sink, State};

use super::keys::Stop;
use crate::list::PortRange;
use crate::tee::Tee;

/// Which sockets are watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// Those with one of these ports; none: with any.
    pub(crate) ports: Vec<PortRange>,
    /// Those of one of these processes; none: of any.
    pub(crate) pids: Vec<u32>,
    /// Only the local port counts.
    pub(crate) local_only: bool,
}

impl Watched {
    /// Is this one watched?
    pub(crate) fn admits(&self, socket: &Socket, owner: Option<&Process>) -> bool {
        let port = |port: u16| self.ports.iter().any(|range| range.contains(port));
        let is_port = self.ports.is_empty()
            || port(socket.local.port)
            || !self.local_only && socket.remote.is_some_and(|remote| port(remote.port));
        let is_process = self.pids.is_empty()
            || match owner {
                Some(owner) => self.pids.contains(&owner.pid),
                // As the original names it.
                None => self.pids.contains(&0),
            };
        is_port && is_process
    }
}

/// How the watching began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// The engine.
    pub(crate) engine: &'static str,
    /// Where it looks.
    pub(crate) hooks: Vec<String>,
    /// What it cannot see.
    pub(crate) degraded: Vec<String>,
}

/// A socket in use, with its owner.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) attribution: Attribution,
    pub(crate) owner: Owner<'a>,
}

/// Prints what is watched.
pub(crate) trait Printer {
    /// It begins; these are in use.
    fn begin(&mut self, out: &mut Tee, now: WallTime, head: &Head, seen: &[Seen<'_>]);

    /// Something happened.
    fn change(&mut self, out: &mut Tee, change: &Change<'_>);

    /// Something that may have been watched was lost.
    fn gap(&mut self, out: &mut Tee, now: WallTime, gap: &Gap<'_>);

    /// A second has gone by.
    fn second(&mut self, _out: &mut Tee, _now: WallTime, _watched: &Watched, _state: &mut State) {}

    /// It was ended so.
    fn end(&mut self, _out: &mut Tee, _now: WallTime, _how: &str) {}
}

/// The sink.
pub(crate) struct Watcher {
    watched: Watched,
    printer: Box<dyn Printer>,
    tee: Tee,
    stop: Arc<Stop>,
    head: Head,
}

impl Watcher {
    pub(crate) fn new(
        watched: Watched,
        printer: Box<dyn Printer>,
        tee: Tee,
        stop: Arc<Stop>,
        head: Head,
    ) -> Self {
        Self {
            watched,
            printer,
            tee,
            stop,
            head,
        }
    }
}

/// What is watched of what there is, in a fixed order.
pub(crate) fn select<'s>(state: &'s State, watched: &Watched) -> Vec<Seen<'s>> {
    let mut seen = Vec::new();
    state.each(&mut |socket, attribution, owner| {
        if watched.admits(socket, owner.process) {
            seen.push(Seen {
                socket,
                attribution,
                owner,
            });
        }
    });
    seen.sort_by_key(|seen| {
        let socket = seen.socket;
        let pid = seen.owner.process.map(|process| process.pid);
        (
            socket.protocol,
            socket.local.port,
            socket.local.ip,
            socket.remote,
            pid,
        )
    });
    seen
}

impl Sink for Watcher {
    type End = anyhow::Result<()>;

    fn socket(&mut self, change: &Change<'_>) -> Written {
        if self.watched.admits(change.socket, change.owner.process) {
            self.printer.change(&mut self.tee, change);
        }
        Written::Kept
    }

    fn gap(&mut self, now: WallTime, gap: &Gap<'_>) {
        self.printer.gap(&mut self.tee, now, gap);
    }

    fn begin(
        &mut self,
        now: WallTime,
        _reason: RollReason,
        state: &State,
        _events: &mut dyn Events,
    ) -> Result<(), recorder::Error> {
        let seen = select(state, &self.watched);
        self.printer.begin(&mut self.tee, now, &self.head, &seen);
        Ok(())
    }

    fn second(&mut self, now: WallTime, state: &mut State) {
        self.printer
            .second(&mut self.tee, now, &self.watched, state);
    }

    fn end(
        mut self,
        now: WallTime,
        _counters: &mut Counters,
        _events: &mut dyn Events,
    ) -> anyhow::Result<()> {
        self.printer.end(&mut self.tee, now, self.stop.how());
        self.tee.finish()
    }

    fn is_over(&self) -> bool {
        self.tee.is_pointless() || self.stop.is_asked()
    }

    fn lacks(&mut self, degradation: &Degradation) -> bool {
        let text = degradation.to_string();
        let is_new = !self.head.degraded.contains(&text);
        if is_new {
            self.head.degraded.push(text);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use event::{Endpoint, Protocol};

    use super::*;

    fn datagram(local: u16, remote: u16) -> Socket {
        let end = |port| Endpoint::new([127, 0, 0, 1].into(), port);
        Socket {
            cookie: None,
            netns: None,
            protocol: Protocol::Udp,
            local: end(local),
            remote: Some(end(remote)),
            state: None,
        }
    }

    #[test]
    fn ports_and_processes_narrow_each_other() {
        let owner = |pid| Process {
            pid,
            ..Process::default()
        };
        let (ours, theirs) = (owner(1), owner(2));
        let both = Watched {
            ports: vec![PortRange::one(53)],
            pids: vec![1],
            local_only: false,
        };
        assert!(both.admits(&datagram(53, 9), Some(&ours)));
        assert!(both.admits(&datagram(9, 53), Some(&ours)));
        assert!(!both.admits(&datagram(9, 9), Some(&ours)));
        assert!(!both.admits(&datagram(53, 9), Some(&theirs)));
        assert!(!both.admits(&datagram(53, 9), None));
        let local = Watched {
            local_only: true,
            pids: Vec::new(),
            ..both
        };
        assert!(local.admits(&datagram(53, 9), None));
        assert!(!local.admits(&datagram(9, 53), None));
        assert!(Watched::default().admits(&datagram(9, 9), None));
        let idle = Watched {
            pids: vec![0],
            ..Watched::default()
        };
        assert!(idle.admits(&datagram(9, 9), None) && !idle.admits(&datagram(9, 9), Some(&ours)));
    }
}
