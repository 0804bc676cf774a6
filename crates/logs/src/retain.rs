//! Which old sets go.
//!
//! A recorder that fills the disk harms what it is to protect. Two limits hold:
//! the bytes of all sets together and the age of a set in local days. What is
//! over a limit goes, the oldest stamp first, as a whole set, never a part of
//! one, and never the set that is being written; that one counts in the total,
//! though, since it takes room too.

use std::collections::BTreeMap;

use jiff::Span;
use jiff::civil::Date;

use crate::names::StoredSet;
use crate::stamp::Stamp;

/// Without another limit, at most this many bytes …
const DEFAULT_TOTAL: u64 = 4 << 30;

/// … and at most this part of the file system.
const DEFAULT_PART: u64 = 10;

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// All sets together, in bytes.
    pub(crate) total: u64,
    /// The age of a set, in days.
    pub(crate) days: Option<u32>,
}

impl Retention {
    /// The limit of the total where none is asked for, on a file system that
    /// holds so many bytes.
    pub(crate) fn default_total(capacity: u64) -> u64 {
        (capacity / DEFAULT_PART).min(DEFAULT_TOTAL)
    }

    /// The sets that are over a limit, the oldest first.
    pub(crate) fn surplus(
        &self,
        sets: &BTreeMap<Stamp, StoredSet>,
        current: Option<Stamp>,
        today: Date,
    ) -> Vec<Stamp> {
        let mut total: u64 = sets.values().map(StoredSet::bytes).sum();
        let oldest_day = self.days.and_then(|days| {
            let age = Span::new().try_days(i64::from(days)).ok()?;
            today.checked_sub(age).ok()
        });
        let mut surplus = Vec::new();
        for (&stamp, set) in sets {
            let old = oldest_day.is_some_and(|day| stamp.date() < day);
            if current == Some(stamp) || (total <= self.total && !old) {
                continue;
            }
            total = total.saturating_sub(set.bytes());
            surplus.push(stamp);
        }
        surplus
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::names::{FileKind, FileName, Form};

    const TODAY: Date = date(2026, 11, 22);

    fn sets(sizes: &[(&str, u64)]) -> BTreeMap<Stamp, StoredSet> {
        sizes
            .iter()
            .map(|&(stamp, size)| {
                let stamp = Stamp::parse(stamp).unwrap();
                let name = FileName::new(FileKind::Events, stamp, Form::Plain);
                (stamp, StoredSet::new(vec![(name, size)]))
            })
            .collect()
    }

    fn surplus(total: u64, days: Option<u32>, current: &str) -> Vec<String> {
        let sets = sets(&[
            ("26-11-9-0-0-0", 10),
            ("26-11-10-0-0-0", 20),
            ("26-11-20-0-0-0", 30),
            ("26-11-22-0-0-0", 40),
        ]);
        Retention { total, days }
            .surplus(&sets, Stamp::parse(current), TODAY)
            .into_iter()
            .map(|stamp| stamp.to_string())
            .collect()
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let current = "26-11-22-0-0-0";
        assert_eq!(surplus(100, None, current), [""; 0]);
        assert_eq!(surplus(99, None, current), ["26-11-9-0-0-0"]);
        assert_eq!(
            surplus(70, None, current),
            ["26-11-9-0-0-0", "26-11-10-0-0-0"]
        );
        assert_eq!(surplus(0, None, current).len(), 3);
    }

    #[test]
    fn the_current_set_stays_even_if_it_is_the_oldest() {
        // The clock was set back.
        assert_eq!(
            surplus(10, None, "26-11-9-0-0-0"),
            ["26-11-10-0-0-0", "26-11-20-0-0-0", "26-11-22-0-0-0"]
        );
    }

    #[test]
    fn a_set_is_kept_for_so_many_days() {
        assert_eq!(surplus(1000, Some(12), ""), ["26-11-9-0-0-0"]);
        assert_eq!(surplus(1000, Some(13), ""), [""; 0]);
        assert_eq!(surplus(1000, Some(0), "26-11-22-0-0-0").len(), 3);
        assert_eq!(surplus(1000, Some(u32::MAX), ""), [""; 0]);
    }

    #[test]
    fn a_tenth_of_the_disk_but_not_more_than_4_gib() {
        assert_eq!(Retention::default_total(100), 10);
        assert_eq!(Retention::default_total(1 << 50), 4 << 30);
        assert_eq!(Retention::default_total(0), 0);
    }
}
