//! An endpoint mapper's replies; activity and sequence number are right.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("epmap", bytes, |script| {
        script.echoing(40..56, 40).echoing(64..68, 64)
    });
});
