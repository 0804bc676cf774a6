//! What a port says unasked.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("banner", bytes, |script| script);
});
