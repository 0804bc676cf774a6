//! NTP (RFC 5905): the time, and how good it is.
//!
//! One packet of a client, whose only content is a random number in the place
//! of its clock, so that the reply can be told from a forged one and the
//! request tells nothing. Then the server's variables are asked for (mode 6,
//! RFC 9327), which give its software and system; most servers answer that only
//! to hosts they trust.
//!
//! The offset is that of this machine's clock, taken once: good enough to see
//! that a clock is wrong, not to set one.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use event::{Protocol, text};

use super::nonce::nonce;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fact, Fault, Reader, Value};

/// Asks for the time, then for the system's variables.
#[derive(Debug)]
pub(super) struct Ntp;

/// Seconds from NTP's epoch, 1900, to that of Unix.
const EPOCH: i128 = 2_208_988_800;

/// How many datagrams of variables are put together at most.
const FRAGMENTS: usize = 32;

impl Question for Ntp {
    fn name(&self) -> &'static str {
        "ntp"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let cookie = nonce();
        // Of two tries the second one is measured; too large a delay then shows
        // that the first was answered.
        let sent = now();
        let reply = datagrams.exchange(&request(cookie), |reply| answers(reply, cookie))?;
        let mut answer = read(&reply, sent, now())?;
        let variables = variables(datagrams);
        if !variables.is_empty() {
            let software = variables.iter().find(|fact| fact.name == "version");
            if let Some(Value::Text(version)) = software.map(|fact| &fact.value) {
                answer.summary = format!("{version}, {}", answer.summary);
            }
            answer.add("readvar", variables);
        }
        Ok(answer)
    }
}

/// Microseconds since 1970, before it negative.
fn now() -> i128 {
    let micros = |duration: Duration| i128::try_from(duration.as_micros()).unwrap_or(i128::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

/// A packet of mode 3, client, of version 4.
fn request(cookie: [u8; 8]) -> Vec<u8> {
    let mut request = vec![0; 48];
    request[0] = 4 << 3 | 3;
    request[40..].copy_from_slice(&cookie);
    request
}

/// Whether it is a server's reply to that request: its origin is what the
/// request had in the place of its clock.
fn answers(reply: &[u8], cookie: [u8; 8]) -> bool {
    reply.len() >= 48 && reply[0] & 7 == 4 && reply[24..32] == cookie
}

/// What a reply says that came in at `received` for what went out at `sent`,
/// in microseconds since 1970.
fn read(reply: &[u8], sent: i128, received: i128) -> Result<Answer, Fault> {
    let mut reader = Reader::new(reply);
    let first = reader.u8("leap, version and mode")?;
    let stratum = reader.u8("stratum")?;
    let poll = reader.u8("poll")?.cast_signed();
    let precision = reader.u8("precision")?.cast_signed();
    let delay = reader.u32("root delay")?;
    let dispersion = reader.u32("root dispersion")?;
    let reference = reader.array("reference")?;
    reader.bytes(16, "reference and origin times")?;
    let arrived = reader.array("receive time")?;
    let left = reader.array("transmit time")?;

    let mut answer = Answer::of("ntp");
    answer.add("stratum", u32::from(stratum));
    let reference = reference_text(stratum, reference);
    answer.add("reference id", reference.as_str());
    let leap = match first >> 6 {
        0 => "no warning",
        1 => "the last minute has 61 seconds",
        2 => "the last minute has 59 seconds",
        _ => "not synchronised",
    };
    answer.add("leap", leap);
    answer.add("version", u32::from(first >> 3 & 7));
    answer.add("poll", i64::from(poll));
    answer.add("precision", i64::from(precision));
    answer.add("root delay us", short(delay));
    answer.add("root dispersion us", short(dispersion));
    if stratum == 0 {
        // A server that refuses (RFC 5905 §7.4), or has not got the time itself.
        if matches!(reference.as_str(), "DENY" | "RSTR" | "RATE") {
            answer.add("error", reference.as_str());
        }
        answer.summary = format!("kiss code {reference}, {leap}");
        return Ok(answer);
    }
    let (arrived, left) = (micros(arrived, sent), micros(left, sent));
    let offset = i128::midpoint(arrived - sent, left - received);
    let round_trip = (received - sent) - (left - arrived);
    answer.add("offset us", number(offset));
    answer.add("delay us", number(round_trip));
    answer.summary = format!("stratum {stratum}, reference {reference}, offset {offset} us");
    Ok(answer)
}

/// By stratum: a kiss code, a clock's name, or the server above (an IPv4
/// address, or the hash of an IPv6 one, which looks the same).
fn reference_text(stratum: u8, reference: [u8; 4]) -> String {
    if stratum < 2 {
        let end = reference.iter().rposition(|byte| *byte != 0);
        return text::from_bytes(&reference[..end.map_or(0, |end| end + 1)]);
    }
    Ipv4Addr::from(reference).to_string()
}

/// NTP's short format, 16 bits of seconds and 16 of fraction, in microseconds.
fn short(time: u32) -> i64 {
    i64::from(time) * 1_000_000 / 65_536
}

/// An NTP time in microseconds since 1970, in the era (of 136 years) in which
/// it is nearest to `about`.
fn micros(time: [u8; 8], about: i128) -> i128 {
    let time = i128::from(u64::from_be_bytes(time));
    let micros = ((time * 1_000_000) >> 32) - EPOCH * 1_000_000;
    let era = 1_000_000_i128 << 32;
    micros + (about - micros + era / 2).div_euclid(era) * era
}

fn number(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// READVAR of the system itself (RFC 9327 §2).
fn readvar(sequence: u16) -> Vec<u8> {
    let [high, low] = sequence.to_be_bytes();
    // Version 2 as the reference client sends it, mode 6, operation 2.
    vec![0x16, 2, high, low, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The system's variables; none if the server does not tell them.
fn variables(datagrams: &mut Datagrams<'_>) -> Vec<Fact> {
    let sequence = u16::from_be_bytes(nonce());
    let mut fragments = Vec::new();
    let mut next = datagrams.ask_more(&readvar(sequence), |reply| is_variables(reply, sequence));
    while let Ok(reply) = next {
        let Ok(fragment) = Fragment::read(&reply) else {
            break;
        };
        fragments.push(fragment);
        if complete(&mut fragments) || fragments.len() >= FRAGMENTS {
            break;
        }
        next = datagrams.more(|reply| is_variables(reply, sequence));
    }
    let mut text = Vec::new();
    for fragment in fragments {
        if fragment.offset != text.len() {
            // One is missing or comes twice: what is before it can be read.
            break;
        }
        text.extend(fragment.data);
    }
    parse_variables(&text)
}

/// Whether it is a response (0x80) to READVAR of that sequence without error.
fn is_variables(reply: &[u8], sequence: u16) -> bool {
    reply.len() >= 12
        && reply[0] & 7 == 6
        && reply[1] & 0xdf == 0x82
        && reply[2..4] == sequence.to_be_bytes()
}

/// A part of the variables.
#[derive(Debug)]
struct Fragment {
    offset: usize,
    last: bool,
    data: Vec<u8>,
}

impl Fragment {
    fn read(reply: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(reply);
        reader.u8("version and mode")?;
        let operation = reader.u8("operation")?;
        reader.bytes(6, "sequence, status and association")?;
        let offset = usize::from(reader.u16("offset")?);
        let count = usize::from(reader.u16("count")?);
        Ok(Self {
            offset,
            last: operation & 0x20 == 0,
            data: reader.bytes(count, "variables")?.to_vec(),
        })
    }
}

/// Sorts the parts and tells whether all are there, up to the last.
fn complete(fragments: &mut [Fragment]) -> bool {
    fragments.sort_by_key(|fragment| fragment.offset);
    let mut end = 0;
    for fragment in &*fragments {
        if fragment.offset != end {
            return false;
        }
        end += fragment.data.len();
    }
    fragments.last().is_some_and(|fragment| fragment.last)
}

/// `name=value, name="va,lue"`.
fn parse_variables(variables: &[u8]) -> Vec<Fact> {
    let variables = text::from_bytes(variables);
    let mut quoted = false;
    let parts = variables.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts
        .filter_map(|part| {
            let (name, value) = part.trim().split_once('=')?;
            Some(Fact {
                name: name.to_owned(),
                value: value.trim_matches('"').into(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::question::{Script, trial};

    /// 1 s and a half after 2000-01-01, as NTP writes it (RFC 5905, figure 4).
    const Y2K: [u8; 8] = [0xbc, 0x17, 0xc2, 0x01, 0x80, 0, 0, 0];
    const Y2K_MICROS: i128 = 946_684_801_500_000;

    fn reply(stratum: u8, reference: [u8; 4]) -> Vec<u8> {
        let mut reply = vec![0x24, stratum, 6, 0xe9, 0, 0, 0x80, 0, 0, 1, 0, 0];
        reply.extend(reference);
        reply.extend([0; 16]);
        reply.extend(Y2K);
        reply.extend(Y2K);
        reply
    }

    #[test]
    fn asks_without_telling_anything() {
        let request = request(*b"12345678");
        assert_eq!(request[0], 0x23);
        assert!(request[1..40].iter().all(|byte| *byte == 0));
        assert!(request.ends_with(b"12345678"));
    }

    #[test]
    fn times_are_of_the_era_that_is_near() {
        assert_eq!(micros(Y2K, 0), Y2K_MICROS);
        assert_eq!(micros(Y2K, Y2K_MICROS + 1_000_000_000), Y2K_MICROS);
        let era = 1_000_000_i128 << 32;
        assert_eq!(micros(Y2K, Y2K_MICROS + era - 5), Y2K_MICROS + era);
        // The first second of the second era, 2036-02-07T06:28:16Z.
        assert_eq!(micros([0; 8], 2_000_000_000_000_000), 2_085_978_496_000_000);
    }

    #[test]
    fn tells_how_wrong_our_clock_is() {
        // Ours is two seconds behind, the way takes 10 ms each time.
        let sent = Y2K_MICROS - 2_000_000 - 10_000;
        let answer = read(&reply(2, [192, 0, 2, 9]), sent, sent + 20_000).unwrap();
        assert_eq!(answer.get("offset us"), Some(&Value::from(2_000_000_u32)));
        assert_eq!(answer.get("delay us"), Some(&Value::from(20_000_u32)));
        assert_eq!(answer.get("reference id"), Some(&"192.0.2.9".into()));
        assert_eq!(answer.get("root delay us"), Some(&Value::from(500_000_u32)));
        assert_eq!(answer.get("precision"), Some(&Value::from(-23_i64)));
        assert_eq!(answer.get("version"), Some(&Value::from(4_u32)));
        let clock = read(&reply(1, *b"GPS\0"), 0, 0).unwrap();
        assert_eq!(clock.get("reference id"), Some(&"GPS".into()));
    }

    #[test]
    fn a_kiss_of_death_is_an_error() {
        let answer = read(&reply(0, *b"RATE"), 0, 0).unwrap();
        assert_eq!(answer.get("error"), Some(&"RATE".into()));
        assert_eq!(answer.get("offset us"), None);
    }

    fn fragment(more: bool, offset: u8, data: &[u8]) -> Vec<u8> {
        let operation = 0x82 | u8::from(more) << 5;
        let count = u8::try_from(data.len()).unwrap();
        let mut reply = vec![0x16, operation, 0, 0, 6, 0x15, 0, 0, 0, offset, 0, count];
        reply.extend_from_slice(data);
        reply
    }

    #[test]
    fn variables_come_in_pieces_and_in_any_order() {
        let pieces = [
            fragment(false, 21, b", stratum=1\r\n"),
            fragment(true, 0, b"version=\"ntpd 1, x\", "),
            fragment(false, 0, b"not reached=1"),
        ];
        let mut fragments = Vec::new();
        for piece in &pieces {
            fragments.push(Fragment::read(piece).unwrap());
            if complete(&mut fragments) {
                break;
            }
        }
        assert_eq!(fragments.len(), 2);
        let script = Script::of(&[&pieces[0], &pieces[1]]).echoing(2..4, 2);
        let mut datagrams = Datagrams::new(script, Duration::from_mins(1));
        let variables = variables(&mut datagrams);
        assert_eq!(variables[0].name, "version");
        assert_eq!(variables[0].value, "ntpd 1, x".into());
        assert_eq!(variables[1].name, "stratum");
        assert_eq!(variables[1].value, "1".into());
    }

    #[test]
    fn without_variables_there_still_is_the_time() {
        let script = Script::of(&[&reply(2, [127, 0, 0, 1])]).echoing(40..48, 24);
        let answer = trial::datagrams(&Ntp, script).unwrap();
        assert_eq!(answer.get("stratum"), Some(&Value::from(2_u32)));
        assert_eq!(answer.get("readvar"), None);
    }

    #[test]
    fn what_is_cut_short_or_not_ours_is_passed_over() {
        let good = reply(2, [127, 0, 0, 1]);
        for cut in trial::cut(&good) {
            let script = Script::of(&[cut]).echoing(40..48, 24);
            let fault = trial::datagrams(&Ntp, script).unwrap_err();
            assert!(matches!(fault, Fault::Silent(_)));
        }
        let fault = trial::datagrams(&Ntp, Script::of(&[&good])).unwrap_err();
        assert!(matches!(fault, Fault::Silent(_)), "the origin is not ours");
    }

    proptest! {
        #[test]
        fn any_reply_can_be_read(
            bytes in proptest::collection::vec(any::<u8>(), 48..80),
            sent: i64,
            took: u32,
        ) {
            let received = i128::from(sent) + i128::from(took);
            prop_assert!(read(&bytes, sent.into(), received).is_ok());
        }

        #[test]
        fn any_fragments_can_be_put_together(
            pieces in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let mut datagrams = Datagrams::new(Script::of(&pieces), Duration::from_mins(1));
            variables(&mut datagrams);
        }

        #[test]
        fn times_survive(micro in -2_000_000_000_000_000_i64..2_000_000_000_000_000) {
            let micro = i128::from(micro);
            let seconds = (micro + EPOCH * 1_000_000) << 32;
            let time = seconds.div_euclid(1_000_000) & 0xffff_ffff_ffff_ffff;
            let time = u64::try_from(time).unwrap().to_be_bytes();
            prop_assert!((micros(time, micro) - micro).abs() <= 1);
        }
    }
}
