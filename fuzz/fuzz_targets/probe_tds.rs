//! SQL Server's half of the pre-login exchange.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("ms-sql-s", bytes, |script| script);
});
