//! News of the end of sockets: netlink messages with `tcp_info`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A message takes at least its header and an `inet_diag_msg`.
    assert!(sensor::fuzzing::sock_diag_destroy(bytes) <= bytes.len() / 88);
});
