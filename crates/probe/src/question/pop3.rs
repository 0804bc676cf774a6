//! POP3: greeting, `CAPA`, and the certificate behind `STLS` (RFC 1939;
//! RFC 2449; RFC 2595). Nobody logs on.

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question, tls};
use crate::{Answer, Fault, Stream, Value};

/// Asks for greeting and capabilities.
#[derive(Debug)]
pub(super) struct Pop3;

/// How many bytes a line may have; RFC 2449 allows 512.
const LINE: usize = 2048;

/// How many capabilities are read.
const LINES: usize = 256;

impl Question for Pop3 {
    fn name(&self) -> &'static str {
        "pop3"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["pop-3"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let line = stream.line(LINE)?;
        let mut answer = Answer::of("pop3");
        answer.text = Some(from_bytes(&line));
        match status(&line)? {
            Ok(words) => {
                answer.summary = words;
                if let Err(fault) = capabilities(&mut answer, asked, stream) {
                    answer.broke_off(&fault);
                }
            }
            Err(words) => {
                answer.add("error", words.clone());
                answer.summary = words;
            }
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
    stream.send(b"CAPA\r\n")?;
    // One who does not know the command is older than STLS.
    if status(&stream.line(LINE)?)?.is_ok() {
        let capabilities = list(stream)?;
        let offers_tls = capabilities
            .iter()
            .any(|word| word.eq_ignore_ascii_case("STLS"));
        let capabilities: Vec<Value> = capabilities.into_iter().map(Value::from).collect();
        answer.add("CAPA", capabilities);
        if offers_tls && !stream.is_in_tls() {
            stream.send(b"STLS\r\n")?;
            match status(&stream.line(LINE)?)? {
                Ok(_) => {
                    tls::started(answer, asked, stream, b"QUIT\r\n");
                    return Ok(());
                }
                Err(words) => answer.add("STLS", words),
            }
        }
    }
    stream.send(b"QUIT\r\n")
}

/// What a status line says: yes with words, or no with words.
fn status(line: &[u8]) -> Result<Result<String, String>, Fault> {
    let words = |rest: &[u8]| from_bytes(rest.trim_ascii());
    if let Some(rest) = line.strip_prefix(b"+OK") {
        Ok(Ok(words(rest)))
    } else if let Some(rest) = line.strip_prefix(b"-ERR") {
        Ok(Err(words(rest)))
    } else {
        Err(Fault::Malformed {
            what: "a line with neither +OK nor -ERR",
            at: 0,
        })
    }
}

/// The lines up to the one that is a dot.
fn list(stream: &mut Stream<'_>) -> Result<Vec<String>, Fault> {
    let mut lines = Vec::new();
    loop {
        let line = stream.line(LINE)?;
        if line == b"." {
            return Ok(lines);
        }
        if lines.len() == LINES {
            return Err(Fault::Malformed {
                what: "a list that is too long",
                at: 0,
            });
        }
        // A line that begins with a dot is sent with two.
        lines.push(from_bytes(line.strip_prefix(b".").unwrap_or(&line)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;

    // The example of RFC 2449, section 5.
    const GOOD: &[u8] = b"+OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>\r\n\
        +OK Capability list follows\r\nTOP\r\nUSER\r\nSASL CRAM-MD5 KERBEROS_V4\r\n\
        EXPIRE 60\r\n..dotted\r\nIMPLEMENTATION Shlemazle-Plotz-v302\r\n.\r\n";

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Pop3, Script::of(&[reply]))
    }

    #[test]
    fn greeting_and_capabilities_are_told() {
        let script = Script::of(&[GOOD]);
        let answer = trial::stream(&Pop3, script.clone()).unwrap();
        assert_eq!(script.sent(), b"CAPA\r\nQUIT\r\n");
        assert_eq!(
            answer.summary,
            "POP3 server ready <1896.697170952@dbc.mtview.ca.us>"
        );
        let capabilities = [
            "TOP",
            "USER",
            "SASL CRAM-MD5 KERBEROS_V4",
            "EXPIRE 60",
            ".dotted",
            "IMPLEMENTATION Shlemazle-Plotz-v302",
        ];
        let capabilities = capabilities.map(Value::from).to_vec();
        assert_eq!(answer.get("CAPA"), Some(&capabilities.into()));
        assert!(answer.get("incomplete").is_none());
    }

    #[test]
    fn old_and_unwilling_servers_answer_too() {
        let answer = ask(b"-ERR [SYS/TEMP] too many connections\r\n").unwrap();
        assert_eq!(
            answer.get("error"),
            Some(&"[SYS/TEMP] too many connections".into())
        );
        let script = Script::of(&[b"+OK\r\n-ERR unknown command\r\n"]);
        let answer = trial::stream(&Pop3, script.clone()).unwrap();
        assert_eq!(script.sent(), b"CAPA\r\nQUIT\r\n");
        assert!(answer.facts.is_empty());
        let answer = ask(b"+OK\r\n+OK\r\nSTLS\r\n.\r\n-ERR no\r\n").unwrap();
        assert_eq!(answer.get("STLS"), Some(&"no".into()));
    }

    #[test]
    fn tls_is_started_where_it_is_offered() {
        let script = Script::of(&[b"+OK\r\n+OK\r\nSTLS\r\n.\r\n+OK go\r\n"]);
        let answer = trial::stream(&Pop3, script.clone()).unwrap();
        assert!(script.sent().starts_with(b"CAPA\r\nSTLS\r\n\x16\x03\x01"));
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
        let endless = [&b"+OK\r\n+OK\r\n"[..], &b"X\r\n".repeat(100_000)].concat();
        assert!(ask(&endless).unwrap().get("incomplete").is_some());
        assert!(matches!(ask(b"220 x\r\n"), Err(Fault::Malformed { .. })));
    }
}
