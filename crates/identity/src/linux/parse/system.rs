//! Files that describe the machine rather than one process: the mount table,
//! the user table, the offsets of a time namespace.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::process::number;

/// A line of `/proc/PID/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which part of the file system is mounted.
    pub root: Vec<u8>,
    /// Where.
    pub point: PathBuf,
    /// The type of the file system.
    pub kind: Vec<u8>,
    /// The options of the file system, separated by commas.
    pub options: Vec<u8>,
}

/// Reads `/proc/PID/mountinfo`, in its order: a later mount covers an earlier
/// one at the same place.
pub fn mounts(bytes: &[u8]) -> impl Iterator<Item = Mount> {
    bytes.split(|&byte| byte == b'\n').filter_map(mount)
}

/// The name of the user with that number in the content of `/etc/passwd`.
pub fn user_name(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next()?;
        let found: u32 = number(fields.nth(1)?)?;
        // `+` and `-` open lines for a name service, which has its own way in.
        let is_name = !name.is_empty() && !name.starts_with(b"+") && !name.starts_with(b"-");
        (found == uid && is_name).then_some(name)
    })
}

/// How far ahead the boot clock of a time namespace is of the machine's, in
/// nanoseconds, from `/proc/PID/timens_offsets`.
pub fn boottime_offset(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        // The clock has a name today and was a number (7) at first.
        if !matches!(fields.next()?, "boottime" | "7") {
            return None;
        }
        let seconds: i64 = fields.next()?.parse().ok()?;
        let nanoseconds: i64 = fields.next()?.parse().ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    })
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = unescape(fields.nth(3)?);
    let point = unescape(fields.next()?);
    // Any number of optional fields, ended by a single hyphen.
    fields.find(|field| *field == b"-")?;
    let kind = fields.next()?.to_vec();
    let options = fields.nth(1)?.to_vec();
    Some(Mount {
        root,
        point: PathBuf::from(OsString::from_vec(point)),
        kind,
        options,
    })
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bare = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', Some((digits, after))) = (first, tail.split_at_checked(3))
            && let Some(byte) = octal(digits)
        {
            bare.push(byte);
            rest = after;
        } else {
            bare.push(first);
            rest = tail;
        }
    }
    bare
}

fn octal(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mounts_with_and_without_optional_fields() {
        let text = b"22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible\n\
            38 31 0:28 / /sys/fs/c\\040group rw shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate\n\
            broken\n";
        let found: Vec<Mount> = mounts(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].kind, b"proc");
        assert_eq!(found[0].options, b"rw,hidepid=invisible");
        assert_eq!(found[1].point, Path::new("/sys/fs/c group"));
        assert_eq!(found[1].kind, b"cgroup2");
        assert_eq!(found[1].root, b"/");
    }

    #[test]
    fn users_are_found_by_number() {
        let text = b"root:x:0:0::/root:/bin/sh\n+:::\n:x:7::\nwww-data:x:33:33\n+nis:x:34:\ntorn";
        assert_eq!(user_name(text, 0), Some(b"root".as_slice()));
        assert_eq!(user_name(text, 33), Some(b"www-data".as_slice()));
        assert_eq!(user_name(text, 7), None);
        assert_eq!(user_name(text, 34), None);
        assert_eq!(user_name(text, 1), None);
    }

    #[test]
    fn the_offset_of_the_boot_clock() {
        let text = b"monotonic         0         0\nboottime      86400       500\n";
        assert_eq!(boottime_offset(text), Some(86_400_000_000_500));
        assert_eq!(boottime_offset(b"boottime -1 0"), Some(-1_000_000_000));
        assert_eq!(boottime_offset(b"boottime 9223372036854775807 0"), None);
        assert_eq!(boottime_offset(b""), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), uid in any::<u32>()) {
            let _ = mounts(&bytes).count();
            let _ = user_name(&bytes, uid);
            let _ = boottime_offset(&bytes);
        }

        #[test]
        fn nothing_panics_on_near_misses(text in "([a-z0-9]{1,5}|[ :\n/-]|\\\\[0-9]{0,3}){0,60}") {
            let _ = mounts(text.as_bytes()).count();
            let _ = user_name(text.as_bytes(), 0);
        }
    }
}
