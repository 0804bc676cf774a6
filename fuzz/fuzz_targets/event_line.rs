//! One line of PR-EVENTS.
#![no_main]

use logs::read::Record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(why) = Record::parse(bytes) {
        assert!(!why.to_string().is_empty());
    }
});
