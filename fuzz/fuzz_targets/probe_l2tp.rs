//! An L2TP server's replies, to our tunnel.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("l2tp", bytes, |script| script.echoing(62..64, 4));
});
