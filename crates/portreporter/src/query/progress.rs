//! How far a scan is, on a terminal's standard error.
//!
//! It has a thread of its own: while a scan waits for ports that are silent
//! there is no verdict on which it could draw a line.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use probe::{Status, Verdict};

/// What is over sooner needs no progress.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line is drawn.
const INTERVAL: Duration = Duration::from_millis(200);
/// Columns of the bar.
const BAR: u64 = 20;

/// A line that is drawn until [`Progress::end`].
pub(super) struct Progress {
    begun: Instant,
    counts: Arc<Counts>,
    line: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Counts {
    all: u64,
    asked: AtomicU64,
    listening: AtomicU64,
}

impl Progress {
    /// Begins with `all` ports to be asked.
    pub(super) fn begin(all: u64) -> Self {
        let begun = Instant::now();
        let counts = Arc::new(Counts {
            all,
            asked: AtomicU64::new(0),
            listening: AtomicU64::new(0),
        });
        let line = io::stderr().is_terminal().then(|| {
            let (end, ended) = mpsc::channel();
            let counts = Arc::clone(&counts);
            let draw = move || {
                let mut wait = PATIENCE;
                let mut is_drawn = false;
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
                    let line = counts.line(begun.elapsed());
                    let columns = rustix::termios::tcgetwinsize(io::stderr())
                        .map_or(80, |size| usize::from(size.ws_col).max(20));
                    let line: String = line.chars().take(columns - 1).collect();
                    // Nothing can be done about a standard error that is closed.
                    let _ = write!(io::stderr(), "\r{line}\x1b[K");
                    is_drawn = true;
                    wait = INTERVAL;
                }
                if is_drawn {
                    let _ = write!(io::stderr(), "\r\x1b[K");
                }
            };
            let thread = thread::Builder::new().name("progress".to_owned());
            thread.spawn(draw).ok().map(|thread| (end, thread))
        });
        Self {
            begun,
            counts,
            line: line.flatten(),
        }
    }

    /// Another port is known.
    pub(super) fn count(&self, verdict: &Verdict) {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        if verdict.status == Status::Listening {
            self.counts.listening.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes the line; says how long it all took.
    pub(super) fn end(self) -> Duration {
        let took = self.begun.elapsed();
        if let Some((end, thread)) = self.line {
            drop(end);
            // Were there a panic in it, it has been told.
            let _ = thread.join();
        }
        took
    }
}

impl Counts {
    fn line(&self, took: Duration) -> String {
        let asked = self.asked.load(Ordering::Relaxed);
        let listening = self.listening.load(Ordering::Relaxed);
        let all = self.all.max(1);
        let full = usize::try_from(asked.min(all) * BAR / all).unwrap_or(0);
        let bar = format!("{:<20}", "#".repeat(full));
        let percent = asked.min(all) * 100 / all;
        let left = match left(asked, all, took) {
            Some(left) => format!("  {} s left", left.as_secs()),
            None => String::new(),
        };
        format!("[{bar}] {percent:>3} %  {asked} of {all} ports  {listening} listening{left}")
    }
}

/// How long it will take yet, if it goes on like this.
fn left(asked: u64, all: u64, took: Duration) -> Option<Duration> {
    let left = all.checked_sub(asked)?;
    let nanos = took.as_nanos().checked_mul(left.into())?;
    let nanos = nanos.checked_div(asked.into())?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_from_what_is_done() {
        let took = Duration::from_secs(10);
        assert_eq!(left(0, 100, took), None);
        assert_eq!(left(25, 100, took), Some(Duration::from_secs(30)));
        assert_eq!(left(100, 100, took), Some(Duration::ZERO));
        assert_eq!(left(101, 100, took), None);
        assert_eq!(left(1, u64::MAX, Duration::MAX), None);
    }

    #[test]
    fn the_line_says_how_far_it_is() {
        let counts = Counts {
            all: 200,
            asked: AtomicU64::new(100),
            listening: AtomicU64::new(3),
        };
        assert_eq!(
            counts.line(Duration::from_secs(7)),
            "[##########          ]  50 %  100 of 200 ports  3 listening  7 s left"
        );
    }
}
