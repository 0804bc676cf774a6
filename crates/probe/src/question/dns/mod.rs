//! DNS (RFC 1035): the name servers of the root, and what software says so.
//!
//! Any reply shows a listener, a refusal too. The question for the root is one
//! that every kind of server has an answer to: a resolver knows it, an
//! authoritative server refers or refuses. It carries EDNS (RFC 6891) with the
//! wish for the server's identity (RFC 5001); the second of three tries does without, for
//! servers and firewalls that drop what they do not know. Then follows
//! `version.bind` of class CH, to which BIND, Unbound, Knot, NSD and `PowerDNS`
//! tell their version unless they are told not to.
//!
//! It does not resolve names and follows no referral.

mod message;

use event::{Protocol, text};

use self::message::{Class, Kind, Message, Record};
use super::nonce::nonce;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fact, Fault, Stream, Value};

/// Asks for the root's name servers, then for `version.bind`.
#[derive(Debug)]
pub(super) struct Dns;

/// How many records of a reply are told one by one.
const SHOWN: usize = 100;

impl Question for Dns {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["domain"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp, Protocol::Tcp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        // Nobody else can answer on this connection, so the id says nothing.
        let reply = exchange(stream, &message::query(0, &[], Kind::NS, Class::IN, true))?;
        let mut answer = read(&reply)?;
        // A server may close after one reply; the first one is what was asked for.
        if let Ok(reply) = exchange(stream, &version_query(1)) {
            add_version(&mut answer, &reply);
        }
        Ok(answer)
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let id = u16::from_be_bytes(nonce());
        let with_edns = message::query(id, &[], Kind::NS, Class::IN, true);
        let without = message::query(id, &[], Kind::NS, Class::IN, false);
        let tries: [&[u8]; 3] = [&with_edns, &without, &with_edns];
        let reply = datagrams.exchange_any(&tries, |reply| message::answers(reply, id))?;
        let mut answer = read(&reply)?;
        let id = u16::from_be_bytes(nonce());
        let version = datagrams.ask_more(&version_query(id), |reply| message::answers(reply, id));
        if let Ok(reply) = version {
            add_version(&mut answer, &reply);
        }
        Ok(answer)
    }
}

fn version_query(id: u16) -> Vec<u8> {
    let name: [&[u8]; 2] = [b"version", b"bind"];
    message::query(id, &name, Kind::TXT, Class::CH, false)
}

/// One message each way, with its length before it (RFC 1035 §4.2.2).
fn exchange(stream: &mut Stream<'_>, query: &[u8]) -> Result<Vec<u8>, Fault> {
    let length = u16::try_from(query.len()).map_err(|_| Fault::Long(query.len()))?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.send(&framed)?;
    let length = stream.exact(2)?;
    stream.exact(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

fn read(reply: &[u8]) -> Result<Answer, Fault> {
    let message = Message::read(reply)?;
    let mut answer = Answer::of("dns");
    answer.add("rcode", message.rcode());
    answer.add("flags", message.flags().join(" "));
    answer.add("answers", count(&message.answers));
    answer.add("authorities", count(&message.authorities));
    answer.add("additionals", count(&message.additionals));
    if message.rcode() != "NOERROR" {
        answer.add("error", message.rcode());
    }
    let shown = message.answers.iter().chain(&message.authorities);
    let records: Vec<Value> = shown
        .take(SHOWN)
        .map(|record| record.text.clone().into())
        .collect();
    if !records.is_empty() {
        answer.add("records", records);
    }
    if let Some(identity) = &message.identity {
        answer.add("nsid", text::from_bytes(identity));
    }
    answer.summary = format!(
        "{}, {} answers, {}",
        message.rcode(),
        message.answers.len(),
        message.flags().join(" ")
    );
    Ok(answer)
}

/// Adds what `version.bind` was answered with, if it was.
fn add_version(answer: &mut Answer, reply: &[u8]) {
    let Ok(message) = Message::read(reply) else {
        return;
    };
    let version = message
        .answers
        .iter()
        .find(|record| record.kind == Kind::TXT);
    if let Some(strings) = version.and_then(Record::strings) {
        let version = text::from_bytes(&strings.concat());
        answer.summary = format!("{version} ({})", answer.summary);
        answer.facts.insert(
            0,
            Fact {
                name: "version.bind".to_owned(),
                value: version.into(),
            },
        );
    }
}

fn count(records: &[Record<'_>]) -> i64 {
    i64::try_from(records.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Script, trial};

    /// BIND 9.18 with `server-id` and a zone for the root.
    const ROOT: &[u8] = b"\
        \xd4e\x85\x00\x00\x01\x00\x02\x00\x00\x00\x01\x00\x00\x02\x00\x01\x00\x00\
        \x02\x00\x01\x00\x00\x01,\x00\x0a\x02ns\x05scene\x00\xc0\x11\x00\x02\x00\x01\
        \x00\x00\x01,\x00\x09\x06second\xc0\x1f\x00\x00)\x04\xd0\x00\x00\x00\x00\x00\
        \x1b\x00\x03\x00\x17the server of the scene";
    /// The same without the zone, and its `version`.
    const REFUSED: &[u8] = b"\
        \x01\x83\x81\x05\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x02\x00\x01\x00\x00\
        )\x04\xd0\x00\x00\x00\x00\x00\x00";
    const VERSION: &[u8] = b"\
        xY\x85\x00\x00\x01\x00\x01\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\
        \x00\x03\xc0\x0c\x00\x10\x00\x03\x00\x00\x00\x00\x00\x18\x17none of \"your\" \
        business";

    /// The id comes back as it was sent.
    fn script(replies: &[&[u8]]) -> Script {
        Script::of(replies).echoing(0..2, 0)
    }

    fn framed(replies: &[&[u8]]) -> Vec<u8> {
        let mut framed = Vec::new();
        for reply in replies {
            framed.extend(u16::try_from(reply.len()).unwrap().to_be_bytes());
            framed.extend_from_slice(reply);
        }
        framed
    }

    #[test]
    fn tells_what_the_root_is() {
        let answer = trial::datagrams(&Dns, script(&[ROOT, VERSION])).unwrap();
        assert_eq!(answer.get("rcode"), Some(&"NOERROR".into()));
        assert_eq!(answer.get("flags"), Some(&"qr aa rd".into()));
        assert_eq!(answer.get("answers"), Some(&Value::Number(2)));
        assert_eq!(answer.get("additionals"), Some(&Value::Number(0)));
        assert_eq!(answer.get("nsid"), Some(&"the server of the scene".into()));
        let Some(Value::List(records)) = answer.get("records") else {
            panic!("{answer:?}");
        };
        assert!(records.contains(&". 300 IN NS ns.scene.".into()));
        let version = "none of \"your\" business";
        assert_eq!(answer.get("version.bind"), Some(&version.into()));
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let replies = framed(&[REFUSED, VERSION]);
        let pieces: Vec<&[u8]> = replies.chunks(5).collect();
        for answer in [
            trial::datagrams(&Dns, script(&[REFUSED, VERSION])).unwrap(),
            trial::stream(&Dns, Script::of(&pieces)).unwrap(),
        ] {
            assert_eq!(answer.get("error"), Some(&"REFUSED".into()));
            assert!(
                answer
                    .summary
                    .starts_with("none of \"your\" business (REFUSED")
            );
        }
    }

    #[test]
    fn the_version_may_be_kept_secret() {
        let replies: [&[&[u8]]; 3] = [&[ROOT], &[ROOT, REFUSED], &[ROOT, b"??"]];
        for replies in replies {
            let answer = trial::datagrams(&Dns, script(replies)).unwrap();
            assert_eq!(answer.get("version.bind"), None);
        }
    }

    #[test]
    fn the_second_try_is_without_edns() {
        let script = Script::silent(&[]);
        let fault = trial::datagrams(&Dns, script.clone()).unwrap_err();
        assert!(matches!(fault, Fault::Silent(_)));
        assert_eq!(script.sent().len(), 32 + 17 + 32);
    }

    #[test]
    fn hostile_replies_are_refused() {
        for cut in trial::cut(ROOT) {
            let result = trial::datagrams(&Dns, script(&[cut]));
            assert!(result.is_err(), "{}", cut.len());
            let cut = framed(&[cut]);
            assert!(trial::stream(&Dns, Script::of(&[&cut])).is_err());
        }
        for reply in trial::altered(ROOT) {
            // Some are still right; none may panic.
            let _ = trial::datagrams(&Dns, script(&[&reply]));
        }
    }

    #[test]
    fn a_bomb_of_pointers_stays_small() {
        // A name of 251 bytes, and as many records that point to it, in owner
        // and in data, as a message can hold.
        let mut bomb = vec![0, 0, 0x84, 0, 0, 0, 0x10, 0, 0, 0, 0, 0];
        for _ in 0..5 {
            bomb.push(49);
            bomb.extend([b'x'; 49]);
        }
        bomb.push(0);
        let record = [0, 2, 0, 1, 0, 0, 0, 0, 0, 2, 0xc0, 12];
        bomb.extend(record);
        for _ in 1..0x1000 {
            bomb.extend([0xc0, 12]);
            bomb.extend(record);
        }
        let answer = trial::datagrams(&Dns, script(&[&bomb])).unwrap();
        let Some(Value::List(records)) = answer.get("records") else {
            panic!("{answer:?}");
        };
        assert_eq!(records.len(), SHOWN);
        assert_eq!(answer.get("answers"), Some(&Value::Number(0x1000)));
    }
}
