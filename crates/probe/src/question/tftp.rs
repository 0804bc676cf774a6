//! TFTP (RFC 1350): a file that nobody has.
//!
//! The protocol has no question but for a file. The refusal shows the service,
//! and says in words of its own why; if the file is there after all the
//! transfer is ended with its first block. The service answers from a port of
//! its own (RFC 1350 §4), which a connected socket would not hear.

use event::{Protocol, text};

use super::{Asked, Question};
use crate::{Answer, Datagrams, Fault, Reader};

/// Asks for a file that is not there.
#[derive(Debug)]
pub(super) struct Tftp;

/// The name of the file: one that says in the service's log who asked.
const FILE: &str = "portreporter-query";

const READ_REQUEST: u16 = 1;
const DATA: u16 = 3;
const ERROR: u16 = 5;

impl Question for Tftp {
    fn name(&self) -> &'static str {
        "tftp"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn answered_elsewhere(&self) -> bool {
        true
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let reply = datagrams.exchange(&request(), |reply| {
            matches!(opcode(reply), Some(DATA | ERROR))
        })?;
        if opcode(&reply) == Some(DATA) {
            // What was learnt stays learnt if this cannot be sent.
            let _ = datagrams.send(&end());
        }
        read(&reply)
    }
}

/// Asks for the file as it is (RFC 1350 §5).
fn request() -> Vec<u8> {
    let mut request = READ_REQUEST.to_be_bytes().to_vec();
    request.extend_from_slice(FILE.as_bytes());
    request.extend_from_slice(b"\0octet\0");
    request
}

/// Ends a transfer.
fn end() -> Vec<u8> {
    let mut error = ERROR.to_be_bytes().to_vec();
    error.extend_from_slice(b"\0\0that is enough\0");
    error
}

fn opcode(reply: &[u8]) -> Option<u16> {
    Reader::new(reply).u16("opcode").ok()
}

fn read(reply: &[u8]) -> Result<Answer, Fault> {
    let mut reader = Reader::new(reply);
    let opcode = reader.u16("opcode")?;
    // The code of an error, the number of a block of data.
    let number = reader.u16("code or block")?;
    let mut answer = Answer::of("tftp");
    if opcode == DATA {
        answer.add("file", FILE);
        answer.add("block", u32::from(number));
        answer.summary = format!("{FILE} is there");
        return Ok(answer);
    }
    let rest = reader.rest();
    // The end mark is often forgotten; the datagram ends there anyway.
    let message = rest.split(|byte| *byte == 0).next().unwrap_or(rest);
    let message = text::from_bytes(message);
    answer.add("code", u32::from(number));
    answer.add("meaning", meaning(number));
    answer.add("error", message.as_str());
    answer.summary = format!("error {number}: {message}");
    Ok(answer)
}

/// RFC 1350, Appendix; RFC 2347 §4 for the last.
fn meaning(code: u16) -> &'static str {
    match code {
        0 => "not defined",
        1 => "file not found",
        2 => "access violation",
        3 => "disk full or allocation exceeded",
        4 => "illegal TFTP operation",
        5 => "unknown transfer ID",
        6 => "file already exists",
        7 => "no such user",
        8 => "option negotiation failed",
        _ => "unknown code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::question::{Script, trial};

    /// What tftpd-hpa 5.2 sends.
    const NOT_FOUND: &[u8] = b"\0\x05\0\x01File not found\0";

    #[test]
    fn a_refusal_is_an_answer() {
        let script = Script::of(&[NOT_FOUND]);
        let answer = trial::datagrams(&Tftp, script.clone()).unwrap();
        assert_eq!(answer.summary, "error 1: File not found");
        assert_eq!(answer.get("error"), Some(&Value::from("File not found")));
        assert_eq!(answer.get("code"), Some(&Value::from(1_u32)));
        assert_eq!(script.sent(), b"\0\x01portreporter-query\0octet\0");
    }

    #[test]
    fn a_transfer_is_ended() {
        let script = Script::of(&[b"\0\x03\0\x01content"]);
        let answer = trial::datagrams(&Tftp, script.clone()).unwrap();
        assert_eq!(answer.get("block"), Some(&Value::from(1_u32)));
        assert!(script.sent().ends_with(b"\0\x05\0\0that is enough\0"));
    }

    #[test]
    fn other_messages_are_no_answer() {
        for reply in [b"".as_slice(), b"\0", b"\0\x04\0\x01", b"\x05\0\0\x01x\0"] {
            let fault = trial::datagrams(&Tftp, Script::of(&[reply])).unwrap_err();
            assert!(matches!(fault, Fault::Silent(_)));
        }
    }

    #[test]
    fn a_message_may_end_early() {
        for reply in trial::cut(NOT_FOUND) {
            let result = trial::datagrams(&Tftp, Script::of(&[reply]));
            match reply.len() {
                0..2 => assert!(matches!(result, Err(Fault::Silent(_)))),
                2..4 => assert!(matches!(result, Err(Fault::Malformed { .. }))),
                _ => assert!(result.is_ok()),
            }
        }
    }
}
