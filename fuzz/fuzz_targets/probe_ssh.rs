//! An SSH server's identification and algorithms.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("ssh", bytes, |script| script);
});
