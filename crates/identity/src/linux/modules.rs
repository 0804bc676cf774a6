//! The modules of a live process, from `/proc/PID/maps`.
//!
//! The file is read as a stream: a process may have tens of thousands of
//! mappings, and the kernel makes the text as it is read.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use event::{BootTime, Module, ProcessKey};
use rustix::fs::{Mode, OFlags};

use super::file;
use super::parse;
use super::process::{self, TickClock};
use crate::ModulesError;

/// As much of one process's mappings is read.
const LIMIT: u64 = 32 * 1024 * 1024;
/// Reading in large pieces keeps the kernel from starting over often.
const PIECE: usize = 64 * 1024;

pub(super) fn read(
    proc: &Path,
    key: ProcessKey,
    clock: TickClock,
) -> Result<Vec<Module>, ModulesError> {
    collect(proc, key, clock).map_err(|error| classify(key.pid, error))
}

fn collect(proc: &Path, key: ProcessKey, clock: TickClock) -> io::Result<Vec<Module>> {
    let directory = rustix::fs::open(
        proc.join(key.pid.to_string()),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if key.start != BootTime(0) && !process::is_running(&directory, key.start, clock) {
        return Err(rustix::io::Errno::SRCH.into());
    }
    let maps = File::from(file::open_at(&directory, "maps")?);
    let mut lines = BufReader::with_capacity(PIECE, maps.take(LIMIT));
    let mut modules = parse::Modules::default();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        modules.add(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    let exe = rustix::fs::readlinkat(&directory, "exe", Vec::new()).ok();
    Ok(modules.finish(exe.as_deref().map(CStr::to_bytes)))
}

fn classify(pid: u32, source: io::Error) -> ModulesError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ModulesError::Denied { pid },
        io::ErrorKind::NotFound => ModulesError::Gone { pid },
        _ if source.raw_os_error() == Some(libc::ESRCH) => ModulesError::Gone { pid },
        _ => ModulesError::System { pid, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gone_and_denied_are_told_apart() {
        let classify = |code| classify(7, io::Error::from_raw_os_error(code));
        assert!(matches!(
            classify(libc::ESRCH),
            ModulesError::Gone { pid: 7 }
        ));
        assert!(matches!(classify(libc::ENOENT), ModulesError::Gone { .. }));
        assert!(matches!(
            classify(libc::EACCES),
            ModulesError::Denied { .. }
        ));
        assert!(matches!(classify(libc::EPERM), ModulesError::Denied { .. }));
        assert!(matches!(
            classify(libc::EMFILE),
            ModulesError::System { .. }
        ));
    }
}
