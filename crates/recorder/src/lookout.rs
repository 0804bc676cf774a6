//! The thread that looks at the kernel's sockets while events go on.
//!
//! It is started with the recording and not when a look is due: where so much
//! happens that no further thread can be started, looks are needed most.
//!
//! The inspector goes to it and comes back with what it saw, whatever happened
//! on the way. Without it nothing could be counted any more, and the kernel
//! side could not be told to stop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, SyncSender, channel};

use sensor::{Error, Inspector};

use crate::capture::Message;

/// The running thread. It ends with the recording.
pub(crate) struct Lookout {
    inspectors: Sender<Box<dyn Inspector>>,
}

impl Lookout {
    /// Starts it; what it saw comes as [`Message::Looked`].
    pub(crate) fn start(to: SyncSender<Message>) -> std::io::Result<Self> {
        let (inspectors, sent) = channel::<Box<dyn Inspector>>();
        std::thread::Builder::new()
            .name("look".to_owned())
            .spawn(move || {
                for mut inspector in sent {
                    let look = catch_unwind(AssertUnwindSafe(|| inspector.snapshot()));
                    // Its panic was already reported on standard error.
                    let snapshot = look.unwrap_or_else(|_| {
                        Err(Error::System {
                            what: "looking at the sockets".to_owned(),
                            source: std::io::Error::other("the look panicked"),
                        })
                    });
                    // The recorder is gone: nobody waits for it.
                    if to.send(Message::Looked(inspector, snapshot)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { inspectors })
    }

    /// Takes a look; gives the inspector back if the thread is not there.
    pub(crate) fn look(&self, inspector: Box<dyn Inspector>) -> Option<Box<dyn Inspector>> {
        self.inspectors.send(inspector).err().map(|unsent| unsent.0)
    }
}
