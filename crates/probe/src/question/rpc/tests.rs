use super::super::{Script, trial};
use super::*;
use crate::Value;

/// The conversation of Samba 4.17 as a domain controller over TCP.
const SAMBA: &[u8] = include_bytes!("../../../tests/data/epmap-samba.bin");

/// The bytes of its bind acknowledgement.
const ACK: usize = 60;

/// The lengths of its two fragments of the first page.
const FRAGMENTS: [usize; 2] = [5832, 900];

/// The same pages in packets as C706 describes them for UDP, of which Samba
/// speaks nothing: the first page in fragments.
fn datagrams() -> Vec<Vec<u8>> {
    let packet = |flags: u8, number: usize, body: &[u8]| {
        let mut packet = vec![4, 2, flags, 0, 0x10];
        packet.resize(74, 0);
        packet.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
        packet.extend(u16::try_from(number).unwrap().to_le_bytes());
        packet.extend([0, 0]);
        packet.extend(body);
        packet
    };
    let [first, second] = FRAGMENTS;
    let page = [
        &SAMBA[ACK + 24..ACK + first],
        &SAMBA[ACK + first + 24..ACK + first + second],
    ];
    let page = page.concat();
    let bodies = page.chunks(1380);
    let last = bodies.len() - 1;
    let mut datagrams: Vec<_> = bodies
        .enumerate()
        .map(|(number, body)| packet(if number == last { 6 } else { 4 }, number, body))
        .collect();
    datagrams.push(packet(0, 0, &SAMBA[ACK + first + second + 24..]));
    datagrams
}

/// A script that repeats activity and sequence number.
fn echoing(datagrams: &[Vec<u8>]) -> Script {
    let pieces: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    Script::of(&pieces).echoing(40..56, 40).echoing(64..68, 64)
}

fn bindings(answer: &Answer) -> Vec<String> {
    let mut bindings = Vec::new();
    for fact in &answer.facts {
        if let Value::Facts(facts) = &fact.value {
            for fact in facts {
                if let ("binding", Value::Text(text)) = (fact.name.as_str(), &fact.value) {
                    bindings.push(text.clone());
                }
            }
        }
    }
    bindings
}

fn fact(answer: &Answer, at: usize, name: &str) -> Option<Value> {
    let Value::Facts(facts) = &answer.facts[at].value else {
        return None;
    };
    let fact = facts.iter().find(|fact| fact.name == name)?;
    Some(fact.value.clone())
}

fn assert_samba(answer: &Answer) {
    assert_eq!(answer.summary, "53 endpoints");
    assert_eq!(answer.get("total"), Some(&53_i64.into()));
    assert_eq!(answer.get("error"), None);
    let bindings = bindings(answer);
    assert_eq!(bindings.len(), 53);
    assert_eq!(bindings[0], "ncacn_np:[\\pipe\\dnsserver]");
    assert!(bindings.contains(&"ncacn_ip_tcp:0.0.0.0[135]".to_owned()));
    assert!(bindings.contains(&"ncacn_http:0.0.0.0[593]".to_owned()));
    assert!(bindings.contains(&"ncalrpc:[EPMAPPER]".to_owned()));
    let uuid = "50abc2a4-574d-40b3-9d66-ee4fd5fba076";
    assert_eq!(fact(answer, 0, "uuid"), Some(uuid.into()));
    assert_eq!(fact(answer, 0, "version"), Some("5.0".into()));
    assert_eq!(fact(answer, 0, "annotation"), Some("dnsserver".into()));
}

#[test]
fn all_endpoints_over_tcp() {
    let pieces: Vec<&[u8]> = SAMBA.chunks(1460).collect();
    let script = Script::of(&pieces);
    assert_samba(&trial::stream(&EndpointMapper, script.clone()).unwrap());
    let sent = script.sent();
    assert_eq!(sent.len(), 72 + 64 + 64, "a bind and two pages");
    // The second page is asked for with the handle that came with the first.
    assert_eq!(sent[72 + 24 + 16..72 + 24 + 36], [0; 20]);
    assert_eq!(
        sent[136 + 24 + 16..136 + 24 + 36],
        SAMBA[ACK + 24..ACK + 44]
    );
}

#[test]
fn all_endpoints_over_udp() {
    let script = echoing(&datagrams());
    assert_samba(&trial::datagrams(&EndpointMapper, script.clone()).unwrap());
    // Two requests, and word of each fragment but the last.
    let fragments = datagrams().len() - 1;
    assert_eq!(script.sent().len(), 2 * 120 + (fragments - 1) * 80);
}

#[test]
fn a_page_that_fails_leaves_the_ones_before_it() {
    let answer = trial::stream(&EndpointMapper, Script::of(&[&SAMBA[..SAMBA.len() - 64]])).unwrap();
    assert_eq!(answer.get("total"), Some(&53_i64.into()));
    let error = Fault::Closed.to_string();
    assert_eq!(answer.get("error"), Some(&error.into()));
}

#[test]
fn pages_without_end_come_to_one() {
    // The same page again and again, under the numbers of the calls.
    let mut pieces = vec![SAMBA[..ACK].to_vec()];
    for call in 2..400_u32 {
        let mut page = SAMBA[ACK..SAMBA.len() - 64].to_vec();
        for start in [0, FRAGMENTS[0]] {
            page[start + 12..start + 16].copy_from_slice(&call.to_le_bytes());
        }
        pieces.push(page);
    }
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let answer = trial::stream(&EndpointMapper, Script::of(&pieces)).unwrap();
    let error = Fault::Long(Stream::LIMIT).to_string();
    assert_eq!(answer.get("error"), Some(&error.into()));
    assert!(answer.facts.len() < 10_000);
}

#[test]
fn a_refusal_is_an_answer() {
    // A bind that is not acknowledged: reason 0.
    let nak = b"\x05\x00\x0d\x03\x10\x00\x00\x00\x12\x00\x00\x00\x01\x00\x00\x00\x02\x00";
    let answer = trial::stream(&EndpointMapper, Script::of(&[nak])).unwrap();
    let error = "refused with status 0x00000002";
    assert_eq!(answer.get("error"), Some(&error.into()));
    assert_eq!(answer.summary, error);
    assert_eq!(answer.get("total"), Some(&0_i64.into()));
    // A call that is: access denied.
    let mut fault = b"\x05\x00\x03\x03\x10\x00\x00\x00\x20\x00\x00\x00\x02\x00\x00\x00".to_vec();
    fault.extend([0; 8]);
    fault.extend(5_u32.to_le_bytes());
    fault.extend([0; 4]);
    let script = Script::of(&[&SAMBA[..ACK], &fault]);
    let answer = trial::stream(&EndpointMapper, script).unwrap();
    assert_eq!(answer.get("error"), Some(&"refused: access denied".into()));
    // The same over UDP.
    let mut reject = datagrams()[0][..80].to_vec();
    (reject[1], reject[2], reject[74], reject[75]) = (6, 0, 4, 0);
    reject.extend(0x1c01_0003_u32.to_le_bytes());
    let answer = trial::datagrams(&EndpointMapper, echoing(&[reject])).unwrap();
    let error = "refused: unknown interface";
    assert_eq!(answer.get("error"), Some(&error.into()));
}

#[test]
fn a_page_in_the_other_byte_order() {
    let mut stub = Vec::new();
    stub.extend([0; 20]); // no handle
    stub.extend(1_u32.to_be_bytes());
    for number in [1_u32, 0, 1] {
        stub.extend(number.to_be_bytes());
    }
    stub.extend(1..17); // an object
    stub.extend(9_u32.to_be_bytes());
    stub.extend(0_u32.to_be_bytes());
    stub.extend(3_u32.to_be_bytes());
    stub.extend(b"ab\0\0"); // with padding
    stub.extend(2_u32.to_be_bytes());
    stub.extend(2_u32.to_be_bytes());
    stub.extend([0, 0, 0, 0]); // no floors, with padding
    stub.extend(lookup::NO_MORE.to_be_bytes());
    let page = Page::read(&stub, true).unwrap();
    assert_eq!(page.entries[0].annotation, "ab");
    let object = "01020304-0506-0708-090a-0b0c0d0e0f10";
    assert_eq!(page.entries[0].object.to_string(), object);
    assert_eq!(page.status, lookup::NO_MORE);
    assert!(Page::read(&stub, false).is_err());
}

#[test]
fn replies_that_break_off() {
    for length in (0..ACK + FRAGMENTS[0] + FRAGMENTS[1]).step_by(11) {
        let fault = trial::stream(&EndpointMapper, Script::of(&[&SAMBA[..length]]));
        assert!(matches!(fault, Err(Fault::Closed)), "{length}");
    }
    let first = &datagrams()[0];
    for length in (0..first.len()).step_by(11) {
        let fault = trial::datagrams(&EndpointMapper, echoing(&[first[..length].to_vec()]));
        assert!(matches!(fault, Err(Fault::Silent(_))), "{length}");
    }
}

#[test]
fn replies_that_lie() {
    for start in [0, ACK, ACK + FRAGMENTS[0]] {
        for altered in trial::altered(&SAMBA[start..start + 120]) {
            let reply = [&SAMBA[..start], &altered, &SAMBA[start + 120..]].concat();
            let _ = trial::stream(&EndpointMapper, Script::of(&[&reply]));
        }
    }
    let whole = datagrams();
    for altered in trial::altered(&whole[0][..160]) {
        let first = [&altered, &whole[0][160..]].concat();
        let pieces = [&[first], &whole[1..]].concat();
        let _ = trial::datagrams(&EndpointMapper, echoing(&pieces));
    }
}
