//! The rules of the packet filter: a port, then dumps of `nfnetlink` about
//! chains, rules, sets and their elements, one message after the other.
#![no_main]

/// The header of a netlink message, and the one of nfnetlink after it.
const HEADERS: usize = 16 + 4;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((port, dumps)) = bytes.split_first_chunk() else {
        return;
    };
    let found = sensor::fuzzing::firewall(messages(dumps).into_iter(), u16::from_le_bytes(*port));
    // For the packet and for the answer: a few that may stop it, and one that does.
    assert!(found <= 2 * (8 + 1));
});

/// What the messages are about, and their attributes.
fn messages(mut dumps: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while let Some((length, _)) = dumps.split_first_chunk() {
        let length = u32::from_ne_bytes(*length) as usize;
        let length = length.max(HEADERS);
        let Some((message, rest)) = dumps.split_at_checked(length) else {
            break;
        };
        // The low byte of NFT_MSG_NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM.
        let kind = match message[4] {
            3 => 0,
            6 => 1,
            9 => 2,
            _ => 3,
        };
        messages.push((kind, &message[HEADERS..]));
        dumps = rest
            .get(length.next_multiple_of(4) - length..)
            .unwrap_or_default();
    }
    messages
}
