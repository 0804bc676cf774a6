//! A directory's replies; the message ids are right, of a root DSE in one
//! datagram and of a short reply.
#![no_main]

mod pieces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pieces::ask("ldap", bytes, |script| {
        script.echoing(4..8, 6).echoing(4..8, 1928)
    });
    pieces::ask("ldap", bytes, |script| script.echoing(4..8, 4));
});
