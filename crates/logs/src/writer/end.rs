//! The end of a recording.
//!
//! The last set is sealed, whatever can be. Where the disk does not take the
//! end, the caller hears how much of what it was told to be kept is lost after
//! all: what is not said now, nobody will ever know.

use std::time::Duration;

use event::WallTime;

use super::Logs;
use crate::dir::Place;
use crate::error::Error;
use crate::names::inventory;
use crate::report::{Notice, Summary, Unfinished};
use crate::set::OpenSet;

/// At the end the compression of what is left may take this long.
const LAST_COMPRESSION: Duration = Duration::from_secs(10);

/// What the last set lacks.
struct End {
    set: crate::Stamp,
    events: u64,
    rows: u64,
    error: Error,
}

impl Logs {
    /// Seals the last set and waits until its files are safe.
    pub fn close(mut self, now: WallTime) -> Result<Summary, Box<Unfinished>> {
        self.look();
        let settled = self.settle(now);
        let mut end = None;
        if self.dir.place() != Place::Kept {
            self.leave();
        }
        if let Some(mut set) = self.current.take() {
            end = self.end(&mut set, settled.err(), now);
            if let Some(end) = &end {
                self.lost += end.events;
                self.notices.push(Notice::Unfinished {
                    set: end.set,
                    events: end.events,
                    rows: end.rows,
                    error: end.error.to_string(),
                });
            }
            self.count(&set, self.encoder.next_seq());
            self.keeper.sync(set.into_disks());
            // Retention waits for the next start: the set that was recorded a
            // moment ago is not what somebody wants to lose now.
            if let Ok(sets) = inventory(&self.dir) {
                self.compress_closed(&sets);
            }
        }
        let mut notices = self.notices();
        notices.extend(self.keeper.finish(LAST_COMPRESSION));
        let summary = Summary {
            sets: self.sets,
            lines: self.lines,
            bytes: self.bytes,
            gone: self.gone_sets,
            lost: self.lost,
            notices,
        };
        match end {
            None => Ok(summary),
            Some(End {
                set,
                events,
                rows,
                error,
            }) => Err(Box::new(Unfinished {
                summary,
                set,
                events,
                rows,
                error,
            })),
        }
    }

    /// Seals the set if it is whole. Returns what it lacks.
    fn end(&mut self, set: &mut OpenSet, unsettled: Option<Error>, now: WallTime) -> Option<End> {
        let end = |set: &OpenSet, error| End {
            set: set.stamp,
            events: set.events_unwritten(),
            rows: set.rows_unwritten(),
            error,
        };
        if set.events.is_deleted() {
            let path = self.dir.path_of(&set.record().to_string());
            return Some(end(set, Error::Gone { path }));
        }
        // PR-EVENTS can be whole where another file is not.
        let is_whole = set.events.waiting() == 0 && self.losses.is_empty();
        let sealed = if is_whole {
            self.seal_last(set, now).err()
        } else {
            None
        };
        Some(end(set, unsettled.or(sealed)?))
    }

    /// A set is closed: it counts for what is in its files. `end` is the number
    /// after its last line.
    pub(super) fn count(&mut self, set: &OpenSet, end: u64) {
        if set.is_left_behind {
            return;
        }
        if set.events.is_deleted() {
            self.sets = self.sets.saturating_sub(1);
            self.gone_sets += 1;
            return;
        }
        let waiting = set
            .events
            .unwritten()
            .split_inclusive(|&byte| byte == b'\n');
        self.lines += (end - set.first_seq).saturating_sub(waiting.count() as u64);
        self.bytes += set.bytes();
    }
}
