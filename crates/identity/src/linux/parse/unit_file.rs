//! `Description=` in the file of a systemd unit.
//!
//! Of the format only as much is read as leads to that one line: sections,
//! comments, continued lines. An assignment replaces the one before it, also
//! one from a file read earlier (the unit, then its drop-ins); an empty one
//! takes it back.

use std::borrow::Cow;

use event::text;

use super::names::{self, UnitName};

/// What the file assigns to `Description=` in `[Unit]`, last; empty if it takes
/// the description back, none if it does not speak of it. Specifiers such as
/// `%i` are still in it ([`expand`]).
pub fn description(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut in_unit = false;
    let mut found = None;
    let mut started: Vec<u8> = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"#") || line.starts_with(b";") {
            // Also in the middle of a continued line.
            continue;
        }
        let logical: Cow<'_, [u8]> = if started.is_empty() {
            Cow::Borrowed(line)
        } else {
            started.extend_from_slice(line);
            Cow::Owned(std::mem::take(&mut started))
        };
        if is_continued(&logical) {
            started = logical.into_owned();
            if let Some(last) = started.last_mut() {
                *last = b' ';
            }
            continue;
        }
        take_in(&logical, &mut in_unit, &mut found);
    }
    if !started.is_empty() {
        take_in(&started, &mut in_unit, &mut found);
    }
    found
}

/// Replaces the specifiers that the name of the unit answers. Others stay as
/// they are written.
pub fn expand(description: &str, name: &UnitName<'_>) -> String {
    let mut text = String::with_capacity(description.len());
    let mut rest = description;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let mut characters = after.chars();
        let last_part = || name.prefix.rsplit('-').next().unwrap_or(name.prefix);
        match characters.next() {
            // `%%`, or a `%` that nothing follows.
            Some('%') | None => text.push('%'),
            Some('i') => text.push_str(name.instance.unwrap_or_default()),
            Some('I') => text.push_str(&names::unescape(name.instance.unwrap_or_default())),
            Some('n') => text.push_str(name.full),
            Some('N') => text.push_str(name.stem()),
            Some('p') => text.push_str(name.prefix),
            Some('P') => text.push_str(&names::unescape(name.prefix)),
            Some('j') => text.push_str(last_part()),
            Some('J') => text.push_str(&names::unescape(last_part())),
            Some(other) => {
                text.push('%');
                text.push(other);
            }
        }
        rest = characters.as_str();
    }
    text.push_str(rest);
    text
}

/// Does the line end in a backslash that no other backslash escapes?
fn is_continued(line: &[u8]) -> bool {
    line.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

fn take_in(line: &[u8], in_unit: &mut bool, found: &mut Option<String>) {
    let line = line.trim_ascii();
    if line.starts_with(b"[") {
        *in_unit = line == b"[Unit]";
        return;
    }
    if !*in_unit {
        return;
    }
    if let Some(value) = line
        .strip_prefix(b"Description")
        .map(<[u8]>::trim_ascii_start)
        .and_then(|rest| rest.strip_prefix(b"="))
    {
        *found = Some(text::from_bytes(value.trim_ascii()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_assignment_in_the_right_section_counts() {
        let file = b"\xef\xbb\xbf# Description=no\n[Unit]\r\nDescription = First\nDescriptions=x\n\
            Description=OpenBSD Secure Shell server\r\n[Service]\nDescription=no\n";
        assert_eq!(
            description(file).as_deref(),
            Some("OpenBSD Secure Shell server")
        );
        assert_eq!(
            description(b"[Unit]\nDescription=a\nDescription=\n").as_deref(),
            Some("")
        );
        assert_eq!(description(b"Description=a\n"), None);
        assert_eq!(description(b""), None);
    }

    #[test]
    fn continued_lines_are_joined_over_comments() {
        let file = b"[Unit]\nDescription=one\\\n# aside\n   two\\\n; aside\nthree\nAfter=x\\\\\nDescription=b";
        assert_eq!(description(file).as_deref(), Some("b"));
        let file = b"[Unit]\nDescription=one\\\n# aside\n   two\\\n";
        assert_eq!(description(file).as_deref(), Some("one two"));
        let file = b"[Unit]\nAfter=a\\\nDescription=part of After\n";
        assert_eq!(description(file), None);
    }

    #[test]
    fn specifiers_of_an_instance() {
        let name = UnitName::new(r"foo-bar@dev-tty\x2d1.service").unwrap();
        let text = expand("%p on %I (%i) 100%% %j %H %n %", &name);
        assert_eq!(
            text,
            r"foo-bar on dev/tty-1 (dev-tty\x2d1) 100% bar %H foo-bar@dev-tty\x2d1.service %"
        );
        let plain = UnitName::new("a.service").unwrap();
        assert_eq!(expand("[%i%I] %N", &plain), "[] a");
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = description(&bytes);
        }

        #[test]
        fn near_misses_do_not_panic(file in "(\\[Unit\\]|Description|=|\\\\|\n|#| |[a-z%é]{0,3}){0,60}") {
            let name = UnitName::new("a@b.service").unwrap();
            if let Some(text) = description(file.as_bytes()) {
                prop_assert!(!text.contains('\n'));
                let _ = expand(&text, &name);
            }
        }

        #[test]
        fn what_is_written_is_read(text in "[a-zA-Z0-9 é,:-]{1,40}") {
            let file = format!("[Unit]\nAfter=x\nDescription={text}\n");
            prop_assert_eq!(description(file.as_bytes()), Some(text.trim_ascii().to_owned()));
        }
    }
}
