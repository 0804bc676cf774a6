use super::super::Script;
use super::super::trial;
use super::*;

/// Replies of Samba 4.17 as a domain controller, and of `slapd` 2.5.
const SAMBA: &[u8] = include_bytes!("../../../tests/data/ldap-samba.bin");
const SAMBA_UDP: &[u8] = include_bytes!("../../../tests/data/ldap-samba-udp-1.bin");
const SAMBA_NETLOGON: &[u8] = include_bytes!("../../../tests/data/ldap-samba-udp-2.bin");
const SLAPD: &[u8] = include_bytes!("../../../tests/data/ldap-slapd.bin");

/// Replies to whatever id was sent: it is in bytes 4 to 7 of a request, in the
/// same of a short message and two bytes on in a long one. The message that ends
/// a search comes last and is 19 bytes long.
fn echoing(datagrams: &[&[u8]]) -> Script {
    Script::of(datagrams)
        .echoing(4..8, 6)
        .echoing(4..8, SAMBA_UDP.len() - 13)
}

/// A message with that operation.
fn message(id: i64, operation: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.wrap(Tag::SEQUENCE, |writer| {
        writer.integer(id);
        operation(writer);
    });
    writer.into_bytes()
}

fn result(tag: Tag, code: i64, words: &str) -> impl FnOnce(&mut Writer) {
    move |writer| {
        writer.wrap(tag, |writer| {
            writer.enumerated(code);
            writer.octets(b"");
            writer.octets(words.as_bytes());
        });
    }
}

#[test]
fn the_request_as_in_the_rfc() {
    let expected =
        b"\x30\x2b\x02\x01\x01\x63\x26\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\
        \x01\x01\x00\x87\x0bobjectClass\x30\x06\x04\x01*\x04\x01+";
    assert_eq!(root_dse(1), expected);
}

#[test]
fn a_domain_controller() {
    let script = Script::of(&[&SAMBA[..700], &SAMBA[700..]]);
    let answer = trial::stream(&Ldap, script.clone()).unwrap();
    assert_eq!(answer.protocol, "ldap");
    assert_eq!(
        answer.summary,
        "dc1.ports.example, Active Directory, DC=ports,DC=example"
    );
    assert_eq!(
        answer.get("supportedLDAPVersion"),
        Some(&Value::List(vec!["2".into(), "3".into()]))
    );
    assert_eq!(answer.get("isSynchronized"), Some(&"TRUE".into()));
    assert_eq!(answer.get("error"), None);
    assert_eq!(script.sent(), [&root_dse(1)[..], &UNBIND].concat());
}

#[test]
fn a_domain_controller_over_udp() {
    let script = echoing(&[b"\x30\x00", SAMBA_UDP]);
    let answer = trial::datagrams(&Ldap, script).unwrap();
    assert_eq!(answer.get("dnsHostName"), Some(&"dc1.ports.example".into()));
    assert_eq!(answer.get("netlogon"), None, "it is only an addition");
    let facts = netlogon_of(SAMBA_NETLOGON, {
        let mut message = Ber::new(SAMBA_NETLOGON)
            .enter(Tag::SEQUENCE, "message")
            .unwrap();
        u32::try_from(message.integer("id").unwrap()).unwrap()
    });
    let facts = facts.unwrap();
    let get = |name: &str| {
        let fact = facts.iter().find(|fact| fact.name == name);
        fact.map(|fact| fact.value.clone())
    };
    assert_eq!(get("DnsDomainName"), Some("ports.example".into()));
    assert_eq!(get("DcSiteName"), Some("Default-First-Site-Name".into()));
}

#[test]
fn another_directory() {
    let answer = trial::stream(&Ldap, Script::of(&[SLAPD])).unwrap();
    assert_eq!(answer.summary, "OpenLDAP, dc=ports,dc=example");
    assert_eq!(answer.get("entryDN"), Some(&"".into()));
}

#[test]
fn a_refusal_is_an_answer() {
    let reply = message(1, result(SEARCH_DONE, 1, "BIND required"));
    let answer = trial::stream(&Ldap, Script::of(&[&reply])).unwrap();
    assert_eq!(answer.summary, "operationsError: BIND required");
    assert_eq!(answer.get("error"), Some(&answer.summary.clone().into()));
    // A notice of disconnection belongs to no request.
    let reply = message(0, result(EXTENDED_RESPONSE, 52, ""));
    let answer = trial::stream(&Ldap, Script::of(&[&reply])).unwrap();
    assert_eq!(answer.get("error"), Some(&"unavailable".into()));
    let reply = message(1, result(SEARCH_DONE, 4096, ""));
    let answer = trial::stream(&Ldap, Script::of(&[&reply])).unwrap();
    assert_eq!(answer.get("error"), Some(&"4096".into()));
}

#[test]
fn an_empty_root_is_still_ldap() {
    let reference = message(1, |writer| writer.wrap(SEARCH_REFERENCE, |_| ()));
    let done = message(1, result(SEARCH_DONE, 0, ""));
    let answer = trial::stream(&Ldap, Script::of(&[&reference, &done])).unwrap();
    assert_eq!((answer.summary.as_str(), answer.facts.len()), ("LDAP", 0));
}

#[test]
fn answers_to_others_are_not_taken() {
    let other = message(7, result(SEARCH_DONE, 0, ""));
    let fault = trial::stream(&Ldap, Script::of(&[&other])).unwrap_err();
    assert!(matches!(fault, Fault::Malformed { .. }));
    let fault = trial::datagrams(&Ldap, Script::of(&[&other])).unwrap_err();
    assert!(matches!(fault, Fault::Silent(_)));
}

#[test]
fn replies_that_break_off() {
    for length in (0..SLAPD.len()).step_by(3) {
        let fault = trial::stream(&Ldap, Script::of(&[&SLAPD[..length]])).unwrap_err();
        assert!(matches!(fault, Fault::Closed), "{length}: {fault}");
    }
    // A datagram cannot go on: each one that lost its end is malformed.
    for length in (12..SAMBA_UDP.len() - 20).step_by(7) {
        let script = echoing(&[&SAMBA_UDP[..length]]);
        assert!(trial::datagrams(&Ldap, script).is_err(), "{length}");
    }
}

#[test]
fn replies_that_lie() {
    for reply in trial::altered(&SLAPD[..400]) {
        let reply = [&reply[..], &SLAPD[400..]].concat();
        // Whatever it is taken for, it comes to an end.
        let _ = trial::stream(&Ldap, Script::of(&[&reply]));
    }
    for reply in trial::altered(SAMBA_NETLOGON) {
        let _ = netlogon_of(&reply, 0x7f03_2777);
    }
    let huge = b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01";
    let fault = trial::stream(&Ldap, Script::of(&[huge])).unwrap_err();
    assert!(matches!(fault, Fault::Long(MESSAGE)));
}

#[test]
fn references_without_end() {
    let reference = message(1, |writer| {
        writer.element(SEARCH_REFERENCE, &vec![0; 60_000]);
    });
    let pieces: Vec<&[u8]> = vec![&reference; 100];
    let fault = trial::stream(&Ldap, Script::of(&pieces)).unwrap_err();
    assert!(matches!(fault, Fault::Long(Stream::LIMIT)));
}
