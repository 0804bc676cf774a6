//! IMAP: greeting, `CAPABILITY`, and the certificate behind `STARTTLS`
//! (RFC 3501; RFC 9051). Nobody logs on.

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question, tls};
use crate::{Answer, Fault, Stream, Value};

/// Asks for greeting and capabilities.
#[derive(Debug)]
pub(super) struct Imap;

/// How many bytes a line may have.
const LINE: usize = 8192;

/// How many lines may come before the one that completes a command.
const LINES: usize = 64;

impl Question for Imap {
    fn name(&self) -> &'static str {
        "imap"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["imap2", "imap4", "imap3"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let line = stream.line(LINE)?;
        let mut answer = Answer::of("imap");
        answer.text = Some(from_bytes(&line));
        let (condition, words) = greeting(&line)?;
        without_code(&words).clone_into(&mut answer.summary);
        answer.add("greeting", condition);
        if condition == "BYE" {
            answer.add("error", without_code(&words));
        } else if let Err(fault) = capabilities(&mut answer, asked, stream) {
            answer.broke_off(&fault);
        }
        Ok(answer)
    }
}

/// Asks for the capabilities and adds them to `answer`.
fn capabilities(
    answer: &mut Answer,
    asked: &Asked<'_>,
    stream: &mut Stream<'_>,
) -> Result<(), Fault> {
    let completion = command(stream, "a1", "CAPABILITY")?;
    let capabilities: Vec<String> = completion
        .untagged
        .iter()
        .filter_map(|line| line.strip_prefix("CAPABILITY "))
        .flat_map(|names| names.split_ascii_whitespace().map(str::to_owned))
        .collect();
    let offers_tls = capabilities
        .iter()
        .any(|name| name.eq_ignore_ascii_case("STARTTLS"));
    if completion.ok {
        let capabilities: Vec<Value> = capabilities.into_iter().map(Value::from).collect();
        answer.add("CAPABILITY", capabilities);
    } else {
        answer.add("error", completion.words);
    }
    if offers_tls && !stream.is_in_tls() {
        let completion = command(stream, "a2", "STARTTLS")?;
        if completion.ok {
            tls::started(answer, asked, stream, b"a3 LOGOUT\r\n");
            return Ok(());
        }
        answer.add("STARTTLS", completion.words);
    }
    stream.send(b"a3 LOGOUT\r\n")
}

/// How the server says hello: `OK`, `PREAUTH` or `BYE`, and its words.
fn greeting(line: &[u8]) -> Result<(&'static str, String), Fault> {
    let line = from_bytes(line);
    let rest = line.strip_prefix("* ").unwrap_or_default();
    let (condition, words) = rest.split_once(' ').unwrap_or((rest, ""));
    ["OK", "PREAUTH", "BYE"]
        .into_iter()
        .find(|known| condition.eq_ignore_ascii_case(known))
        .map(|known| (known, words.to_owned()))
        .ok_or(Fault::Malformed {
            what: "no IMAP greeting",
            at: 0,
        })
}

/// `words` without a response code in brackets before them.
fn without_code(words: &str) -> &str {
    match words
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((_, words)) => words.trim(),
        None => words.trim(),
    }
}

/// What came in reply to a command.
struct Completion {
    /// Lines of data, without `* `.
    untagged: Vec<String>,
    ok: bool,
    words: String,
}

/// Sends a command and reads up to the line that completes it.
fn command(stream: &mut Stream<'_>, tag: &str, command: &str) -> Result<Completion, Fault> {
    stream.send(format!("{tag} {command}\r\n").as_bytes())?;
    let mut untagged = Vec::new();
    for _ in 0..LINES {
        let line = from_bytes(&stream.line(LINE)?);
        if let Some(data) = line.strip_prefix("* ") {
            untagged.push(data.to_owned());
            continue;
        }
        let Some(rest) = line
            .strip_prefix(tag)
            .and_then(|rest| rest.strip_prefix(' '))
        else {
            return Err(Fault::Malformed {
                what: "a line of another command",
                at: 0,
            });
        };
        let (condition, words) = rest.split_once(' ').unwrap_or((rest, ""));
        return Ok(Completion {
            untagged,
            ok: condition.eq_ignore_ascii_case("OK"),
            words: words.to_owned(),
        });
    }
    Err(Fault::Malformed {
        what: "a command that is not completed",
        at: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;

    // After RFC 3501, sections 6.1.1 and 7.1.
    const GOOD: &[u8] = b"* OK [CAPABILITY IMAP4rev1] IMAP4rev1 Service Ready\r\n\
        * CAPABILITY IMAP4rev1 AUTH=GSSAPI LOGINDISABLED\r\n\
        a1 OK CAPABILITY completed\r\n";

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Imap, Script::of(&[reply]))
    }

    #[test]
    fn greeting_and_capabilities_are_told() {
        let script = Script::of(&[GOOD]);
        let answer = trial::stream(&Imap, script.clone()).unwrap();
        assert_eq!(script.sent(), b"a1 CAPABILITY\r\na3 LOGOUT\r\n");
        assert_eq!(answer.summary, "IMAP4rev1 Service Ready");
        let capabilities = ["IMAP4rev1", "AUTH=GSSAPI", "LOGINDISABLED"].map(Value::from);
        assert_eq!(
            answer.get("CAPABILITY"),
            Some(&capabilities.to_vec().into())
        );
        assert!(answer.get("incomplete").is_none());
    }

    #[test]
    fn refusals_are_answers() {
        let answer = ask(b"* BYE Autologout; idle for too long\r\n").unwrap();
        let error = "Autologout; idle for too long";
        assert_eq!(answer.get("error"), Some(&error.into()));
        let answer = ask(b"* preauth x\r\na1 BAD what?\r\n").unwrap();
        assert_eq!(answer.get("greeting"), Some(&"PREAUTH".into()));
        assert_eq!(answer.get("error"), Some(&"what?".into()));
        let answer = ask(b"* OK\r\n* CAPABILITY STARTTLS\r\na1 OK\r\na2 NO later\r\n").unwrap();
        assert_eq!(answer.get("STARTTLS"), Some(&"later".into()));
    }

    #[test]
    fn tls_is_started_where_it_is_offered() {
        let script = Script::of(&[b"* OK\r\n* CAPABILITY StartTLS\r\na1 OK\r\na2 OK\r\n"]);
        let answer = trial::stream(&Imap, script.clone()).unwrap();
        let sent = script.sent();
        assert!(sent.starts_with(b"a1 CAPABILITY\r\na2 STARTTLS\r\n\x16\x03\x01"));
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
        let endless = [&b"* OK\r\n"[..], &b"* 1 EXISTS\r\n".repeat(50_000)].concat();
        assert!(ask(&endless).unwrap().get("incomplete").is_some());
        for line in ["* ", "OK", "* HELLO", "+OK", ""] {
            let fault = ask(format!("{line}\r\n").as_bytes()).unwrap_err();
            assert!(matches!(fault, Fault::Malformed { .. }), "{line}");
        }
    }
}
