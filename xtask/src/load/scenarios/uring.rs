//! Socket calls that are no system calls: `io_uring` does them from a ring, in
//! the caller, in a worker of the kernel, or in a thread that polls the ring.
//!
//! The ring here is the least that works: one request at a time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use rustix::io_uring::{
    IoringEnterFlags, IoringOp, IoringSetupFlags, IoringSqeFlags, io_uring_cqe, io_uring_enter,
    io_uring_params, io_uring_ptr, io_uring_setup, io_uring_sqe, io_uring_user_data,
};

use super::fact::Fact;
use super::stage::{ANY_V4, address, listener, needs, read_to_the_end, tcp};

/// The offsets at which the kernel lets its rings be mapped.
const OFFSET_OF_RINGS: i64 = 0;
const OFFSET_OF_REQUESTS: i64 = 0x1000_0000;

/// In the caller, where the call does not block.
pub(super) fn inline() -> anyhow::Result<()> {
    converse(IoringSetupFlags::empty(), IoringSqeFlags::empty())
}

/// In workers of the kernel.
pub(super) fn workers() -> anyhow::Result<()> {
    converse(IoringSetupFlags::empty(), IoringSqeFlags::ASYNC)
}

/// In the kernel's thread that polls the ring.
pub(super) fn polled() -> anyhow::Result<()> {
    converse(IoringSetupFlags::SQPOLL, IoringSqeFlags::empty())
}

/// Connects, accepts and sends by ring.
fn converse(setup: IoringSetupFlags, how: IoringSqeFlags) -> anyhow::Result<()> {
    let mut ring = needs("io_uring", Ring::new(setup))?;
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let client = tcp(ANY_V4)?;
    ring.connect(&client, address(&listener)?, how)?;
    Fact::connect("client", &client)?.bytes(4, 0).tell()?;
    let server = ring.accept(&listener, how)?;
    Fact::accept("server", &server)?.bytes(0, 4).tell()?;
    ring.send(&client, b"ring", how)?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}

/// A ring of one request.
struct Ring {
    descriptor: OwnedFd,
    params: io_uring_params,
    rings: *mut u8,
    requests: *mut io_uring_sqe,
    polled: bool,
}

impl Ring {
    fn new(setup: IoringSetupFlags) -> io::Result<Self> {
        let mut params = io_uring_params::default();
        params.flags = setup;
        params.sq_thread_idle = 1000;
        // SAFETY: `params` has no pointers in it.
        let ring = unsafe { io_uring_setup(1, &mut params) }?;
        let queue = params.sq_off.array as usize + 4 * params.sq_entries as usize;
        let answers =
            params.cq_off.cqes as usize + size_of::<io_uring_cqe>() * params.cq_entries as usize;
        let rings = map(&ring, queue.max(answers), OFFSET_OF_RINGS)?;
        let requests = map(
            &ring,
            size_of::<io_uring_sqe>() * params.sq_entries as usize,
            OFFSET_OF_REQUESTS,
        )?;
        Ok(Self {
            descriptor: ring,
            params,
            rings,
            requests: requests.cast(),
            polled: setup.contains(IoringSetupFlags::SQPOLL),
        })
    }

    fn connect(
        &mut self,
        socket: &OwnedFd,
        to: SocketAddr,
        how: IoringSqeFlags,
    ) -> anyhow::Result<()> {
        let SocketAddr::V4(to) = to else {
            bail!("not an IPv4 address");
        };
        let mut name = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(to.ip().octets()),
            },
            sin_zero: [0; 8],
        };
        let mut request = request(IoringOp::Connect, socket.as_raw_fd(), how);
        request.addr_or_splice_off_in.addr = io_uring_ptr::new((&raw mut name).cast());
        request.off_or_addr2.off = size_of_val(&name) as u64;
        // The name outlives the request, which is waited for.
        self.submit(request).context("connect by ring")?;
        Ok(())
    }

    fn accept(&mut self, listener: &OwnedFd, how: IoringSqeFlags) -> anyhow::Result<OwnedFd> {
        let request = request(IoringOp::Accept, listener.as_raw_fd(), how);
        let descriptor = self.submit(request).context("accept by ring")?;
        // SAFETY: the kernel has just made it for this process.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    fn send(
        &mut self,
        socket: &OwnedFd,
        payload: &[u8],
        how: IoringSqeFlags,
    ) -> anyhow::Result<()> {
        let mut request = request(IoringOp::Send, socket.as_raw_fd(), how);
        let start = payload.as_ptr().cast_mut().cast();
        request.addr_or_splice_off_in.addr = io_uring_ptr::new(start);
        request.len.len = u32::try_from(payload.len())?;
        let sent = self.submit(request).context("send by ring")?;
        if usize::try_from(sent) != Ok(payload.len()) {
            bail!("{sent} bytes were sent");
        }
        Ok(())
    }

    /// Makes one request and waits for its answer.
    fn submit(&mut self, request: io_uring_sqe) -> io::Result<i32> {
        // SAFETY: the mapping holds at least one request, and none is pending.
        unsafe { self.requests.write(request) };
        let (queue, answers) = (&self.params.sq_off, &self.params.cq_off);
        let tail = self.counter(queue.tail);
        let next = tail.load(Ordering::Relaxed);
        // There is one entry, so its place in the array is 0.
        self.counter(queue.array).store(0, Ordering::Relaxed);
        tail.store(next.wrapping_add(1), Ordering::Release);
        let flags = if self.polled {
            IoringEnterFlags::GETEVENTS | IoringEnterFlags::SQ_WAKEUP
        } else {
            IoringEnterFlags::GETEVENTS
        };
        let head = self.counter(answers.head);
        let seen = head.load(Ordering::Relaxed);
        let mut submit = 1;
        while self.counter(answers.tail).load(Ordering::Acquire) == seen {
            // SAFETY: what the request points to is alive in the caller.
            unsafe { io_uring_enter(&self.descriptor, submit, 1, flags) }?;
            submit = 0;
        }
        let place = (seen & (self.params.cq_entries - 1)) as usize;
        // SAFETY: the kernel has filled this entry, as the tail says; it has 16
        // bytes, of which those of `res` are read.
        let outcome = unsafe {
            let entry = answers.cqes as usize + place * size_of::<io_uring_cqe>();
            let res = entry + std::mem::offset_of!(io_uring_cqe, res);
            self.rings.add(res).cast::<i32>().read_unaligned()
        };
        head.store(seen.wrapping_add(1), Ordering::Release);
        if outcome < 0 {
            return Err(io::Error::from_raw_os_error(-outcome));
        }
        Ok(outcome)
    }

    fn counter(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel gave this offset of an aligned word within the
        // mapping, which lives as long as the process.
        unsafe { AtomicU32::from_ptr(self.rings.add(offset as usize).cast()) }
    }
}

fn request(operation: IoringOp, descriptor: RawFd, how: IoringSqeFlags) -> io_uring_sqe {
    io_uring_sqe {
        opcode: operation,
        flags: how,
        fd: descriptor,
        user_data: io_uring_user_data::from_u64(1),
        ..io_uring_sqe::default()
    }
}

/// Maps a part of the ring; it stays as long as the process, which is short.
fn map(ring: &OwnedFd, length: usize, offset: i64) -> io::Result<*mut u8> {
    // SAFETY: a new mapping at a place of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            ring.as_raw_fd(),
            offset,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}
