//! A recorder: the real binary, in a log directory of its own.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::expect::CONNECTED;
use super::log::{Checks, Log};
use super::tail::{PATIENCE, Tail, wait};
use super::{Facts, Traffic, open_directory, overload, portreporter};

/// How a recorder is started.
pub(crate) struct Launch {
    home: TempDir,
    directory: PathBuf,
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    user: Option<u32>,
}

impl Launch {
    /// As root, with the defaults, in a log directory that is not there yet.
    pub(crate) fn new() -> Self {
        let home = open_directory();
        let directory = home.path().join("log");
        Self {
            home,
            directory,
            wrapper: Vec::new(),
            arguments: Vec::new(),
            user: None,
        }
    }

    /// More arguments after `record --log-dir DIR`.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        if arguments.contains(&"--ring-size") {
            overload::is_on_purpose();
        }
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// A program that executes the recorder: `sh -c 'ulimit …; exec "$0" "$@"'`.
    pub(crate) fn wrapped_by(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// As another user, who owns the directory above the logs.
    pub(crate) fn run_by(mut self, uid: u32) -> Self {
        std::os::unix::fs::chown(self.home.path(), Some(uid), Some(uid))
            .expect("root can give a directory away");
        self.user = Some(uid);
        self
    }

    /// In this log directory.
    pub(crate) fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = directory.to_path_buf();
        self
    }

    /// The directory in which the log directory is to be made.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts and waits until the first snapshot is complete.
    pub(crate) fn start(self) -> Recorder {
        let mut recorder = self.spawn();
        let ready = recorder.tail.find(&recorder.pidfd, PATIENCE, |line| {
            line["event"] == "snapshot-end"
        });
        assert!(
            ready.is_some(),
            "the recorder wrote no snapshot-end in {}; its standard error:\n{}",
            recorder.directory.display(),
            recorder.stderr()
        );
        recorder
    }

    /// Starts and waits until it has ended by itself; gives how, and its
    /// standard error.
    pub(crate) fn run_to_the_end(self) -> (ExitStatus, String) {
        let (status, stderr, ()) = self.run_and_look(|| ());
        (status, stderr)
    }

    /// The same; looks around before its directories are removed.
    pub(crate) fn run_and_look<T>(self, look: impl FnOnce() -> T) -> (ExitStatus, String, T) {
        let mut recorder = self.spawn();
        let status = recorder.wait();
        (status, recorder.stderr(), look())
    }

    fn spawn(self) -> Recorder {
        let Self {
            home,
            directory,
            wrapper,
            arguments,
            user,
        } = self;
        let mut line = wrapper;
        line.push(portreporter().into());
        line.extend([
            "record".into(),
            "--log-dir".into(),
            directory.clone().into(),
        ]);
        line.extend(arguments);
        let file = |name| File::create(home.path().join(name)).expect("a file for its output");
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let tail = Tail::new(&directory);
        let child = command.spawn().expect("the recorder can be executed");
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .expect("a pidfd");
        Recorder {
            home,
            directory,
            child,
            pidfd,
            tail,
            closed: HashSet::new(),
            ended: false,
        }
    }
}

/// A running recorder. One that a failed test leaves behind is killed.
pub(crate) struct Recorder {
    home: TempDir,
    directory: PathBuf,
    child: Child,
    pidfd: OwnedFd,
    tail: Tail,
    /// The sockets whose `close` was read.
    closed: HashSet<String>,
    ended: bool,
}

impl Recorder {
    /// A recorder as root with the defaults, ready to record.
    pub(crate) fn start() -> Self {
        Launch::new().start()
    }

    /// Its log directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// For how long its threads were ready to run while others did; nothing where
    /// the kernel does not tell.
    pub(crate) fn kept_waiting(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.pid());
        let nanoseconds = std::fs::read_dir(tasks)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
            .sum();
        Duration::from_nanos(nanoseconds)
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        let bytes = std::fs::read(self.home.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until a line is in PR-EVENTS. Each line is looked at once over
    /// all such calls.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let closed = &mut self.closed;
        let found = self.tail.find(&self.pidfd, PATIENCE, |line| {
            closed.extend(closed_by(line).map(str::to_owned));
            wanted(line)
        });
        match found {
            Some(line) => line,
            None => panic!(
                "no line came: {what}; the recorder's standard error:\n{}",
                self.stderr()
            ),
        }
    }

    /// Waits until every one of these sockets is closed, as long as some still
    /// close. Does not fail if one does not: the expectations that follow say
    /// what is missing.
    pub(crate) fn wait_for_closes(&mut self, cookies: &[&str]) {
        self.wait_for_all(cookies, closed_by);
    }

    /// The same, where the end of a socket may also be found by reconciliation.
    pub(crate) fn wait_for_ends(&mut self, cookies: &[&str]) {
        self.wait_for_all(cookies, |line| {
            let vanished = (line["event"] == "vanish").then(|| line["socket"].as_str());
            closed_by(line).or(vanished.flatten())
        });
    }

    fn wait_for_all(&mut self, cookies: &[&str], ended: impl Fn(&Value) -> Option<&str>) {
        let closed = &mut self.closed;
        let mut open: HashSet<&str> = cookies.iter().copied().collect();
        open.retain(|cookie| !closed.contains(*cookie));
        let mut before = usize::MAX;
        while !open.is_empty() && open.len() < before {
            before = open.len();
            self.tail.find(&self.pidfd, PATIENCE, |line| {
                if let Some(cookie) = ended(line) {
                    open.remove(cookie);
                    closed.insert(cookie.to_owned());
                }
                open.is_empty()
            });
        }
    }

    /// Plays `pair` until the recorder has told of the whole life of its client:
    /// after a loss there has to be room in the ring again, but others may fill
    /// it once more.
    pub(crate) fn play_pair_until_told(&mut self) -> Facts {
        for _ in 0..20 {
            let facts = Traffic::play(&["pair"]);
            let cookie = facts.one("client").cookie;
            let mut missing = CONNECTED.to_vec();
            self.tail.find(&self.pidfd, Duration::from_secs(5), |line| {
                if line["socket"] == cookie.as_str() {
                    missing.retain(|event| line["event"] != *event);
                }
                missing.is_empty()
            });
            if missing.is_empty() {
                return facts;
            }
        }
        panic!("no connection was told of in the end; {}", self.stderr());
    }

    /// Asks for a new log set and waits until it is there.
    pub(crate) fn roll(&mut self) {
        let sets = self.tail.sets();
        self.signal(Signal::HUP);
        self.tail.wait_for_sets(&self.pidfd, sets + 1);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.pidfd, signal).expect("the recorder runs");
    }

    /// Stops it with SIGTERM and reads what it left; every promise about log
    /// sets is checked.
    pub(crate) fn stop(self) -> Log {
        self.stop_with(Signal::TERM, &Checks::default())
    }

    /// Stops it with a signal and reads what it left.
    pub(crate) fn stop_with(mut self, signal: Signal, checks: &Checks) -> Log {
        self.signal(signal);
        let status = self.wait();
        assert!(
            status.code() == Some(0),
            "exit 0 was expected after {signal:?}, not {status}; standard error:\n{}",
            self.stderr()
        );
        let log = Log::read(&self.directory, self.stderr());
        log.verify(checks);
        log
    }

    /// Stops it with SIGTERM, however it then ends.
    pub(crate) fn end(mut self) -> (Ended, Launch) {
        self.signal(Signal::TERM);
        let status = self.wait();
        let stdout = std::fs::read_to_string(self.home.path().join("stdout"));
        let ended = Ended {
            code: status.code(),
            stdout: stdout.expect("its output"),
            stderr: self.stderr(),
        };
        let next = self.next();
        (ended, next)
    }

    /// A launch in the same directories.
    fn next(&mut self) -> Launch {
        Launch {
            home: std::mem::replace(&mut self.home, open_directory()),
            directory: self.directory.clone(),
            wrapper: Vec::new(),
            arguments: Vec::new(),
            user: None,
        }
    }

    /// Waits until standard error holds this.
    pub(crate) fn wait_for_message(&mut self, text: &str) {
        let name = self.home.path().to_path_buf();
        let notify = Tail::new(&name);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.stderr().contains(text) {
            assert!(
                std::time::Instant::now() < deadline,
                "{text:?} was expected in the recorder's standard error:\n{}",
                self.stderr()
            );
            notify.wait_for_a_change(&self.pidfd, || self.stderr().contains(text));
        }
    }

    /// Waits until there are so many log sets.
    pub(crate) fn wait_for_sets(&mut self, count: usize) {
        self.tail.wait_for_sets(&self.pidfd, count);
    }

    /// Kills it and reads what it left, unchecked. The directory goes on
    /// living in the launch that is given back, for the next recorder.
    pub(crate) fn kill(mut self) -> (Log, Launch) {
        self.signal(Signal::KILL);
        let status = self.wait();
        assert!(
            status.signal() == Some(9),
            "it ended before it was killed: {status}"
        );
        let log = Log::read(&self.directory, self.stderr());
        let next = self.next();
        (log, next)
    }

    fn wait(&mut self) -> ExitStatus {
        let ready = wait(&[&self.pidfd], PATIENCE);
        assert!(
            !ready.is_empty(),
            "the recorder does not end; its standard error:\n{}",
            self.stderr()
        );
        self.ended = true;
        self.child.wait().expect("a child can be waited for")
    }
}

/// How a recorder ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The socket that is closed with this line.
fn closed_by(line: &Value) -> Option<&str> {
    (line["event"] == "close").then(|| line["socket"].as_str())?
}
