//! What goes to the screen, and to a log file beside it.
//!
//! The log file is the original PortQry's: a header that says when, where and
//! by which command it was made, then everything that the screen shows, then
//! an end mark. A file that has no end mark was not finished. It is written as
//! the screen is, line by line, so that it holds what was seen until something
//! went wrong.
//!
//! A screen that is gone (the reader of a pipe ended) stops nothing as long as
//! there is a log file; a log file that cannot be written is told of once, at
//! the end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use event::{WallTime, text};
use jiff::tz::TimeZone;
use logs::format::clock::LocalClock;

use crate::host;

/// The last line of a log file.
const END: &str = "========= end of log file =========";

/// Why there is no log file, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// It is there, and the user wants to keep it.
    #[error("the log file {} is there already and stays as it is (-y overwrites it)", .0.display())]
    Kept(PathBuf),
    /// It cannot be made: the path's or the permissions' fault.
    #[error("cannot create the log file {}", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It cannot be written: the disk's fault.
    #[error("cannot write the log file {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The screen and the log file, either of which may be missing.
pub(crate) struct Tee {
    screen: Option<Box<dyn Write + Send>>,
    log: Option<Log>,
    clock: LocalClock,
    /// The screen is gone.
    broken: Option<io::Error>,
    failed: Option<LogError>,
}

struct Log {
    file: Box<dyn Write + Send>,
    path: PathBuf,
    /// It has a header and an end mark.
    is_framed: bool,
}

impl Tee {
    /// Standard output alone.
    pub(crate) fn screen() -> Self {
        Self::to(Some(Box::new(io::stdout())))
    }

    /// Nothing; a log file may be added.
    pub(crate) fn quiet() -> Self {
        Self::to(None)
    }

    fn to(screen: Option<Box<dyn Write + Send>>) -> Self {
        Self {
            screen,
            log: None,
            clock: LocalClock::new(TimeZone::system()),
            broken: None,
            failed: None,
        }
    }

    /// Only what is kept in memory, for tests.
    #[cfg(test)]
    pub(crate) fn into_memory(memory: &Memory) -> Self {
        let mut tee = Self::to(Some(Box::new(memory.clone())));
        tee.clock.set_zone(TimeZone::UTC);
        tee
    }

    /// Begins a log file, with the original's header.
    pub(crate) fn log_to(
        &mut self,
        path: &Path,
        overwrite: bool,
        command: &str,
    ) -> Result<(), LogError> {
        self.open(path, overwrite, true)?;
        let mut header = b"PortQry Version 2.0 Log File\n\nSystem Date: ".to_vec();
        self.clock.push_ctime(&mut header, recorder::wall_now());
        let command = text::escape(command);
        let host = host::name();
        let host = text::escape(&host);
        let rest = format!("\n\nCommand run:\n {command}\n\nLocal computer name:\n\n {host}\n\n");
        header.extend_from_slice(rest.as_bytes());
        self.write_log(&header);
        Ok(())
    }

    /// Begins a log file that has what the screen shows and nothing else.
    pub(crate) fn copy_to(&mut self, path: &Path, overwrite: bool) -> Result<(), LogError> {
        self.open(path, overwrite, false)
    }

    fn open(&mut self, path: &Path, overwrite: bool, is_framed: bool) -> Result<(), LogError> {
        let created = OpenOptions::new().write(true).create_new(true).open(path);
        let opened = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !overwrite && !may_overwrite(path) {
                    return Err(LogError::Kept(path.to_owned()));
                }
                File::create(path)
            }
            created => created,
        };
        let file = opened.map_err(|source| LogError::Create {
            path: path.to_owned(),
            source,
        })?;
        self.log = Some(Log {
            file: Box::new(file),
            path: path.to_owned(),
            is_framed,
        });
        Ok(())
    }

    /// One line. What could act on a terminal is escaped.
    pub(crate) fn line(&mut self, line: &str) {
        let mut line = text::escape(line).into_owned();
        line.push('\n');
        self.bytes(line.as_bytes());
    }

    /// A line about something that went wrong: shown also where nothing else
    /// is.
    pub(crate) fn error(&mut self, line: &str) {
        if self.screen.is_none() && self.broken.is_none() {
            // Nobody may be listening any more.
            let _ = writeln!(io::stderr(), "{}", text::escape(line));
        }
        self.line(line);
    }

    /// A line that the screen has already.
    pub(crate) fn log_only(&mut self, line: &str) {
        let mut line = text::escape(line).into_owned();
        line.push('\n');
        self.write_log(line.as_bytes());
    }

    /// An empty line.
    pub(crate) fn blank(&mut self) {
        self.bytes(b"\n");
    }

    /// A line of the moment.
    pub(crate) fn date(&mut self, now: WallTime) {
        let mut line = b"System Date: ".to_vec();
        self.clock.push_ctime(&mut line, now);
        line.push(b'\n');
        self.bytes(&line);
    }

    /// Whole lines that are safe to be shown.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if let Some(screen) = &mut self.screen
            && let Err(error) = screen.write_all(bytes).and_then(|()| screen.flush())
        {
            self.broken = Some(error);
            self.screen = None;
        }
        self.write_log(bytes);
    }

    fn write_log(&mut self, bytes: &[u8]) {
        if let Some(log) = &mut self.log
            && let Err(source) = log.file.write_all(bytes)
        {
            let path = log.path.clone();
            self.failed = Some(LogError::Write { path, source });
            self.log = None;
        }
    }

    /// Is there nobody left to write for?
    pub(crate) fn is_pointless(&self) -> bool {
        self.log.is_none() && self.broken.is_some()
    }

    /// The end: the log file gets its end mark.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        if self.log.as_ref().is_some_and(|log| log.is_framed) {
            self.write_log(format!("\n\n{END}\n").as_bytes());
        }
        if let Some(failed) = self.failed {
            return Err(failed.into());
        }
        match self.broken {
            Some(error) if self.log.is_none() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Asks whether a file may be overwritten. No answer is no.
fn may_overwrite(path: &Path) -> bool {
    let mut answers = io::stdin().lock();
    loop {
        let path = path.to_string_lossy();
        let path = text::escape(&path);
        let mut screen = io::stdout();
        // Whoever cannot see the question will not answer it.
        let _ = write!(
            screen,
            "The log file {path} is there already.\nOverwrite it? (y/n) "
        );
        let _ = screen.flush();
        let mut answer = String::new();
        match answers.read_line(&mut answer) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return true,
            "n" | "no" => return false,
            _ => {}
        }
    }
}

/// What was written, for tests.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Memory(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Memory {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_a_header_and_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let memory = Memory::default();
        let mut tee = Tee::into_memory(&memory);
        tee.log_to(&path, false, "portqry -n h\u{1b}").unwrap();
        tee.line("a \u{1b}[2J line");
        tee.finish().unwrap();
        assert_eq!(memory.text(), "a \\x1b[2J line\n");
        let log = std::fs::read_to_string(&path).unwrap();
        let mut lines = log.lines();
        assert_eq!(lines.next(), Some("PortQry Version 2.0 Log File"));
        assert!(lines.nth(1).unwrap().starts_with("System Date: "));
        assert!(log.contains("\n\nCommand run:\n portqry -n h\\x1b\n\nLocal computer name:\n\n "));
        assert!(log.ends_with("\n\na \\x1b[2J line\n\n\n========= end of log file =========\n"));
    }

    #[test]
    fn a_log_that_is_there_is_overwritten_if_that_was_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "what was there before\n".repeat(100)).unwrap();
        let mut tee = Tee::quiet();
        tee.copy_to(&path, true).unwrap();
        tee.line("new");
        tee.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn a_disk_that_is_full_is_told_of_at_the_end() {
        let memory = Memory::default();
        let mut tee = Tee::into_memory(&memory);
        tee.log_to(Path::new("/dev/full"), true, "portqry").unwrap();
        tee.line("shown");
        let error = tee.finish().unwrap_err();
        assert_eq!(memory.text(), "shown\n");
        assert_eq!(error.to_string(), "cannot write the log file /dev/full");
    }
}
