//! A POP3 server's responses.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("pop3", bytes, |script| script);
});
