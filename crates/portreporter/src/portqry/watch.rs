//! `-wport` and `-wpid`: the watched port or process in the original's layout.
//!
//! The original looked every minute, or as often as `-wt` said, and printed the
//! whole table again if it differed; what came and went between two looks it
//! never saw. Here each change has a line, at once, with its time. The table is
//! printed at the beginning and again, if something changed, no more often than
//! `-wt` says.

use std::time::Duration;

use event::{ProcessKey, Socket, WallTime};
use jiff::tz::TimeZone;
use logs::format::clock::LocalClock;
use logs::format::events::Gap;
use logs::format::listing::{self, ProcessPorts};
use recorder::{Change, Owner, State};

use super::arguments;
use super::local;
use crate::list::PortRange;
use crate::tee::Tee;
use crate::watch::{Head, Printer, Seen, Watched, select};

const SHORT_RULE: &str = "============";

/// Prints in the original's layout.
pub(super) struct Classic {
    what: arguments::Watched,
    interval: Duration,
    verbose: bool,
    clock: LocalClock,
    /// When the table was printed last.
    shown: Option<WallTime>,
    /// Something changed since.
    changed: bool,
}

impl Classic {
    pub(super) fn new(what: arguments::Watched, interval: Duration, verbose: bool) -> Self {
        Self {
            what,
            interval,
            verbose,
            clock: LocalClock::new(TimeZone::system()),
            shown: None,
            changed: false,
        }
    }

    /// What is to be watched.
    pub(super) fn watched(&self) -> Watched {
        match self.what {
            arguments::Watched::Port(port) => Watched {
                ports: vec![PortRange::one(port)],
                local_only: true,
                ..Watched::default()
            },
            arguments::Watched::Process(pid) => Watched {
                pids: vec![pid],
                ..Watched::default()
            },
        }
    }

    /// `port: 135`, `PID: 952`.
    fn named(&self) -> (&'static str, u32) {
        match self.what {
            arguments::Watched::Port(port) => ("port", port.into()),
            arguments::Watched::Process(pid) => ("PID", pid),
        }
    }

    fn table(&mut self, out: &mut Tee, now: WallTime, seen: &[Seen<'_>]) {
        out.line(SHORT_RULE);
        out.blank();
        out.date(now);
        out.blank();
        let mut text = Vec::new();
        if seen.is_empty() {
            let (kind, number) = self.named();
            text.extend_from_slice(format!("{kind} {number} is not in use\n\n").as_bytes());
        }
        for (owner, sockets) in by_owner(seen) {
            text.extend_from_slice(listing::RULE);
            let ports = ProcessPorts {
                process: owner.process,
                sockets: &sockets,
                modules: owner.modules,
            };
            local::block(&mut text, &ports, self.verbose);
            text.push(b'\n');
        }
        out.bytes(&text);
        self.shown = Some(now);
        self.changed = false;
    }

    /// `14:03:05.123456`.
    fn time(&mut self, time: WallTime) -> Vec<u8> {
        let mut stamp = Vec::new();
        self.clock.push_rfc3339(&mut stamp, time);
        // `2026-11-22T14:03:05.123456+00:00`.
        stamp.get(11..26).unwrap_or(&stamp).to_vec()
    }
}

/// The sockets of each owner, by its number.
fn by_owner<'a>(seen: &[Seen<'a>]) -> Vec<(Owner<'a>, Vec<&'a Socket>)> {
    let key = |owner: &Owner<'_>| owner.process.map(event::Process::key);
    let mut owners: Vec<(Option<ProcessKey>, Owner<'a>, Vec<&'a Socket>)> = Vec::new();
    for seen in seen {
        let of = key(&seen.owner);
        match owners.iter_mut().find(|(owner, ..)| *owner == of) {
            Some((_, _, sockets)) => sockets.push(seen.socket),
            None => owners.push((of, seen.owner, vec![seen.socket])),
        }
    }
    owners.sort_by_key(|(owner, ..)| *owner);
    let parts = owners.into_iter();
    parts.map(|(_, owner, sockets)| (owner, sockets)).collect()
}

impl Printer for Classic {
    fn begin(&mut self, out: &mut Tee, now: WallTime, _head: &Head, seen: &[Seen<'_>]) {
        let (kind, number) = self.named();
        out.line(&format!("Watching {kind}: {number}"));
        out.blank();
        let seconds = self.interval.as_secs();
        out.line(&format!("Checking for changes every {seconds} seconds"));
        out.blank();
        if self.verbose {
            out.line("verbose output requested");
            out.blank();
        }
        self.table(out, now, seen);
    }

    fn change(&mut self, out: &mut Tee, change: &Change<'_>) {
        self.changed = true;
        let mut line = self.time(change.time);
        line.push(b'\t');
        line.extend_from_slice(change.action.name().as_bytes());
        line.push(b'\t');
        listing::mapping(&mut line, change.owner.process, change.socket);
        out.bytes(&line);
    }

    fn gap(&mut self, out: &mut Tee, now: WallTime, gap: &Gap<'_>) {
        self.changed = true;
        let time = String::from_utf8_lossy(&self.time(now)).into_owned();
        let lost = match gap.lost {
            Some(lost) => lost.to_string(),
            None => "an unknown number of".to_owned(),
        };
        out.line(&format!(
            "{time}: {lost} events of any port were lost: {}",
            gap.reason
        ));
    }

    fn second(&mut self, out: &mut Tee, now: WallTime, watched: &Watched, state: &mut State) {
        let interval = i64::try_from(self.interval.as_micros()).unwrap_or(i64::MAX);
        let is_due = self
            .shown
            // A clock that was set back does not silence it.
            .is_none_or(|shown| now.0 - shown.0 >= interval || now < shown);
        if !self.changed || !is_due {
            return;
        }
        if self.verbose {
            let owners: Vec<ProcessKey> = select(state, watched)
                .iter()
                .filter_map(|seen| seen.owner.process.map(event::Process::key))
                .collect();
            for owner in owners {
                state.refresh_modules(owner);
            }
        }
        let seen = select(state, watched);
        self.table(out, now, &seen);
    }

    fn end(&mut self, out: &mut Tee, now: WallTime, how: &str) {
        let (kind, number) = self.named();
        out.line(&format!("{how}: stopped watching {kind} {number}"));
        out.blank();
        out.date(now);
    }
}

#[cfg(test)]
mod tests {
    use event::{Action, Attribution, Endpoint, Process, Protocol, TcpState};
    use logs::format::events::OwnerText;
    use logs::format::listing::Modules;

    use super::*;
    use crate::tee::Memory;

    /// 2026-11-22T14:03:05.000001 UTC.
    const THEN: WallTime = WallTime(1_795_356_185_000_001);

    #[test]
    fn the_documented_lines_and_those_of_each_change() {
        let process = Process {
            pid: 952,
            name: Some("rpcbind".to_owned()),
            ..Process::default()
        };
        let text = OwnerText::unknown();
        let owner = Owner {
            process: Some(&process),
            modules: Modules::Known(&[]),
            text: &text,
        };
        let socket = Socket {
            cookie: None,
            netns: None,
            protocol: Protocol::Tcp,
            local: Endpoint::new([0, 0, 0, 0].into(), 135),
            remote: None,
            state: Some(TcpState::Listening),
        };
        let memory = Memory::default();
        let mut out = Tee::into_memory(&memory);
        let what = arguments::Watched::Port(135);
        let mut classic = Classic::new(what, Duration::from_mins(1), true);
        classic.clock.set_zone(TimeZone::UTC);
        let seen = Seen {
            socket: &socket,
            attribution: Attribution::Creator,
            owner,
        };
        classic.begin(&mut out, THEN, &Head::default(), &[seen]);
        let change = Change {
            time: THEN,
            action: Action::Listen,
            socket: &socket,
            attribution: Attribution::Creator,
            owner,
            error: None,
        };
        classic.change(&mut out, &change);
        classic.table(&mut out, THEN, &[]);
        classic.end(&mut out, THEN, "escape key pressed");
        assert_eq!(memory.text(), include_str!("golden/watch-port.txt"));
    }
}
