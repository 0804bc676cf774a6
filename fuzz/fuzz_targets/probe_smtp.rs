//! An SMTP server's replies.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("smtp", bytes, |script| script);
});
