//! What SQL Server Browser lists.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("ms-sql-m", bytes, |script| script);
});
