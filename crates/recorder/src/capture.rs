//! The thread that empties the kernel's buffer.
//!
//! It does nothing else, so that a disk that blocks does not make the kernel's
//! buffer overflow: batches wait in a bounded queue, and only when that is full
//! does the kernel lose events, which it numbers and the ledger declares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use sensor::{Error, Inspector, Observation, Snapshot, Stream};

/// How many batches may wait.
const WAITING: usize = 16;

/// How long the thread sleeps when nothing happens: how long a stop takes.
const SLEEP: Duration = Duration::from_millis(250);

/// The nice value of the thread.
const URGENT: i32 = -15;

/// What reaches the recorder's thread.
pub(crate) enum Message {
    /// Observations, in order.
    Batch(Vec<Observation>),
    /// The stream failed; nothing more will come.
    Failed(Error),
    /// The kernel's buffer was empty after [`Capture::ask`].
    Empty,
    /// The stream was asked to end and is empty.
    Drained,
    /// A look at the kernel's sockets was taken by the inspector.
    Looked(Box<dyn Inspector>, Result<Snapshot, Error>),
    /// Open a new set.
    Roll,
    /// Stop recording.
    Stop,
}

/// The running thread.
pub(crate) struct Capture {
    ending: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    empty: SyncSender<Vec<Observation>>,
}

impl Capture {
    /// Starts it.
    pub(crate) fn start(
        mut stream: Box<dyn Stream>,
        to: SyncSender<Message>,
    ) -> std::io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let (empty, emptied) = sync_channel(WAITING);
        let is_ending = Arc::clone(&ending);
        let asked = Arc::new(AtomicBool::new(false));
        let is_asked = Arc::clone(&asked);
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || {
                // It has little to do but must do it in time: on a busy machine the
                // kernel's buffer fills within a tenth of a second. Not permitted
                // without privileges, and no harm then.
                let _ = rustix::process::setpriority_process(None, URGENT);
                run(stream.as_mut(), &to, &emptied, &is_ending, &is_asked);
            })?;
        Ok(Self {
            ending,
            asked,
            thread,
            empty,
        })
    }

    /// A queue of the right length for it.
    pub(crate) fn queue() -> (SyncSender<Message>, Receiver<Message>) {
        sync_channel(WAITING)
    }

    /// Gives a batch back, to be filled again.
    pub(crate) fn recycle(&self, batch: Vec<Observation>) {
        // The thread has enough of them: this one is dropped.
        let _ = self.empty.try_send(batch);
    }

    /// Asks it to say once when the kernel's buffer is empty. On a busy machine
    /// that may be never.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Asks it to hand over what is left and end.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        // Its panic was already reported on standard error.
        let _ = self.thread.join();
    }
}

fn run(
    stream: &mut dyn Stream,
    to: &SyncSender<Message>,
    emptied: &Receiver<Vec<Observation>>,
    is_ending: &AtomicBool,
    is_asked: &AtomicBool,
) {
    loop {
        let ending = is_ending.load(Ordering::Acquire);
        // Before the read: it is what was there when it was asked that counts.
        let asked = is_asked.load(Ordering::Acquire);
        let mut batch: Vec<Observation> = emptied.try_recv().unwrap_or_default();
        batch.clear();
        let timeout = if ending { Duration::ZERO } else { SLEEP };
        let message = match stream.read(&mut batch, timeout) {
            Ok(()) if batch.is_empty() && ending => Message::Drained,
            Ok(()) if batch.is_empty() && asked => {
                is_asked.store(false, Ordering::Release);
                Message::Empty
            }
            Ok(()) if batch.is_empty() => continue,
            Ok(()) => Message::Batch(batch),
            Err(error) => Message::Failed(error),
        };
        let is_last = matches!(message, Message::Drained | Message::Failed(_));
        // The recorder is gone: nothing is left to do.
        if to.send(message).is_err() || is_last {
            return;
        }
    }
}
