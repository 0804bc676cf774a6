//! An IMAP server's responses.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("imap", bytes, |script| script);
});
