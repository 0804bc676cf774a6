//! What a port says of itself: the question for services that have none.
//!
//! Nothing is sent. Many services speak first (telnet, NNTP, IRC, VNC, rsync,
//! and all kinds of home-made ones), and what they say is theirs to word, so it
//! is taken as it comes, for a short time and in a small amount. That a port
//! says nothing is [`Fault::Silent`], which is not a fault of the port: a
//! service that waits to be asked looks just so.

use std::time::{Duration, Instant};

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question};
use crate::{Answer, Fault, Stream};

/// Reads what comes unasked.
#[derive(Debug)]
pub(super) struct Banner;

impl Banner {
    /// How many bytes are kept of one who does not stop (chargen).
    const LIMIT: usize = 4096;

    /// How long a port has to begin.
    const FIRST: Duration = Duration::from_secs(3);

    /// After how long a silence a banner is taken as complete.
    const PAUSE: Duration = Duration::from_millis(250);
}

impl Question for Banner {
    fn name(&self) -> &'static str {
        "banner"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let end = Instant::now() + Self::FIRST;
        let mut said = vec![0; Self::LIMIT + 1];
        let mut length = stream.read_within(&mut said, Self::FIRST)?;
        if length == 0 {
            return Err(Fault::Closed);
        }
        while length <= Self::LIMIT {
            let left = end.saturating_duration_since(Instant::now());
            match stream.read_within(&mut said[length..], Self::PAUSE.min(left)) {
                // The banner is what has come so far, whatever became of the
                // connection.
                Ok(0) | Err(_) => break,
                Ok(more) => length += more,
            }
        }
        said.truncate(length);
        Ok(read(&said))
    }
}

/// The answer that the bytes of a banner are.
fn read(said: &[u8]) -> Answer {
    let mut answer = Answer::of("banner");
    if said.len() > Banner::LIMIT {
        answer.add("truncated", true);
    }
    let text = from_bytes(&said[..said.len().min(Banner::LIMIT)]);
    let mut lines = text.lines().map(str::trim);
    if let Some(line) = lines.find(|line| !line.is_empty()) {
        line.clone_into(&mut answer.summary);
    }
    answer.text = Some(text);
    answer
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;
    use crate::Value;

    fn ask(script: Script) -> Result<Answer, Fault> {
        trial::stream(&Banner, script)
    }

    #[test]
    fn pieces_are_put_together() {
        let script = Script::silent(&[b"\r\nRFB 003", b".008\n"]);
        let answer = ask(script.clone()).unwrap();
        assert_eq!(answer.summary, "RFB 003.008");
        assert_eq!(answer.text.unwrap(), "\r\nRFB 003.008\n");
        assert!(script.sent().is_empty());
        let answer = ask(Script::of(&[b"\xff\xfd\x18login: "])).unwrap();
        assert_eq!(answer.summary, "\\xff\\xfd\u{18}login:");
    }

    #[test]
    fn silence_and_a_closed_door_are_told_apart() {
        assert!(matches!(ask(Script::silent(&[])), Err(Fault::Silent(_))));
        assert!(matches!(ask(Script::of(&[])), Err(Fault::Closed)));
    }

    #[test]
    fn one_who_does_not_stop_is_cut_off() {
        let piece: Vec<u8> = (b' '..b'~').cycle().take(1000).collect();
        let pieces: Vec<&[u8]> = vec![&piece; 3000];
        let answer = ask(Script::of(&pieces)).unwrap();
        assert_eq!(answer.get("truncated"), Some(&Value::Truth(true)));
        assert_eq!(answer.text.unwrap().len(), Banner::LIMIT);
    }
}
