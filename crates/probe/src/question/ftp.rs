//! FTP: greeting, what becomes of the anonymous user, features, and the
//! certificate behind `AUTH TLS` (RFC 959; RFC 2389; RFC 4217).
//!
//! As with the original the log-on stops at the reply to `USER`: it tells
//! whether anonymous access is offered, and nobody is logged on.

use event::Protocol;

use super::reply::Reply;
use super::{Asked, Question, tls};
use crate::{Answer, Fault, Stream};

/// Asks for greeting, anonymous access and features.
#[derive(Debug)]
pub(super) struct Ftp;

/// "Service ready in nnn minutes"; another greeting follows.
const DELAYED: u16 = 120;

impl Question for Ftp {
    fn name(&self) -> &'static str {
        "ftp"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let mut greeting = Reply::read(stream)?;
        if greeting.code == DELAYED {
            greeting = Reply::read(stream)?;
        }
        let mut answer = Answer::of("ftp");
        answer.summary = greeting.sentence();
        answer.text = Some(greeting.text());
        answer.add("code", u32::from(greeting.code));
        if !greeting.is_positive() {
            answer.add("error", greeting.sentence());
        } else if let Err(fault) = log_on(&mut answer, asked, stream) {
            answer.broke_off(&fault);
        }
        Ok(answer)
    }
}

/// Names the anonymous user, then asks for features and TLS.
fn log_on(answer: &mut Answer, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<(), Fault> {
    let reply = Reply::to(b"USER anonymous\r\n", stream)?;
    answer.add("USER", format!("{} {}", reply.code, reply.sentence()));
    if let Some(text) = &mut answer.text {
        // The two as the original shows them.
        text.push_str("\n\n");
        text.push_str(&reply.text());
    }

    let reply = Reply::to(b"FEAT\r\n", stream)?;
    let mut offers_tls = !reply.is_positive();
    if reply.is_positive() {
        let is_tls = |words: String| {
            let words = words.trim().to_ascii_uppercase();
            // `AUTH TLS`, `AUTH TLS-C;SSL;`
            words
                .strip_prefix("AUTH ")
                .is_some_and(|mechanisms| mechanisms.contains("TLS") || mechanisms.contains("SSL"))
        };
        offers_tls = reply.words().any(is_tls);
        answer.add("FEAT", reply.list(true));
    }
    // Some tell their features only to those who are logged on.
    if offers_tls && !stream.is_in_tls() {
        let reply = Reply::to(b"AUTH TLS\r\n", stream)?;
        if reply.is_positive() {
            tls::started(answer, asked, stream, b"QUIT\r\n");
            return Ok(());
        }
        answer.add("AUTH TLS", format!("{} {}", reply.code, reply.sentence()));
    }
    stream.send(b"QUIT\r\n")
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;
    use crate::Value;

    // The greeting and the reply to USER as in the original's documentation,
    // features as in RFC 2389, section 3.2.
    const GOOD: &[u8] = b"220 Microsoft FTP Service\r\n\
        331 Anonymous access allowed, send identity (e-mail name) as password.\r\n\
        211-Extensions supported:\r\n MLST size*;create;modify*;perm;media-type\r\n SIZE\r\n\
        211 END\r\n";

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Ftp, Script::of(&[reply]))
    }

    #[test]
    fn greeting_anonymous_access_and_features_are_told() {
        let script = Script::of(&[GOOD]);
        let answer = trial::stream(&Ftp, script.clone()).unwrap();
        assert_eq!(script.sent(), b"USER anonymous\r\nFEAT\r\nQUIT\r\n");
        assert_eq!(
            answer.text.as_deref(),
            Some(
                "220 Microsoft FTP Service\n\n331 Anonymous access allowed, \
                 send identity (e-mail name) as password."
            )
        );
        let features = ["MLST size*;create;modify*;perm;media-type", "SIZE"].map(Value::from);
        assert_eq!(answer.get("FEAT"), Some(&features.to_vec().into()));
    }

    #[test]
    fn tls_is_tried_where_it_may_be() {
        let script = Script::of(&[b"220 x\r\n530 no\r\n530 log on first\r\n500 no\r\n"]);
        let answer = trial::stream(&Ftp, script.clone()).unwrap();
        assert!(script.sent().ends_with(b"AUTH TLS\r\nQUIT\r\n"));
        assert_eq!(answer.get("USER"), Some(&"530 no".into()));
        assert_eq!(answer.get("AUTH TLS"), Some(&"500 no".into()));
        let script = Script::of(&[
            b"120 soon\r\n220 x\r\n331 x\r\n211-F\r\n auth tls-c;ssl;\r\n211 E\r\n234 go\r\n",
        ]);
        let answer = trial::stream(&Ftp, script.clone()).unwrap();
        let sent = script.sent();
        assert!(sent.starts_with(b"USER anonymous\r\nFEAT\r\nAUTH TLS\r\n\x16\x03\x01"));
        assert!(answer.get("incomplete").is_some());
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let answer = ask(b"421 too many users\r\n").unwrap();
        assert_eq!(answer.get("error"), Some(&"too many users".into()));
    }

    #[test]
    fn careless_and_hostile_replies_come_to_an_end() {
        for piece in trial::cut(GOOD) {
            let line = GOOD.iter().position(|byte| *byte == b'\n').unwrap();
            assert_eq!(ask(piece).is_ok(), piece.len() > line);
        }
        for reply in trial::altered(GOOD) {
            let _ = ask(&reply);
        }
        assert!(ask(&b"220 x\r\n".repeat(100_000)).is_ok());
    }
}
