//! Replies of a three-digit code and lines of text, as SMTP and FTP have them
//! (RFC 5321, section 4.2; RFC 959, section 4.2).

use event::text::from_bytes;

use crate::{Fault, Stream, Value};

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// What the first line begins with.
    pub(super) code: u16,
    /// The lines as they came, without their ends.
    lines: Vec<Vec<u8>>,
}

impl Reply {
    /// How many bytes a line may have; RFC 5321 allows 512.
    const LINE: usize = 4096;

    /// How many bytes a reply may have; honest ones stay far below.
    pub(super) const LIMIT: usize = 64 << 10;

    /// Sends a command and reads the reply to it.
    pub(super) fn to(command: &[u8], stream: &mut Stream<'_>) -> Result<Self, Fault> {
        stream.send(command)?;
        Self::read(stream)
    }

    /// Reads a reply. The lines between the first and the last one need no
    /// code, as FTP allows it.
    pub(super) fn read(stream: &mut Stream<'_>) -> Result<Self, Fault> {
        let first = stream.line(Self::LINE)?;
        let (code, mut ends) = head(&first).ok_or(Fault::Malformed {
            what: "a line without a reply code",
            at: 0,
        })?;
        let mut size = first.len();
        let mut lines = vec![first];
        while !ends {
            let line = stream.line(Self::LINE)?;
            size += line.len() + 1;
            if size > Self::LIMIT {
                return Err(Fault::Long(Self::LIMIT));
            }
            ends = head(&line) == Some((code, true));
            lines.push(line);
        }
        Ok(Self { code, lines })
    }

    /// Whether the service does or awaits what it was asked for.
    pub(super) fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// The whole reply as it came, its lines divided by line feeds.
    pub(super) fn text(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(|line| from_bytes(line)).collect();
        lines.join("\n")
    }

    /// What the lines say, without codes.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        self.lines.iter().map(|line| match head(line) {
            Some((code, _)) if code == self.code => from_bytes(line.get(4..).unwrap_or_default()),
            _ => from_bytes(line.trim_ascii()),
        })
    }

    /// What it says, in one line.
    pub(super) fn sentence(&self) -> String {
        let words: Vec<_> = self.words().filter(|words| !words.is_empty()).collect();
        words.join(" ").trim().to_owned()
    }

    /// What the lines after the first one say: a list. FTP ends it with a line
    /// of its own (`211 End`), which SMTP has not.
    pub(super) fn list(&self, ends: bool) -> Vec<Value> {
        let length = self.lines.len() - usize::from(ends && self.lines.len() > 1);
        let words = self.words().take(length).skip(1);
        words
            .map(|words| words.trim().to_owned())
            .filter(|words| !words.is_empty())
            .map(Value::from)
            .collect()
    }
}

/// The code that a line begins with, and whether the line ends its reply.
fn head(line: &[u8]) -> Option<(u16, bool)> {
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
        return None;
    };
    let ends = match rest {
        [] | [b' ', ..] => true,
        [b'-', ..] => false,
        _ => return None,
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    Some((digit(a) * 100 + digit(b) * 10 + digit(c), ends))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Script;
    use super::*;

    fn read(bytes: &[u8]) -> Result<Reply, Fault> {
        Reply::read(&mut Stream::new(
            Script::of(&[bytes]),
            Duration::from_mins(1),
        ))
    }

    #[test]
    fn one_line_and_several() {
        let reply = read(b"220 mail.example ready\r\n").unwrap();
        assert_eq!((reply.code, reply.is_positive()), (220, true));
        assert_eq!(reply.sentence(), "mail.example ready");
        assert!(reply.list(false).is_empty());
        assert_eq!(read(b"354\r\n").unwrap().sentence(), "");
        // RFC 959, section 4.2, with a line that begins like a code.
        let reply =
            read(b"123-First line\r\n Second line\r\n  234 A line\r\n123-x\r\n123 last\r\n");
        let reply = reply.unwrap();
        assert_eq!(
            reply.words().collect::<Vec<_>>(),
            ["First line", "Second line", "234 A line", "x", "last"]
        );
        assert_eq!(reply.list(true).len(), 3);
        assert_eq!(reply.list(false).len(), 4);
        assert!(reply.text().starts_with("123-First line\n Second line\n"));
    }

    #[test]
    fn what_has_no_code_is_malformed() {
        for line in ["", "22", "2200", "220x", "620 x", "SSH-2.0-x", " 220 x"] {
            let fault = read(format!("{line}\r\n").as_bytes()).unwrap_err();
            assert!(matches!(fault, Fault::Malformed { .. }), "{line}");
        }
    }

    #[test]
    fn a_reply_without_end_is_too_long() {
        let endless = b"220-x\n".repeat(Reply::LIMIT);
        assert!(matches!(read(&endless), Err(Fault::Long(Reply::LIMIT))));
        let empty = [&b"220-\n"[..], &vec![b'\n'; 2 * Reply::LIMIT]].concat();
        assert!(matches!(read(&empty), Err(Fault::Long(Reply::LIMIT))));
        assert!(matches!(read(b"220-x\n221 y\n"), Err(Fault::Closed)));
    }
}
