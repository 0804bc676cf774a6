//! The recorder under measurement.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::events::event_files;
use super::measure::{Life, Subject};

/// How long the recorder may take until it has the first snapshot.
const READY_LIMIT: Duration = Duration::from_mins(5);

/// How long after its time a comparison with the kernel's table is over, for
/// sure: two looks, each concluded once all events from before have been heard.
const COMPARING: Duration = Duration::from_secs(8);

/// The line that closes the first snapshot; from here on every event counts.
const READY: &[u8] = b"\"snapshot-end\"";

/// A recorder with a log directory of its own, which goes when this goes.
pub(crate) struct Recorder {
    pub(crate) subject: Subject,
    started: Instant,
    directory: TempDir,
}

/// What a recorder leaves behind.
pub(crate) struct Recorded {
    /// Its whole life.
    pub(crate) life: Life,
    directory: TempDir,
}

impl Recorder {
    /// Starts `record` and waits until it has taken its first snapshot.
    pub(crate) fn start(binary: &Path) -> anyhow::Result<Self> {
        Self::start_with(binary, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(binary: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("portreporter-bench-")
            .tempdir()?;
        let errors = errors(directory.path());
        let mut command = Command::new(binary);
        command
            .arg("record")
            .arg("--log-dir")
            .arg(logs(directory.path()))
            .args(arguments)
            .stdout(File::create(directory.path().join("stdout"))?)
            .stderr(File::create(&errors)?);
        let subject = Subject::spawn("portreporter record", &mut command)?;
        let mut recorder = Self {
            subject,
            started: Instant::now(),
            directory,
        };
        recorder.wait_until_ready().with_context(|| said(&errors))?;
        recorder.started = Instant::now();
        Ok(recorder)
    }

    /// Waits until it has compared its table with the kernel's, which it does
    /// `every` so often: after that it has told of every socket that is gone.
    pub(crate) fn wait_until_compared(&mut self, every: Duration) -> anyhow::Result<()> {
        let next = time_of_next(self.started.elapsed(), every) + COMPARING;
        while self.started.elapsed() < next {
            self.subject.must_run()?;
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    /// Tells it to end and waits until it has sealed its logs.
    pub(crate) fn stop(self) -> anyhow::Result<Recorded> {
        let life = self.subject.stop(Signal::TERM)?;
        if !life.status.success() {
            let said = said(&errors(self.directory.path()));
            bail!("portreporter record: {}: {said}", life.status);
        }
        Ok(Recorded {
            life,
            directory: self.directory,
        })
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut search = Search::default();
        while !search.found(&logs(self.directory.path()))? {
            self.subject.must_run()?;
            if start.elapsed() > READY_LIMIT {
                bail!("portreporter record: no snapshot within {READY_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Recorded {
    /// Its logs.
    pub(crate) fn logs(&self) -> PathBuf {
        logs(self.directory.path())
    }
}

/// When what is done `every` so often is next due, counted like `elapsed`.
fn time_of_next(elapsed: Duration, every: Duration) -> Duration {
    let mut next = every;
    while next < elapsed {
        next += every;
    }
    next
}

/// Looks for [`READY`] in files that grow, each byte once.
#[derive(Default)]
struct Search {
    seen: HashMap<PathBuf, u64>,
}

impl Search {
    fn found(&mut self, logs: &Path) -> anyhow::Result<bool> {
        if !logs.is_dir() {
            return Ok(false);
        }
        for path in event_files(logs)? {
            let Ok(mut file) = File::open(&path) else {
                // Compressed and removed since it was listed.
                continue;
            };
            let seen = self.seen.entry(path).or_default();
            file.seek(SeekFrom::Start(*seen))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            if text.windows(READY.len()).any(|window| window == READY) {
                return Ok(true);
            }
            // What is looked for may be torn in two at the end.
            let done = text.len().saturating_sub(READY.len());
            *seen += u64::try_from(done)?;
        }
        Ok(false)
    }
}

fn logs(directory: &Path) -> PathBuf {
    directory.join("logs")
}

fn errors(directory: &Path) -> PathBuf {
    directory.join("stderr")
}

/// What the program said last.
fn said(errors: &Path) -> String {
    let text = std::fs::read(errors).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_next_time_is_not_before_now() {
        let next = |elapsed| {
            let next = time_of_next(Duration::from_secs(elapsed), Duration::from_mins(1));
            next.as_secs()
        };
        assert_eq!([0, 7, 60, 61, 185].map(next), [60, 60, 60, 120, 240]);
    }

    #[test]
    fn the_end_of_the_snapshot_is_found_even_if_it_comes_in_pieces() {
        let logs = tempfile::tempdir().unwrap();
        let mut search = Search::default();
        assert!(!search.found(&logs.path().join("none")).unwrap());
        assert!(!search.found(logs.path()).unwrap());
        let mut file = File::create(logs.path().join("PR-EVENTS-a.jsonl")).unwrap();
        let start = "{\"seq\":0,\"event\":\"open\"}\n{\"seq\":1,\"event\":\"snap";
        file.write_all(start.as_bytes()).unwrap();
        assert!(!search.found(logs.path()).unwrap());
        file.write_all(b"shot-end\",\"sockets\":0}\n").unwrap();
        assert!(search.found(logs.path()).unwrap());
    }
}
