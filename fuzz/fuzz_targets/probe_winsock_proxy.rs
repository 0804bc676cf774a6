//! A Winsock proxy's replies.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("winsock-proxy", bytes, |script| script);
});
