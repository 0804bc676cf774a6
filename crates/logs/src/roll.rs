//! When a new set is due.
//!
//! **Midnight.** No timer is set, because a timer does not know that the
//! machine slept, that its clock was set or that its zone was changed. A set
//! keeps the [`Day`] in which it was opened, as a span of wall time, and is due
//! as soon as now is outside of it, on either side. So a clock that is set back
//! over midnight opens a new set once, and once more when it is set forth: once
//! for each step, never more, since the new set is of the new day. After a
//! change of the zone the day is the same date in the new zone.
//!
//! A day begins with its first moment, which is not always 00:00 (it may be
//! 01:00 where the clock is put forward at midnight) and ends where the next
//! one begins. Where the clock is put back shortly *after* midnight, the few
//! minutes that come twice stay with the new day: one midnight, one set.
//!
//! **Size.** A set that begins with a state larger than its limit must not be
//! due before anything was recorded, and not again and again. So a file is full
//! when it has reached its limit *and* has grown by half of it since its head
//! was written. PR-INITIAL is all head and never makes a set due.

use event::WallTime;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::stamp::civil;

/// Why a new set is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollReason {
    /// The recorder started.
    Start,
    /// Local midnight passed.
    Midnight,
    /// It was asked for (SIGHUP).
    Request,
    /// A file reached its size.
    Size,
    /// Somebody deleted or moved a file of the set, or the directory.
    Gone,
}

/// A local day as a span of wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    date: Date,
    start: WallTime,
    end: WallTime,
}

impl Day {
    /// The day in which a moment lies.
    pub fn of(zone: &TimeZone, now: WallTime) -> Self {
        let mut day = Self::of_date(zone, civil(zone, now).date());
        // The clock was put back over midnight: the civil date is yesterday's
        // again, but that day is over.
        for _ in 0..2 {
            if now < day.end {
                break;
            }
            let Ok(tomorrow) = day.date.tomorrow() else {
                break;
            };
            day = Self::of_date(zone, tomorrow);
        }
        // True already in every zone there ever was. Should a table of a zone
        // say otherwise, a set must still not be due when it is opened.
        day.start = day.start.min(now);
        day.end = day.end.max(WallTime(now.0.saturating_add(1)));
        day
    }

    /// Is this moment in the day?
    pub fn contains(&self, now: WallTime) -> bool {
        self.start <= now && now < self.end
    }

    /// The same date in another zone.
    pub fn in_zone(&self, zone: &TimeZone) -> Self {
        Self::of_date(zone, self.date)
    }

    fn of_date(zone: &TimeZone, date: Date) -> Self {
        let start = start_of(zone, date).unwrap_or(WallTime(i64::MIN));
        let end = date.tomorrow().ok().and_then(|next| start_of(zone, next));
        Self {
            date,
            start,
            end: end.unwrap_or(WallTime(i64::MAX)),
        }
    }
}

/// Is a file full that has `length` bytes, the first `head` of them its head?
pub fn is_full(length: u64, head: u64, limit: u64) -> bool {
    length >= limit && length.saturating_sub(head) >= limit / 2
}

/// The first moment of a date; of one that a zone left out, the first after it.
fn start_of(zone: &TimeZone, date: Date) -> Option<WallTime> {
    let midnight = date.to_zoned(zone.clone()).ok()?;
    Some(WallTime(midnight.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000_000;
    const HOUR: i64 = 60 * MINUTE;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn wall(text: &str) -> WallTime {
        WallTime(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    /// The moments at which a recorder that looks each minute opens a set.
    fn rolls(zone: &TimeZone, from: WallTime, to: WallTime) -> Vec<String> {
        let mut day = Day::of(zone, from);
        let mut moments = Vec::new();
        let mut now = from;
        while now < to {
            if !day.contains(now) {
                day = Day::of(zone, now);
                moments.push(Timestamp::from_microsecond(now.0).unwrap().to_string());
            }
            now.0 += MINUTE;
        }
        moments
    }

    #[test]
    fn an_ordinary_midnight() {
        let berlin = zone("Europe/Berlin");
        let rolls = rolls(
            &berlin,
            wall("2026-06-01T10:00:00Z"),
            wall("2026-06-03T10:00:00Z"),
        );
        assert_eq!(rolls, ["2026-06-01T22:00:00Z", "2026-06-02T22:00:00Z"]);
    }

    #[test]
    fn the_moment_before_midnight_is_still_today() {
        let day = Day::of(&TimeZone::UTC, wall("2026-06-01T10:00:00Z"));
        let midnight = wall("2026-06-02T00:00:00Z");
        assert!(day.contains(WallTime(midnight.0 - 1)));
        assert!(!day.contains(midnight));
        assert!(day.contains(wall("2026-06-01T00:00:00Z")));
        assert!(!day.contains(wall("2026-05-31T23:59:59.999999Z")));
    }

    #[test]
    fn a_day_without_midnight_begins_at_one() {
        // 2018-11-04 00:00 did not exist in São Paulo, 2024-03-31 00:00 not in Beirut.
        let rolls_there = rolls(
            &zone("America/Sao_Paulo"),
            wall("2018-11-03T12:00:00Z"),
            wall("2018-11-05T12:00:00Z"),
        );
        assert_eq!(
            rolls_there,
            ["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]
        );
        let rolls_there = rolls(
            &zone("Asia/Beirut"),
            wall("2024-03-30T12:00:00Z"),
            wall("2024-04-01T12:00:00Z"),
        );
        assert_eq!(
            rolls_there,
            ["2024-03-30T22:00:00Z", "2024-03-31T21:00:00Z"]
        );
    }

    #[test]
    fn a_day_that_was_left_out() {
        // Apia went from the end of 2011-12-29 to 2011-12-31.
        let apia = zone("Pacific/Apia");
        let rolls = rolls(
            &apia,
            wall("2011-12-29T20:00:00Z"),
            wall("2011-12-31T20:00:00Z"),
        );
        assert_eq!(rolls, ["2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"]);
    }

    #[test]
    fn a_day_of_25_hours() {
        let rolls = rolls(
            &zone("America/New_York"),
            wall("2026-10-31T12:00:00Z"),
            wall("2026-11-02T12:00:00Z"),
        );
        assert_eq!(rolls, ["2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"]);
    }

    #[test]
    fn a_midnight_that_comes_twice_counts_once() {
        // St. John's put its clocks back at 00:01 until 2011.
        let rolls = rolls(
            &zone("America/St_Johns"),
            wall("2010-11-06T12:00:00Z"),
            wall("2010-11-08T12:00:00Z"),
        );
        assert_eq!(rolls, ["2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"]);
    }

    #[test]
    fn a_clock_set_back_over_midnight_rolls_once_for_each_step() {
        let zone = TimeZone::UTC;
        let mut day = Day::of(&zone, wall("2026-06-02T00:00:30Z"));
        let mut rolls = 0;
        for now in [
            "2026-06-02T00:00:31Z",
            "2026-06-01T23:59:40Z", // back
            "2026-06-01T23:59:41Z",
            "2026-06-02T00:00:40Z", // forth
            "2026-06-02T00:00:20Z", // back, not over midnight
            "2026-06-02T00:00:41Z",
        ] {
            if !day.contains(wall(now)) {
                day = Day::of(&zone, wall(now));
                rolls += 1;
            }
        }
        assert_eq!(rolls, 2);
    }

    #[test]
    fn after_days_of_sleep_one_set_is_due() {
        let zone = TimeZone::UTC;
        let day = Day::of(&zone, wall("2026-06-01T10:00:00Z"));
        let woken = wall("2026-06-09T10:00:00Z");
        assert!(!day.contains(woken));
        assert!(Day::of(&zone, woken).contains(woken));
    }

    #[test]
    fn a_new_zone_keeps_the_date() {
        let now = wall("2026-06-01T20:00:00Z");
        let day = Day::of(&TimeZone::UTC, now);
        // It is already the next day there.
        assert!(!day.in_zone(&zone("Asia/Tokyo")).contains(now));
        assert!(day.in_zone(&zone("America/New_York")).contains(now));
    }

    #[test]
    fn a_large_head_does_not_fill_a_file() {
        assert!(!is_full(4_999, 100, 5_000));
        assert!(is_full(5_000, 100, 5_000));
        assert!(!is_full(9_000, 9_000, 5_000));
        assert!(!is_full(11_499, 9_000, 5_000));
        assert!(is_full(11_500, 9_000, 5_000));
    }

    fn any_zone() -> impl Strategy<Value = TimeZone> {
        proptest::sample::select(vec![
            "America/New_York",
            "America/Sao_Paulo",
            "America/St_Johns",
            "Asia/Beirut",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Europe/Berlin",
            "Pacific/Apia",
            "Pacific/Kwajalein",
            "UTC",
        ])
        .prop_map(zone)
    }

    proptest! {
        #[test]
        fn now_is_today(zone in any_zone(), now: i64, divisor in 1_i64..100_000) {
            let now = WallTime(now / divisor);
            prop_assert!(Day::of(&zone, now).contains(now));
        }

        #[test]
        fn days_are_as_long_as_days_are(
            zone in any_zone(),
            seconds in 0_i64..4_000_000_000,
        ) {
            let now = WallTime(seconds * 1_000_000);
            let day = Day::of(&zone, now);
            let hours = (day.end.0 - day.start.0) / HOUR;
            prop_assert!((20..=28).contains(&hours), "{hours} hours");
            // The next day begins where this one ends.
            prop_assert_eq!(Day::of(&zone, day.end).start, day.end);
        }
    }
}
