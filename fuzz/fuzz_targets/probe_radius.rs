//! A RADIUS server's replies; the identifier is right.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("radius", bytes, |script| script.echoing(1..2, 1));
});
