//! What `record` shows while it runs: a live status line on a terminal, and
//! the application events on standard error.
//!
//! The application events have numbers ([`Event`]); a system's log takes them
//! where there is one to take them, and standard error shows them always.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use event::{Degradation, text};
use logs::{Notice, SetOpened};
use recorder::{Error, Events, Reconciled, Status};

/// The numbers of the application events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Event {
    Started = 100,
    Stopped = 101,
    Opened = 102,
    NotOpened = 103,
    WriteFailed = 104,
    WriteWorks = 105,
    NoMapping = 106,
    LesserEngine = 107,
    Lost = 108,
    NotStarted = 110,
    Removed = 111,
    Failure = 112,
}

/// Standard output and standard error.
pub(crate) struct Terminal {
    is_live: bool,
    is_line_shown: bool,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self {
            is_live: std::io::stdout().is_terminal(),
            is_line_shown: false,
        }
    }

    /// Recording begins with this engine.
    pub(crate) fn started(&mut self, engine: &str) {
        self.say(
            Event::Started,
            format!("The Port Reporter service was started. (engine {engine})"),
        );
    }

    /// Recording cannot begin.
    pub(crate) fn not_started(&mut self, error: &dyn std::error::Error) {
        let why = with_causes(error);
        self.say(
            Event::NotStarted,
            format!("The Port Reporter service could not start: {why}"),
        );
    }

    /// Recording cannot go on.
    pub(crate) fn failed(&mut self, error: &dyn std::error::Error) {
        self.say(Event::Failure, with_causes(error));
    }

    /// Recording is over.
    pub(crate) fn stopped(&mut self) {
        self.say(Event::Stopped, "The Port Reporter service was stopped.");
    }

    /// A better engine cannot be used.
    pub(crate) fn lesser_engine(&mut self, degradation: &Degradation) {
        self.say(Event::LesserEngine, degradation);
    }

    fn say(&mut self, event: Event, message: impl Display) {
        self.clear();
        let message = message.to_string();
        // Nobody may be listening any more; recording goes on.
        let _ = writeln!(
            std::io::stderr(),
            "portreporter: event {}: {}",
            event as u16,
            text::escape(&message)
        );
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_line_shown) {
            let _ = write!(std::io::stdout(), "\r\x1b[K");
            let _ = std::io::stdout().flush();
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Events for Terminal {
    fn status(&mut self, status: &Status) {
        if !self.is_live {
            return;
        }
        let set = status.set.map(|set| set.to_string()).unwrap_or_default();
        let line = format!(
            "{} ports in use  {} events/s  {} lost  set {set}",
            status.ports, status.events_a_second, status.lost
        );
        let width = rustix::termios::tcgetwinsize(std::io::stdout())
            .map_or(80, |size| usize::from(size.ws_col).max(20));
        let line: String = line.chars().take(width - 1).collect();
        let mut out = std::io::stdout();
        let _ = write!(out, "\r{line}\x1b[K");
        let _ = out.flush();
        self.is_line_shown = true;
    }

    fn opened(&mut self, directory: &Path, set: &SetOpened) {
        let before = match (&set.previous, &set.previous_sha256) {
            (Some(previous), Some(hash)) => format!(", the set before is {previous} {hash}"),
            _ => String::new(),
        };
        let message = format!(
            "The Port Reporter service successfully created log files in the following \
             directory: {} (set {}{before})",
            directory.display(),
            set.stamp
        );
        self.say(Event::Opened, message);
    }

    fn not_opened(&mut self, directory: &Path, error: &Error) {
        let message = format!(
            "log files could not be created in {}: {}; the set before is still in use, and it \
             is tried again",
            directory.display(),
            with_causes(error)
        );
        self.say(Event::NotOpened, message);
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Recovered { set, torn_bytes } => self.say(
                Event::Failure,
                format!(
                    "the set {set} was not closed by the run before; it is kept, \
                     {torn_bytes} bytes of an unfinished line were cut off"
                ),
            ),
            Notice::Removed { set, bytes } => self.say(
                Event::Removed,
                format!("the log set {set} ({bytes} bytes) was removed by retention"),
            ),
            Notice::NotRemoved { set, error } => self.say(
                Event::Failure,
                format!("the log set {set} cannot be removed: {error}"),
            ),
            Notice::NotCompressed { path, error } => self.say(
                Event::Failure,
                format!("{} stays uncompressed: {error}", path.display()),
            ),
            Notice::WriteFailed { path, error } => self.say(
                Event::WriteFailed,
                format!(
                    "writing {} failed: {error}; recording goes on in memory, and what is \
                     lost is counted",
                    path.display()
                ),
            ),
            Notice::Gone { path, deleted } => {
                let (what, then) = if *deleted {
                    (
                        "was deleted",
                        "what was written to it is lost and counted; ",
                    )
                } else {
                    ("was moved away", "")
                };
                self.say(
                    Event::WriteFailed,
                    format!(
                        "{} {what} while it was being written; {then}a new log set is opened",
                        path.display()
                    ),
                );
            }
            Notice::Unfinished {
                set,
                events,
                rows,
                error,
            } => self.say(
                Event::WriteFailed,
                format!(
                    "{error}; {events} events and {rows} rows of the classic files are missing \
                     at the end of the set {set}, and lost"
                ),
            ),
            Notice::WriteWorks { lost, rows_lost } => self.say(
                Event::WriteWorks,
                format!(
                    "writing works again; {lost} events and {rows_lost} rows of the classic \
                     files were lost"
                ),
            ),
        }
    }

    fn degraded(&mut self, degradation: &Degradation) {
        self.say(Event::NoMapping, degradation);
    }

    fn lost(&mut self, events: u64, reason: &str) {
        self.say(
            Event::Lost,
            format!("the kernel dropped {events} events: {reason}"),
        );
    }

    fn reconciled(&mut self, found: &Reconciled, explained: bool) {
        let why = if explained {
            "events about them were lost"
        } else {
            "no loss of events explains it"
        };
        self.say(
            Event::Lost,
            format!(
                "the table of sockets differed from the kernel's and was put right: \
                 {} were missing, {} were no longer there; {why}",
                found.discovered, found.vanished
            ),
        );
    }
}
