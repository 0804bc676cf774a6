//! Traffic and the truth about it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use super::traffic as program;

/// What the traffic program knows about a socket and its process.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fact {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) cookie: String,
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) ppid: u32,
    #[serde(default)]
    pub(crate) uid: u32,
    pub(crate) exe: Option<String>,
    pub(crate) cmdline: Option<String>,
    pub(crate) started: Option<f64>,
    pub(crate) netns: Option<u64>,
    #[serde(default)]
    pub(crate) protocol: String,
    pub(crate) local_ip: Option<String>,
    pub(crate) local_port: Option<u16>,
    pub(crate) remote_ip: Option<String>,
    pub(crate) remote_port: Option<u16>,
}

/// Everything that one run of the program said.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// When the program was started, in microseconds since 1970.
    pub(crate) began: u64,
    /// The lines as they came.
    pub(crate) lines: Vec<Value>,
}

impl Facts {
    /// The facts about sockets with this role.
    pub(crate) fn all(&self, role: &str) -> Vec<Fact> {
        self.lines
            .iter()
            .filter(|line| line["role"] == role)
            .map(|line| serde_json::from_value(line.clone()).expect("a fact"))
            .collect()
    }

    /// The fact about the one socket with this role.
    pub(crate) fn one(&self, role: &str) -> Fact {
        let mut all = self.all(role);
        assert!(all.len() == 1, "one {role} was expected: {:#?}", self.lines);
        all.remove(0)
    }

    /// The line with this role, whatever it holds.
    pub(crate) fn line(&self, role: &str) -> &Value {
        self.lines
            .iter()
            .find(|line| line["role"] == role)
            .unwrap_or_else(|| panic!("no {role}: {:#?}", self.lines))
    }

    /// The cookies of every socket.
    pub(crate) fn cookies(&self) -> Vec<&str> {
        self.lines
            .iter()
            .filter_map(|line| line["cookie"].as_str())
            .collect()
    }
}

/// A run of the traffic program.
pub(crate) struct Traffic {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    facts: Facts,
}

impl Traffic {
    /// Plays a scenario to its end.
    pub(crate) fn play(arguments: &[&str]) -> Facts {
        Self::start(arguments).finish()
    }

    /// Plays a scenario as another user.
    pub(crate) fn play_as(uid: u32, arguments: &[&str]) -> Facts {
        let mut command = Command::new(program());
        command.args(arguments).uid(uid).gid(uid);
        Self::spawn(command).finish()
    }

    /// Plays a scenario with another copy of the program.
    pub(crate) fn play_with(copy: &Path, arguments: &[&str]) -> Facts {
        Self::start_with(copy, arguments).finish()
    }

    /// Starts a scenario.
    pub(crate) fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        let mut command = Command::new(program());
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts a scenario with another copy of the program.
    pub(crate) fn start_with(copy: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(copy);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts a scenario as another user.
    pub(crate) fn start_as(uid: u32, arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(arguments).uid(uid).gid(uid);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let began = wall_micros();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the traffic program can be executed");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Self {
            child,
            stdin,
            stdout,
            facts: Facts {
                began,
                lines: Vec::new(),
            },
        }
    }

    /// Reads up to a line that is wanted.
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) {
        while let Some(line) = self.next_line() {
            if wanted(&line) {
                return;
            }
        }
        panic!("the traffic ended too early: {:#?}", self.facts.lines);
    }

    /// Reads up to the point where the program waits for the test; gives
    /// everything said so far.
    pub(crate) fn wait_until_ready(&mut self) -> Facts {
        self.wait_for(|line| line["ready"] == true);
        self.facts.clone()
    }

    /// Lets it go on, and reads to its end.
    pub(crate) fn finish(mut self) -> Facts {
        if let Some(mut stdin) = self.stdin.take() {
            // A scenario that waits for nobody may be gone.
            let _ = stdin.write_all(b"go\n");
        }
        while self.next_line().is_some() {}
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the traffic failed: {status}");
        self.facts.clone()
    }

    fn next_line(&mut self) -> Option<Value> {
        let mut text = String::new();
        if self
            .stdout
            .read_line(&mut text)
            .expect("its output can be read")
            == 0
        {
            return None;
        }
        let line: Value = serde_json::from_str(&text).expect("a line of JSON");
        self.facts.lines.push(line.clone());
        Some(line)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // Does nothing to one that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Microseconds since 1970.
pub(crate) fn wall_micros() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    u64::try_from(now.as_micros()).expect("a clock before 500,000")
}
