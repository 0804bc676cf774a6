//! `stat`, `status` and `cmdline` of a process, as both crates read them.
#![no_main]

use identity::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = sensor::fuzzing::process(bytes);
    let _ = parse::status(bytes);
    if let Some(stat) = parse::stat(bytes) {
        let comm = event::text::from_bytes(stat.comm);
        if let Some(name) = parse::image_name(None, &comm) {
            assert!(!name.is_empty());
        }
    }
    for limit in [0, 1, 16, 4096] {
        let line = parse::command_line(bytes, limit);
        if bytes.len() > limit {
            assert!(
                line.is_some_and(|line| line.ends_with('…')),
                "cut without a mark"
            );
        }
    }
});
