//! How a moment is written: in local civil time, three ways.
//!
//! A busy machine writes tens of thousands of lines a second, all in the same
//! few seconds, so the civil text of a second is kept until another second is
//! asked for. The clock does not know what time it is; it is told.
//!
//! A [`jiff::tz::TimeZone`] knows every change of its zone, so one clock is
//! right on both sides of a daylight-saving change. Whether the *system's* zone
//! was changed is for the owner of the clock to notice ([`LocalClock::set_zone`]).

use event::WallTime;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::{Offset, TimeZone};

use super::decimal::{pair, push_u64};

/// `2026-11-22T03:12:05.`
const CIVIL_LENGTH: usize = 20;

/// The first and last second that have four digits of year in every zone.
const FIRST_SECOND: i64 = -62_135_510_400; // 0001-01-02T00:00:00Z
const LAST_SECOND: i64 = 253_402_128_000; // 9999-12-30T00:00:00Z

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Turns wall time into local civil text.
#[derive(Clone, Debug)]
pub struct LocalClock {
    zone: TimeZone,
    cached: Option<Second>,
}

/// What is kept of the second that was asked for last.
#[derive(Clone, Debug)]
struct Second {
    since_1970: i64,
    civil: DateTime,
    civil_text: [u8; CIVIL_LENGTH],
    offset_text: [u8; 6],
}

impl LocalClock {
    /// A clock for a time zone.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, cached: None }
    }

    /// The zone in use.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Changes the zone, for the next moment that is written.
    pub fn set_zone(&mut self, zone: TimeZone) {
        self.zone = zone;
        self.cached = None;
    }

    /// Appends `2026-11-22T03:12:05.123456+01:00`. UTC is `+00:00`.
    #[inline]
    pub fn push_rfc3339(&mut self, out: &mut Vec<u8>, t: WallTime) {
        let micros = u64::from(t.subsecond_micros());
        let second = self.second(t);
        let mut text = [0; CIVIL_LENGTH + 12];
        text[..CIVIL_LENGTH].copy_from_slice(&second.civil_text);
        text[20..22].copy_from_slice(&pair(micros / 10_000));
        text[22..24].copy_from_slice(&pair(micros / 100));
        text[24..26].copy_from_slice(&pair(micros));
        text[26..].copy_from_slice(&second.offset_text);
        out.extend_from_slice(&text);
    }

    /// Appends the first two fields of a PR-PORTS row, `04/1/24,8:52:21`: only
    /// the year and the minute are padded, as the original did.
    pub fn push_ports_stamp(&mut self, out: &mut Vec<u8>, t: WallTime) {
        let civil = self.second(t).civil;
        out.extend_from_slice(&pair(number(civil.year())));
        out.push(b'/');
        push_u64(out, number(civil.month().into()));
        out.push(b'/');
        push_u64(out, number(civil.day().into()));
        out.push(b',');
        push_u64(out, number(civil.hour().into()));
        out.push(b':');
        out.extend_from_slice(&pair(number(civil.minute().into())));
        out.push(b':');
        push_u64(out, number(civil.second().into()));
    }

    /// Appends `Sat Jan 24 08:49:31 2004`, the form of C's `ctime` with the
    /// day padded by a zero, as the original did.
    pub fn push_ctime(&mut self, out: &mut Vec<u8>, t: WallTime) {
        let civil = self.second(t).civil;
        out.extend_from_slice(day_name(civil.weekday()).as_bytes());
        out.push(b' ');
        let month = usize::try_from(civil.month() - 1).unwrap_or(0);
        out.extend_from_slice(MONTHS[month].as_bytes());
        out.push(b' ');
        out.extend_from_slice(&pair(number(civil.day().into())));
        out.push(b' ');
        out.extend_from_slice(&pair(number(civil.hour().into())));
        out.push(b':');
        out.extend_from_slice(&pair(number(civil.minute().into())));
        out.push(b':');
        out.extend_from_slice(&pair(number(civil.second().into())));
        out.push(b' ');
        let year = number(civil.year());
        out.extend_from_slice(&pair(year / 100));
        out.extend_from_slice(&pair(year));
    }

    #[inline]
    fn second(&mut self, t: WallTime) -> &Second {
        let second = t.seconds();
        if self.cached.as_ref().is_none_or(|c| c.since_1970 != second) {
            self.cached = None;
        }
        let zone = &self.zone;
        self.cached.get_or_insert_with(|| Second::new(zone, second))
    }
}

impl Second {
    #[cold]
    fn new(zone: &TimeZone, second: i64) -> Self {
        // No clock of a machine is out of this range; a number read from a
        // damaged file may be.
        let clamped = second.clamp(FIRST_SECOND, LAST_SECOND);
        let timestamp = jiff::Timestamp::from_second(clamped).unwrap_or_default();
        // RFC 3339 has no seconds in an offset. Zones had them before 1972;
        // both parts are shifted alike, so the moment stays exact.
        let minutes = zone.to_offset(timestamp).seconds() / 60;
        let offset = Offset::from_seconds(minutes * 60).unwrap_or(Offset::UTC);
        let civil = offset.to_datetime(timestamp);
        Self {
            since_1970: second,
            civil,
            civil_text: civil_text(civil),
            offset_text: offset_text(minutes),
        }
    }
}

fn civil_text(civil: DateTime) -> [u8; CIVIL_LENGTH] {
    let year = number(civil.year());
    let [y1, y2] = pair(year / 100);
    let [y3, y4] = pair(year);
    let [m1, m2] = pair(number(civil.month().into()));
    let [d1, d2] = pair(number(civil.day().into()));
    let [h1, h2] = pair(number(civil.hour().into()));
    let [n1, n2] = pair(number(civil.minute().into()));
    let [s1, s2] = pair(number(civil.second().into()));
    [
        y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'.',
    ]
}

fn offset_text(minutes: i32) -> [u8; 6] {
    let sign = if minutes < 0 { b'-' } else { b'+' };
    let minutes = u64::from(minutes.unsigned_abs());
    let [h1, h2] = pair(minutes / 60);
    let [m1, m2] = pair(minutes % 60);
    [sign, h1, h2, b':', m1, m2]
}

/// A part of a civil time; none of them is negative in our range.
fn number(part: i16) -> u64 {
    u64::try_from(part).unwrap_or(0)
}

fn day_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(clock: &mut LocalClock, t: WallTime) -> [String; 3] {
        let text = |out: Vec<u8>| String::from_utf8(out).unwrap();
        let mut rfc3339 = Vec::new();
        clock.push_rfc3339(&mut rfc3339, t);
        let mut stamp = Vec::new();
        clock.push_ports_stamp(&mut stamp, t);
        let mut ctime = Vec::new();
        clock.push_ctime(&mut ctime, t);
        [text(rfc3339), text(stamp), text(ctime)]
    }

    fn wall(text: &str) -> WallTime {
        WallTime(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn a_moment_in_three_forms() {
        let mut clock = LocalClock::new(TimeZone::UTC);
        assert_eq!(
            written(&mut clock, wall("2004-01-24T08:09:03.000042Z")),
            [
                "2004-01-24T08:09:03.000042+00:00",
                "04/1/24,8:09:3",
                "Sat Jan 24 08:09:03 2004"
            ]
        );
        assert_eq!(
            written(&mut clock, wall("2005-07-06T13:44:04Z"))[2],
            "Wed Jul 06 13:44:04 2005"
        );
    }

    #[test]
    fn both_sides_of_a_change_of_the_offset() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let mut clock = LocalClock::new(zone);
        let change = wall("2026-03-29T01:00:00Z");
        assert_eq!(
            written(&mut clock, WallTime(change.0 - 1))[0],
            "2026-03-29T01:59:59.999999+01:00"
        );
        assert_eq!(
            written(&mut clock, change)[0],
            "2026-03-29T03:00:00.000000+02:00"
        );
    }

    #[test]
    fn a_new_zone_takes_effect_at_once() {
        let t = wall("2026-11-22T02:12:05.5Z");
        let mut clock = LocalClock::new(TimeZone::UTC);
        assert_eq!(written(&mut clock, t)[1], "26/11/22,2:12:5");
        clock.set_zone(TimeZone::fixed(jiff::tz::offset(-5)));
        assert_eq!(
            written(&mut clock, t)[0],
            "2026-11-21T21:12:05.500000-05:00"
        );
    }

    #[test]
    fn the_cache_is_not_used_for_another_second() {
        let mut clock = LocalClock::new(TimeZone::UTC);
        let t = wall("2026-11-22T23:59:59.999999Z");
        let later = WallTime(t.0 + 1);
        let before = written(&mut clock, t);
        assert_eq!(
            written(&mut clock, later)[0],
            "2026-11-23T00:00:00.000000+00:00"
        );
        assert_eq!(written(&mut clock, t), before);
    }

    proptest! {
        #[test]
        fn a_standard_reader_reads_the_same_moment(
            micros in -5_000_000_000_000_000_i64..200_000_000_000_000_000,
            offset in -86_000..86_000_i32,
        ) {
            let zone = TimeZone::fixed(Offset::from_seconds(offset).unwrap());
            let mut clock = LocalClock::new(zone);
            let [text, ..] = written(&mut clock, WallTime(micros));
            prop_assert_eq!(wall(&text), WallTime(micros));
        }

        #[test]
        fn no_number_is_too_wild(micros: i64) {
            let mut clock = LocalClock::new(TimeZone::UTC);
            prop_assert_eq!(written(&mut clock, WallTime(micros))[0].len(), 32);
        }
    }
}
