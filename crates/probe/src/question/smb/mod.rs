//! SMB: what a file server and its client agree on before anybody logs on
//! (MS-SMB2 §2.2.3–4, MS-CIFS §2.2.4.52).
//!
//! The first request is the old one (SMB 1), which offers the new protocol among
//! its dialects, so every server understands it. One that speaks SMB 2 or 3
//! answers in the new form and is then asked in that form for its best dialect
//! ([`v2`]); one that knows nothing newer answers in the old form ([`v1`]).
//!
//! On port 445 the packets follow each other on the connection; on port 139
//! they are those of a `NetBIOS` session, which is asked for first (RFC 1002 §4.3).

mod session;
mod v1;
mod v2;

use event::Protocol;
use jiff::{SignedDuration, Timestamp};

use super::{Asked, Question};
use crate::ber::{Ber, Oid, Tag};
use crate::{Answer, Fault, Stream, Value};

/// Asks a server on its own port.
pub(super) struct Smb;

/// Asks a server through a `NetBIOS` session.
pub(super) struct NetbiosSession;

impl Question for Smb {
    fn name(&self) -> &'static str {
        "smb"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["microsoft-ds", "cifs"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        negotiate(stream, Answer::of("smb"))
    }
}

impl Question for NetbiosSession {
    fn name(&self) -> &'static str {
        "netbios-ssn"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["nbsession"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let mut answer = Answer::of("netbios-ssn");
        match session::open(stream)? {
            None => negotiate(stream, answer),
            Some(refusal) => {
                answer.summary.clone_from(&refusal);
                answer.add("error", refusal);
                Ok(answer)
            }
        }
    }
}

/// Asks, and adds what was learnt to `answer`.
fn negotiate(stream: &mut Stream<'_>, mut answer: Answer) -> Result<Answer, Fault> {
    session::send(stream, &v1::request())?;
    let reply = session::take(stream)?;
    if reply.starts_with(&v1::MAGIC) {
        v1::read(&reply, &mut answer)?;
        return Ok(answer);
    }
    let mut agreed = v2::Reply::read(&reply)?;
    if agreed.asks_again() {
        session::send(stream, &v2::request())?;
        agreed = v2::Reply::read(&session::take(stream)?)?;
    }
    agreed.tell(&mut answer);
    Ok(answer)
}

/// A time in tenths of microseconds since 1601, as text; none for no time.
fn file_time(ticks: u64) -> Option<String> {
    /// Seconds from 1601 to 1970.
    const EPOCH: i64 = 11_644_473_600;
    if ticks == 0 {
        return None;
    }
    let seconds = i64::try_from(ticks / 10_000_000).ok()? - EPOCH;
    let nanoseconds = i32::try_from(ticks % 10_000_000).ok()? * 100;
    let since = SignedDuration::new(seconds, 0) + SignedDuration::new(0, nanoseconds);
    Some(Timestamp::from_duration(since).ok()?.to_string())
}

/// The names of the bits that are set.
fn names(bits: u32, known: &[(u32, &str)]) -> Vec<Value> {
    let set = known.iter().filter(|(bit, _)| bits & bit != 0);
    set.map(|(_, name)| Value::from(*name)).collect()
}

/// The ways to log on that a server offers in a token of SPNEGO (RFC 4178
/// §4.2.1); none if it cannot be read, since nothing else depends on it.
fn mechanisms(token: &[u8]) -> Option<Vec<Value>> {
    /// `1.3.6.1.5.5.2`
    const SPNEGO: [u8; 6] = [0x2b, 6, 1, 5, 5, 2];
    let mut token = Ber::new(token).enter(Tag::application(0), "a token").ok()?;
    if !token.oid("a mechanism").ok()?.is(&SPNEGO) {
        return None;
    }
    let mut init = token.enter(Tag::context(0), "a token").ok()?;
    let mut init = init.enter(Tag::SEQUENCE, "a token").ok()?;
    let mut list = init.enter(Tag::context(0), "mechanisms").ok()?;
    let mut list = list.enter(Tag::SEQUENCE, "mechanisms").ok()?;
    let mut found = Vec::new();
    while !list.is_empty() {
        found.push(mechanism(&list.oid("a mechanism").ok()?).into());
    }
    Some(found)
}

fn mechanism(oid: &Oid) -> String {
    let dotted = oid.to_string();
    let name = match dotted.as_str() {
        "1.2.840.113554.1.2.2" => "Kerberos",
        "1.2.840.48018.1.2.2" => "MS-Kerberos",
        "1.2.840.113554.1.2.2.3" => "Kerberos user to user",
        "1.3.6.1.4.1.311.2.2.10" => "NTLMSSP",
        "1.3.6.1.4.1.311.2.2.30" => "NegoEx",
        _ => return dotted,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
