//! Text from outside: process names, paths, arguments.
//!
//! A name on Linux is bytes. [`from_bytes`] makes a string of it without
//! losing any: what is valid UTF-8 stays, each other byte becomes `\xNN`.
//! [`escape`] makes a string safe for a terminal and for a file of lines: it
//! replaces control characters, so that nothing from outside can move the
//! cursor, end a line or forge a row.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Makes text of bytes: valid UTF-8 is kept, every other byte becomes `\xNN`.
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Replaces every character that a terminal may act on or that ends a line
/// (C0 and C1 controls, DEL, line and paragraph separators, bidirectional
/// overrides, zero-width marks) with an escape such as `\n` or `\x1b`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_unsafe(c) && u32::from(c) < 0x100 => {
                let _ = write!(safe, "\\x{:02x}", u32::from(c));
            }
            c if is_unsafe(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Joins arguments to one line, quoted as for a shell where they need it, so
/// that the boundaries between them stay visible.
pub fn join_arguments<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut line = String::new();
    for argument in arguments {
        if !line.is_empty() {
            line.push(' ');
        }
        let argument = from_bytes(argument);
        let plain = !argument.is_empty()
            && !argument.chars().any(|c| {
                c.is_whitespace() || c.is_control() || "'\"\\`$&|;<>()*?[]#~!{}".contains(c)
            });
        if plain {
            line.push_str(&argument);
        } else {
            line.push('\'');
            line.push_str(&argument.replace('\'', "'\\''"));
            line.push('\'');
        }
    }
    line
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_bytes_stay_visible() {
        assert_eq!(from_bytes(b"a\xff\xfeb"), "a\\xff\\xfeb");
        assert_eq!(from_bytes("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
    }

    #[test]
    fn escapes_what_a_terminal_acts_on() {
        assert_eq!(escape("a\x1b[2Jb\n\u{202e}c"), "a\\x1b[2Jb\\n\\u{202e}c");
        assert!(matches!(escape("plain name"), Cow::Borrowed(_)));
    }

    #[test]
    fn argument_boundaries_stay_visible() {
        let arguments: [&[u8]; 4] = [b"nc", b"-e", b"a b", b"it's"];
        assert_eq!(join_arguments(arguments), "nc -e 'a b' 'it'\\''s'");
        assert_eq!(join_arguments([b"".as_slice()]), "''");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = from_bytes(&bytes);
            let escaped = escape(&text).into_owned();
            prop_assert!(!escaped.chars().any(is_unsafe));
        }
    }
}
