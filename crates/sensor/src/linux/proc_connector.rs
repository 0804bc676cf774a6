//! News of processes from the kernel: the proc connector.
//!
//! It is a netlink group (`NETLINK_CONNECTOR`, group `CN_IDX_PROC`) that begins
//! to speak when somebody asks it to and is silent again when all who asked
//! have taken that back. A datagram is a netlink message with a `cn_msg`
//! (index, value, sequence, acknowledgement: 4 bytes each; length and flags: 2
//! bytes each) and a `proc_event`:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | what happened, a bit |
//! | 4 | 4 | on which CPU |
//! | 8 | 8 | when, in nanoseconds since boot |
//! | 16 | 24 | to whom: numbers of threads and of their processes |
//!
//! The answer to a request is an event like the others (`PROC_EVENT_NONE`, with
//! an error number) that everyone hears; its acknowledgement is that of the
//! request plus one. There is none at all in a PID or user namespace other than
//! the first, where the numbers would mean nothing.
//!
//! An event names processes, not programs: who wants to know more has to look
//! at once ([`programs`](super::programs)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink;

use super::netlink::{Malformed, Reader, next_message};
use super::subscription::Subscription;
use crate::Error;

/// `CN_IDX_PROC` and `CN_VAL_PROC`.
const PROC: u32 = 1;
/// The group `CN_IDX_PROC`, as a bit.
const GROUP: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `PROC_CN_MCAST_IGNORE`.
const IGNORE: u32 = 2;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Something happened to a process. Threads are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessEvent {
    /// The answer to a request.
    Answer {
        /// The request's acknowledgement plus one.
        acknowledgement: u32,
        /// The error number; 0 if it was granted.
        error: u32,
    },
    /// A process was forked.
    Fork {
        /// By this one,
        parent: u32,
        /// and has this number.
        child: u32,
    },
    /// A process runs another program.
    Exec(u32),
    /// A process runs as another user.
    User(u32),
    /// A process is gone.
    Exit(u32),
}

/// Reads a datagram and calls `each` with every event in it that is of use.
pub(crate) fn decode(datagram: &[u8], mut each: impl FnMut(ProcessEvent)) -> Result<(), Malformed> {
    let mut reader = Reader::new(datagram);
    while let Some(message) = next_message(&mut reader)? {
        let news = News::read(message.payload).ok_or(Malformed)?;
        if let Some(event) = news.event() {
            each(event);
        }
    }
    Ok(())
}

/// The parts of an event that are used here.
struct News {
    id: (u32, u32),
    acknowledgement: u32,
    what: u32,
    /// Four numbers, whose meaning depends on what happened.
    whom: [u32; 4],
}

impl News {
    fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let id = (reader.u32()?, reader.u32()?);
        let _sequence = reader.u32()?;
        let acknowledgement = reader.u32()?;
        let length = usize::from(reader.u16()?);
        let _flags = reader.u16()?;
        let mut event = Reader::new(reader.take(length)?);
        let what = event.u32()?;
        let _cpu_and_time = event.take(12)?;
        let whom = [event.u32()?, event.u32()?, event.u32()?, event.u32()?];
        Some(Self {
            id,
            acknowledgement,
            what,
            whom,
        })
    }

    fn event(&self) -> Option<ProcessEvent> {
        if self.id != (PROC, PROC) {
            return None;
        }
        let [first, second, third, fourth] = self.whom;
        match self.what {
            0 => Some(ProcessEvent::Answer {
                acknowledgement: self.acknowledgement,
                error: first,
            }),
            // The first thread of a process has the number of the process.
            0x1 => (third == fourth).then_some(ProcessEvent::Fork {
                parent: second,
                child: fourth,
            }),
            // Whichever thread calls it, it is the first thread afterwards.
            0x2 => Some(ProcessEvent::Exec(second)),
            0x4 => (first == second).then_some(ProcessEvent::User(second)),
            0x8000_0000 => (first == second).then_some(ProcessEvent::Exit(second)),
            _ => None,
        }
    }
}

/// A request to speak or to be silent.
fn encode(operation: u32, acknowledgement: u32) -> Vec<u8> {
    /// `NLMSG_DONE`, as the connector wants it.
    const DONE: u16 = 3;
    /// The headers of netlink and of the connector, and one number.
    const LENGTH: u32 = 16 + 20 + 4;
    let mut message = Vec::with_capacity(40);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(DONE.to_ne_bytes());
    message.extend(0_u16.to_ne_bytes());
    message.extend([0; 8]);
    for number in [PROC, PROC, 0, acknowledgement] {
        message.extend(number.to_ne_bytes());
    }
    message.extend(4_u16.to_ne_bytes());
    message.extend(0_u16.to_ne_bytes());
    message.extend(operation.to_ne_bytes());
    message
}

/// A connector that speaks.
pub(crate) struct Connector {
    subscription: Subscription,
}

impl Connector {
    /// Asks it to speak, and waits for the answer.
    pub(crate) fn open(room: usize) -> Result<Self, Error> {
        let name = "the proc connector";
        let subscription = Subscription::open(name, netlink::CONNECTOR, GROUP, room)?;
        let request = std::process::id();
        subscription.send(&encode(LISTEN, request))?;
        // From here on it is asked to be silent in the end, whatever comes.
        let mut connector = Self { subscription };
        let refused = |source: io::Error| Error::System {
            what: format!("{name} does not answer"),
            source,
        };
        match connector.answer(request.wrapping_add(1))? {
            Some(0) => Ok(connector),
            Some(error) => Err(refused(io::Error::from_raw_os_error(
                i32::try_from(error).unwrap_or(0),
            ))),
            None => Err(refused(io::Error::new(
                io::ErrorKind::TimedOut,
                "it speaks only in the initial PID and user namespace",
            ))),
        }
    }

    fn answer(&mut self, expected: u32) -> Result<Option<u32>, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = None;
            self.receive(|event| {
                if let ProcessEvent::Answer {
                    acknowledgement,
                    error,
                } = event
                    && acknowledgement == expected
                {
                    answer = Some(error);
                }
            })?;
            let left = deadline.saturating_duration_since(Instant::now());
            if answer.is_some() || left.is_zero() {
                return Ok(answer);
            }
            let mut fds = [PollFd::new(&self.subscription, PollFlags::IN)];
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
    }

    /// Hands over what was told since the last time. Says whether there may be
    /// more at once.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(ProcessEvent)) -> Result<bool, Error> {
        let mut malformed = false;
        let more = self
            .subscription
            .receive(|datagram| malformed |= decode(datagram, &mut each).is_err())?;
        if malformed {
            return Err(Error::Protocol {
                what: "proc connector".to_owned(),
            });
        }
        Ok(more)
    }

    /// How many events were told and found no room.
    pub(crate) fn lost(&mut self) -> u64 {
        self.subscription.lost()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Kernels before 6.6 do not notice that nobody listens any more.
        let _ = self.subscription.send(&encode(IGNORE, 0));
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event as the kernel makes it.
    fn event(acknowledgement: u32, what: u32, whom: &[u32]) -> Vec<u8> {
        let mut bytes = encode(what, acknowledgement);
        bytes.extend([0; 12]);
        for number in whom {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.resize(76, 0);
        bytes[..4].copy_from_slice(&76_u32.to_ne_bytes());
        bytes[32..34].copy_from_slice(&40_u16.to_ne_bytes());
        bytes
    }

    fn read(datagram: &[u8]) -> Vec<ProcessEvent> {
        let mut events = Vec::new();
        decode(datagram, |event| events.push(event)).unwrap();
        events
    }

    #[test]
    fn reads_what_happens_to_processes() {
        use ProcessEvent::{Answer, Exec, Exit, Fork, User};
        let answer = Answer {
            acknowledgement: 6,
            error: 1,
        };
        assert_eq!(read(&event(6, 0, &[1])), [answer]);
        let fork = Fork {
            parent: 5,
            child: 9,
        };
        assert_eq!(read(&event(0, 1, &[7, 5, 9, 9])), [fork]);
        assert_eq!(read(&event(0, 2, &[9, 9])), [Exec(9)]);
        assert_eq!(read(&event(0, 4, &[9, 9, 0, 0])), [User(9)]);
        assert_eq!(read(&event(0, 0x8000_0000, &[9, 9])), [Exit(9)]);
    }

    #[test]
    fn threads_are_left_out() {
        assert_eq!(read(&event(0, 1, &[5, 5, 10, 9])), []);
        assert_eq!(read(&event(0, 4, &[10, 9])), []);
        assert_eq!(read(&event(0, 0x8000_0000, &[10, 9])), []);
    }

    #[test]
    fn what_is_of_no_use_or_not_of_processes_is_left_out() {
        assert_eq!(read(&event(0, 0x200, &[9, 9])), []);
        let mut other = event(0, 2, &[9, 9]);
        other[16] = 2;
        assert_eq!(read(&other), []);
    }

    #[test]
    fn a_length_that_lies_is_malformed() {
        let mut bytes = event(0, 2, &[9, 9]);
        bytes[32..34].copy_from_slice(&41_u16.to_ne_bytes());
        assert_eq!(decode(&bytes, |_| ()), Err(Malformed));
        bytes[32..34].copy_from_slice(&8_u16.to_ne_bytes());
        assert_eq!(decode(&bytes, |_| ()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&bytes, |_| ());
        }

        #[test]
        fn every_fork_is_read(parent: u32, child: u32) {
            let bytes = event(0, 1, &[parent, parent, child, child]);
            prop_assert_eq!(read(&bytes), [ProcessEvent::Fork { parent, child }]);
        }
    }
}
