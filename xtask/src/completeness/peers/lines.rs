//! A program that prints a line for each thing that it sees.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::bench::measure::Subject;
use crate::bench::peer::{find, open_files, parse_lost};
use crate::completeness::play::now;
use crate::completeness::sighting::{Sighting, Watched};
use crate::completeness::watcher::{NotHere, Watcher};

/// How long a program may take until it watches.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Runs a program of libbpf-tools: with a tracefs, which it needs and which a
/// small system may not have mounted, in a mount namespace of its own, so that
/// the system stays as it is; and with lines that are not held back.
const TRACER: &str = "test -d /sys/kernel/tracing/events \
    || mount -t tracefs nodev /sys/kernel/tracing || exit; exec stdbuf -oL \"$0\" \"$@\"";

/// Turns lines into sightings.
pub(in crate::completeness) trait Parse: Send {
    /// What a line says, with the time at which it came. What is not about a
    /// socket, such as the head of a table, says nothing.
    fn line(&mut self, line: &str, at: i64) -> Vec<Sighting>;
}

/// A program at work, and the lines that it has printed.
pub(in crate::completeness) struct Lines<P> {
    subject: Subject,
    out: JoinHandle<Vec<(i64, String)>>,
    errors: JoinHandle<Vec<(i64, String)>>,
    printed: Arc<Mutex<Instant>>,
    parse: P,
    counts_losses: bool,
    /// Tells the one that follows a file that no more will come.
    over: Arc<AtomicBool>,
}

/// Where a program is that a Debian package has.
pub(in crate::completeness) fn installed(names: &[&str], package: &str) -> anyhow::Result<PathBuf> {
    names
        .iter()
        .find_map(|name| find(name))
        .ok_or_else(|| NotHere(format!("not installed (Debian package {package})")).into())
}

/// The command that runs a program of libbpf-tools.
pub(in crate::completeness) fn tracer(program: PathBuf) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", TRACER]).arg(program);
    command
}

impl<P: Parse> Lines<P> {
    /// Starts it.
    pub(in crate::completeness) fn start(
        name: &'static str,
        command: &mut Command,
        parse: P,
    ) -> anyhow::Result<Self> {
        let (out_of, out) = std::io::pipe()?;
        let (errors_of, errors) = std::io::pipe()?;
        let subject = Subject::spawn(name, command.stdout(out).stderr(errors))?;
        // The command keeps the writing ends until it is given others.
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let printed = Arc::new(Mutex::new(Instant::now()));
        Ok(Self {
            subject,
            out: collect(out_of, Some(Arc::clone(&printed))),
            errors: collect(errors_of, None),
            printed,
            parse,
            counts_losses: false,
            over: Arc::default(),
        })
    }

    /// It writes to that file, not to standard output.
    pub(in crate::completeness) fn writes(mut self, file: PathBuf) -> Self {
        let (printed, over) = (Arc::clone(&self.printed), Arc::clone(&self.over));
        self.out = std::thread::spawn(move || follow(&file, &printed, &over));
        self
    }

    /// It says on standard error what it lost.
    pub(in crate::completeness) fn counts_losses(mut self) -> Self {
        self.counts_losses = true;
        self
    }

    /// Waits until a program of libbpf-tools is attached: it has a link to the
    /// kernel, and opens no more files. Where it never is, it is not to be had.
    pub(in crate::completeness) fn attached(mut self) -> anyhow::Result<Self> {
        let start = Instant::now();
        let mut before = 0;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            if self.subject.must_run().is_err() {
                return Err(self.complaint());
            }
            let files = open_files(self.subject.pid())?;
            let linked = files.iter().any(|file| file.contains("bpf_link"));
            if linked && files.len() == before {
                return Ok(self);
            }
            before = files.len();
            if start.elapsed() > READY_LIMIT {
                bail!("not attached within {READY_LIMIT:?}");
            }
        }
    }

    /// Gives a program that does not show when it is ready that long.
    pub(in crate::completeness) fn after(mut self, time: Duration) -> anyhow::Result<Self> {
        std::thread::sleep(time);
        if self.subject.must_run().is_err() {
            return Err(self.complaint());
        }
        Ok(self)
    }

    /// Why it has ended, in its own words.
    fn complaint(self) -> anyhow::Error {
        let said = self.errors.join().unwrap_or_default();
        let words: Vec<&str> = said
            .iter()
            .map(|(_, line)| line.trim())
            .take_while(|line| !line.starts_with("Stack backtrace"))
            .filter(|line| !line.is_empty())
            .collect();
        let last = words.last().copied().unwrap_or("it said nothing");
        NotHere(format!("does not run here: {last}")).into()
    }
}

impl<P: Parse> Watcher for Lines<P> {
    fn cpu(&self) -> anyhow::Result<Duration> {
        self.subject.cpu()
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let quiet = Duration::from_millis(1200);
        let start = Instant::now();
        loop {
            self.subject.must_run()?;
            let last = *self.printed.lock().unwrap_or_else(PoisonError::into_inner);
            let silent = last.max(start).elapsed();
            // Others on this machine may keep it talking.
            if silent >= quiet || start.elapsed() > 4 * quiet {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(mut self: Box<Self>) -> anyhow::Result<Watched> {
        let peak = self.subject.peak()?;
        let life = self.subject.stop(Signal::INT)?;
        self.over.store(true, Ordering::Release);
        let out = self.out.join().ok().context("its reader panicked")?;
        let errors = self.errors.join().ok().context("its reader panicked")?;
        let mut sightings = Vec::new();
        for (at, line) in out {
            sightings.extend(self.parse.line(&line, at));
        }
        let lost = errors.iter().filter_map(|(_, line)| parse_lost(line)).sum();
        Ok(Watched {
            sightings,
            lost: self.counts_losses.then_some(lost),
            cpu: life.cpu,
            peak: Some(peak),
            contradictions: Vec::new(),
        })
    }
}

/// Reads lines with the time at which each came, from a file that grows, until
/// it is over.
fn follow(file: &Path, printed: &Mutex<Instant>, over: &AtomicBool) -> Vec<(i64, String)> {
    let mut lines = Vec::new();
    let mut from = None;
    let mut line = Vec::new();
    loop {
        let last = over.load(Ordering::Acquire);
        if from.is_none() {
            from = File::open(file).ok().map(BufReader::new);
        }
        while let Some(Ok(1..)) = from.as_mut().map(|from| from.read_until(b'\n', &mut line)) {
            if line.ends_with(b"\n") {
                lines.push((now(), String::from_utf8_lossy(&line).trim_end().to_owned()));
                line.clear();
                *printed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
        }
        if last {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads lines with the time at which each came, until the pipe ends.
fn collect(
    from: PipeReader,
    printed: Option<Arc<Mutex<Instant>>>,
) -> JoinHandle<Vec<(i64, String)>> {
    std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut from = BufReader::with_capacity(1 << 16, from);
        let mut line = Vec::new();
        while let Ok(1..) = from.read_until(b'\n', &mut line) {
            lines.push((now(), String::from_utf8_lossy(&line).trim_end().to_owned()));
            line.clear();
            if let Some(printed) = &printed {
                *printed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
        }
        lines
    })
}
