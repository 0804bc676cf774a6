//! L2TP (RFC 2661): a tunnel is asked for and given up again.
//!
//! The reply to a Start-Control-Connection-Request names the host, its software
//! and what it can frame. Nothing is authenticated at that point, and nothing
//! is set up beyond it: a Stop-Control-Connection-Notification follows at once,
//! so that the other side need not keep the tunnel until it times out. A service
//! that does not want the tunnel says so with such a notification itself.

use event::{Protocol, text};

use super::nonce::nonce;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fault, Reader, Value};

/// Asks for a tunnel.
#[derive(Debug)]
pub(super) struct L2tp;

/// The kinds of message (RFC 2661 §3.2) that matter here.
const SCCRQ: u16 = 1;
const SCCRP: u16 = 2;
const STOP_CCN: u16 = 4;

/// The attributes (RFC 2661 §4.4) that matter here.
mod attribute {
    pub(super) const MESSAGE_TYPE: u16 = 0;
    pub(super) const RESULT_CODE: u16 = 1;
    pub(super) const PROTOCOL_VERSION: u16 = 2;
    pub(super) const FRAMING_CAPABILITIES: u16 = 3;
    pub(super) const BEARER_CAPABILITIES: u16 = 4;
    pub(super) const FIRMWARE_REVISION: u16 = 6;
    pub(super) const HOST_NAME: u16 = 7;
    pub(super) const VENDOR_NAME: u16 = 8;
    pub(super) const ASSIGNED_TUNNEL: u16 = 9;
    pub(super) const RECEIVE_WINDOW: u16 = 10;
    pub(super) const CHALLENGE: u16 = 11;
}

impl Question for L2tp {
    fn name(&self) -> &'static str {
        "l2tp"
    }

    fn aliases(&self) -> &'static [&'static str] {
        // The port's name in Debian, after the protocol that L2TP grew from.
        &["l2f"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        // 0 would be no tunnel at all.
        let tunnel = u16::from_be_bytes(nonce()).max(1);
        let reply = datagrams.exchange(&request(tunnel), |reply| answers(reply, tunnel))?;
        let (answer, theirs) = read(&reply)?;
        if let Some(theirs) = theirs {
            // What was learnt stays learnt if this cannot be sent.
            let _ = datagrams.send(&stop(theirs, tunnel));
        }
        Ok(answer)
    }
}

/// Start-Control-Connection-Request, with the attributes it must have.
fn request(tunnel: u16) -> Vec<u8> {
    let attributes = [
        (attribute::MESSAGE_TYPE, SCCRQ.to_be_bytes().to_vec()),
        (attribute::PROTOCOL_VERSION, vec![1, 0]),
        (attribute::HOST_NAME, b"portreporter".to_vec()),
        // Asynchronous and synchronous framing.
        (attribute::FRAMING_CAPABILITIES, vec![0, 0, 0, 3]),
        (attribute::ASSIGNED_TUNNEL, tunnel.to_be_bytes().to_vec()),
        (attribute::RECEIVE_WINDOW, vec![0, 4]),
    ];
    message(0, [0, 0], &attributes)
}

/// Stop-Control-Connection-Notification, which also acknowledges the reply.
fn stop(theirs: u16, ours: u16) -> Vec<u8> {
    let attributes = [
        (attribute::MESSAGE_TYPE, STOP_CCN.to_be_bytes().to_vec()),
        (attribute::ASSIGNED_TUNNEL, ours.to_be_bytes().to_vec()),
        // General request to clear the control connection.
        (attribute::RESULT_CODE, vec![0, 1]),
    ];
    message(theirs, [1, 1], &attributes)
}

/// A control message of version 2: type, length and sequence are there.
fn message(tunnel: u16, numbers: [u16; 2], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut message = vec![0xc8, 0x02, 0, 0];
    message.extend(tunnel.to_be_bytes());
    // The session: none.
    message.extend([0, 0]);
    message.extend(numbers.into_iter().flat_map(u16::to_be_bytes));
    for (kind, value) in attributes {
        // All are mandatory (0x8000) and of vendor 0, the IETF.
        let length = u16::try_from(6 + value.len()).unwrap_or(u16::MAX);
        message.extend((0x8000 | length).to_be_bytes());
        message.extend([0, 0]);
        message.extend(kind.to_be_bytes());
        message.extend_from_slice(value);
    }
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    message[2..4].copy_from_slice(&length.to_be_bytes());
    message
}

/// Whether `reply` is a control message for our tunnel that says something: a
/// bare acknowledgement has no attributes.
fn answers(reply: &[u8], tunnel: u16) -> bool {
    reply.len() > 12
        && reply[0] & 0xc8 == 0xc8
        && reply[1] & 0x0f == 2
        && reply[4..6] == tunnel.to_be_bytes()
}

/// What the reply says, and the tunnel on its side if it made one.
fn read(reply: &[u8]) -> Result<(Answer, Option<u16>), Fault> {
    let mut reader = Reader::new(reply);
    reader.u16("flags and version")?;
    let length = usize::from(reader.u16("length")?);
    let Some(body) = reply.get(12..length) else {
        return Err(reader.malformed("a length within the datagram"));
    };
    let mut reader = Reader::new(body);
    let mut answer = Answer::of("l2tp");
    let mut kind = None;
    let mut tunnel = None;
    while !reader.is_empty() {
        let head = reader.u16("an attribute")?;
        let length = usize::from(head & 0x03ff);
        let vendor = reader.u16("vendor of an attribute")?;
        let name = reader.u16("type of an attribute")?;
        let Some(length) = length.checked_sub(6) else {
            return Err(reader.malformed("a length of at least six"));
        };
        let value = reader.bytes(length, "value of an attribute")?;
        // What is hidden needs the secret to read; what a vendor adds, a list.
        let hidden = head & 0x4000 != 0;
        if hidden || vendor != 0 {
            continue;
        }
        let mut value = Reader::new(value);
        match name {
            attribute::MESSAGE_TYPE => {
                kind = Some(value.u16("message type")?);
            }
            attribute::ASSIGNED_TUNNEL => {
                let id = value.u16("assigned tunnel")?;
                tunnel = Some(id);
                answer.add("Assigned Tunnel ID", u32::from(id));
            }
            _ => add(&mut answer, name, value)?,
        }
    }
    match kind {
        Some(SCCRP) => {
            answer.summary = summary(&answer);
            Ok((answer, tunnel))
        }
        Some(STOP_CCN) => {
            answer.summary = match answer.get("error") {
                Some(Value::Text(error)) => error.clone(),
                _ => "the tunnel was refused".to_owned(),
            };
            if answer.get("error").is_none() {
                answer.add("error", answer.summary.clone());
            }
            Ok((answer, None))
        }
        _ => Err(reader.malformed("SCCRP or StopCCN")),
    }
}

fn add(answer: &mut Answer, name: u16, mut value: Reader<'_>) -> Result<(), Fault> {
    match name {
        attribute::HOST_NAME => answer.add("Host Name", text::from_bytes(value.rest())),
        attribute::VENDOR_NAME => answer.add("Vendor Name", text::from_bytes(value.rest())),
        attribute::PROTOCOL_VERSION => {
            let [version, revision] = value.array("protocol version")?;
            answer.add("Protocol Version", format!("{version}.{revision}"));
        }
        attribute::FIRMWARE_REVISION => {
            let revision = value.u16("firmware revision")?;
            answer.add("Firmware Revision", format!("0x{revision:04x}"));
        }
        attribute::FRAMING_CAPABILITIES => {
            let bits = value.u32("framing capabilities")?;
            let names = ["synchronous", "asynchronous"];
            answer.add("Framing Capabilities", capabilities(bits, names));
        }
        attribute::BEARER_CAPABILITIES => {
            let bits = value.u32("bearer capabilities")?;
            let names = ["digital", "analog"];
            answer.add("Bearer Capabilities", capabilities(bits, names));
        }
        attribute::RECEIVE_WINDOW => {
            let size = value.u16("receive window")?;
            answer.add("Receive Window Size", u32::from(size));
        }
        // It wants the tunnel's secret.
        attribute::CHALLENGE => answer.add("Challenge", true),
        attribute::RESULT_CODE => {
            let result = value.u16("result code")?;
            answer.add("Result Code", u32::from(result));
            if !value.is_empty() {
                answer.add("Error Code", u32::from(value.u16("error code")?));
            }
            let message = text::from_bytes(value.rest());
            if message.is_empty() {
                answer.add("error", meaning(result));
            } else {
                answer.add("error", message);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The lowest two bits by name.
fn capabilities(bits: u32, names: [&str; 2]) -> String {
    let set = names.into_iter().zip([1, 2]);
    let set: Vec<&str> = set
        .filter(|(_, bit)| bits & bit != 0)
        .map(|(name, _)| name)
        .collect();
    set.join(" ")
}

fn summary(answer: &Answer) -> String {
    let part = |name| match answer.get(name) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let parts = [part("Host Name"), part("Vendor Name")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The result codes of a `StopCCN` (RFC 2661 §4.4.2).
fn meaning(result: u16) -> &'static str {
    match result {
        1 => "general request to clear the control connection",
        2 => "general error",
        3 => "the control channel exists already",
        4 => "not authorised to establish a control channel",
        5 => "the protocol version is not supported",
        6 => "the requester is being shut down",
        7 => "error of the state machine",
        _ => "unknown result",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Script, trial};

    #[test]
    fn asks_as_rfc_2661_says() {
        assert_eq!(
            request(0x1234),
            b"\xc8\x02\0\x48\0\0\0\0\0\0\0\0\
              \x80\x08\0\0\0\0\0\x01\
              \x80\x08\0\0\0\x02\x01\0\
              \x80\x12\0\0\0\x07portreporter\
              \x80\x0a\0\0\0\x03\0\0\0\x03\
              \x80\x08\0\0\0\x09\x12\x34\
              \x80\x08\0\0\0\x0a\0\x04"
        );
    }

    fn script(reply: &[u8]) -> Script {
        // Our tunnel, from its attribute to the header of the reply.
        Script::of(&[reply]).echoing(62..64, 4)
    }

    fn reply() -> Vec<u8> {
        let attributes = [
            (attribute::MESSAGE_TYPE, SCCRP.to_be_bytes().to_vec()),
            (attribute::PROTOCOL_VERSION, vec![1, 0]),
            (attribute::FRAMING_CAPABILITIES, vec![0, 0, 0, 3]),
            (attribute::BEARER_CAPABILITIES, vec![0, 0, 0, 1]),
            (attribute::FIRMWARE_REVISION, vec![6, 0x90]),
            (attribute::HOST_NAME, b"lns.example".to_vec()),
            (attribute::VENDOR_NAME, b"vendor\xff".to_vec()),
            (attribute::ASSIGNED_TUNNEL, vec![0xab, 0xcd]),
            (attribute::CHALLENGE, vec![1, 2, 3]),
        ];
        message(0, [0, 1], &attributes)
    }

    #[test]
    fn a_tunnel_is_given_up_again() {
        let script = script(&reply());
        let answer = trial::datagrams(&L2tp, script.clone()).unwrap();
        assert_eq!(answer.summary, "lns.example, vendor\\xff");
        for (name, value) in [
            ("Protocol Version", Value::from("1.0")),
            ("Framing Capabilities", "synchronous asynchronous".into()),
            ("Bearer Capabilities", "digital".into()),
            ("Firmware Revision", "0x0690".into()),
            ("Challenge", true.into()),
        ] {
            assert_eq!(answer.get(name), Some(&value), "{name}");
        }
        let sent = script.sent();
        let stop = &sent[request(1).len()..];
        assert_eq!(stop[4..6], [0xab, 0xcd]);
        assert_eq!(stop[18..20], STOP_CCN.to_be_bytes());
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let attributes = [
            (attribute::MESSAGE_TYPE, STOP_CCN.to_be_bytes().to_vec()),
            (attribute::ASSIGNED_TUNNEL, vec![0, 9]),
            (attribute::RESULT_CODE, vec![0, 4]),
        ];
        let refused = script(&message(0, [0, 1], &attributes));
        let answer = trial::datagrams(&L2tp, refused.clone()).unwrap();
        assert_eq!(
            answer.get("error"),
            Some(&"not authorised to establish a control channel".into())
        );
        assert_eq!(refused.sent().len(), request(1).len(), "nothing to give up");
        let attributes = [
            (attribute::MESSAGE_TYPE, STOP_CCN.to_be_bytes().to_vec()),
            (attribute::RESULT_CODE, b"\0\x02\0\x06No more room".to_vec()),
        ];
        let answer = trial::datagrams(&L2tp, script(&message(0, [0, 1], &attributes))).unwrap();
        assert_eq!(answer.summary, "No more room");
    }

    #[test]
    fn only_our_tunnel_is_answered() {
        let attributes = [(attribute::MESSAGE_TYPE, SCCRP.to_be_bytes().to_vec())];
        let other = message(7, [0, 1], &attributes);
        assert!(answers(&other, 7));
        assert!(!answers(&other, 8));
        // A bare acknowledgement, and a message of data.
        assert!(!answers(&message(7, [0, 1], &[]), 7));
        assert!(!answers(b"\x40\x02\0\x0d\0\x07\0\0\0\0\0\0\0", 7));
    }

    #[test]
    fn hostile_replies_are_refused() {
        let good = reply();
        for cut in trial::cut(&good) {
            assert!(
                trial::datagrams(&L2tp, script(cut)).is_err(),
                "{}",
                cut.len()
            );
        }
        let good = trial::altered(&good).filter(|reply| {
            let answer = trial::datagrams(&L2tp, script(reply));
            answer.is_ok_and(|answer| answer.protocol == "l2tp")
        });
        assert!(good.count() > 0, "text may be anything");
        // An attribute whose length is less than its own head.
        let mut short = reply();
        short[13] = 5;
        assert!(matches!(
            trial::datagrams(&L2tp, script(&short)),
            Err(Fault::Malformed { .. })
        ));
    }
}
