//! An IKE service's replies, to our association.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("ike", bytes, |script| script.echoing(0..8, 0));
});
