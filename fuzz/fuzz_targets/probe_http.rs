//! An HTTP server's response.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("http", bytes, |script| script);
});
