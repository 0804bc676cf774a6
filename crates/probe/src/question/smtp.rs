//! SMTP: greeting, `EHLO`, and the certificate behind `STARTTLS` (RFC 5321;
//! RFC 3207). No mail is begun.

use event::Protocol;

use super::reply::Reply;
use super::{Asked, Question, tls};
use crate::{Answer, Fault, Stream};

/// Asks for greeting and service extensions.
#[derive(Debug)]
pub(super) struct Smtp;

impl Question for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["mail", "submission"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let greeting = Reply::read(stream)?;
        let mut answer = Answer::of("smtp");
        answer.summary = greeting.sentence();
        answer.text = Some(greeting.text());
        answer.add("code", u32::from(greeting.code));
        if !greeting.is_positive() {
            // Not now, or not for us: 421, 554.
            answer.add("error", greeting.sentence());
        } else if let Err(fault) = extensions(&mut answer, asked, stream) {
            answer.broke_off(&fault);
        }
        Ok(answer)
    }
}

/// Asks for the service extensions and adds them to `answer`.
fn extensions(
    answer: &mut Answer,
    asked: &Asked<'_>,
    stream: &mut Stream<'_>,
) -> Result<(), Fault> {
    // The name of this machine is nobody's business.
    let mut reply = Reply::to(b"EHLO localhost\r\n", stream)?;
    if !reply.is_positive() {
        reply = Reply::to(b"HELO localhost\r\n", stream)?;
    }
    if !reply.is_positive() {
        answer.add("error", reply.sentence());
        return stream.send(b"QUIT\r\n");
    }
    let first = reply.words().next().unwrap_or_default();
    let domain = first.split(' ').next().unwrap_or_default();
    answer.add("domain", domain);
    answer.add("EHLO", reply.list(false));
    let is_starttls = |words: String| words.trim().eq_ignore_ascii_case("STARTTLS");
    if reply.words().skip(1).any(is_starttls) && !stream.is_in_tls() {
        let reply = Reply::to(b"STARTTLS\r\n", stream)?;
        if reply.is_positive() {
            tls::started(answer, asked, stream, b"QUIT\r\n");
            return Ok(());
        }
        answer.add("STARTTLS", reply.sentence());
    }
    stream.send(b"QUIT\r\n")
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;
    use crate::Value;

    // The dialogue of RFC 5321, appendix D.1, with more extensions.
    const GOOD: &[u8] = b"220 foo.com Simple Mail Transfer Service Ready\r\n\
        250-foo.com greets localhost\r\n250-8BITMIME\r\n250-SIZE 1000\r\n250 HELP\r\n";

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Smtp, Script::of(&[reply]))
    }

    #[test]
    fn greeting_and_extensions_are_told() {
        let script = Script::of(&[GOOD]);
        let answer = trial::stream(&Smtp, script.clone()).unwrap();
        assert_eq!(script.sent(), b"EHLO localhost\r\nQUIT\r\n");
        assert_eq!(answer.summary, "foo.com Simple Mail Transfer Service Ready");
        assert_eq!(answer.get("domain"), Some(&"foo.com".into()));
        let extensions = ["8BITMIME", "SIZE 1000", "HELP"].map(Value::from);
        assert_eq!(answer.get("EHLO"), Some(&extensions.to_vec().into()));
        assert!(answer.get("incomplete").is_none());
    }

    #[test]
    fn one_who_knows_no_extensions_is_greeted_the_old_way() {
        let script = Script::of(&[b"220 old\r\n502 what?\r\n250 old\r\n"]);
        let answer = trial::stream(&Smtp, script.clone()).unwrap();
        assert_eq!(
            script.sent(),
            b"EHLO localhost\r\nHELO localhost\r\nQUIT\r\n"
        );
        assert_eq!(answer.get("EHLO"), Some(&Value::List(Vec::new())));
    }

    #[test]
    fn refusals_are_answers() {
        let answer = ask(b"554 no mail from you\r\n").unwrap();
        assert_eq!(answer.get("error"), Some(&"no mail from you".into()));
        let answer = ask(b"220 x\r\n550 a\r\n550 b\r\n").unwrap();
        assert_eq!(answer.get("error"), Some(&"b".into()));
        let answer = ask(b"220 x\r\n250-x\r\n250 starttls\r\n454 not now\r\n").unwrap();
        assert_eq!(answer.get("STARTTLS"), Some(&"not now".into()));
    }

    #[test]
    fn tls_is_started_where_it_is_offered() {
        let script = Script::of(&[b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n", b"nonsense"]);
        let answer = trial::stream(&Smtp, script.clone()).unwrap();
        let sent = script.sent();
        // After the command comes a TLS record with a ClientHello.
        assert!(sent.starts_with(b"EHLO localhost\r\nSTARTTLS\r\n\x16\x03\x01"));
        assert!(answer.get("incomplete").is_some());
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
        assert!(matches!(
            ask(b"* OK imap\r\n"),
            Err(Fault::Malformed { .. })
        ));
    }
}
