//! Character strings and times of ASN.1.

use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::Tag;

/// Decodes a string by its tag; none if its length cannot be that of one.
pub(super) fn string(tag: Tag, contents: &[u8]) -> Option<String> {
    match tag {
        // Formally T.61; what is in use is ISO 8859-1.
        Tag::TELETEX_STRING => Some(contents.iter().copied().map(char::from).collect()),
        Tag::BMP_STRING => {
            let (units, []) = contents.as_chunks::<2>() else {
                return None;
            };
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            let text = char::decode_utf16(units);
            Some(
                text.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect(),
            )
        }
        Tag::UNIVERSAL_STRING => {
            let (units, []) = contents.as_chunks::<4>() else {
                return None;
            };
            let text = units
                .iter()
                .map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            Some(
                text.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect(),
            )
        }
        _ => Some(event::text::from_bytes(contents)),
    }
}

/// Reads `UTCTime` (years 1950 to 2049) or `GeneralizedTime`, as UTC.
pub(super) fn time(tag: Tag, contents: &[u8]) -> Option<DateTime> {
    let text = str::from_utf8(contents).ok()?;
    if !text.is_ascii() {
        return None;
    }
    let (year, rest) = match tag {
        Tag::UTC_TIME => {
            let (year, rest) = number(text, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        Tag::GENERALIZED_TIME => number(text, 4)?,
        _ => return None,
    };
    let (month, rest) = number(rest, 2)?;
    let (day, rest) = number(rest, 2)?;
    let (hour, rest) = number(rest, 2)?;
    let (minute, rest) = number(rest, 2).unwrap_or((0, rest));
    let (second, rest) = number(rest, 2).unwrap_or((0, rest));
    let (nanosecond, zone) = fraction(rest)?;
    let small = |number: i32| i8::try_from(number).ok();
    // A leap second is written, and not known to the calendar here.
    let second = small(second.min(59))?;
    let civil = DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        second,
        nanosecond,
    );
    let east = SignedDuration::from_mins(offset(zone)?);
    civil.ok()?.checked_sub(east).ok()
}

/// The first `digits` characters as a number, and what follows.
fn number(text: &str, digits: usize) -> Option<(i32, &str)> {
    let (head, rest) = text.split_at_checked(digits)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, rest))
}

/// Nanoseconds of `.5` or `,5`, if there are, and what follows.
fn fraction(text: &str) -> Option<(i32, &str)> {
    let Some(rest) = text.strip_prefix(['.', ',']) else {
        return Some((0, text));
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, zone) = rest.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let mut nanosecond = 0;
    for at in 0..9 {
        let digit = digits.as_bytes().get(at).map_or(0, |digit| digit - b'0');
        nanosecond = nanosecond * 10 + i32::from(digit);
    }
    Some((nanosecond, zone))
}

/// Minutes east of Greenwich. Without a zone the time would be local to a place
/// that is not known.
fn offset(zone: &str) -> Option<i64> {
    let (sign, digits) = match zone.as_bytes().first()? {
        b'Z' if zone.len() == 1 => return Some(0),
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, rest) = number(digits, 2)?;
    let (minutes, rest) = number(rest, 2).unwrap_or((0, rest));
    if !rest.is_empty() || hours > 23 || minutes > 59 {
        return None;
    }
    Some(sign * i64::from(hours * 60 + minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<String> {
        time(Tag::UTC_TIME, text.as_bytes()).map(|time| time.to_string())
    }

    fn generalized(text: &str) -> Option<String> {
        time(Tag::GENERALIZED_TIME, text.as_bytes()).map(|time| time.to_string())
    }

    #[test]
    fn times() {
        assert_eq!(utc("491231235959Z").unwrap(), "2049-12-31T23:59:59");
        assert_eq!(utc("500101000000Z").unwrap(), "1950-01-01T00:00:00");
        assert_eq!(utc("2601020304+0130").unwrap(), "2026-01-02T01:34:00");
        assert_eq!(
            generalized("20260102030405Z").unwrap(),
            "2026-01-02T03:04:05"
        );
        assert_eq!(
            generalized("20260102030405.0Z").unwrap(),
            "2026-01-02T03:04:05"
        );
        assert_eq!(
            generalized("20260102030405,25-01").unwrap(),
            "2026-01-02T04:04:05.25"
        );
        assert_eq!(
            generalized("20161231235960Z").unwrap(),
            "2016-12-31T23:59:59"
        );
        assert_eq!(
            generalized("99991231235959Z").unwrap(),
            "9999-12-31T23:59:59"
        );
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "Z",
            "20260102030405",
            "20261302030405Z",
            "20260230030405Z",
            "20260102250405Z",
            "20260102030405.Z",
            "20260102030405Zx",
            "20260102030405+9900",
            "2026010203040\u{b2}Z",
            "+0260102030405Z",
        ] {
            assert_eq!(generalized(text), None, "{text}");
        }
        assert_eq!(time(Tag::OCTET_STRING, b"20260102030405Z"), None);
        // Beyond the last time that can be told.
        assert_eq!(generalized("99991231235959-2300"), None);
    }

    #[test]
    fn strings_by_their_tags() {
        assert_eq!(
            string(Tag::UTF8_STRING, b"gr\xc3\xbcn").unwrap(),
            "gr\u{fc}n"
        );
        assert_eq!(string(Tag::IA5_STRING, b"a\xff").unwrap(), "a\\xff");
        assert_eq!(
            string(Tag::TELETEX_STRING, b"gr\xfcn").unwrap(),
            "gr\u{fc}n"
        );
        assert_eq!(
            string(Tag::BMP_STRING, &[0xd8, 0x3d, 0xde, 0x00]).unwrap(),
            "\u{1f600}"
        );
        assert_eq!(string(Tag::BMP_STRING, &[0xd8, 0x3d]).unwrap(), "\u{fffd}");
        assert_eq!(string(Tag::BMP_STRING, &[0]), None);
        assert_eq!(
            string(Tag::UNIVERSAL_STRING, &[0, 1, 0xf6, 0]).unwrap(),
            "\u{1f600}"
        );
    }
}
