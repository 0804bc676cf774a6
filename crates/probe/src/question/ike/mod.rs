//! IKE, versions 2 (RFC 7296) and 1 (RFC 2408, 2409): which it speaks, and what
//! it would agree to.
//!
//! The first message of each version is sent in turn: `IKE_SA_INIT`, and Main
//! Mode with a proposal. A service that agrees names the algorithms that it
//! chose and, by vendor ids, its software; one that does not says so, which is
//! an answer as well. Whoever answers version 2 is asked for version 1 too.
//!
//! No key is agreed on: what stands in the place of a public value is a random
//! number, which is a valid one whose secret nobody knows. The other side drops
//! the half-open association after its own time, as RFC 7296 §2.4 has it; there
//! is no way to call it off that could be trusted without a key.
//!
//! The service of this very machine is asked only by who names the question:
//! Libreswan's pluto (4.10 was seen to) aborts when somebody at one of its own
//! addresses begins an association of version 2 that it would accept.
//!
//! On port 4500 each message has the marker of RFC 3948 before it. Some old
//! services answer only to port 500.

mod message;
mod names;
mod request;

use event::Protocol;

use self::message::Message;
use super::nonce::nonce;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fact, Fault, Value};

/// Begins an association that is not continued.
#[derive(Debug)]
pub(super) struct Ike;

const PORT: u16 = 500;
const NAT_TRAVERSAL_PORT: u16 = 4500;
/// What tells IKE from ESP on the port of NAT traversal (RFC 3948 §2.2).
const MARKER: [u8; 4] = [0; 4];

impl Question for Ike {
    fn name(&self) -> &'static str {
        "ike"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["isakmp", "ipsec-nat-t", "ipsec-msft"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp]
    }

    fn source_port(&self, asked: u16) -> Option<u16> {
        (asked == PORT).then_some(PORT)
    }

    fn harms_this_machine(&self) -> Option<&'static str> {
        Some("Libreswan can abort when its own machine begins an association")
    }

    fn ask_datagrams(
        &self,
        asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let marker: &[u8] = if asked.address.port() == NAT_TRAVERSAL_PORT {
            &MARKER
        } else {
            &[]
        };
        let [spi2, spi1] = [initiator(), initiator()];
        let version2 = [marker, &request::version2(spi2, nonce(), nonce())].concat();
        let version1 = [marker, &request::version1(spi1)].concat();
        let to = |reply: &[u8], spi| {
            let reply = reply.strip_prefix(marker);
            reply.is_some_and(|reply| message::answers(reply, spi))
        };
        let reply = datagrams
            .exchange_any(&[&version2, &version1, &version2, &version1], |reply| {
                to(reply, spi2) || to(reply, spi1)
            })?;
        let mut answer = read(reply.get(marker.len()..).unwrap_or_default())?;
        if to(&reply, spi2) {
            let reply = datagrams.ask_more(&version1, |reply| to(reply, spi1));
            let also = reply.and_then(|reply| read(reply.get(marker.len()..).unwrap_or_default()));
            if let Ok(also) = also {
                answer.summary = format!("{}; {}", answer.summary, also.summary);
                answer.add("version 1", also.facts);
            }
        }
        Ok(answer)
    }
}

/// Our half of an association's name, which must not be 0 (RFC 7296 §3.1).
fn initiator() -> [u8; 8] {
    u64::from_be_bytes(nonce()).max(1).to_be_bytes()
}

fn read(reply: &[u8]) -> Result<Answer, Fault> {
    let message = Message::read(reply)?;
    let mut answer = Answer::of("ike");
    answer.add("version", format!("{}.{}", message.major, message.minor));
    answer.add("exchange", names::exchange(message.exchange));
    answer.summary = format!("IKEv{}", message.major);
    if let Some(proposal) = &message.proposal {
        answer.add("proposal", proposal.as_str());
        answer.summary.push_str(", ");
        answer.summary.push_str(proposal);
    }
    let errors: Vec<String> = message
        .notifications
        .iter()
        .filter(|notification| notification.is_error(message.major))
        .map(|notification| notification.name(message.major))
        .collect();
    if !errors.is_empty() {
        let errors = errors.join(" ");
        answer.summary.push_str(", ");
        answer.summary.push_str(&errors);
        answer.add("error", errors);
    }
    // An error here that tells which group would do.
    let group = message
        .notifications
        .iter()
        .find_map(|n| n.group(message.major));
    if let Some(group) = group {
        answer.add("group", names::group(group));
    }
    let list = |values: Vec<String>| Value::List(values.into_iter().map(Value::from).collect());
    let told = message.notifications.iter();
    let told: Vec<String> = told
        .filter(|notification| !notification.is_error(message.major))
        .map(|notification| notification.name(message.major))
        .collect();
    if !told.is_empty() {
        answer.add("notifications", list(told));
    }
    let vendors: Vec<String> = message.vendors.iter().map(|id| names::vendor(id)).collect();
    if !vendors.is_empty() {
        answer.summary.push_str(", ");
        answer.summary.push_str(&vendors[0]);
        answer.facts.push(Fact {
            name: "vendor ids".to_owned(),
            value: list(vendors),
        });
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::question::{Script, trial};

    /// Libreswan 4.10 agrees to version 2 ...
    const AGREED_2: &[u8] = b"\
        \xd2z.\xa4Ef\"2\xfb\xc5\xe9\xb6{U\x86\xac! \" \x00\x00\x00\x00\x00\x00\x01\
        \xdb\"\x00\x000\x00\x00\x00,\x01\x01\x00\x04\x03\x00\x00\x0c\x01\x00\x00\x0c\
        \x80\x0e\x00\x80\x03\x00\x00\x08\x02\x00\x00\x07\x03\x00\x00\x08\x03\x00\x00\
        \x0e\x00\x00\x00\x08\x04\x00\x00\x0e(\x00\x01\x08\x00\x0e\x00\x00%\xb3\xa9\
        \xcb\xac8\x1a<\xa2\xbf\xeb\x1dn\xc4X\xaa\xc4\xdbG\xc5\x00A:%\x0cY\xfa\x85t\
        \xe4\x15L\x16:\xa5\x02\xd0\x1a\xdf\x93\x8b\x03\x91\xf4\xd2W\x97h6D\xa8\xaf\
        \x8c\xa9\x8c\xcf\x88(\xbe\x14\xb7\xa1yEa\x87\x93\xb3fN)a\x91(4W~,e\xcc\x1a\
        \xe7\xe3\x0a\xa5\xd7\x0b`\xfaZ\xae[\xd9\xe2\xc5\xd6E\xc8XM\x14\xa2\xbd\xadK \
        \xab\xd4\xfa{2\xc2M\x19\xb6d\xbf\x8f#w\xf6\x1c\xeb~\xab\xd1A6\xdf\xe8\x91\
        \x01\xe9\xef\x80\xe9\x00\xcaK\x14\xc7\xb2\xf2\x88:2*\xecc\xbcq&\x9br\x1c\x88\
        \x89Q\xdc1\x10\x0c\x9c\xe9\x03\x97\xea|\x9b\xd1\x99z6w\xdc\x06}\x83\xbb\x0a9\
        0\x1b\xe4\xc1\xc4\x04\xee\xcb\xcfZ\xe8\x84\x0aM\xa0>\xe7\x05\xe2b\xfb\x86#]\
        \xbf\xe8\xcd\xff\xe9L\xc0Z\x04\xf9z\xa8\x14J\xd1X\x07G-0L\x04s\xf9(\x11s\xc9\
        \xf7\x95\xcc\\\x18\xba\xb7\x93~\xfc\xf3\"l*#\xc4w\x1f\xec\xd97\xeb\x13)\x00\
        \x00$6\xc4\xf7\x97<\xfb;\x0dO\xe4w\x89\xc6\x99\x8a\xe3\xd8oe\xc6\xeb\x98\x8e\
        \xe5\xfe:\x0e\xc5\xeaK\xe3\xe7)\x00\x00\x08\x00\x00@.)\x00\x00\x1c\x00\x00@\
        \x04O\x1eCH\x05\xbf\x80P[\xf6\xe0\xe7-\x02\xe7R\xfe\xb0 \x00)\x00\x00\x1c\
        \x00\x00@\x053*\xca\x8bx\\a?\x0a\xae;\x19\xb7m\xa4|\x1b\xd9\x80\xb8+\x00\x00\
        \x08\x00\x00@\"\x00\x00\x00\x1bthe server of the scene";
    /// ... refuses it ...
    const REFUSED_2: &[u8] = b"\
        \x06\xc7S\xe7\xce\xf8\x81n\x8f\xeb\x9eb@\xf1DZ) \" \x00\x00\x00\x00\x00\x00\
        \x00$\x00\x00\x00\x08\x00\x00\x00\x0e";
    /// ... and agrees to version 1.
    const AGREED_1: &[u8] = b"\
        \xa1\x0e\x1a\x15\x11\xc4\xb8\xae\x93PR\x0f.c\xf2\xfe\x01\x10\x02\x00\x00\x00\
        \x00\x00\x00\x00\x00\xac\x0d\x00\x008\x00\x00\x00\x01\x00\x00\x00\x01\x00\
        \x00\x00,\x01\x01\x00\x01\x00\x00\x00$\x01\x01\x00\x00\x80\x01\x00\x07\x80\
        \x02\x00\x04\x80\x03\x00\x01\x80\x04\x00\x0e\x80\x0b\x00\x01\x80\x0cp\x80\
        \x80\x0e\x01\x00\x0d\x00\x00\x1bthe server of the scene\x0d\x00\x00\x14@H\
        \xb7\xd5n\xbc\xe8\x85%\xe7\xde\x7f\x00\xd6\xc2\xd3\x0d\x00\x00\x14\xaf\xca\
        \xd7\x13h\xa1\xf1\xc9k\x86\x96\xfcwW\x01\x00\x00\x00\x00\x14J\x13\x1c\x81\
        \x07\x03XE\\W(\xf2\x0e\x95E/\x00";

    /// Our half of the association's name comes back as it was sent.
    fn script(replies: &[&[u8]]) -> Script {
        Script::of(replies).echoing(0..8, 0)
    }

    #[test]
    fn tells_what_version_2_agreed_to() {
        let answer = trial::datagrams(&Ike, script(&[AGREED_2])).unwrap();
        let proposal = "AES_CBC_128 PRF_HMAC_SHA2_512 AUTH_HMAC_SHA2_512_256 MODP_2048";
        assert_eq!(answer.get("version"), Some(&"2.0".into()));
        assert_eq!(answer.get("proposal"), Some(&proposal.into()));
        let vendors = Value::List(vec!["the server of the scene".into()]);
        assert_eq!(answer.get("vendor ids"), Some(&vendors));
        assert_eq!(answer.get("error"), None);
    }

    #[test]
    fn asks_for_both_versions() {
        let answer = trial::datagrams(&Ike, script(&[REFUSED_2, AGREED_1])).unwrap();
        assert_eq!(answer.get("error"), Some(&"NO_PROPOSAL_CHOSEN".into()));
        let Some(Value::Facts(facts)) = answer.get("version 1") else {
            panic!("{answer:?}");
        };
        assert_eq!(facts[2].name, "proposal");
        assert_eq!(facts[2].value, "AES_CBC_256 SHA2_256 MODP_2048 PSK".into());
        let Value::List(vendors) = &facts[3].value else {
            panic!("{facts:?}");
        };
        let known = ["FRAGMENTATION", "Dead Peer Detection", "RFC 3947"];
        assert_eq!(vendors[1..], known.map(Value::from));
    }

    #[test]
    fn on_the_port_of_nat_traversal_there_is_a_marker() {
        let marked = [MARKER.as_slice(), AGREED_2].concat();
        let script = Script::of(&[&marked]).echoing(4..12, 4);
        let mut datagrams = Datagrams::new(script.clone(), Duration::from_mins(1));
        let asked = trial::asked(NAT_TRAVERSAL_PORT);
        let answer = Ike.ask_datagrams(&asked, &mut datagrams).unwrap();
        assert_eq!(answer.get("version"), Some(&"2.0".into()));
        assert!(script.sent().starts_with(&MARKER));
        assert_eq!(Ike.source_port(NAT_TRAVERSAL_PORT), None);
        assert_eq!(Ike.source_port(PORT), Some(PORT));
    }

    #[test]
    fn both_messages_are_well_formed() {
        let version2 = request::version2([1; 8], [0xff; 256], [2; 32]);
        let message = Message::read(&version2).unwrap();
        let all = message.proposal.unwrap();
        assert!(all.starts_with("AES_CBC_256 AES_CBC_128 3DES PRF_HMAC_SHA2_256"));
        assert!(all.ends_with("MODP_1536 MODP_1024"));
        let version1 = request::version1([1; 8]);
        let message = Message::read(&version1).unwrap();
        assert_eq!(message.vendors.len(), 2);
        let all = message.proposal.unwrap();
        assert_eq!(all.split(' ').count(), 24 * 4);
        // What passes any network without being cut in pieces.
        assert!(version1.len().max(version2.len()) < 1232);
    }

    #[test]
    fn what_comes_back_as_it_went_is_no_answer() {
        let version2 = request::version2([1; 8], [3; 256], [2; 32]);
        assert!(!message::answers(&version2, [1; 8]));
        assert!(!message::answers(&request::version1([1; 8]), [1; 8]));
        assert!(!message::answers(AGREED_1, [1; 8]));
    }

    #[test]
    fn another_group_may_be_wanted() {
        // INVALID_KE_PAYLOAD with group 19 (RFC 7296 §1.3).
        let mut reply = REFUSED_2.to_vec();
        reply[24..28].copy_from_slice(&38_u32.to_be_bytes());
        reply[30..32].copy_from_slice(&[0, 10]);
        reply[34..36].copy_from_slice(&[0, 17]);
        reply.extend([0, 19]);
        let answer = trial::datagrams(&Ike, script(&[&reply])).unwrap();
        assert_eq!(answer.get("error"), Some(&"INVALID_KE_PAYLOAD".into()));
        assert_eq!(answer.get("group"), Some(&"ECP_256".into()));
    }

    #[test]
    fn hostile_replies_are_refused() {
        for good in [AGREED_2, REFUSED_2, AGREED_1] {
            for cut in trial::cut(good) {
                let result = trial::datagrams(&Ike, script(&[cut]));
                assert!(result.is_err(), "{}", cut.len());
            }
            for reply in trial::altered(good) {
                // Some are still right; none may panic.
                let _ = trial::datagrams(&Ike, script(&[&reply]));
            }
        }
    }

    proptest! {
        #[test]
        fn any_payloads_can_be_read(
            version in prop_oneof![Just(0x10_u8), Just(0x20)],
            first in 0_u8..50,
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut reply = vec![7; 16];
            reply.extend([first, version, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 28]);
            reply.extend(body);
            if let Ok(answer) = read(&reply) {
                prop_assert!(answer.get("version").is_some());
            }
        }
    }
}
