//! A time server's replies: the time, with our cookie in it, and variables.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("ntp", bytes, |script| {
        script.echoing(40..48, 24).echoing(2..4, 2)
    });
});
