//! An adapter status; the id is right.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("netbios-ns", bytes, |script| script.echoing(0..2, 0));
});
