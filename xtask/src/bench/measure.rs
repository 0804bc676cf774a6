//! A program under measurement: its processor time and its memory, from outside.
//!
//! Processor time is the kernel's own count for the whole process, all threads
//! and those that have ended included, in nanoseconds. What a program makes the
//! *watched* process pay (hooks that run in its system calls) is not in it; that
//! shows in the throughput of the load.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};

use super::progress;

/// How long a program may take to end after it was told to.
const STOP_LIMIT: Duration = Duration::from_mins(5);

/// A program that runs; it is killed if it is dropped while it does.
pub(crate) struct Subject {
    name: String,
    child: Child,
    reaped: bool,
}

/// Memory in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Resident, what is shared divided by the number of sharers.
    pub(crate) pss: u64,
}

/// A program's whole life.
pub(crate) struct Life {
    /// Its processor time, user and system.
    pub(crate) cpu: Duration,
    /// The most memory that it had resident, in bytes.
    pub(crate) peak_rss: u64,
    /// How it ended.
    pub(crate) status: ExitStatus,
}

impl Subject {
    /// Starts a program that reads nothing.
    pub(crate) fn spawn(name: impl Into<String>, command: &mut Command) -> anyhow::Result<Self> {
        let name = name.into();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{name}: cannot be started"))?;
        Ok(Self {
            name,
            child,
            reaped: false,
        })
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.reaped = true;
            bail!("{}: ended early: {status}", self.name);
        }
        Ok(())
    }

    /// Its processor time up to now.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.pid()).with_context(|| format!("{}: processor time", self.name))
    }

    /// Its memory now.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        parse_memory(&text).with_context(|| format!("{path}: not understood"))
    }

    /// The most memory that it has had resident. Unlike that of [`Life`] this is
    /// not more than it had itself: a child begins as a copy of its parent, and
    /// the kernel's account of a life begins there.
    pub(crate) fn peak(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        text.lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .with_context(|| format!("{path}: no peak"))
    }

    /// Waits until it has nothing left to do: for half a second it uses less
    /// than a hundredth of a core. After `limit` it goes on all the same, and
    /// says so: on a machine where others use sockets a watcher is never idle,
    /// which spoils figures, but is no fault.
    pub(crate) fn settle(&mut self, limit: Duration) -> anyhow::Result<()> {
        let look = Duration::from_millis(250);
        let start = Instant::now();
        let mut before = self.cpu()?;
        let mut quiet = 0;
        while quiet < 2 {
            std::thread::sleep(look);
            self.must_run()?;
            if start.elapsed() > limit {
                progress(&format!("{}: still at work after {limit:?}", self.name));
                return Ok(());
            }
            let now = self.cpu()?;
            quiet = if now.saturating_sub(before) < look / 100 {
                quiet + 1
            } else {
                0
            };
            before = now;
        }
        Ok(())
    }

    /// Tells it to end and waits until it has.
    pub(crate) fn stop(mut self, signal: Signal) -> anyhow::Result<Life> {
        self.must_run()?;
        rustix::process::kill_process(self.raw_pid()?, signal)
            .with_context(|| format!("{}: cannot be signalled", self.name))?;
        let start = Instant::now();
        loop {
            if let Some(life) = reap(self.raw_pid()?)? {
                self.reaped = true;
                return Ok(life);
            }
            if start.elapsed() > STOP_LIMIT {
                bail!("{}: did not end within {STOP_LIMIT:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn raw_pid(&self) -> anyhow::Result<Pid> {
        i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("no process number")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if !self.reaped {
            // It may have ended by itself; there is nobody to tell.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The processor time that a process has used, all its threads together.
fn cpu_of(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock = 0;
    // SAFETY: `clock` outlives the call, which writes one clock number to it.
    let code = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call, which writes one timespec to it.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanos = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanos))
}

/// Collects a child if it has ended.
pub(crate) fn reap(pid: Pid) -> io::Result<Option<Life>> {
    use std::os::unix::process::ExitStatusExt as _;

    let mut status = 0;
    // SAFETY: `rusage` is plain integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call.
    let found = unsafe {
        libc::wait4(
            pid.as_raw_nonzero().get(),
            &raw mut status,
            libc::WNOHANG,
            &raw mut usage,
        )
    };
    match found {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(Some(Life {
            cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
            peak_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            status: ExitStatus::from_raw(status),
        })),
    }
}

fn duration(time: libc::timeval) -> Duration {
    let micros = time.tv_sec * 1_000_000 + time.tv_usec;
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn parse_memory(smaps_rollup: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = smaps_rollup
            .lines()
            .find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory {
        rss: field("Rss:")?,
        pss: field("Pss:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_rollup() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\n\
                    Rss:                2048 kB\n\
                    Pss:                 512 kB\n\
                    Pss_Dirty:            96 kB\n";
        let memory = parse_memory(text).unwrap();
        assert_eq!((memory.rss, memory.pss), (2048 * 1024, 512 * 1024));
        assert!(parse_memory("Rss: many kB\n").is_none());
    }

    #[test]
    fn the_time_of_a_child_is_counted_to_its_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let subject = Subject::spawn("loop", &mut command).unwrap();
        while subject.cpu().unwrap() < Duration::from_millis(20) {
            std::thread::yield_now();
        }
        let life = subject.stop(Signal::TERM).unwrap();
        assert!(life.cpu >= Duration::from_millis(20));
        assert!(!life.status.success());
    }

    #[test]
    fn one_that_is_never_idle_is_not_waited_for_without_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let mut busy = Subject::spawn("loop", &mut command).unwrap();
        busy.settle(Duration::ZERO).unwrap();
        let mut gone = Subject::spawn("false", &mut Command::new("false")).unwrap();
        assert!(gone.settle(Duration::from_mins(5)).is_err());
    }

    #[test]
    fn a_program_that_ended_by_itself_is_noticed() {
        let mut subject = Subject::spawn("false", &mut Command::new("false")).unwrap();
        while subject.must_run().is_ok() {
            std::thread::yield_now();
        }
        assert!(subject.must_run().is_err());
    }
}
