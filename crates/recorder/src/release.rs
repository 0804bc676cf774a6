//! Writes the lines that wait ([`held`]), and looks up what they wait for.
//!
//! Most are released by what is seen next of their socket. For the others the
//! kernel is asked, by a thread of its own ([`reconcile`](crate::reconcile)),
//! which ports their sockets have got and which processes hold them.

use std::time::{Duration, Instant};

use event::{Action, Attribution, ProcessKey, Protocol};
use sensor::{FoundSocket, Snapshot};

use crate::held;
use crate::recorder::Recorder;
use crate::sink::Sink;
use crate::table::SocketKey;

/// The least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Connects that nobody answers can come without end, and a look takes the
/// longer the more sockets there are: at most one part in so many of the time
/// goes into it.
const LOOK_SHARE: u32 = 50;

impl<S: Sink> Recorder<'_, S> {
    /// Writes the lines that have waited long enough, or asks for what they
    /// lack.
    pub(crate) fn release(&mut self, now: Instant) {
        while let Some(key) = self.held.due(now) {
            if self.lacks_something(key) {
                self.asking.push(key);
            } else {
                self.release_one(key);
            }
        }
        if !self.asking.is_empty() && now >= self.next_ask && self.inspector.is_some() {
            self.begin_look(now, false, None);
        }
    }

    fn lacks_something(&mut self, key: SocketKey) -> bool {
        let held = self
            .state
            .table
            .get_mut(key)
            .and_then(|live| live.held.as_ref());
        held.is_some_and(|held| {
            held::lacks_port(held) || held::lacks_process(held) || held::lacks_number(held)
        })
    }

    /// Writes what a look was taken for, with what it found.
    pub(crate) fn answer(&mut self, keys: Vec<SocketKey>, snapshot: &Snapshot, took: Duration) {
        self.next_ask = Instant::now() + (took * LOOK_SHARE).max(LOOK_PAUSE);
        self.number(snapshot);
        if keys.is_empty() {
            return;
        }
        for found in &snapshot.sockets {
            let key = SocketKey::of(&found.socket);
            if let Some(live) = self.state.table.get_mut(key)
                && let Some(held) = &mut live.held
            {
                if held::lacks_port(held) {
                    held::set_port(held, found.socket.local.port);
                } else if held::lacks_process(held) {
                    self.held_by(key, found);
                }
            }
        }
        for key in keys {
            self.release_one(key);
        }
    }

    /// Gives packet sockets that are not known yet to the lines that wait for
    /// their number, each to one of the process that holds it. Lines are served
    /// that did not ask for this look, too: else it would discover their socket.
    fn number(&mut self, snapshot: &Snapshot) {
        let new = snapshot.sockets.iter().filter(|found| {
            matches!(found.socket.protocol, Protocol::Packet(_))
                && !self.state.table.contains(SocketKey::of(&found.socket))
        });
        let new: Vec<&FoundSocket> = new.collect();
        for found in new {
            let waiting = self.state.table.live().filter(|(_, live)| {
                let held = live.held.as_deref();
                held.is_some_and(held::lacks_number)
                    && live.socket.netns == found.socket.netns
                    && live
                        .owner
                        .is_some_and(|owner| found.holders.contains(&owner.pid))
            });
            // It may take other frames by now than those it was made for.
            let best = waiting.min_by_key(|(_, live)| {
                (live.socket.protocol != found.socket.protocol, live.since)
            });
            let Some((key, _)) = best else { continue };
            let Some(mut live) = self.state.table.remove(key) else {
                continue;
            };
            live.socket.cookie = found.socket.cookie;
            for held in live.held.iter_mut().flatten() {
                held.socket.cookie = found.socket.cookie;
            }
            let key = SocketKey::of(&found.socket);
            self.state.table.insert(key, live);
            self.release_one(key);
        }
    }

    /// A connection was accepted by one of its holders. If the listener's owner
    /// is among them that remains the best guess; else it was accepted by a
    /// process that has the listener too, or handed over.
    fn held_by(&mut self, key: SocketKey, found: &FoundSocket) {
        let Some(live) = self.state.table.get_mut(key) else {
            return;
        };
        let is_holder = |owner: ProcessKey| found.holders.contains(&owner.pid);
        if found.holders.is_empty() || live.owner.is_some_and(is_holder) {
            return;
        }
        let first = found.holders.first().copied();
        let owner = found
            .owner
            .or_else(|| first.and_then(|pid| self.state.processes.key_of(pid)));
        let (Some(owner), Some(live)) = (owner, self.state.table.get_mut(key)) else {
            return;
        };
        for held in live.held.iter_mut().flatten() {
            held.attribution = Attribution::Snapshot;
            held.owner = Some(owner);
            held.uid = None;
        }
        let before = live.owner.replace(owner);
        live.attribution = Attribution::Snapshot;
        self.state
            .processes
            .known(owner, None, &mut self.clock, &self.anchor);
        self.recount(before, Some(owner));
    }

    /// The end: writes every line that waits.
    pub(crate) fn release_all(&mut self) {
        let mut keys = std::mem::take(&mut self.asking);
        keys.extend(std::iter::from_fn(|| self.held.any()));
        keys.retain(|&key| {
            let lacks = self.lacks_something(key);
            if !lacks {
                self.release_one(key);
            }
            lacks
        });
        if keys.is_empty() {
            return;
        }
        let snapshot = self.inspector.as_mut().map(|it| it.snapshot());
        let snapshot = snapshot.and_then(Result::ok).unwrap_or_default();
        self.answer(keys, &snapshot, Duration::ZERO);
    }

    /// How many lines wait.
    pub(crate) fn waiting(&self) -> u64 {
        let lines = self.state.table.live().map(|(_, live)| {
            let held = live.held.as_ref();
            held.map_or(0, Vec::len) as u64
        });
        lines.sum()
    }

    pub(crate) fn release_one(&mut self, key: SocketKey) {
        let held = self
            .state
            .table
            .get_mut(key)
            .and_then(|live| live.held.take());
        let is_gone = held.as_deref().is_some_and(held::lacks_number);
        for seen in held.into_iter().flatten() {
            self.apply(key, seen);
        }
        if is_gone && let Some(live) = self.state.table.remove(key) {
            self.recount(live.owner, None);
            self.write_found(self.anchor.boot_now(), Action::Vanish, &live);
        }
    }
}
