//! What is said beside the changes, on standard error: what cannot be seen,
//! what was lost, what was put right.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use event::{Degradation, text};
use logs::{Notice, SetOpened};
use recorder::{Error, Events, Reconciled, Status};

/// Standard error.
#[derive(Default)]
pub(super) struct Notes {
    said: BTreeSet<String>,
}

impl Events for Notes {
    fn status(&mut self, _status: &Status) {}

    fn opened(&mut self, _directory: &Path, _set: &SetOpened) {}

    fn not_opened(&mut self, _directory: &Path, _error: &Error) {}

    fn notice(&mut self, _notice: &Notice) {}

    fn degraded(&mut self, degradation: &Degradation) {
        let message = format!("not everything can be seen: {degradation}");
        if self.said.insert(message.clone()) {
            say(&message);
        }
    }

    fn lost(&mut self, events: u64, reason: &str) {
        say(&format!("the kernel dropped {events} events: {reason}"));
    }

    fn reconciled(&mut self, found: &Reconciled, _explained: bool) {
        say(&format!(
            "the table of sockets differed from the kernel's and was put right: {} were missing, \
             {} were no longer there",
            found.discovered, found.vanished
        ));
    }
}

fn say(message: &str) {
    let message = text::escape(message);
    // Nobody may be listening any more; watching goes on.
    let _ = writeln!(std::io::stderr(), "portreporter: {message}");
}
