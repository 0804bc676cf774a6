//! A netlink socket on which the kernel tells of its own accord.
//!
//! Whoever subscribes to a multicast group gets a datagram for every event,
//! for as long as there is room in the socket's buffer. What finds no room is
//! gone; the next read says so once (`ENOBUFS`), and the socket counts each of
//! them, which `SO_MEMINFO` tells. So a loss has a size here, and it is for the
//! reader of these events to declare it.
//!
//! Nothing here knows what the datagrams mean: see [`destroy`](super::destroy)
//! and [`proc_connector`](super::proc_connector).

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send,
    socket_with, sockopt,
};

use crate::Error;

/// No datagram of these groups is longer.
const BUFFER: usize = 64 * 1024;
/// So many datagrams are taken before the reader looks up from them.
const MOST: usize = 16 * 1024;
/// The counters of a socket (`SK_MEMINFO_*`); the last are those that found no
/// room.
const COUNTERS: usize = 9;

/// A subscription.
pub(crate) struct Subscription {
    /// What it is called in errors.
    name: &'static str,
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// The socket's counter of what found no room, when it was last read.
    dropped: u32,
    overran: bool,
}

impl Subscription {
    /// Subscribes to `groups` (a bit for each) of a netlink family, in the
    /// network namespace of the calling thread. The kernel may keep `room`
    /// bytes for us, or as many as it allows.
    pub(crate) fn open(
        name: &'static str,
        family: Protocol,
        groups: u32,
        room: usize,
    ) -> Result<Self, Error> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(family),
        )
        .map_err(|errno| failed("open", name, errno))?;
        // Beyond the system's limit only for those who may.
        if sockopt::set_socket_recv_buffer_size_force(&socket, room).is_err() {
            // What it has is less, not nothing.
            let _ = sockopt::set_socket_recv_buffer_size(&socket, room);
        }
        bind(&socket, &SocketAddrNetlink::new(0, groups))
            .map_err(|errno| failed("subscribe to", name, errno))?;
        Ok(Self {
            name,
            socket,
            buffer: vec![0; BUFFER],
            dropped: 0,
            overran: false,
        })
    }

    /// Sends a message to the kernel.
    pub(crate) fn send(&self, message: &[u8]) -> Result<(), Error> {
        match send(&self.socket, message, SendFlags::empty()) {
            Ok(_) => Ok(()),
            Err(errno) => Err(failed("write to", self.name, errno)),
        }
    }

    /// Hands over what waits, without waiting for more. Says whether there may
    /// be more at once.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<bool, Error> {
        for _ in 0..MOST {
            match recvfrom(
                &self.socket,
                self.buffer.as_mut_slice(),
                RecvFlags::DONTWAIT,
            ) {
                Ok((filled, _, sender)) => {
                    // Only the kernel is believed: it has the number 0.
                    let from_kernel = sender
                        .and_then(|sender| SocketAddrNetlink::try_from(sender).ok())
                        .is_some_and(|sender| sender.pid() == 0);
                    if from_kernel && let Some(datagram) = self.buffer.get(..filled) {
                        each(datagram);
                    }
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => self.overran = true,
                Err(errno) => return Err(failed("read from", self.name, errno)),
            }
        }
        Ok(true)
    }

    /// How many datagrams found no room since this was last asked; where the
    /// kernel does not count them, 1 stands for some.
    pub(crate) fn lost(&mut self) -> u64 {
        let overran = std::mem::take(&mut self.overran);
        match dropped(&self.socket) {
            Some(dropped) => {
                let before = std::mem::replace(&mut self.dropped, dropped);
                u64::from(dropped.wrapping_sub(before))
            }
            None => u64::from(overran),
        }
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket's counter of datagrams that found no room; none before Linux 4.12.
fn dropped(socket: &OwnedFd) -> Option<u32> {
    let mut counters = [0_u32; COUNTERS];
    let mut length = libc::socklen_t::try_from(size_of::<[u32; COUNTERS]>()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of
    // the array, and the descriptor is open for as long as it is borrowed.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            counters.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let whole = usize::try_from(length).is_ok_and(|length| length >= size_of_val(&counters));
    (outcome == 0 && whole)
        .then(|| counters.last().copied())
        .flatten()
}

fn failed(what: &str, name: &str, errno: Errno) -> Error {
    Error::System {
        what: format!("cannot {what} {name}"),
        source: errno.into(),
    }
}
