//! A file server's replies, on its own port and through a session.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("smb", bytes, |script| script);
    pieces::ask("netbios-ssn", bytes, |script| script);
});
