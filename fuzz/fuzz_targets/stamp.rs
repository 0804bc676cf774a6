//! The stamp in the name of a file.
#![no_main]

use logs::Stamp;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some(stamp) = Stamp::parse(text) {
        assert_eq!(
            stamp.to_string(),
            text,
            "it reads what it writes, and nothing else"
        );
        assert_eq!(
            Stamp::parse(&stamp.next_copy().to_string()),
            Some(stamp.next_copy())
        );
    }
});
