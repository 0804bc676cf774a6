//! A whole PR-EVENTS file, compressed or not.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use logs::read::{Line, Reader};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(reader) = Reader::new(Cursor::new(bytes.to_vec()), Path::new("seed")) else {
        return;
    };
    let mut torn = false;
    // A compressed file can be large beyond measure; a reader stops where it
    // likes, and so does this one.
    for (index, line) in (1..=10_000).zip(reader) {
        assert!(!torn, "a torn line is the last");
        match line {
            Ok(Line::Damaged { number, .. }) => assert_eq!(number, index),
            Ok(Line::Torn { number }) => {
                assert_eq!(number, index);
                torn = true;
            }
            Ok(Line::Record(_)) => {}
            Err(_) => break,
        }
    }
});
