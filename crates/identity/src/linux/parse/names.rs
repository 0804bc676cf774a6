//! Names of systemd units, and how they are escaped.
//!
//! A name is `prefix.type` or, for an instance of a template,
//! `prefix@instance.type`. Only certain characters may stand in it; the others
//! are written as `\xNN` and a slash as a hyphen. The name is reported as it
//! is; its parts are unescaped only where a description asks for that.

use event::text;

/// The longest name that systemd accepts.
const MAX_LENGTH: usize = 255;

/// The types of unit that have a control group of their own. (A slice has one
/// too, but groups units and runs nothing itself.)
const TYPES: [&str; 5] = ["service", "scope", "socket", "mount", "swap"];

/// A valid name of a unit that runs processes, in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitName<'a> {
    /// The whole name: `getty@tty1.service`.
    pub full: &'a str,
    /// What stands before `@` or the type: `getty`.
    pub prefix: &'a str,
    /// What stands after `@`: `tty1`. Empty in the name of a template.
    pub instance: Option<&'a str>,
    /// The type: `service`.
    pub kind: &'a str,
}

impl<'a> UnitName<'a> {
    /// Takes a name apart; none if it names no unit that runs processes.
    pub fn new(full: &'a str) -> Option<Self> {
        let (stem, kind) = full.rsplit_once('.')?;
        let valid = !stem.is_empty()
            && full.len() <= MAX_LENGTH
            && TYPES.contains(&kind)
            && full
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
        if !valid {
            return None;
        }
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance)),
            None => (stem, None),
        };
        (!prefix.is_empty()).then_some(Self {
            full,
            prefix,
            instance,
            kind,
        })
    }

    /// Does a name of a unit stand in this component of the path of a control
    /// group? systemd puts `_` before a name that the kernel could mistake.
    pub fn in_cgroup(component: &'a str) -> Option<Self> {
        Self::new(component.strip_prefix('_').unwrap_or(component))
    }

    /// The name without the type: `getty@tty1`.
    pub fn stem(&self) -> &'a str {
        self.full
            .get(..self.full.len() - self.kind.len() - 1)
            .unwrap_or(self.full)
    }

    /// The name of the template that this is an instance of: `getty@.service`.
    pub fn template(&self) -> Option<String> {
        self.instance
            .map(|_| format!("{}@.{}", self.prefix, self.kind))
    }
}

/// Undoes the escaping of a part of a name: `-` was a slash, `\xNN` a byte.
pub(super) fn unescape(part: &str) -> String {
    decode(part, true)
}

/// The same without slashes, for names that cannot hold one.
pub(super) fn unescape_bytes(part: &str) -> String {
    decode(part, false)
}

fn decode(part: &str, slashes: bool) -> String {
    let mut bare = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'-' if slashes => bare.push(b'/'),
            b'\\' => match tail.strip_prefix(b"x").and_then(|hex| {
                let (digits, after) = hex.split_at_checked(2)?;
                Some((hex_byte(digits)?, after))
            }) {
                Some((byte, after)) => {
                    bare.push(byte);
                    rest = after;
                }
                None => bare.push(first),
            },
            _ => bare.push(first),
        }
    }
    text::from_bytes(&bare)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = UnitName::new("getty@tty1.service").unwrap();
        assert_eq!(name.prefix, "getty");
        assert_eq!(name.instance, Some("tty1"));
        assert_eq!(name.stem(), "getty@tty1");
        assert_eq!(name.template().as_deref(), Some("getty@.service"));

        let plain = UnitName::new("dbus-org.x.service").unwrap();
        assert_eq!(plain.prefix, "dbus-org.x");
        assert_eq!(plain.template(), None);
    }

    #[test]
    fn what_is_no_unit_that_runs_processes() {
        for name in [
            "",
            ".service",
            "@a.service",
            "system.slice",
            "multi-user.target",
            "a b.service",
            "a/b.service",
            "service",
            "cgroup.procs",
        ] {
            assert_eq!(UnitName::new(name), None, "{name}");
        }
        assert_eq!(UnitName::new(&format!("{}.service", "a".repeat(248))), None);
    }

    #[test]
    fn an_escape_before_a_kernel_name_is_dropped() {
        assert_eq!(
            UnitName::in_cgroup("_cgroup.service").unwrap().full,
            "cgroup.service"
        );
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"dev-disk\x2dby-a"), "dev/disk-by/a");
        assert_eq!(unescape_bytes(r"my\x2dbox-1"), "my-box-1");
        assert_eq!(unescape(r"\x\x2\xzz\x2d\"), r"\x\x2\xzz-\");
        assert_eq!(unescape(r"\xff"), r"\xff");
    }

    proptest! {
        #[test]
        fn the_parts_make_the_whole(text in "[a-z@.\\\\_-]{0,20}\\.(service|scope)") {
            if let Some(name) = UnitName::new(&text) {
                let joined = match name.instance {
                    Some(instance) => format!("{}@{instance}.{}", name.prefix, name.kind),
                    None => format!("{}.{}", name.prefix, name.kind),
                };
                prop_assert_eq!(joined, text);
            }
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = UnitName::in_cgroup(&text).map(|name| (name.stem().len(), name.template()));
            let _ = unescape(&text);
        }
    }
}
