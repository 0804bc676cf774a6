//! News of processes, and the `stat` that is read because of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A message takes at least its headers and what all events have in common.
    assert!(sensor::fuzzing::proc_connector(bytes) <= bytes.len() / 68);
    let (name, _) = sensor::fuzzing::process_stat(bytes);
    assert!(name.is_none_or(|length| length + 2 <= bytes.len()));
});
