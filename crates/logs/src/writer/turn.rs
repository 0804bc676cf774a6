//! From one set to the next.

use std::time::{Duration, Instant};

use event::WallTime;

use super::gone::DELETED;
use super::{Logs, SetState};
use crate::error::Error;
use crate::format::events::{EventsEncoder, Gap};
use crate::report::SetOpened;
use crate::roll::{Day, RollReason};
use crate::seal::Link;
use crate::set::{Draft, Head, OpenSet};
use crate::stamp::Stamp;

/// A set that could not be opened is tried again after this time, then after
/// twice as long, up to [`LONGEST_BACKOFF`].
pub(super) const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// A set that could not be opened.
#[derive(Debug)]
pub(super) struct Backoff {
    reason: RollReason,
    pub(super) wait: Duration,
    pub(super) until: Instant,
}

impl Logs {
    /// Is a new set due? To be asked often; it costs next to nothing.
    pub fn roll_due(&self, now: WallTime) -> Option<RollReason> {
        let set = self.current.as_ref()?;
        // Each second counts, but a directory that cannot be made is not made
        // each second.
        let is_fresh = |backoff: &Backoff| backoff.reason != RollReason::Gone;
        if self.gone && self.backoff.as_ref().is_none_or(is_fresh) {
            return Some(RollReason::Gone);
        }
        if let Some(backoff) = &self.backoff {
            return (Instant::now() >= backoff.until).then_some(backoff.reason);
        }
        if !set.day.contains(now) {
            Some(RollReason::Midnight)
        } else if set.is_full(&self.options) {
            Some(RollReason::Size)
        } else {
            None
        }
    }

    /// Opens a new set and closes the one before. Everything recorded before
    /// this call is in the old set, everything after it in the new one. After
    /// an error the old set is still in use and nothing is lost.
    pub fn roll(
        &mut self,
        now: WallTime,
        reason: RollReason,
        state: &dyn SetState,
    ) -> Result<SetOpened, Error> {
        match self.turn(now, reason, state) {
            Ok(opened) => {
                self.backoff = None;
                self.maintain(now);
                Ok(opened)
            }
            Err(error) => {
                self.backoff = Some(Backoff::after(self.backoff.take(), reason));
                Err(error)
            }
        }
    }

    /// The order of the steps is what makes a set appear as a whole or not at
    /// all; see [`crate::set`].
    fn turn(
        &mut self,
        now: WallTime,
        reason: RollReason,
        state: &dyn SetState,
    ) -> Result<SetOpened, Error> {
        self.look();
        let settled = self.settle(now);
        if self.gone {
            self.follow()?;
        }
        let is_deleted = |old: &OpenSet| old.events.is_deleted();
        // What cannot be written to a file that is gone is not waited for.
        if !self.current.as_ref().is_some_and(is_deleted) {
            settled?;
        }
        let first = Stamp::at(self.clock.zone(), now);
        // The set before may be where its stamp does not show as taken.
        let first = self.current().map_or(first, |old| first.after(old));
        let day = Day::of(self.clock.zone(), now);
        let mut draft = Draft::create(&self.dir, &self.create, first, day)?;
        // Another encoder, so that a set that fails takes no numbers.
        let mut encoder = EventsEncoder::new(self.encoder.next_seq());
        let clock = &mut self.clock;
        let deleted = self.current.as_ref().filter(|old| is_deleted(old));
        let kept = self.current.as_ref().filter(|old| !is_deleted(old));
        let seal = kept.map(|old| {
            let line = old.seal_line(&mut encoder, clock, now, Some(draft.stamp()));
            let mut whole = old.events.digest();
            whole.update(&line);
            let link = Link {
                stamp: old.stamp,
                sha256: Some(whole.hex()),
            };
            (link, line)
        });
        let previous = match (&seal, deleted) {
            (Some((link, _)), _) => Some(link.clone()),
            (None, Some(old)) => Some(Link {
                stamp: old.stamp,
                sha256: None,
            }),
            (None, None) => self.chain.clone(),
        };
        let unended = self.unended.as_ref().map(|unended| {
            let last = unended.last.unwrap_or(now);
            (None, last, unended.reason(&self.run.boot_id))
        });
        let taken = deleted
            .filter(|old| old.events_kept > 0)
            .map(|old| (Some(old.events_kept), old.opened, DELETED.to_owned()));
        let missing: Vec<_> = unended.into_iter().chain(taken).collect();
        let gaps: Vec<_> = missing
            .iter()
            .map(|(lost, since, reason)| Gap {
                lost: *lost,
                // The clock may have been set back meanwhile.
                from: now.min(*since),
                to: now.max(*since),
                reason,
            })
            .collect();
        let head = Head {
            run: &self.run,
            previous: previous.as_ref(),
            state,
            gaps: &gaps,
            now,
        };
        draft.write_heads(&mut encoder, clock, &head)?;
        let new = match (&mut self.current, seal) {
            (Some(old), Some((_, line))) => {
                let before = old.events.mark();
                old.events.buffer().extend_from_slice(&line);
                let path = self.dir.path_of(&old.record().to_string());
                let sealed = old.events.drain();
                let sealed = sealed.map_err(|source| Error::write(&path, source));
                match sealed.and_then(|()| draft.commit()) {
                    Ok(new) => new,
                    Err(error) => {
                        old.events.restore(before);
                        return Err(error);
                    }
                }
            }
            _ => draft.commit()?,
        };
        let stamp = new.stamp;
        if let Some(old) = self.current.replace(new) {
            self.retire(old);
        }
        self.encoder = encoder;
        self.unended = None;
        self.gone = false;
        self.sets += 1;
        let opened = SetOpened {
            stamp,
            reason,
            previous: previous.as_ref().map(|link| link.stamp),
            previous_sha256: previous.and_then(|link| link.sha256),
        };
        // Losses from before the first set are told at its beginning.
        let _ = self.settle(now);
        Ok(opened)
    }

    /// The set before is closed.
    fn retire(&mut self, old: OpenSet) {
        if self.gone {
            let outage = self.outage.get_or_insert_default();
            if old.events.is_deleted() {
                self.withdrawn += old.events_kept;
                self.lost += old.events_kept;
                outage.lost += old.events_kept;
            }
            if old.ports.is_deleted() {
                outage.rows_lost += old.rows_kept;
                if !old.events.is_deleted()
                    && let Some(new) = &mut self.current
                {
                    new.rows_missing += old.rows_kept;
                }
            }
        }
        let next = self.current.as_ref().map(|new| new.first_seq);
        self.count(&old, next.unwrap_or(self.encoder.next_seq()));
        self.keeper.sync(old.into_disks());
    }

    pub(super) fn seal_last(&mut self, set: &mut OpenSet, now: WallTime) -> Result<(), Error> {
        let line = set.seal_line(&mut self.encoder, &mut self.clock, now, None);
        set.events.buffer().extend_from_slice(&line);
        let path = self.dir.path_of(&set.record().to_string());
        let sealed = set.events.drain();
        sealed.map_err(|source| Error::write(&path, source))
    }
}

impl Backoff {
    fn after(before: Option<Self>, reason: RollReason) -> Self {
        let wait = before.map_or(FIRST_BACKOFF, |before| {
            (2 * before.wait).min(LONGEST_BACKOFF)
        });
        Self {
            reason,
            wait,
            until: Instant::now() + wait,
        }
    }
}
