//! A live process, read from `/proc/PID`.
//!
//! The directory is opened once and everything is read through it. The kernel
//! binds the open directory to the process: once that has ended every read
//! fails, also when its number is in use again. So there is nothing to mix up;
//! a process that ends in the middle is described by what was read before.
//! What can change underneath is the program: an `exec` between two reads would
//! pair one program's path with another's arguments. `stat` is therefore read
//! again at the end, and if the name has changed, so is everything.

use std::os::fd::OwnedFd;
use std::path::Path;

use event::{BootTime, ProcessKey};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file;
use super::parse;

/// Of the arguments, as much is kept.
const CMDLINE_LIMIT: usize = 4096;
/// A `stat` is a few hundred bytes; the name in it has at most 64.
const STAT_LIMIT: usize = 2048;
/// What is wanted of `status` stands in its first kilobytes.
const STATUS_LIMIT: usize = 4096;
/// One line for each hierarchy, each a path.
const CGROUP_LIMIT: usize = 64 * 1024;
/// How often a process that runs a new program meanwhile is read again.
const ATTEMPTS: usize = 3;

/// What `/proc/PID` says.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) comm: Vec<u8>,
    pub(super) ppid: u32,
    pub(super) start: BootTime,
    pub(super) exe: Option<Vec<u8>>,
    pub(super) cmdline: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) cgroup: Vec<u8>,
}

/// The clock in which `/proc` counts, against that of the kernel's events.
#[derive(Clone, Copy, Debug)]
pub(super) struct TickClock {
    /// Ticks in a second.
    frequency: u64,
    /// How far the boot clock of our time namespace is ahead, in nanoseconds.
    offset: i64,
}

impl TickClock {
    pub(super) fn system(proc: &Path) -> Self {
        let offsets = file::read(&proc.join("self/timens_offsets"), 4096).unwrap_or_default();
        Self {
            frequency: rustix::param::clock_ticks_per_second().max(1),
            offset: parse::boottime_offset(&offsets).unwrap_or(0),
        }
    }

    /// When a process started that `/proc` says started at that tick.
    fn start(self, ticks: u64) -> BootTime {
        let shown = u128::from(ticks) * 1_000_000_000 / u128::from(self.frequency);
        let shown = u64::try_from(shown).unwrap_or(u64::MAX);
        BootTime(shown.saturating_add_signed(self.offset.saturating_neg()))
    }

    /// May a process that started at that tick be the one that the caller
    /// means? In a time namespace a caller may have either clock in hand.
    fn agrees(self, start: BootTime, ticks: u64) -> bool {
        [0, self.offset].into_iter().any(|offset| {
            let shown = u128::from(start.0.saturating_add_signed(offset));
            shown * u128::from(self.frequency) / 1_000_000_000 == u128::from(ticks)
        })
    }
}

/// Reads a process; none if there is no such process (any more).
pub(super) fn read(proc: &Path, key: ProcessKey, clock: TickClock) -> Option<Facts> {
    let directory = rustix::fs::open(
        proc.join(key.pid.to_string()),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let stat_file = file::open_at(&directory, "stat").ok()?;
    let mut before = stat_now(&stat_file)?;
    for attempt in 1.. {
        let stat = parse::stat(&before)?;
        let unknown_start = key.start == BootTime(0);
        if !unknown_start && !clock.agrees(key.start, stat.start_ticks) {
            return None;
        }
        let status = file::read_at(&directory, "status", STATUS_LIMIT)
            .map(|content| parse::status(&content))
            .unwrap_or_default();
        if status.tgid.is_some_and(|leader| leader != key.pid) {
            // A thread of another process has the number now.
            return None;
        }
        let exe = rustix::fs::readlinkat(&directory, "exe", Vec::new());
        let cmdline = file::read_at(&directory, "cmdline", CMDLINE_LIMIT + 1);
        let cgroup = file::read_at(&directory, "cgroup", CGROUP_LIMIT);

        let after = stat_now(&stat_file);
        if let Some(after) = after
            && let Some(now) = parse::stat(&after)
        {
            if now.start_ticks != stat.start_ticks {
                return None;
            }
            if now.comm != stat.comm && attempt < ATTEMPTS {
                before = after;
                continue;
            }
        }
        return Some(Facts {
            comm: stat.comm.to_vec(),
            ppid: stat.ppid,
            start: if unknown_start {
                clock.start(stat.start_ticks)
            } else {
                key.start
            },
            exe: exe.ok().map(std::ffi::CString::into_bytes),
            cmdline: cmdline
                .ok()
                .and_then(|content| parse::command_line(&content, CMDLINE_LIMIT)),
            uid: status.uid,
            cgroup: cgroup.unwrap_or_default(),
        });
    }
    None
}

/// Is this the open directory of the process that started then?
pub(super) fn is_running(directory: &OwnedFd, start: BootTime, clock: TickClock) -> bool {
    file::read_at(directory, "stat", STAT_LIMIT).is_ok_and(|content| {
        parse::stat(&content).is_some_and(|stat| clock.agrees(start, stat.start_ticks))
    })
}

/// The content of an open `stat` at this moment; none if the process has ended.
fn stat_now(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut content = vec![0; STAT_LIMIT];
    loop {
        // The kernel makes the content anew for each read from the start, and
        // hands it over in one piece.
        match rustix::io::pread(file, content.as_mut_slice(), 0) {
            Ok(length) => {
                content.truncate(length);
                return Some(content);
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_nanoseconds_agree_after_rounding_down() {
        let clock = TickClock {
            frequency: 100,
            offset: 0,
        };
        assert!(clock.agrees(BootTime(1_239_999_999), 123));
        assert!(clock.agrees(BootTime(1_230_000_000), 123));
        assert!(!clock.agrees(BootTime(1_240_000_000), 123));
        assert!(!clock.agrees(BootTime(1_229_999_999), 123));
        assert_eq!(clock.start(123), BootTime(1_230_000_000));
        assert!(!clock.agrees(BootTime(u64::MAX), u64::MAX));
        let _ = clock.start(u64::MAX);
    }

    #[test]
    fn a_time_namespace_shifts_what_is_shown() {
        let clock = TickClock {
            frequency: 100,
            offset: 5_000_000_000,
        };
        assert!(clock.agrees(BootTime(1_230_000_000), 623));
        assert!(clock.agrees(BootTime(1_230_000_000), 123));
        assert!(!clock.agrees(BootTime(1_230_000_000), 124));
        assert_eq!(clock.start(623), BootTime(1_230_000_000));
        let behind = TickClock {
            frequency: 100,
            offset: i64::MIN,
        };
        assert_eq!(behind.start(0), BootTime(i64::MAX as u64));
    }
}
