//! `tcpstates` of libbpf-tools, the peer of the storm.
//!
//! It prints one line for each change of a TCP state, which is the nearest that
//! an administrator's toolbox has to a port recorder. It writes to a file, as
//! the recorder does, and counts what its own buffer lost on standard error.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::measure::{Life, Subject};

/// How long it may take until it is attached.
const READY_LIMIT: Duration = Duration::from_mins(5);

/// Runs it with a tracefs, which it needs and which a small system may not have
/// mounted; in a mount namespace of its own, so that the system stays as it is.
const SCRIPT: &str = "test -d /sys/kernel/tracing/events \
    || mount -t tracefs nodev /sys/kernel/tracing || exit; exec \"$0\"";

/// A `tcpstates` that is attached.
pub(super) struct Tcpstates {
    pub(super) subject: Subject,
    directory: TempDir,
}

/// What it leaves behind.
pub(super) struct Traced {
    /// Its whole life.
    pub(super) life: Life,
    /// Lines that it wrote.
    pub(super) lines: u64,
    /// Events that it lost, by its own account.
    pub(super) lost: u64,
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

impl Tcpstates {
    /// Starts it and waits until it is attached.
    pub(super) fn start(program: &std::path::Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("portreporter-bench-")
            .tempdir()?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", SCRIPT])
            .arg(program)
            .stdout(File::create(directory.path().join("stdout"))?)
            .stderr(File::create(directory.path().join("stderr"))?);
        let subject = Subject::spawn("tcpstates", &mut command)?;
        let mut tcpstates = Self { subject, directory };
        tcpstates.wait_until_attached()?;
        Ok(tcpstates)
    }

    /// Ends it the way Ctrl-C does, after which it writes what it still has.
    pub(super) fn stop(self) -> anyhow::Result<Traced> {
        let life = self.subject.stop(Signal::INT)?;
        let lines = |name: &str| -> anyhow::Result<_> {
            Ok(BufReader::new(File::open(self.directory.path().join(name))?).lines())
        };
        let mut lost = 0;
        for line in lines("stderr")? {
            lost += parse_lost(&line?).unwrap_or(0);
        }
        let mut written: u64 = 0;
        for line in lines("stdout")? {
            line?;
            written += 1;
        }
        Ok(Traced {
            life,
            // Without the head of the table.
            lines: written.saturating_sub(1),
            lost,
        })
    }

    /// Its output is buffered, so that it is attached shows only in its open
    /// files: the program is linked, and no more are added.
    fn wait_until_attached(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut before = 0;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            self.subject.must_run().with_context(|| self.complaint())?;
            let files = open_files(self.subject.pid())?;
            let linked = files.iter().any(|file| file.contains("bpf_link"));
            if linked && files.len() == before {
                return Ok(());
            }
            before = files.len();
            if start.elapsed() > READY_LIMIT {
                bail!("tcpstates: not attached within {READY_LIMIT:?}");
            }
        }
    }

    fn complaint(&self) -> String {
        let errors = self.directory.path().join("stderr");
        let text = std::fs::read_to_string(errors).unwrap_or_default();
        text.lines().last().unwrap_or("it said nothing").to_owned()
    }
}

/// What a process has open, as its links in `/proc` name it.
pub(crate) fn open_files(pid: u32) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A file may be closed while they are listed.
        if let Ok(target) = std::fs::read_link(entry?.path()) {
            files.push(target.to_string_lossy().into_owned());
        }
    }
    Ok(files)
}

/// The number in `lost 974 events on CPU #0`.
pub(crate) fn parse_lost(line: &str) -> Option<u64> {
    let rest = line.to_ascii_lowercase();
    let (_, rest) = rest.split_once("lost ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_events_are_read_from_the_complaint() {
        assert_eq!(parse_lost("lost 974 events on CPU #0"), Some(974));
        assert_eq!(parse_lost("Lost 3 events on CPU #1!"), Some(3));
        assert_eq!(parse_lost("failed to attach"), None);
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-at-all").is_none());
    }
}
