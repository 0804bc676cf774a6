//! Redis: `PING`, and `INFO server` where it is allowed (the RESP protocol of
//! redis.io, "Redis serialization protocol specification").

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question};
use crate::{Answer, Fault, Stream};

/// Asks whether it is there, and who it is.
#[derive(Debug)]
pub(super) struct Redis;

/// How many bytes a line may have; the longest is the explanation of the
/// protected mode with nearly 1000.
const LINE: usize = 8192;

/// How many bytes the reply to `INFO` may have.
const BULK: usize = 64 << 10;

/// How many lines of it are told.
const LINES: usize = 64;

impl Question for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["valkey"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let mut answer = Answer::of("redis");
        let pong = ask(stream, &["PING"])?;
        match pong {
            Reply::Text(words) => {
                answer.add("PING", words);
                match ask(stream, &["INFO", "server"]) {
                    Ok(Reply::Text(info)) => tell(&mut answer, &info),
                    Ok(Reply::Error(words)) => answer.add("error", words),
                    Err(fault) => answer.broke_off(&fault),
                }
            }
            Reply::Error(words) => answer.add("error", words),
        }
        answer.summary = summary(&answer);
        Ok(answer)
    }
}

/// One reply.
enum Reply {
    Text(String),
    Error(String),
}

/// Sends a command and reads its reply.
fn ask(stream: &mut Stream<'_>, words: &[&str]) -> Result<Reply, Fault> {
    stream.send(&command(words))?;
    let line = stream.line(LINE)?;
    match line.split_first() {
        Some((b'+', words)) => Ok(Reply::Text(from_bytes(words))),
        Some((b'-', words)) => Ok(Reply::Error(from_bytes(words))),
        Some((b'$', digits)) => {
            let length = str::from_utf8(digits)
                .ok()
                .and_then(|text| text.parse().ok());
            match length {
                Some(length) if length <= BULK => {
                    let bulk = stream.exact(length)?;
                    stream.exact(2)?;
                    Ok(Reply::Text(from_bytes(&bulk)))
                }
                Some(_) => Err(Fault::Long(BULK)),
                None => Err(Fault::Malformed {
                    what: "a bulk string without a length",
                    at: 1,
                }),
            }
        }
        _ => Err(Fault::Malformed {
            what: "no reply of Redis",
            at: 0,
        }),
    }
}

/// A command as an array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    command
}

/// Adds what stands in `INFO`: a `name:value` on each line.
fn tell(answer: &mut Answer, info: &str) {
    let pairs = info.lines().filter_map(|line| line.split_once(':'));
    for (name, value) in pairs.take(LINES) {
        answer.add(name, value.trim());
    }
}

fn summary(answer: &Answer) -> String {
    use crate::Value::Text;
    // Valkey names itself, and a version of Redis that it is compatible with.
    match (
        answer.get("valkey_version"),
        answer.get("redis_version"),
        answer.get("error"),
    ) {
        (Some(Text(version)), ..) => format!("Valkey {version}"),
        (_, Some(Text(version)), _) => format!("Redis {version}"),
        (.., Some(Text(error))) => {
            let end = error.find(". ").unwrap_or(error.len());
            format!("Redis: {}", &error[..end])
        }
        _ => "Redis".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Script, trial};
    use super::*;
    use crate::Value;

    const GOOD: &[u8] = b"+PONG\r\n$55\r\n# Server\r\nredis_version:7.0.15\r\n\
        redis_mode:standalone\r\n\r\n";

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Redis, Script::of(&[reply]))
    }

    #[test]
    fn info_is_told() {
        let script = Script::of(&[GOOD]);
        let answer = trial::stream(&Redis, script.clone()).unwrap();
        let sent = b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";
        assert_eq!(script.sent(), sent);
        assert_eq!(answer.summary, "Redis 7.0.15");
        assert_eq!(answer.get("PING"), Some(&"PONG".into()));
        assert_eq!(answer.get("redis_mode"), Some(&"standalone".into()));
        let valkey = b"+PONG\r\n$43\r\nredis_version:7.2.4\r\nvalkey_version:8.0.1\r\n\r\n";
        assert_eq!(ask(valkey).unwrap().summary, "Valkey 8.0.1");
    }

    #[test]
    fn refusals_are_answers() {
        let answer = ask(b"-NOAUTH Authentication required.\r\n").unwrap();
        let error = "NOAUTH Authentication required.";
        assert_eq!(answer.get("error"), Some(&error.into()));
        assert_eq!(answer.summary, "Redis: NOAUTH Authentication required.");
        let answer = ask(b"-DENIED Redis is in protected mode. In this mode\r\n").unwrap();
        assert_eq!(answer.summary, "Redis: DENIED Redis is in protected mode");
        let answer = ask(b"+PONG\r\n-NOPERM no\r\n").unwrap();
        assert_eq!(answer.get("error"), Some(&"NOPERM no".into()));
    }

    #[test]
    fn careless_and_hostile_replies_come_to_an_end() {
        for piece in trial::cut(GOOD) {
            match ask(piece) {
                Ok(answer) => assert!(answer.get("incomplete").is_some()),
                Err(fault) => assert!(piece.len() < 7, "{fault}"),
            }
        }
        for reply in trial::altered(GOOD) {
            let _ = ask(&reply);
        }
        for bulk in ["$-1", "$99999999999999999999", "$x", "$1000000", "*3", ""] {
            let answer = ask(format!("+PONG\r\n{bulk}\r\n").as_bytes()).unwrap();
            assert!(answer.get("incomplete").is_some(), "{bulk}");
        }
        let many = "a:b\n".repeat(16 << 10);
        let answer = ask(format!("+P\r\n${}\r\n{many}\r\n", many.len()).as_bytes()).unwrap();
        assert_eq!(answer.facts.len(), 1 + LINES);
        assert!(matches!(
            ask(b"HTTP/1.1 400\r\n"),
            Err(Fault::Malformed { .. })
        ));
    }

    proptest! {
        /// What is written as a bulk string is read as one.
        #[test]
        fn strings_come_back(text in "[ -~]{0,200}") {
            let written = command(&[&text]);
            let bulk = &written[b"*1\r\n".len()..];
            let mut stream = Stream::new(Script::of(&[bulk]), std::time::Duration::from_mins(1));
            let Reply::Text(read) = super::ask(&mut stream, &[]).unwrap() else {
                panic!("an error");
            };
            prop_assert_eq!(Value::from(read), Value::from(text));
        }
    }
}
