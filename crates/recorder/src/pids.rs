//! When a process gets an entry in PR-PIDS.
//!
//! One entry in each second in which anything about its ports changed. An entry
//! lists all its ports, so a busy process would write without end: where its
//! entries pass 1 MB a second its interval doubles, up to a minute, and halves
//! again when they become small. The entry says how many changes it covers.

use event::ProcessKey;
use rustc_hash::FxHashMap;

const LONGEST_SECS: u64 = 60;
const MOST_BYTES_A_SECOND: u64 = 1_000_000;

/// The changes that have no entry yet, by process; none is the owner of ports
/// whose owner was never known.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pending: FxHashMap<Option<ProcessKey>, u64>,
    /// Those that may not write each second.
    slow: FxHashMap<Option<ProcessKey>, Pace>,
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    interval_secs: u64,
    /// The second of the last entry.
    last: u64,
}

/// An entry that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) owner: Option<ProcessKey>,
    pub(crate) changes: u64,
    pub(crate) interval_secs: u64,
}

impl Changes {
    /// Something about this process's ports changed.
    pub(crate) fn note(&mut self, owner: Option<ProcessKey>) {
        *self.pending.entry(owner).or_default() += 1;
    }

    /// The entries that are due at this second, counted since boot.
    pub(crate) fn due(&mut self, second: u64, is_end: bool) -> Vec<Due> {
        let slow = &self.slow;
        let mut due: Vec<Due> = self
            .pending
            .extract_if(|owner, _| {
                is_end
                    || slow
                        .get(owner)
                        .is_none_or(|pace| second >= pace.last + pace.interval_secs)
            })
            .map(|(owner, changes)| Due {
                owner,
                changes,
                interval_secs: slow.get(&owner).map_or(1, |pace| pace.interval_secs),
            })
            .collect();
        due.sort_by_key(|due| due.owner);
        due
    }

    /// An entry of this size was written.
    pub(crate) fn wrote(&mut self, owner: Option<ProcessKey>, bytes: usize, second: u64) {
        let interval_secs = self.slow.get(&owner).map_or(1, |pace| pace.interval_secs);
        let rate = bytes as u64 / interval_secs;
        let next = if rate > MOST_BYTES_A_SECOND {
            (interval_secs * 2).min(LONGEST_SECS)
        } else if rate < MOST_BYTES_A_SECOND / 4 {
            (interval_secs / 2).max(1)
        } else {
            interval_secs
        };
        if next > 1 {
            self.slow.insert(
                owner,
                Pace {
                    interval_secs: next,
                    last: second,
                },
            );
        } else {
            self.slow.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_process_writes_each_second() {
        let mut changes = Changes::default();
        changes.note(None);
        changes.note(None);
        let due = Due {
            owner: None,
            changes: 2,
            interval_secs: 1,
        };
        assert_eq!(changes.due(10, false), [due]);
        assert_eq!(changes.due(11, false), [], "nothing changed");
    }

    #[test]
    fn a_busy_process_slows_down_and_recovers() {
        let mut changes = Changes::default();
        let mut intervals = Vec::new();
        let mut second = 0;
        for bytes in [3_000_000, 5_000_000, 100_000, 100_000, 100_000] {
            changes.note(None);
            while changes.due(second, false).is_empty() {
                second += 1;
            }
            changes.wrote(None, bytes, second);
            intervals.push(changes.slow.get(&None).map_or(1, |pace| pace.interval_secs));
        }
        assert_eq!(intervals, [2, 4, 2, 1, 1]);
    }

    #[test]
    fn the_end_waits_for_nobody() {
        let mut changes = Changes::default();
        changes.wrote(None, 100_000_000, 5);
        changes.note(None);
        assert_eq!(changes.due(6, false), []);
        assert_eq!(changes.due(6, true).len(), 1);
    }
}
