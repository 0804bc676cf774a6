//! The tables below `/proc/net`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|&byte| byte == b'\n').count();
    assert!(sensor::fuzzing::proc_table(bytes) <= 2 * lines);
});
