//! A PostgreSQL server's messages.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("postgresql", bytes, |script| script);
});
