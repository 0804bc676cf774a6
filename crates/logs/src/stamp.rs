//! The stamp that the four files of a set share.
//!
//! `yy-mm-d-h-m-s` in local time, year and month padded to two digits, the
//! rest not, as the original tools wrote it: `26-11-3-9-5-0`. Local time is not
//! unique (an hour comes twice in autumn, a clock can be set back, two sets can
//! be opened in one second), so a stamp that is taken gets `-2`, `-3` and so on.
//!
//! Stamps have an order, first by time, then by that number. It is the order in
//! which a person looks at them and in which retention removes them; in which
//! order sets were *written* only their chain tells.

use std::fmt;

use event::WallTime;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Two-digit years from here on are of the twentieth century. A machine that
/// starts without a clock battery believes in 1970; what it writes then must
/// count as old, not as the newest there is.
const PIVOT: i16 = 70;

/// The stamp of a log set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    time: DateTime,
    /// 1 for the first set of that second, which shows no number.
    copy: u32,
}

impl Stamp {
    /// The stamp of a moment in a time zone.
    pub fn at(zone: &TimeZone, t: WallTime) -> Self {
        Self::new(civil(zone, t))
    }

    /// The stamp of a civil time.
    pub fn new(time: DateTime) -> Self {
        // Through the two digits, so that what is written and what is read
        // back are the same value.
        let year = full_year(time.year().rem_euclid(100));
        let whole = time.with().year(year).subsec_nanosecond(0).build();
        Self {
            time: whole.unwrap_or(time),
            copy: 1,
        }
    }

    /// Reads what `Display` writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut next = |padded| number(parts.next()?, padded);
        let year = full_year(i16::try_from(next(true)?).ok()?);
        let mut next_i8 = |padded| i8::try_from(next(padded)?).ok();
        let date = Date::new(year, next_i8(true)?, next_i8(false)?).ok()?;
        let (hour, minute, second) = (next_i8(false)?, next_i8(false)?, next_i8(false)?);
        let time = jiff::civil::Time::new(hour, minute, second, 0).ok()?;
        let copy = match parts.next() {
            None => 1,
            Some(text) => number(text, false).filter(|&copy| copy >= 2)?,
        };
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            time: date.to_datetime(time),
            copy,
        })
    }

    /// The stamp to try when this one is taken.
    pub fn next_copy(self) -> Self {
        Self {
            copy: self.copy.saturating_add(1),
            ..self
        }
    }

    /// This stamp, or the one after `other` if that is of the same second.
    pub(crate) fn after(self, other: Self) -> Self {
        if self.time == other.time && self.copy <= other.copy {
            other.next_copy()
        } else {
            self
        }
    }

    /// The local date.
    pub fn date(self) -> Date {
        self.time.date()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.time;
        write!(
            f,
            "{:02}-{:02}-{}-{}-{}-{}",
            t.year().rem_euclid(100),
            t.month(),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )?;
        if self.copy > 1 {
            write!(f, "-{}", self.copy)?;
        }
        Ok(())
    }
}

/// The civil time of a moment. One that no calendar has counts as 1970.
pub(crate) fn civil(zone: &TimeZone, t: WallTime) -> DateTime {
    let timestamp = jiff::Timestamp::from_microsecond(t.0).unwrap_or_default();
    zone.to_datetime(timestamp)
}

fn full_year(year: i16) -> i16 {
    year + if year < PIVOT { 2000 } else { 1900 }
}

/// A decimal number: of exactly two digits, or without a leading zero.
fn number(text: &str, padded: bool) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let shape = if padded {
        text.len() == 2
    } else {
        text == "0" || !text.starts_with('0')
    };
    (digits && shape).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_year_and_month_are_padded() {
        let stamp = Stamp::new(datetime(2004, 1, 4, 8, 9, 0, 5));
        assert_eq!(stamp.to_string(), "04-01-4-8-9-0");
        assert_eq!(stamp.next_copy().to_string(), "04-01-4-8-9-0-2");
        assert_eq!(stamp.next_copy().next_copy().to_string(), "04-01-4-8-9-0-3");
    }

    #[test]
    fn nothing_else_is_a_stamp() {
        for text in [
            "",
            "04-01-24-8-49",
            "04-1-24-8-49-30",
            "04-01-024-8-49-30",
            "04-01-24-08-49-30",
            "04-13-24-8-49-30",
            "04-02-30-8-49-30",
            "04-01-24-24-49-30",
            "04-01-24-8-49-60",
            "04-01-24-8-49-30-1",
            "04-01-24-8-49-30-0",
            "04-01-24-8-49-30-02",
            "04-01-24-8-49-30-2-2",
            "04-01-24-8-49-30-99999999999",
            "04-01-24-8-49-+30",
            "04-01-24-8-49-30 ",
        ] {
            assert_eq!(Stamp::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn copies_follow_their_first_by_number() {
        let first = Stamp::parse("26-11-3-9-5-0").unwrap();
        let second = Stamp::parse("26-11-3-9-5-0-2").unwrap();
        let tenth = Stamp::parse("26-11-3-9-5-0-10").unwrap();
        let later = Stamp::parse("26-11-3-9-5-1").unwrap();
        assert!(first < second && second < tenth && tenth < later);
    }

    #[test]
    fn a_clock_that_starts_in_1970_is_old() {
        let old = Stamp::at(&TimeZone::UTC, WallTime(5_000_000));
        assert_eq!(old.to_string(), "70-01-1-0-0-5");
        assert!(old < Stamp::parse("26-11-3-9-5-0").unwrap());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(micros: i64, copies in 0_u32..4) {
            let mut stamp = Stamp::at(&TimeZone::UTC, WallTime(micros));
            for _ in 0..copies {
                stamp = stamp.next_copy();
            }
            prop_assert_eq!(Stamp::parse(&stamp.to_string()), Some(stamp));
        }

        #[test]
        fn no_text_is_too_wild(text in "[-0-9a]{0,24}") {
            if let Some(stamp) = Stamp::parse(&text) {
                prop_assert_eq!(stamp.to_string(), text);
            }
        }
    }
}
