//! `/proc/PID/{stat,status,cmdline}` and the name of a process.
//!
//! The kernel's name of a process (`comm`) may hold any byte but NUL. In
//! `stat` it stands unescaped between parentheses, so only the *last*
//! parenthesis ends it; in `status` the kernel escapes newlines, so no name can
//! forge a line there.

use event::text;

/// What marks the path of a file that no longer has a name.
const DELETED: &str = " (deleted)";

/// The parts of `/proc/PID/stat` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// The kernel's name for the process.
    pub comm: &'a [u8],
    /// The parent's number; 0 for a process without one.
    pub ppid: u32,
    /// The start, in clock ticks since boot.
    pub start_ticks: u64,
}

/// Reads `/proc/PID/stat`.
pub fn stat(bytes: &[u8]) -> Option<Stat<'_>> {
    let open = bytes.iter().position(|&byte| byte == b'(')?;
    let close = bytes.iter().rposition(|&byte| byte == b')')?;
    let comm = bytes.get(open + 1..close)?;
    let mut fields = bytes
        .get(close + 1..)?
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    // The field after the name, the state, is number 3.
    let ppid = number(fields.nth(1)?)?;
    let start_ticks = number(fields.nth(22 - 5)?)?;
    Some(Stat {
        comm,
        ppid,
        start_ticks,
    })
}

/// The parts of `/proc/PID/status` that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The process that the thread belongs to.
    pub tgid: Option<u32>,
    /// The effective user ID.
    pub uid: Option<u32>,
    /// The effective capabilities.
    pub capabilities: Option<u64>,
}

/// Reads `/proc/PID/status`, as far as it is there.
pub fn status(bytes: &[u8]) -> Status {
    let mut status = Status::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"Tgid:") {
            status.tgid = status.tgid.or_else(|| number(value.trim_ascii()));
        } else if let Some(value) = line.strip_prefix(b"Uid:") {
            // Real, effective, saved, file system.
            status.uid = status.uid.or_else(|| {
                let mut ids = value
                    .split(u8::is_ascii_whitespace)
                    .filter(|id| !id.is_empty());
                ids.nth(1).and_then(number)
            });
        } else if let Some(value) = line.strip_prefix(b"CapEff:") {
            status.capabilities = std::str::from_utf8(value.trim_ascii())
                .ok()
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            break;
        }
    }
    status
}

/// Makes one line of `/proc/PID/cmdline`, of at most `limit` bytes of it. A
/// longer one is cut and ends in `…`. An empty one (a kernel thread, a process
/// that has ended) is none.
pub fn command_line(bytes: &[u8], limit: usize) -> Option<String> {
    let cut = bytes.len() > limit;
    let kept = if cut {
        whole_characters(bytes.get(..limit).unwrap_or(bytes))
    } else {
        bytes.strip_suffix(b"\0").unwrap_or(bytes)
    };
    if kept.is_empty() && !cut {
        return None;
    }
    let mut line = text::join_arguments(kept.split(|&byte| byte == 0));
    if cut {
        line.push('…');
    }
    Some(line)
}

/// The name of a process: the last part of the path of its executable without
/// the mark of a deleted file, or the kernel's name where there is no path.
pub fn image_name(exe: Option<&str>, comm: &str) -> Option<String> {
    exe.and_then(|path| {
        path.strip_suffix(DELETED)
            .unwrap_or(path)
            .rsplit('/')
            .next()
    })
    .filter(|name| !name.is_empty())
    .or(Some(comm))
    .filter(|name| !name.is_empty())
    .map(str::to_owned)
}

/// Without the beginning of a character that the cut tore apart.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        // No `error_len`: the input ends inside a character.
        Err(error) if error.error_len().is_none() => {
            bytes.get(..error.valid_up_to()).unwrap_or(bytes)
        }
        _ => bytes,
    }
}

/// A decimal number without sign.
pub(super) fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    let digits = std::str::from_utf8(bytes).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAIL: &str = "S 17 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 998877 1 2 3";

    #[test]
    fn a_name_with_parentheses_and_newlines_does_not_shift_the_fields() {
        let line = format!("42 (a) S 1 (\n) {TAIL}\n");
        let stat = stat(line.as_bytes()).unwrap();
        assert_eq!(stat.comm, b"a) S 1 (\n");
        assert_eq!(stat.ppid, 17);
        assert_eq!(stat.start_ticks, 998_877);
    }

    #[test]
    fn a_torn_stat_is_nothing() {
        assert_eq!(stat(b""), None);
        assert_eq!(stat(b"42 (sleep) S 17"), None);
        assert_eq!(stat(b")("), None);
    }

    #[test]
    fn the_effective_user_is_the_second_number() {
        let text =
            b"Name:\tx\\nUid:\t9\nTgid:\t42\nUid:\t1000\t0\t1\t2\nCapEff:\t0000000000080000\n";
        assert_eq!(
            status(text),
            Status {
                tgid: Some(42),
                uid: Some(0),
                capabilities: Some(1 << 19),
            }
        );
    }

    #[test]
    fn a_command_line_keeps_its_boundaries_and_says_that_it_was_cut() {
        assert_eq!(
            command_line(b"nc\0-e\0a b\0", 100).as_deref(),
            Some("nc -e 'a b'")
        );
        assert_eq!(
            command_line(b"one\0\0\0", 100).as_deref(),
            Some("one '' ''")
        );
        assert_eq!(command_line(b"", 100), None);
        assert_eq!(command_line(b"\0", 100), None);
        assert_eq!(command_line(b"abcdef\0", 4).as_deref(), Some("abcd…"));
        assert_eq!(
            command_line("abc\u{fc}\u{fc}".as_bytes(), 4).as_deref(),
            Some("abc…")
        );
    }

    #[test]
    fn the_name_is_the_last_part_of_the_path() {
        let name = |exe, comm| image_name(exe, comm);
        assert_eq!(
            name(Some("/usr/bin/nc (deleted)"), "x").as_deref(),
            Some("nc")
        );
        assert_eq!(
            name(Some("/memfd:a (deleted)"), "x").as_deref(),
            Some("memfd:a")
        );
        assert_eq!(name(Some("/"), "x").as_deref(), Some("x"));
        assert_eq!(name(None, "kworker/0:1").as_deref(), Some("kworker/0:1"));
        assert_eq!(name(None, ""), None);
    }

    proptest! {
        #[test]
        fn any_name_comes_back_whole(
            comm in proptest::collection::vec(1u8.., 0..16),
            ppid in any::<u32>(),
            start in any::<u64>(),
        ) {
            let mut line = b"42 (".to_vec();
            line.extend(&comm);
            line.extend(format!(") R {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0\n").bytes());
            prop_assert_eq!(stat(&line), Some(Stat { comm: &comm, ppid, start_ticks: start }));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), limit in 0usize..64) {
            let _ = stat(&bytes);
            let _ = status(&bytes);
            let _ = command_line(&bytes, limit);
        }

        #[test]
        fn nothing_panics_on_near_misses(text in "(Uid:|Tgid:|CapEff:|[0-9]{1,25}|[\t \n()-]|S){0,40}") {
            let _ = stat(text.as_bytes());
            let _ = status(text.as_bytes());
        }
    }
}
