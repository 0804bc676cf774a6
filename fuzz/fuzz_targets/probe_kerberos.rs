//! The replies of a key distribution centre.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("kerberos", bytes, |script| script);
});
