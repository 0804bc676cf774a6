//! An agent's response; the request id is right.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("snmp", bytes, |script| script.echoing(17..21, 19));
});
