//! `/proc/PID/maps`: which files a process has mapped for execution.
//!
//! A module is a file of which at least one page range may be executed. Its
//! base is the lowest address at which *any* part of it is mapped, because the
//! headers usually lie in a range of their own before the code. Memory that
//! only looks like a file (System V segments, shared anonymous memory) is not
//! a module; a `memfd` is, since programs do run from one.

use std::collections::HashMap;

use event::{Module, text};

/// More distinct files than this in one process are not followed.
const MAX_FILES: usize = 65_536;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// The first address.
    pub start: u64,
    /// May it be executed?
    pub executable: bool,
    /// The path as the kernel wrote it (a newline as `\012`); may be empty.
    pub path: &'a [u8],
}

/// Reads one line, without its newline.
pub fn mapping(line: &[u8]) -> Option<Mapping<'_>> {
    // Range, permissions, offset, device, inode; then blanks and the path,
    // which may hold blanks itself.
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let range = std::str::from_utf8(fields.next()?).ok()?;
    let permissions = fields.next()?;
    let rest = fields.nth(3).unwrap_or_default();
    let (start, _) = range.split_once('-')?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        executable: permissions.get(2) == Some(&b'x'),
        path: rest.trim_ascii_start(),
    })
}

/// The modules in the content of `/proc/PID/maps`: the main executable first,
/// then by address. `exe` is where `/proc/PID/exe` points.
pub fn modules(maps: &[u8], exe: Option<&[u8]>) -> Vec<Module> {
    let mut modules = Modules::default();
    for line in maps.split(|&byte| byte == b'\n') {
        modules.add(line);
    }
    modules.finish(exe)
}

/// Collects modules line by line, so that the file need not fit into memory.
#[derive(Debug, Default)]
pub struct Modules {
    files: HashMap<Vec<u8>, Seen>,
}

#[derive(Debug)]
struct Seen {
    base: u64,
    executable: bool,
}

impl Modules {
    /// Takes in one line, without its newline.
    pub fn add(&mut self, line: &[u8]) {
        let Some(mapping) = mapping(line) else {
            return;
        };
        if !is_file(mapping.path) {
            return;
        }
        if let Some(seen) = self.files.get_mut(mapping.path) {
            seen.base = seen.base.min(mapping.start);
            seen.executable |= mapping.executable;
        } else if self.files.len() < MAX_FILES {
            self.files.insert(
                mapping.path.to_vec(),
                Seen {
                    base: mapping.start,
                    executable: mapping.executable,
                },
            );
        }
    }

    /// The modules: the main executable first, then by address.
    pub fn finish(self, exe: Option<&[u8]>) -> Vec<Module> {
        let mut found: Vec<(bool, u64, Vec<u8>)> = self
            .files
            .into_iter()
            .filter(|(_, seen)| seen.executable)
            .map(|(path, seen)| {
                let path = unescape(path);
                (exe != Some(path.as_slice()), seen.base, path)
            })
            .collect();
        found.sort_unstable();
        found
            .into_iter()
            .map(|(_, base, path)| Module {
                path: text::from_bytes(&path),
                base,
            })
            .collect()
    }
}

/// Is this the path of a file, and not of memory that only looks like one?
pub(in crate::linux) fn is_file(path: &[u8]) -> bool {
    if !path.starts_with(b"/") {
        return false;
    }
    match path.strip_suffix(b" (deleted)") {
        Some(b"/dev/zero" | b"/anon_hugepage") => false,
        Some(bare) => !bare
            .strip_prefix(b"/SYSV")
            .is_some_and(|key| key.len() == 8 && key.iter().all(u8::is_ascii_hexdigit)),
        None => true,
    }
}

/// The kernel escapes newlines here, and nothing else.
fn unescape(path: Vec<u8>) -> Vec<u8> {
    if !path.contains(&b'\\') {
        return path;
    }
    let mut bare = Vec::with_capacity(path.len());
    let mut rest = path.as_slice();
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            bare.push(b'\n');
            rest = after;
        } else {
            bare.push(first);
            rest = tail;
        }
    }
    bare
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0002000 r--p 00000000 fe:00 12 /usr/bin/my server (deleted)
55d0c0002000-55d0c0006000 r-xp 00002000 fe:00 12 /usr/bin/my server (deleted)
55d0c2000000-55d0c2021000 rw-p 00000000 00:00 0  [heap]
7f0000000000-7f0000001000 r-xp 00000000 00:01 99 /SYSV0000002a (deleted)
7f0000001000-7f0000002000 r-xs 00000000 00:01 98 /dev/zero (deleted)
7f0000010000-7f0000020000 r--p 00000000 fe:00 77 /usr/lib/locale/locale-archive
7f0000100000-7f0000128000 r--p 00000000 fe:00 13 /usr/lib/libc.so.6
7f0000128000-7f0000200000 r-xp 00028000 fe:00 13 /usr/lib/libc.so.6
10000000-10001000 r-xp 00000000 00:01 55                    /memfd:jit\\012x (deleted)
7f0000300000-7f0000301000 r-xp 00000000 00:00 0
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0  [vdso]
";

    #[test]
    fn the_executable_comes_first_then_by_address() {
        let found = modules(
            MAPS.as_bytes(),
            Some(b"/usr/bin/my server (deleted)".as_slice()),
        );
        let expected = [
            ("/usr/bin/my server (deleted)", 0x55d0_c000_0000),
            ("/memfd:jit\nx (deleted)", 0x1000_0000),
            ("/usr/lib/libc.so.6", 0x7f00_0010_0000),
        ]
        .map(|(path, base)| Module {
            path: path.to_owned(),
            base,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn without_an_executable_only_the_address_orders() {
        let found = modules(MAPS.as_bytes(), None);
        assert!(found.is_sorted_by_key(|module| module.base));
        assert_eq!(found.len(), 3);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = modules(&bytes, Some(&bytes));
        }

        #[test]
        fn nothing_panics_on_near_misses(text in "([0-9a-f]{1,18}|-| |r-xp|/a|\\\\012|\n){0,40}") {
            let _ = modules(text.as_bytes(), None);
        }

        #[test]
        fn any_path_is_found(path in "/[^\n\\\\]{1,40}[a-z]", start in any::<u64>()) {
            let line = format!("{start:x}-{start:x} r-xp 00000000 fe:00 12                    {path}");
            prop_assert_eq!(
                modules(line.as_bytes(), None),
                vec![Module { path, base: start }]
            );
        }
    }
}
