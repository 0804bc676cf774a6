//! The ring as a stream of observations.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::record;
use super::ring::Ring;
use crate::{Error, Observation, Stream};

/// How long events may gather before they are fetched. One wake-up then serves
/// many events, and the kernel side, which only wakes who sleeps, does so at most
/// once in this time.
const GATHER: Duration = Duration::from_millis(8);

/// How many records one read takes at most, so that the reader comes back to
/// its other duties in time also under a storm.
const BATCH: usize = 32 * 1024;

pub(super) struct RingStream {
    ring: Ring,
    last: Instant,
}

impl RingStream {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            last: Instant::now(),
        }
    }

    fn drain(&mut self, batch: &mut Vec<Observation>) -> Result<usize, Error> {
        let mut is_strange = false;
        let taken = self.ring.drain(BATCH, |bytes| match record::decode(bytes) {
            Some(observation) => batch.push(observation),
            None => is_strange = true,
        });
        if is_strange {
            return Err(Error::Protocol {
                what: "ring record".to_owned(),
            });
        }
        Ok(taken)
    }
}

impl Stream for RingStream {
    fn read(&mut self, batch: &mut Vec<Observation>, timeout: Duration) -> Result<(), Error> {
        if self.last.elapsed() < GATHER {
            std::thread::sleep(GATHER.saturating_sub(self.last.elapsed()));
        }
        if self.drain(batch)? == 0 && !timeout.is_zero() && self.ring.may_sleep() {
            let timeout = Timespec::try_from(timeout).ok();
            let mut ready = [PollFd::new(&self.ring, PollFlags::IN)];
            let woken = poll(&mut ready, timeout.as_ref());
            self.ring.wake();
            match woken {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(Error::System {
                        what: "waiting for the ring".to_owned(),
                        source: error.into(),
                    });
                }
            }
            self.drain(batch)?;
        }
        self.last = Instant::now();
        Ok(())
    }
}
