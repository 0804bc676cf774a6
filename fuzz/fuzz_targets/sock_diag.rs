//! An answer of `sock_diag`: netlink messages in a datagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Two protocols are tried; a message takes at least its 16-byte header.
    assert!(sensor::fuzzing::sock_diag(bytes) <= 2 * (bytes.len() / 16));
});
