//! RADIUS: Status-Server (RFC 5997), "are you there?".
//!
//! A server answers only a host that it knows as a client, and only if the
//! request is signed with the secret that they share; everything else it drops
//! without a word (RFC 2865 §3, RFC 5997 §4.5). So without the secret silence
//! is all there is, and says nothing: the port stays what the plain datagram
//! made of it. A login attempt would be answered by some servers without a right
//! signature, but it is one, and is entered in their logs as such; none is made
//! here. By default the secret is the one that `FreeRADIUS` ships for the local
//! host ([`DEFAULT_SECRET`]). With the right one the answer proves itself, which `authentic` tells.

use event::{Protocol, text};
use md5::{Digest as _, Md5};

use super::nonce::nonce;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fault, Reader};

/// The secret of an installation that nobody has changed.
pub const DEFAULT_SECRET: &str = "testing123";

/// Asks a RADIUS server, for logins or for accounting, whether it is there.
#[derive(Debug)]
pub(super) struct Radius;

/// Kinds of packet (RFC 2865 §4, RFC 2866 §4, RFC 5997 §3, RFC 7930 §4).
const ACCESS_ACCEPT: u8 = 2;
const ACCESS_REJECT: u8 = 3;
const ACCOUNTING_RESPONSE: u8 = 5;
const ACCESS_CHALLENGE: u8 = 11;
const STATUS_SERVER: u8 = 12;
const PROTOCOL_ERROR: u8 = 52;

/// Attributes.
const REPLY_MESSAGE: u8 = 18;
const NAS_IDENTIFIER: u8 = 32;
const MESSAGE_AUTHENTICATOR: u8 = 80;

impl Question for Radius {
    fn name(&self) -> &'static str {
        "radius"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &[
            "radius-acct",
            "radacct",
            // The ports before RFC 2865, by the names that they belong to.
            "datametrics",
            "old-radius",
            "sa-msg-port",
            "old-radacct",
        ]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn may_be_ignored(&self) -> bool {
        true
    }

    fn ask_datagrams(
        &self,
        asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let secret = asked.secret.as_bytes();
        let [id] = nonce();
        let authenticator = nonce();
        let request = request(id, authenticator, secret);
        let reply = datagrams.exchange(&request, |reply| answers(reply, id))?;
        read(&reply, authenticator, secret)
    }
}

/// A Status-Server packet. Its signature is made while its own place is zero
/// (RFC 2869 §5.14).
fn request(id: u8, authenticator: [u8; 16], secret: &[u8]) -> Vec<u8> {
    let name = b"portreporter";
    let mut request = vec![STATUS_SERVER, id, 0, 0];
    request.extend(authenticator);
    request.extend([NAS_IDENTIFIER, 14]);
    request.extend_from_slice(name);
    request.extend([MESSAGE_AUTHENTICATOR, 18]);
    let signature = request.len();
    request.extend([0; 16]);
    let length = u16::try_from(request.len()).unwrap_or(u16::MAX);
    request[2..4].copy_from_slice(&length.to_be_bytes());
    let signed = hmac_md5(secret, &request);
    request[signature..].copy_from_slice(&signed);
    request
}

/// HMAC (RFC 2104) with MD5, as RADIUS wants it.
fn hmac_md5(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..16].copy_from_slice(&Md5::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Md5::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(message)
        .finalize();
    Md5::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

fn answers(reply: &[u8], id: u8) -> bool {
    let Some(code) = reply.first() else {
        return false;
    };
    name(*code).is_some() && reply.len() >= 20 && reply[1] == id
}

fn read(reply: &[u8], authenticator: [u8; 16], secret: &[u8]) -> Result<Answer, Fault> {
    let mut reader = Reader::new(reply);
    let code = reader.u8("code")?;
    reader.u8("identifier")?;
    let length = usize::from(reader.u16("length")?);
    // What follows the length is padding (RFC 2865 §3).
    let Some(packet) = reply.get(..length).filter(|packet| packet.len() >= 20) else {
        return Err(reader.malformed("a length within the datagram"));
    };
    let expected: [u8; 16] = Md5::new()
        .chain_update(&packet[..4])
        .chain_update(authenticator)
        .chain_update(&packet[20..])
        .chain_update(secret)
        .finalize()
        .into();
    let authentic = packet[4..20] == expected;

    let mut answer = Answer::of("radius");
    let name = name(code).ok_or_else(|| reader.malformed("a reply"))?;
    answer.add("packet", name);
    answer.add("authentic", authentic);
    let mut message = Vec::new();
    let mut attributes = Reader::new(&packet[20..]);
    while !attributes.is_empty() {
        let kind = attributes.u8("an attribute")?;
        let length = usize::from(attributes.u8("length of an attribute")?);
        let Some(length) = length.checked_sub(2) else {
            return Err(attributes.malformed("a length of at least two"));
        };
        let value = attributes.bytes(length, "value of an attribute")?;
        if kind == REPLY_MESSAGE {
            // A long one is in several parts.
            message.extend_from_slice(value);
        }
    }
    name.clone_into(&mut answer.summary);
    if !message.is_empty() {
        let message = text::from_bytes(&message);
        answer.summary = format!("{name}: {message}");
        answer.add("Reply-Message", message);
    }
    if !authentic {
        answer.summary.push_str(" (not signed with the secret)");
    }
    if matches!(code, ACCESS_REJECT | PROTOCOL_ERROR) {
        answer.add("error", name);
    }
    Ok(answer)
}

fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        ACCESS_ACCEPT => "Access-Accept",
        ACCESS_REJECT => "Access-Reject",
        ACCOUNTING_RESPONSE => "Accounting-Response",
        ACCESS_CHALLENGE => "Access-Challenge",
        PROTOCOL_ERROR => "Protocol-Error",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::question::{Script, trial};

    /// The packets of RFC 5997 §6.1, with the secret `xyzzy5461`.
    const SECRET: &[u8] = b"xyzzy5461";
    const AUTHENTICATOR: [u8; 16] = [
        0x8a, 0x54, 0xf4, 0x68, 0x6f, 0xb3, 0x94, 0xc5, 0x28, 0x66, 0xe3, 0x02, 0x18, 0x5d, 0x06,
        0x23,
    ];
    const REQUEST: &[u8] = &[
        0x0c, 0xda, 0x00, 0x26, 0x8a, 0x54, 0xf4, 0x68, 0x6f, 0xb3, 0x94, 0xc5, 0x28, 0x66, 0xe3,
        0x02, 0x18, 0x5d, 0x06, 0x23, 0x50, 0x12, 0x5a, 0x66, 0x5e, 0x2e, 0x1e, 0x84, 0x11, 0xf3,
        0xe2, 0x43, 0x82, 0x20, 0x97, 0xc8, 0x4f, 0xa3,
    ];
    const ACCEPT: &[u8] = &[
        0x02, 0xda, 0x00, 0x14, 0xef, 0x0d, 0x55, 0x2a, 0x4b, 0xf2, 0xd6, 0x93, 0xec, 0x2b, 0x6f,
        0xe8, 0xb5, 0x41, 0x1d, 0x66,
    ];

    #[test]
    fn signs_as_the_rfc_does() {
        let mut unsigned = REQUEST.to_vec();
        unsigned[22..].fill(0);
        assert_eq!(hmac_md5(SECRET, &unsigned), REQUEST[22..]);
        // RFC 2202 §2, with a key that is longer than a block.
        let long = hmac_md5(
            &[0xaa; 80],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
        );
        assert_eq!(
            u128::from_be_bytes(long),
            0x6b1a_b7fe_4bd7_bf8f_0b62_e6ce_61b9_d0cd
        );
    }

    #[test]
    fn asks_with_a_name_and_a_signature() {
        let request = request(7, AUTHENTICATOR, SECRET);
        assert_eq!(request[..4], [12, 7, 0, 52]);
        assert_eq!(request[20..34], *b"\x20\x0eportreporter");
        let mut unsigned = request.clone();
        unsigned[36..].fill(0);
        assert_eq!(hmac_md5(SECRET, &unsigned), request[36..]);
    }

    #[test]
    fn knows_whether_the_answer_is_signed() {
        let answer = read(ACCEPT, AUTHENTICATOR, SECRET).unwrap();
        assert_eq!(answer.summary, "Access-Accept");
        assert_eq!(answer.get("authentic"), Some(&true.into()));
        let other = read(ACCEPT, AUTHENTICATOR, b"other").unwrap();
        assert_eq!(other.get("authentic"), Some(&false.into()));
    }

    fn rejected() -> Vec<u8> {
        let mut reply = vec![ACCESS_REJECT, 0, 0, 31];
        reply.extend([0; 16]);
        reply.extend_from_slice(b"\x12\x04no\x12\x07, never");
        reply.truncate(31);
        reply
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let script = Script::of(&[&rejected()]).echoing(1..2, 1);
        let answer = trial::datagrams(&Radius, script).unwrap();
        assert_eq!(answer.get("error"), Some(&"Access-Reject".into()));
        assert_eq!(answer.get("Reply-Message"), Some(&"no, nev".into()));
    }

    #[test]
    fn hostile_replies_are_refused() {
        let good = rejected();
        for cut in trial::cut(&good) {
            let script = Script::of(&[cut]).echoing(1..2, 1);
            assert!(trial::datagrams(&Radius, script).is_err());
        }
        for reply in trial::altered(&good) {
            let script = Script::of(&[&reply]).echoing(1..2, 1);
            // Some are still right; none may panic.
            let _ = trial::datagrams(&Radius, script);
        }
        // An attribute without room for its own length would never end.
        let mut endless = good;
        endless[21] = 0;
        assert!(matches!(
            read(&endless, AUTHENTICATOR, SECRET),
            Err(Fault::Malformed { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_reply_can_be_read(reply in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(answer) = read(&reply, AUTHENTICATOR, SECRET) {
                prop_assert_eq!(answer.get("authentic"), Some(&false.into()));
            }
        }
    }
}
