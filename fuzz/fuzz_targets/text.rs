//! Names from outside, on their way to a terminal or into a line.
#![no_main]

use event::text;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = text::from_bytes(bytes);
    let safe = text::escape(&name);
    assert!(!safe.chars().any(char::is_control));
    assert_eq!(text::escape(&safe), safe, "what is safe stays as it is");
    let _ = text::join_arguments(bytes.split(|&byte| byte == 0));
});
