//! Plays scenarios as processes of their own and collects what they say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::Serialize;

use super::bill::Cost;
use super::traffic;
use crate::load::scenarios::fact::{Fact, Said};
use crate::load::scenarios::{self, When};

/// How long a scenario may take.
const LIMIT: Duration = Duration::from_mins(10);

/// A scenario of either kind.
pub(super) struct Scenario {
    /// What it is called.
    pub(super) name: &'static str,
    /// When it runs.
    pub(super) when: When,
    /// The arguments of `traffic`; none for one of our own.
    traffic: Option<&'static [&'static str]>,
}

/// The programs that play.
pub(super) struct Programs {
    /// This one.
    pub(super) own: std::path::PathBuf,
    /// The other half of the end-to-end tests.
    pub(super) traffic: std::path::PathBuf,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// To the end.
    Done,
    /// This machine cannot show it, and why.
    Ignored(String),
    /// It did not do what it was to do, and why.
    Failed(String),
}

/// A scenario that is over.
pub(super) struct Played {
    /// What it is called.
    pub(super) name: &'static str,
    /// The truth.
    pub(super) facts: Vec<Fact>,
    /// How it went.
    pub(super) outcome: Outcome,
    /// When it began, in microseconds since 1970.
    pub(super) began: i64,
    /// When it ended.
    pub(super) ended: i64,
    /// What the watcher used meanwhile.
    pub(super) cost: Cost,
}

/// All scenarios, in the order in which they run.
pub(super) fn all() -> Vec<Scenario> {
    let basic = traffic::ALL.iter().map(|(name, arguments)| Scenario {
        name,
        when: traffic::when(name),
        traffic: Some(arguments),
    });
    let own = scenarios::ALL.iter().map(|scenario| Scenario {
        name: scenario.name,
        when: scenario.when,
        traffic: None,
    });
    basic.chain(own).collect()
}

/// A scenario that runs.
pub(super) struct Running {
    name: &'static str,
    traffic: bool,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    facts: Vec<Fact>,
    outcome: Outcome,
    began: i64,
    deadline: Instant,
}

/// How far a scenario has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It waits.
    Ready,
    /// It is over.
    End,
}

impl Running {
    /// Starts it.
    pub(super) fn start(
        scenario: &Scenario,
        programs: &Programs,
        smoke: bool,
    ) -> anyhow::Result<Self> {
        let mut command;
        if let Some(arguments) = scenario.traffic {
            command = Command::new(&programs.traffic);
            command.args(traffic::sized(arguments, smoke));
        } else {
            command = Command::new(&programs.own);
            command.args(["scenario", scenario.name]);
            if smoke {
                command.arg("--smoke");
            }
        }
        // Each has a process group, so that nothing of it outlives its end.
        let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{}: cannot be started", scenario.name))?;
        let input = child.stdin.take().context("no pipe")?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            name: scenario.name,
            traffic: scenario.traffic.is_some(),
            child,
            input,
            lines,
            facts: Vec::new(),
            outcome: Outcome::Done,
            began: now(),
            deadline: Instant::now() + LIMIT,
        })
    }

    /// Waits until it says that it is ready. What it has opened by then was
    /// there before the watcher, if `before`.
    pub(super) fn until_ready(&mut self, before: bool) -> anyhow::Result<()> {
        if self.read()? == Stop::End {
            bail!("{}: ended early", self.name);
        }
        for fact in &mut self.facts {
            fact.before = before;
        }
        Ok(())
    }

    /// Tells it to go on, if it waits, and waits until it has ended.
    pub(super) fn finish(mut self) -> anyhow::Result<Played> {
        // One that does not wait has gone, or never looks.
        let _ = self.input.write_all(b"go\n");
        while self.read()? == Stop::Ready {}
        let status = self.child.wait()?;
        if !status.success() && self.outcome == Outcome::Done {
            self.outcome = Outcome::Failed(status.to_string());
        }
        if self.facts.is_empty() && self.outcome == Outcome::Done {
            self.outcome = Outcome::Failed("it told nothing".to_owned());
        }
        Ok(Played {
            name: self.name,
            facts: std::mem::take(&mut self.facts),
            outcome: self.outcome.clone(),
            began: self.began,
            ended: now(),
            cost: Cost::default(),
        })
    }

    /// Reads up to the next stop.
    fn read(&mut self) -> anyhow::Result<Stop> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return Ok(Stop::End),
                Err(RecvTimeoutError::Timeout) => {
                    self.outcome = Outcome::Failed(format!("not over after {LIMIT:?}"));
                    self.kill();
                    return Ok(Stop::End);
                }
            };
            let said = if self.traffic {
                traffic::parse(self.name, &line)
            } else {
                serde_json::from_str(&line).map(Some).map_err(Into::into)
            };
            match said.with_context(|| format!("{}: {line}", self.name))? {
                Some(Said::Fact(fact)) => self.facts.push(*fact),
                Some(Said::Ready) => return Ok(Stop::Ready),
                // A child says why before its parent does.
                Some(Said::Ignored(why)) if self.outcome == Outcome::Done => {
                    self.outcome = Outcome::Ignored(why);
                }
                Some(Said::Ignored(_)) | None => {}
            }
        }
    }

    fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // It may have just ended.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// Microseconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// Where the programs are.
pub(super) fn programs(traffic: &Path) -> anyhow::Result<Programs> {
    Ok(Programs {
        own: std::env::current_exe()?,
        traffic: traffic.to_owned(),
    })
}
