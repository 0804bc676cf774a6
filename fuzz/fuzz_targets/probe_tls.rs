//! A TLS server's flight.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("https", bytes, |script| script);
});
