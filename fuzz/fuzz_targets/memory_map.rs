//! `maps` of a process.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let modules = identity::parse::modules(bytes, Some(b"/usr/bin/seed"));
    // The first may be the main executable; all others are in order.
    assert!(
        modules
            .iter()
            .skip(1)
            .is_sorted_by_key(|module| module.base)
    );
});
