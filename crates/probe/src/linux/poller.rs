//! Waits for many sockets at once (`epoll(7)`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::io::Errno;

/// How many sockets are told of at a time.
const BATCH: usize = 512;

/// Waits for sockets to become writable (a connection is made), readable, or
/// to have an error. A closed socket leaves by itself.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(BATCH),
        })
    }

    /// Tells of `socket` by `token`: of what it receives, and if `connects`,
    /// when it is connected.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64, connects: bool) -> io::Result<()> {
        // An error is always told.
        let wanted = if connects {
            epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, socket, data, wanted)?)
    }

    /// Waits at most `timeout` and gives the tokens of the sockets to look at.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Vec<u64>> {
        self.events.clear();
        let timeout = Timespec::try_from(timeout).ok();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.events.iter().map(|event| event.data.u64()).collect())
    }
}
