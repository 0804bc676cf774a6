//! An FTP server's replies.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("ftp", bytes, |script| script);
});
