//! A MySQL server's handshake.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("mysql", bytes, |script| script);
});
