//! Remote Desktop (MS-RDPBCGR): which security a server wants.
//!
//! A connection begins with an X.224 request in which the client names the
//! security protocols that it can speak; the server picks one, or says why it
//! will not. Nothing after that is begun: no TLS, no login, no session.

use event::Protocol;

use super::{Asked, Question};
use crate::{Answer, Fault, Reader, Stream};

/// Asks for a connection.
#[derive(Debug)]
pub(super) struct Rdp;

/// Security protocols (MS-RDPBCGR §2.2.1.1.1), as bits.
const SSL: u32 = 1;
const HYBRID: u32 = 2;
const RDSTLS: u32 = 4;
const HYBRID_EX: u32 = 8;

/// Kinds of negotiation data (§2.2.1.1.1, §2.2.1.2.1, §2.2.1.2.2).
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const FAILURE: u8 = 3;

/// Codes of X.224: the confirmation; and data, in which a server that does not
/// like the request says goodbye.
const CONFIRM: u8 = 0xd0;
const DATA: u8 = 0xf0;

/// The longest honest confirmation is 19 bytes.
const LONGEST: usize = 1024;

impl Question for Rdp {
    fn name(&self) -> &'static str {
        "rdp"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["ms-wbt-server", "ms-term-serv", "msrdp"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        stream.send(&request())?;
        // TPKT (RFC 1006 §6): version 3, a reserved byte, the whole length.
        let header = stream.exact(4)?;
        if header[0] != 3 {
            return Err(Fault::Malformed {
                what: "a TPKT of version 3",
                at: 0,
            });
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length > LONGEST {
            return Err(Fault::Long(LONGEST));
        }
        let Some(length) = length.checked_sub(4) else {
            return Err(Fault::Malformed {
                what: "a length of at least four",
                at: 2,
            });
        };
        read(&stream.exact(length)?)
    }
}

/// An X.224 connection request (§2.2.1.1) with the protocols that clients send;
/// RDSTLS is for redirected ones, and xrdp hangs up on it.
fn request() -> Vec<u8> {
    let protocols = SSL | HYBRID | HYBRID_EX;
    let mut request = vec![3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, REQUEST, 0, 8, 0];
    request.extend(protocols.to_le_bytes());
    request
}

/// What the confirmation says; without negotiation data it is of a server from
/// before there was any.
fn read(message: &[u8]) -> Result<Answer, Fault> {
    let mut reader = Reader::new(message);
    reader.u8("length indicator")?;
    let mut answer = Answer::of("rdp");
    match reader.u8("code of a message")? & 0xf0 {
        CONFIRM => {}
        DATA => {
            let reason = "the server ends the connection";
            answer.add("error", reason);
            reason.clone_into(&mut answer.summary);
            return Ok(answer);
        }
        _ => return Err(reader.malformed("a connection confirmation")),
    }
    reader.bytes(5, "references and class")?;
    if reader.is_empty() {
        answer.add("protocol", name(0));
        answer.add("negotiation", false);
        name(0).clone_into(&mut answer.summary);
        return Ok(answer);
    }
    let kind = reader.u8("kind of negotiation data")?;
    let flags = reader.u8("flags")?;
    reader.u16_le("length of negotiation data")?;
    let value = reader.u32_le("negotiation data")?;
    match kind {
        RESPONSE => {
            answer.add("protocol", name(value));
            answer.add("flags", flag_names(flags).join(" "));
            answer.summary = format!("security: {}", name(value));
        }
        FAILURE => {
            answer.add("failure code", value);
            answer.add("error", reason(value));
            reason(value).clone_into(&mut answer.summary);
        }
        _ => return Err(reader.malformed("a response or a failure")),
    }
    Ok(answer)
}

fn name(protocol: u32) -> &'static str {
    match protocol {
        0 => "RDP",
        SSL => "TLS",
        HYBRID => "CredSSP (NLA)",
        RDSTLS => "RDSTLS",
        HYBRID_EX => "CredSSP with early user authorisation (NLA)",
        _ => "unknown",
    }
}

/// §2.2.1.2.1, by the names without their common beginning.
fn flag_names(flags: u8) -> Vec<&'static str> {
    let names = [
        (0x01, "EXTENDED_CLIENT_DATA_SUPPORTED"),
        (0x02, "DYNVC_GFX_PROTOCOL_SUPPORTED"),
        (0x08, "RESTRICTED_ADMIN_MODE_SUPPORTED"),
        (0x10, "REDIRECTED_AUTHENTICATION_MODE_SUPPORTED"),
    ];
    names
        .into_iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

/// §2.2.1.2.2.
fn reason(code: u32) -> &'static str {
    match code {
        1 => "the server requires TLS",
        2 => "the server allows only RDP security",
        3 => "the server has no certificate",
        4 => "the requested protocols are inconsistent",
        5 => "the server requires CredSSP (NLA)",
        6 => "the server requires TLS with a client certificate",
        _ => "the server refuses for a reason that is not known",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Value;
    use crate::question::{Script, trial};

    /// In the manner of the example in MS-RDPBCGR §4.1.2, but with `CredSSP` and
    /// three flags.
    const CONFIRMED: &[u8] = b"\x03\0\0\x13\x0e\xd0\0\0\x12\x34\0\x02\x0b\x08\0\x02\0\0\0";

    #[test]
    fn asks_for_every_protocol() {
        assert_eq!(
            request(),
            b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x0b\0\0\0"
        );
    }

    #[test]
    fn tells_what_was_chosen() {
        let answer = trial::stream(&Rdp, Script::of(&[CONFIRMED])).unwrap();
        assert_eq!(answer.get("protocol"), Some(&"CredSSP (NLA)".into()));
        assert_eq!(
            answer.get("flags"),
            Some(&Value::from(
                "EXTENDED_CLIENT_DATA_SUPPORTED DYNVC_GFX_PROTOCOL_SUPPORTED \
                 RESTRICTED_ADMIN_MODE_SUPPORTED"
            ))
        );
    }

    #[test]
    fn a_failure_is_an_answer() {
        let mut failure = CONFIRMED.to_vec();
        failure[11] = FAILURE;
        failure[15] = 5;
        let answer = trial::stream(&Rdp, Script::of(&[&failure])).unwrap();
        assert_eq!(
            answer.get("error"),
            Some(&"the server requires CredSSP (NLA)".into())
        );
        assert_eq!(answer.get("failure code"), Some(&Value::from(5_u32)));
    }

    #[test]
    fn a_goodbye_is_an_answer() {
        // What xrdp 0.9.21 sends to a request that it does not understand.
        let goodbye = b"\x03\0\0\x09\x02\xf0\x80\x21\x80";
        let answer = trial::stream(&Rdp, Script::of(&[goodbye])).unwrap();
        assert_eq!(
            answer.get("error"),
            Some(&"the server ends the connection".into())
        );
    }

    #[test]
    fn an_old_server_negotiates_nothing() {
        let old = b"\x03\0\0\x0b\x06\xd0\0\0\x12\x34\0";
        let answer = trial::stream(&Rdp, Script::of(&[old])).unwrap();
        assert_eq!(answer.get("negotiation"), Some(&false.into()));
        assert_eq!(answer.summary, "RDP");
    }

    #[test]
    fn hostile_replies_are_refused() {
        for cut in trial::cut(CONFIRMED) {
            let fault = trial::stream(&Rdp, Script::of(&[cut])).unwrap_err();
            assert!(matches!(fault, Fault::Closed));
        }
        for (at, byte) in [(0, 4), (3, 3), (3, 12), (5, 0xe0), (11, 9)] {
            let mut reply = CONFIRMED.to_vec();
            reply[at] = byte;
            let fault = trial::stream(&Rdp, Script::of(&[&reply])).unwrap_err();
            assert!(matches!(fault, Fault::Malformed { .. }), "{at}");
        }
        let long = b"\x03\0\xff\xff".repeat(20_000);
        let fault = trial::stream(&Rdp, Script::of(&[&long])).unwrap_err();
        assert!(matches!(fault, Fault::Long(LONGEST)));
    }

    proptest! {
        #[test]
        fn any_message_can_be_read(message in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(answer) = read(&message) {
                prop_assert!(!answer.summary.is_empty());
            }
        }
    }
}
