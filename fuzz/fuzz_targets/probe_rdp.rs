//! A Remote Desktop server's confirmation.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("rdp", bytes, |script| script);
});
