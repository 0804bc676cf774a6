//! Records of what programs have mapped.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (paths, news) = sensor::fuzzing::mappings(bytes);
    // A record takes at least its header, two numbers and the time.
    assert!(news <= bytes.len() / 20);
    assert!(paths <= bytes.len());
});
