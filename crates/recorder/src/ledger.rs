//! The loss ledger: what the kernel made, what arrived, what is missing.
//!
//! Every socket observation carries the number of its stream (a CPU) and a
//! sequence number in it without holes. A hole that appears is *open* at first,
//! because an interrupt may hand over a later number before an earlier one. A
//! hole that stays is a loss, and the observations on its two sides say from
//! when to when it happened. A loss at the end of a stream has no far side: it
//! shows when the kernel's own count is ahead of ours. But what was counted may
//! still wait, in the kernel's buffer or in our queue, and for minutes if the
//! disk stalls. So a count is compared only once it is known that all from
//! before it has been handed over: something younger came, or the thread that
//! empties the buffer found it empty ([`Ledger::handed_over`]).
//!
//! The promise that the ledger keeps: what the kernel made is what arrived plus
//! what was declared lost, at every moment except for the holes still open.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event::BootTime;

/// How long a hole may stay open.
const PATIENCE: Duration = Duration::from_millis(250);

/// Events that are lost, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// How many.
    pub(crate) events: u64,
    /// Not before this.
    pub(crate) from: BootTime,
    /// Not after this.
    pub(crate) to: BootTime,
}

/// The books of one run.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// When the recording began: nothing was lost before.
    start: BootTime,
    streams: BTreeMap<u16, Stream>,
    received: u64,
    lost: u64,
    /// When the youngest observation that arrived was made.
    youngest: BootTime,
    /// The kernel's counts that are to be compared.
    produced: Option<Produced>,
    /// Events that the kernel could not number.
    unnumbered: u64,
    unnumbered_at: BootTime,
}

/// The kernel's counts at one moment.
#[derive(Debug)]
struct Produced {
    counts: BTreeMap<u16, u64>,
    at: BootTime,
    asked: Instant,
    /// Everything that was counted has arrived, unless it is lost.
    handed_over: bool,
}

#[derive(Debug)]
struct Stream {
    /// The number that comes next.
    next: u64,
    /// When the last observation was made.
    last: BootTime,
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct Hole {
    first: u64,
    end: u64,
    from: BootTime,
    to: BootTime,
    since: Instant,
}

impl Ledger {
    /// Empty books, opened at `start`.
    pub(crate) fn new(start: BootTime) -> Self {
        Self {
            start,
            streams: BTreeMap::new(),
            received: 0,
            lost: 0,
            youngest: start,
            produced: None,
            unnumbered: 0,
            unnumbered_at: start,
        }
    }

    /// An observation arrived.
    pub(crate) fn receive(&mut self, stream: u16, sequence: u64, at: BootTime, now: Instant) {
        self.received += 1;
        self.youngest = self.youngest.max(at);
        let stream = self
            .streams
            .entry(stream)
            .or_insert_with(|| Stream::new(self.start));
        if sequence == stream.next {
            stream.next += 1;
            stream.last = at;
        } else if sequence > stream.next {
            stream.holes.push(Hole {
                first: stream.next,
                end: sequence,
                from: stream.last,
                to: at,
                since: now,
            });
            stream.next = sequence + 1;
            stream.last = at;
        } else if !stream.fill(sequence) {
            // It was declared lost and came after all: the books stay right if
            // it is taken off the losses. Its gap stands in the log.
            self.lost = self.lost.saturating_sub(1);
        }
    }

    /// When the youngest observation that arrived was made.
    pub(crate) fn youngest(&self) -> BootTime {
        self.youngest
    }

    /// Declares lost what has been missing for long enough.
    pub(crate) fn settle(&mut self, now: Instant) -> Vec<Loss> {
        let mut losses = Vec::new();
        for stream in self.streams.values_mut() {
            stream.holes.retain(|hole| {
                let open = now.duration_since(hole.since) < PATIENCE;
                if !open {
                    let events = hole.end - hole.first;
                    losses.push(Loss {
                        events,
                        from: hole.from,
                        to: hole.to,
                    });
                }
                open
            });
        }
        self.lost += losses.iter().map(|loss| loss.events).sum::<u64>();
        losses
    }

    /// The kernel's buffer was empty after it was last asked for its counts, and
    /// what was in it has arrived.
    pub(crate) fn handed_over(&mut self) {
        if let Some(produced) = &mut self.produced {
            produced.handed_over = true;
        }
    }

    /// Compares with the kernel's own counts. What it had made by the time of
    /// the comparison before and has not arrived is lost, if all from then has
    /// been handed over; else the comparison has to wait. `at` is now.
    pub(crate) fn compare(
        &mut self,
        produced: BTreeMap<u16, u64>,
        at: BootTime,
        now: Instant,
    ) -> Vec<Loss> {
        let mut losses = Vec::new();
        if let Some(before) = &self.produced {
            let patience = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
            let has_younger = self.youngest.0 > before.at.0.saturating_add(patience);
            let is_due = now.duration_since(before.asked) >= PATIENCE;
            if !is_due || !before.handed_over && !has_younger {
                return losses;
            }
            for (&stream, &count) in &before.counts {
                let stream = self
                    .streams
                    .entry(stream)
                    .or_insert_with(|| Stream::new(self.start));
                losses.extend(stream.cut(count, at));
            }
        }
        self.lost += losses.iter().map(|loss| loss.events).sum::<u64>();
        self.produced = Some(Produced {
            counts: produced,
            at,
            asked: now,
            handed_over: false,
        });
        losses
    }

    /// The end: nothing more will come. All that is missing is lost.
    pub(crate) fn finish(&mut self, produced: &BTreeMap<u16, u64>, at: BootTime) -> Vec<Loss> {
        let mut losses = Vec::new();
        for (&number, &count) in produced {
            let stream = self
                .streams
                .entry(number)
                .or_insert_with(|| Stream::new(self.start));
            losses.extend(stream.cut(count, at));
            losses.extend(stream.holes.drain(..).map(|hole| Loss {
                events: hole.end - hole.first,
                from: hole.from,
                to: hole.to,
            }));
        }
        self.lost += losses.iter().map(|loss| loss.events).sum::<u64>();
        losses
    }

    /// The kernel's count of events that it could not number.
    pub(crate) fn unnumbered(&mut self, count: u64, at: BootTime) -> Option<Loss> {
        let events = count.saturating_sub(self.unnumbered);
        let from = std::mem::replace(&mut self.unnumbered_at, at);
        self.unnumbered += events;
        self.lost += events;
        (events > 0).then_some(Loss {
            events,
            from,
            to: at,
        })
    }

    /// What the kernel made, as far as it is accounted for.
    pub(crate) fn kernel(&self) -> u64 {
        let numbered: u64 = self
            .streams
            .values()
            .map(|stream| {
                let open: u64 = stream.holes.iter().map(|hole| hole.end - hole.first).sum();
                stream.next - open
            })
            .sum();
        numbered + self.unnumbered
    }

    /// What arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// What was declared lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}

impl Stream {
    fn new(start: BootTime) -> Self {
        Self {
            next: 0,
            last: start,
            holes: Vec::new(),
        }
    }

    /// Takes a late number out of its hole.
    fn fill(&mut self, sequence: u64) -> bool {
        let Some(at) = self
            .holes
            .iter()
            .position(|hole| (hole.first..hole.end).contains(&sequence))
        else {
            return false;
        };
        let hole = &mut self.holes[at];
        if hole.first == sequence {
            hole.first += 1;
        } else if hole.end == sequence + 1 {
            hole.end -= 1;
        } else {
            let rest = Hole {
                first: sequence + 1,
                ..*hole
            };
            hole.end = sequence;
            self.holes.push(rest);
        }
        self.holes.retain(|hole| hole.first < hole.end);
        true
    }

    /// What is missing below `count` at the end of the stream.
    fn cut(&mut self, count: u64, at: BootTime) -> Option<Loss> {
        if self.next >= count {
            return None;
        }
        let events = count - self.next;
        self.next = count;
        Some(Loss {
            events,
            from: std::mem::replace(&mut self.last, at),
            to: at,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn later(now: Instant) -> Instant {
        now + PATIENCE
    }

    #[test]
    fn a_hole_that_fills_is_no_loss() {
        let now = Instant::now();
        let mut ledger = Ledger::new(BootTime(0));
        for sequence in [0, 2, 1, 3] {
            ledger.receive(0, sequence, BootTime(sequence), now);
        }
        assert_eq!(ledger.settle(later(now)), []);
        assert_eq!(
            (ledger.kernel(), ledger.received(), ledger.lost()),
            (4, 4, 0)
        );
    }

    #[test]
    fn a_hole_that_stays_is_dated_by_its_sides() {
        let now = Instant::now();
        let mut ledger = Ledger::new(BootTime(0));
        ledger.receive(1, 0, BootTime(10), now);
        ledger.receive(1, 5, BootTime(20), now);
        assert_eq!(ledger.settle(now), [], "it may still fill");
        assert_eq!(ledger.kernel(), 2);
        let loss = Loss {
            events: 4,
            from: BootTime(10),
            to: BootTime(20),
        };
        assert_eq!(ledger.settle(later(now)), [loss]);
        assert_eq!(
            (ledger.kernel(), ledger.received(), ledger.lost()),
            (6, 2, 4)
        );
    }

    #[test]
    fn a_loss_at_the_end_shows_in_the_second_comparison() {
        let now = Instant::now();
        let mut ledger = Ledger::new(BootTime(0));
        ledger.receive(0, 0, BootTime(10), now);
        let produced = BTreeMap::from([(0, 3)]);
        assert_eq!(ledger.compare(produced.clone(), BootTime(50), now), []);
        ledger.handed_over();
        let loss = Loss {
            events: 2,
            from: BootTime(10),
            to: BootTime(60),
        };
        assert_eq!(ledger.compare(produced, BootTime(60), later(now)), [loss]);
        // One of them was only late.
        ledger.receive(0, 1, BootTime(11), later(now));
        assert_eq!(
            (ledger.kernel(), ledger.received(), ledger.lost()),
            (3, 2, 1)
        );
    }

    #[test]
    fn what_still_waits_after_a_stall_is_not_lost() {
        let (now, second) = (Instant::now(), 1_000_000_000);
        let mut ledger = Ledger::new(BootTime(0));
        ledger.receive(0, 0, BootTime(10), now);
        let produced = BTreeMap::from([(0, 3)]);
        assert_eq!(ledger.compare(produced.clone(), BootTime(50), now), []);
        // The disk stalled for more than a minute: the rest is in the queue.
        let awake = now + Duration::from_secs(70);
        let at = BootTime(70 * second);
        assert_eq!(ledger.compare(produced.clone(), at, awake), []);
        assert_eq!(ledger.lost(), 0);
        ledger.receive(0, 1, BootTime(40), awake);
        assert_eq!(ledger.compare(produced.clone(), at, awake), []);
        // Something came that was made after the count: the rest never will.
        ledger.receive(1, 0, BootTime(second), awake);
        let losses = ledger.compare(produced, at, awake);
        assert_eq!(losses.iter().map(|loss| loss.events).sum::<u64>(), 1);
        assert_eq!(ledger.kernel(), ledger.received() + ledger.lost());
    }

    #[test]
    fn what_has_no_number_is_counted_once() {
        let mut ledger = Ledger::new(BootTime(0));
        assert!(ledger.unnumbered(2, BootTime(5)).is_some());
        assert_eq!(ledger.unnumbered(2, BootTime(6)), None);
        assert_eq!((ledger.kernel(), ledger.lost()), (2, 2));
    }

    proptest! {
        /// Whatever is lost and however the rest is shuffled within reach:
        /// kernel = received + lost, and all that is missing is declared.
        #[test]
        fn the_books_balance(
            kept in proptest::collection::vec(any::<bool>(), 1..200),
            swaps in proptest::collection::vec(0usize..200, 0..50),
        ) {
            let now = Instant::now();
            let mut order: Vec<u64> =
                (0..kept.len() as u64).filter(|&n| kept[usize::try_from(n).unwrap()]).collect();
            for swap in swaps {
                if swap + 1 < order.len() {
                    order.swap(swap, swap + 1);
                }
            }
            let mut ledger = Ledger::new(BootTime(0));
            for &sequence in &order {
                ledger.receive(0, sequence, BootTime(sequence), now);
                prop_assert_eq!(ledger.kernel(), ledger.received() + ledger.lost());
            }
            let produced = BTreeMap::from([(0, kept.len() as u64)]);
            let losses = ledger.finish(&produced, BootTime(1000));
            let declared: u64 = losses.iter().map(|loss| loss.events).sum();
            prop_assert_eq!(declared, (kept.len() - order.len()) as u64);
            prop_assert_eq!(ledger.kernel(), kept.len() as u64);
            prop_assert_eq!(ledger.kernel(), ledger.received() + ledger.lost());
        }
    }
}
