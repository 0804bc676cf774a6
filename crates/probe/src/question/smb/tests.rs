use super::super::{Script, trial};
use super::*;

/// Replies of Samba 4.17: as a domain controller, through a session, and as a
/// server that is allowed SMB 1 only.
const NEW: &[u8] = include_bytes!("../../../tests/data/smb-samba.bin");
const SESSION: &[u8] = include_bytes!("../../../tests/data/smb-samba-session.bin");
const OLD: &[u8] = include_bytes!("../../../tests/data/smb-samba-old.bin");

/// The first of the two replies in [`NEW`], with the four bytes before it.
const FIRST: usize = 228;

fn text<'a>(answer: &'a Answer, name: &str) -> &'a str {
    match answer.get(name) {
        Some(Value::Text(text)) => text,
        _ => "",
    }
}

#[test]
fn a_server_that_speaks_the_newest() {
    let script = Script::of(&[&NEW[..100], &NEW[100..FIRST], &NEW[FIRST..]]);
    let answer = trial::stream(&Smb, script.clone()).unwrap();
    assert_eq!(
        answer.summary,
        "SMB 3.1.1, signing required, time 2026-11-22T18:33:11.161357Z"
    );
    assert_eq!(text(&answer, "DialectRevision"), "3.1.1");
    assert_eq!(text(&answer, "Signing"), "required");
    assert_eq!(
        text(&answer, "ServerGuid"),
        "00316364-0000-0000-0000-000000000000"
    );
    assert_eq!(text(&answer, "Cipher"), "AES-128-GCM");
    assert_eq!(text(&answer, "SigningAlgorithm"), "AES-GMAC");
    assert_eq!(answer.get("MaxReadSize"), Some(&0x0080_0000_i64.into()));
    assert_eq!(answer.get("ServerStartTime"), None);
    let mechanisms = Value::List(vec![
        "MS-Kerberos".into(),
        "Kerberos".into(),
        "NTLMSSP".into(),
    ]);
    assert_eq!(answer.get("Mechanisms"), Some(&mechanisms));
    let sent = script.sent();
    assert_eq!(sent[4..8], v1::MAGIC);
    assert_eq!(&sent[73 + 4..73 + 8], b"\xfeSMB");
    // The header, the fixed part, the offset of the contexts.
    let offset = u32::from_le_bytes(sent[77 + 64 + 28..77 + 64 + 32].try_into().unwrap());
    assert_eq!(offset, 112);
    assert_eq!(sent[77 + 112..77 + 114], [1, 0]);
}

#[test]
fn through_a_session() {
    let script = Script::of(&[SESSION]);
    let answer = trial::stream(&NetbiosSession, script.clone()).unwrap();
    assert_eq!(answer.protocol, "netbios-ssn");
    assert_eq!(text(&answer, "DialectRevision"), "3.1.1");
    let called = b"\x81\x00\x00\x44\x20CKFDENECFDEFFCFGEFFCCACACACACACA\x00\x20";
    assert_eq!(script.sent()[..called.len()], called[..]);
}

#[test]
fn sessions_that_are_refused() {
    for (reply, error) in [
        (&b"\x83\x00\x00\x01\x82"[..], "called name not present"),
        (b"\x83\x00\x00\x01\x8f", "session refused with code 0x8f"),
        (b"\x83\x00\x00\x00", "session refused"),
        (
            b"\x84\x00\x00\x06\x7f\x00\x00\x01\x00\x8b",
            "the session is served elsewhere",
        ),
    ] {
        let answer = trial::stream(&NetbiosSession, Script::of(&[reply])).unwrap();
        assert_eq!(text(&answer, "error"), error);
    }
    assert!(trial::stream(&NetbiosSession, Script::of(&[b"HTTP/1.0 400"])).is_err());
}

#[test]
fn a_server_that_knows_nothing_newer() {
    let answer = trial::stream(&Smb, Script::of(&[OLD])).unwrap();
    assert!(
        answer
            .summary
            .starts_with("SMB 1 only, signing disabled, time 2026-11-22T")
    );
    assert_eq!(text(&answer, "Dialect"), "NT LM 0.12");
    assert_eq!(
        answer.get("Mechanisms"),
        Some(&Value::List(vec!["NTLMSSP".into()]))
    );
    assert_eq!(answer.get("ServerTimeZone"), Some(&0_i64.into()));
}

/// A response of SMB 1 with these words and bytes.
fn old(status: u32, words: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut message = b"\xffSMB\x72".to_vec();
    message.extend(status.to_le_bytes());
    message.extend([0; 23]);
    message.push(u8::try_from(words.len() / 2).unwrap());
    message.extend(words);
    message.extend(u16::try_from(bytes.len()).unwrap().to_le_bytes());
    message.extend(bytes);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], &message].concat()
}

#[test]
fn before_extended_security() {
    let mut words = vec![0, 0, 0x0f]; // dialect 0, signing required
    words.extend([0; 16]);
    words.extend([0x14, 0, 0, 0]); // unicode, NT
    words.extend(116_444_736_000_000_000_u64.to_le_bytes());
    words.extend((-60_i16).to_le_bytes());
    words.push(8);
    let bytes = b"8 bytes.P\0O\0R\0T\0S\0\0\0O\0L\0D\0\0\0";
    let answer = trial::stream(&Smb, Script::of(&[&old(0, &words, bytes)])).unwrap();
    assert_eq!(
        answer.summary,
        "SMB 1 only, signing required, time 1970-01-01T00:00:00Z"
    );
    assert_eq!(text(&answer, "DomainName"), "PORTS");
    assert_eq!(text(&answer, "ServerName"), "OLD");
    assert_eq!(answer.get("ServerTimeZone"), Some(&(-60_i64).into()));
    assert_eq!(
        answer.get("Capabilities"),
        Some(&Value::List(vec!["UNICODE".into(), "NT_SMBS".into()]))
    );
}

#[test]
fn refusals_are_answers() {
    let answer = trial::stream(&Smb, Script::of(&[&old(0, &[0xff, 0xff], b"")])).unwrap();
    assert_eq!(text(&answer, "error"), "no dialect in common");
    let answer = trial::stream(&Smb, Script::of(&[&old(0xc000_0022, b"", b"")])).unwrap();
    assert_eq!(text(&answer, "error"), "status 0xc0000022");
    let mut refused = NEW[..FIRST].to_vec();
    refused[4 + 8..4 + 12].copy_from_slice(&0xc000_00bb_u32.to_le_bytes());
    let answer = trial::stream(&Smb, Script::of(&[&refused])).unwrap();
    assert_eq!(answer.summary, "SMB 2: status 0xc00000bb");
}

#[test]
fn times_of_files() {
    assert_eq!(file_time(0), None);
    assert_eq!(file_time(u64::MAX), None);
    assert_eq!(file_time(1).unwrap(), "1601-01-01T00:00:00.0000001Z");
    assert_eq!(
        file_time(116_444_736_000_000_000 + 15_000_000).unwrap(),
        "1970-01-01T00:00:01.5Z"
    );
}

#[test]
fn hostile_replies() {
    for whole in [NEW, OLD] {
        for reply in trial::cut(whole) {
            let fault = trial::stream(&Smb, Script::of(&[reply]));
            assert!(matches!(fault, Err(Fault::Closed)), "{}", reply.len());
        }
        for reply in trial::altered(whole) {
            let _ = trial::stream(&Smb, Script::of(&[&reply]));
        }
    }
    for reply in trial::cut(SESSION) {
        assert!(trial::stream(&NetbiosSession, Script::of(&[reply])).is_err());
    }
    let long = trial::stream(&Smb, Script::of(&[b"\x00\xff\xff\xff"]));
    assert!(matches!(long, Err(Fault::Long(_))));
    // A server that only keeps the connection alive.
    let alive = b"\x85\x00\x00\x00".repeat(3);
    let pieces: Vec<&[u8]> = vec![&alive; 100];
    assert!(matches!(
        trial::stream(&Smb, Script::of(&pieces)),
        Err(Fault::Closed)
    ));
}
