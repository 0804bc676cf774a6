//! Text from outside, made harmless for the file that it goes into.
//!
//! In JSON nothing is lost: what a terminal might act on becomes `\uXXXX`,
//! which every reader turns back, so that `cat` of a log is as safe as a
//! reader of it. In the classic files it becomes the visible escape of
//! [`event::text::escape`].

use std::borrow::Cow;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a JSON string with its quotes, or `null`.
pub(super) fn push_json_or_null(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => push_json(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a JSON string with its quotes.
pub(super) fn push_json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut copied = 0;
    for (at, c) in text.char_indices() {
        let short = match c {
            '"' => Some(b'"'),
            '\\' => Some(b'\\'),
            '\n' => Some(b'n'),
            '\r' => Some(b'r'),
            '\t' => Some(b't'),
            _ if acts_on_a_terminal(c) => None,
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[copied..at]);
        copied = at + c.len_utf8();
        match short {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => push_unicode_escape(out, c),
        }
    }
    out.extend_from_slice(&text.as_bytes()[copied..]);
    out.push(b'"');
}

/// Appends a field of a CSV row: control characters are escaped, and a field
/// that held one, a comma or a quote is quoted by RFC 4180.
pub(super) fn push_csv(out: &mut Vec<u8>, field: &str) {
    let safe = event::text::escape(field);
    let escaped = matches!(safe, Cow::Owned(_));
    if !escaped && !safe.contains([',', '"']) {
        out.extend_from_slice(safe.as_bytes());
        return;
    }
    out.push(b'"');
    for part in safe.split_inclusive('"') {
        out.extend_from_slice(part.as_bytes());
        if part.ends_with('"') {
            out.push(b'"');
        }
    }
    out.push(b'"');
}

/// Appends text to a line of a classic file.
pub(super) fn push_plain(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(event::text::escape(text).as_bytes());
}

/// At most `limit` bytes of a text; what was cut shows as `…`.
pub(super) fn clip(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(limit)]))
}

/// Controls (C0, DEL, C1), marks that reorder or hide text, and the two
/// separators that some readers take for the end of a line.
fn acts_on_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn push_unicode_escape(out: &mut Vec<u8>, c: char) {
    let mut units = [0; 2];
    for unit in c.encode_utf16(&mut units) {
        let digit = |shift: u32| HEX[usize::from(*unit >> shift & 0xf)];
        out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> String {
        let mut out = Vec::new();
        push_json(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn csv(field: &str) -> String {
        let mut out = Vec::new();
        push_csv(&mut out, field);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_keeps_text_and_hides_controls() {
        assert_eq!(json("a\"b\\c\n\u{1b}[2J"), r#""a\"b\\c\n\u001b[2J""#);
        assert_eq!(
            json("\u{7f}\u{9b}\u{202e}\u{2028}"),
            r#""\u007f\u009b\u202e\u2028""#
        );
        assert_eq!(json("grün 😀"), "\"grün 😀\"");
    }

    #[test]
    fn csv_quotes_only_where_it_must() {
        assert_eq!(csv("Virtual PC.exe"), "Virtual PC.exe");
        assert_eq!(csv("a,b"), "\"a,b\"");
        assert_eq!(csv("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(csv("a\nb"), "\"a\\nb\"");
        assert_eq!(csv(""), "");
    }

    #[test]
    fn a_clipped_text_says_so() {
        assert_eq!(clip("grün", 4), "grü…");
        assert_eq!(clip("grün", 3), "gr…");
        assert_eq!(clip("grün", 5), "grün");
    }

    proptest! {
        #[test]
        fn json_is_read_back_as_it_was(text in any::<String>()) {
            let quoted = json(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
            prop_assert!(!quoted.chars().any(acts_on_a_terminal));
        }
    }
}
