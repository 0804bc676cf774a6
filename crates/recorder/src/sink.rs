//! Where a recording goes.
//!
//! To log sets, mostly ([`Logs`]). Somebody who only watches takes the same
//! stream: owners looked up, lines in order, losses declared, and nothing
//! written. What a set is (when a new one is due, what it begins with, how it
//! ends) is nothing to a watcher, so those parts have bodies that do nothing.
//!
//! A sink is called on the recorder's thread. One that blocks makes the queue
//! fill, then the kernel's buffer; what is lost then is counted and comes as a
//! gap.

use std::path::Path;
use std::sync::Arc;

use event::{Action, Attribution, Degradation, Socket, WallTime};
use jiff::tz::TimeZone;
use logs::format::events::{Counters, Gap};
use logs::{Logs, Notice, RollReason, Stamp, Written};

use crate::state::{Owner, State};
use crate::{Error, Events, Files};

/// Something that happened to a socket.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// When.
    pub time: WallTime,
    /// What.
    pub action: Action,
    /// The socket after it.
    pub socket: &'a Socket,
    /// How the owner is known.
    pub attribution: Attribution,
    /// Who owns it.
    pub owner: Owner<'a>,
    /// The name of the error that ended it.
    pub error: Option<&'static str>,
}

/// Takes what is recorded.
pub trait Sink {
    /// What is left when it is over.
    type End;

    /// Something happened to a socket.
    fn socket(&mut self, change: &Change<'_>) -> Written;

    /// Events were lost.
    fn gap(&mut self, now: WallTime, gap: &Gap<'_>);

    /// The table of sockets is made, or was asked for anew. What is told from
    /// now on comes after it.
    fn begin(
        &mut self,
        now: WallTime,
        reason: RollReason,
        state: &State,
        events: &mut dyn Events,
    ) -> Result<(), Error>;

    /// A second has gone by.
    fn second(&mut self, now: WallTime, state: &mut State);

    /// It is over. `counters` may turn out to be too good.
    fn end(self, now: WallTime, counters: &mut Counters, events: &mut dyn Events) -> Self::End;

    /// Does it want no more?
    fn is_over(&self) -> bool {
        false
    }

    /// Something cannot be seen. Returns whether that is news to it.
    fn lacks(&mut self, _degradation: &Degradation) -> bool {
        true
    }

    /// The ledger, each minute and at the end.
    fn counters(&mut self, _now: WallTime, _counters: &Counters, _processes_lost: u64) {}

    /// Does it take the entries of PR-PIDS?
    fn takes_entries(&self) -> bool {
        false
    }

    /// An entry of PR-PIDS.
    fn entry(&mut self, _now: WallTime, _entry: &[u8]) {}

    /// Is [`Sink::begin`] due again?
    fn is_due(&self, _now: WallTime) -> Option<RollReason> {
        None
    }

    /// A minute has gone by.
    fn maintain(&mut self, _now: WallTime) {}

    /// The system's time zone was changed.
    fn set_zone(&mut self, _zone: TimeZone) {}

    /// How many of the changes that were kept are lost after all, since the
    /// last call.
    fn withdrawn(&mut self) -> u64 {
        0
    }

    /// What the administrator should hear of since the last call.
    fn notices(&mut self) -> Vec<Notice> {
        Vec::new()
    }

    /// The set that is being written.
    fn set(&self) -> Option<Stamp> {
        None
    }

    /// Where it writes.
    fn directory(&self) -> &Path {
        Path::new("")
    }
}

impl Sink for Logs {
    type End = Files;

    #[inline]
    fn socket(&mut self, change: &Change<'_>) -> Written {
        Self::socket(
            self,
            change.time,
            &change.action,
            change.socket,
            change.attribution,
            change.owner.text,
            change.error,
        )
    }

    fn gap(&mut self, now: WallTime, gap: &Gap<'_>) {
        Self::gap(self, now, gap);
    }

    fn begin(
        &mut self,
        now: WallTime,
        reason: RollReason,
        state: &State,
        events: &mut dyn Events,
    ) -> Result<(), Error> {
        let always = self.run_mut().degraded.len();
        self.run_mut()
            .degraded
            .extend(state.lacks.as_ref().map(ToString::to_string));
        let opened = self.roll(now, reason, state);
        // The next set may lack something else.
        self.run_mut().degraded.truncate(always);
        let opened = opened?;
        events.opened(Self::directory(self), &opened);
        Ok(())
    }

    fn second(&mut self, now: WallTime, _state: &mut State) {
        self.flush(now);
    }

    fn end(self, now: WallTime, counters: &mut Counters, events: &mut dyn Events) -> Files {
        let directory = Self::directory(&self).into();
        let (written, unfinished) = match self.close(now) {
            Ok(written) => (written, None),
            Err(unfinished) => {
                counters.written = counters.written.saturating_sub(unfinished.events);
                counters.lost += unfinished.events;
                (unfinished.summary.clone(), Some(Arc::new(*unfinished)))
            }
        };
        for notice in &written.notices {
            events.notice(notice);
        }
        Files {
            written,
            directory,
            unfinished,
        }
    }

    fn lacks(&mut self, degradation: &Degradation) -> bool {
        let text = degradation.to_string();
        let is_new = !self.run_mut().degraded.contains(&text);
        if is_new {
            self.run_mut().degraded.push(text);
        }
        is_new
    }

    fn counters(&mut self, now: WallTime, counters: &Counters, processes_lost: u64) {
        // If it is dropped, the next one says it.
        let _ = Self::counters(self, now, counters, processes_lost);
    }

    fn takes_entries(&self) -> bool {
        true
    }

    fn entry(&mut self, now: WallTime, entry: &[u8]) {
        self.pids(now, entry);
    }

    fn is_due(&self, now: WallTime) -> Option<RollReason> {
        self.roll_due(now)
    }

    fn maintain(&mut self, now: WallTime) {
        Self::maintain(self, now);
    }

    fn set_zone(&mut self, zone: TimeZone) {
        Self::set_zone(self, zone);
    }

    fn withdrawn(&mut self) -> u64 {
        Self::withdrawn(self)
    }

    fn notices(&mut self) -> Vec<Notice> {
        Self::notices(self)
    }

    fn set(&self) -> Option<Stamp> {
        self.current()
    }

    fn directory(&self) -> &Path {
        Self::directory(self)
    }
}
