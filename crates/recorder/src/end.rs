//! The end of a recording: in order, and in any case.
//!
//! The kernel side is told to make no more events, those that it has made are
//! written, and then the books can be closed. All this needs the inspector, which
//! may be away for a look. It is waited for, but not for ever: who manages services kills
//! what does not end, and then the set would not even be closed.

use std::time::{Duration, Instant};

use logs::RollReason;

use crate::capture::Message;
use crate::clock::Anchor;
use crate::recorder::Recorder;
use crate::sink::Sink;
use crate::{Error, Summary};

/// How long a look that is under way at the end may take.
const LAST_LOOK: Duration = Duration::from_mins(1);

/// For how long events are still taken where their making cannot be stopped.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl<S: Sink> Recorder<'_, S> {
    /// Waits until a look that is under way is over; not for ever, for the
    /// kernel may be in trouble, and not if it is told to stop once more. The
    /// stream may fail meanwhile.
    fn recall_inspector(&mut self) -> Option<Error> {
        let mut failure = None;
        let until = Instant::now() + LAST_LOOK;
        while self.inspector.is_none() && self.control.stops() < 2 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.messages.recv_timeout(left) {
                Ok(Message::Looked(inspector, snapshot)) => self.looked(inspector, snapshot),
                Ok(Message::Batch(batch)) => self.take(batch),
                Ok(Message::Failed(error)) => failure = Some(error.into()),
                Ok(Message::Roll) => self.roll_or_tell(RollReason::Request),
                Ok(Message::Stop | Message::Empty | Message::Drained) => {}
                Err(_) => break,
            }
        }
        failure
    }

    /// Ends it: what was made is written, the books are closed.
    pub(crate) fn finish(mut self, failure: Option<Error>) -> Result<Summary<S::End>, Error> {
        let failure = failure.or(self.recall_inspector());
        // Without the inspector the kernel side makes events as before.
        let mut until = Some(Instant::now() + LAST_WORDS);
        if let Some(inspector) = &mut self.inspector {
            inspector.detach();
            until = None;
        }
        self.capture.end();
        // A capture that failed is no longer there to be waited for.
        if failure.is_none() {
            while until.is_none_or(|until| Instant::now() < until) {
                match self.messages.recv_timeout(Duration::from_secs(10)) {
                    Ok(Message::Batch(batch)) => self.take(batch),
                    Ok(Message::Roll) => self.roll_or_tell(RollReason::Request),
                    Ok(Message::Stop | Message::Empty | Message::Looked(..)) => {}
                    Ok(Message::Drained | Message::Failed(_)) | Err(_) => break,
                }
            }
        }
        self.anchor = Anchor::now();
        let boot = self.anchor.boot_now();
        self.release_all();
        self.write_pids(true);
        if let Some(Ok(produced)) = self.inspector.as_mut().map(|it| it.produced()) {
            let losses = self.ledger.finish(&produced, boot);
            self.declare(&losses, self.loss_reason);
        }
        self.count_unnumbered(boot);
        self.write_counters();
        let processes = self.state.processes.owners();
        let sockets = self.sockets;
        let now = self.anchor.wall_now();
        let mut counters = self.counters();
        let end = self.sink.end(now, &mut counters, self.events);
        // It may have more than anybody takes.
        drop(self.messages);
        self.capture.join();
        match failure {
            Some(error) => Err(error),
            None => Ok(Summary {
                counters,
                reconciled: self.reconciliation.total,
                sockets,
                processes,
                end,
            }),
        }
    }
}
