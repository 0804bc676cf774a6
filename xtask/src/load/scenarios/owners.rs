//! Whose socket is it? Sockets that change hands, are shared, or are used by
//! another process than the one that made them.
//!
//! A server here tells the truth about a connection last, after it has been
//! used: to ask for the peer's address is a call that a recorder may see, and
//! many servers never make it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::fact::{Fact, Kind, wait_for_the_suite};
use super::stage::{
    ANY_V4, Pair, accepted, address, connected, forked, hold, joined, listener, part,
    read_to_the_end, receive, send, until,
};

/// The descriptor at which a started program finds its socket.
const INHERITED: i32 = 3;

/// A child waits in `accept` when the watcher comes.
pub(super) fn accept_before() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let child = forked(|| {
        let server = accepted(&listener)?;
        receive(&server, 4)?;
        read_to_the_end(&server)?;
        Fact::accept("server", &server)?.bytes(0, 4).tell()
    })?;
    until("a child in accept", || sleeps(child.as_raw_nonzero().get()))?;
    wait_for_the_suite()?;
    let client = connected(address(&listener)?)?;
    Fact::connect("client", &client)?.bytes(4, 0).tell()?;
    send(&client, b"late")?;
    drop(client);
    joined(child)
}

/// A server with children that were forked in advance. Each accepts without
/// asking for the peer's address, and answers.
pub(super) fn prefork() -> anyhow::Result<()> {
    serve_by_children(4, 5, Duration::ZERO)
}

/// The same, but the children say nothing for longer than a recorder can wait.
pub(super) fn prefork_silent() -> anyhow::Result<()> {
    serve_by_children(2, 2, Duration::from_millis(600))
}

fn serve_by_children(children: usize, each: usize, silence: Duration) -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let children = (0..children)
        .map(|_| {
            forked(|| {
                for _ in 0..each {
                    let server = accepted(&listener)?;
                    hold(silence);
                    receive(&server, 3)?;
                    send(&server, b"ok")?;
                    read_to_the_end(&server)?;
                    Fact::accept("server", &server)?.bytes(2, 3).tell()?;
                }
                Ok(())
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    for _ in 0..children.len() * each {
        let client = connected(to)?;
        Fact::connect("client", &client)?.bytes(3, 2).tell()?;
        send(&client, b"who")?;
        receive(&client, 2)?;
    }
    children.into_iter().try_for_each(joined)
}

/// A connected socket goes to another process over a Unix socket; that one
/// uses and closes it.
pub(super) fn passed_connection() -> anyhow::Result<()> {
    let (here, there) = UnixStream::pair()?;
    // Forked first, so that the child has no copy of its own.
    let child = forked(|| {
        let client = receive_descriptor(&there)?;
        send(&client, b"passed")?;
        Ok(())
    })?;
    let pair = Pair::new(ANY_V4)?;
    pair.tell(6, 0)?;
    send_descriptor(&here, pair.client.as_fd())?;
    drop(pair.client);
    receive(&pair.server, 6)?;
    joined(child)?;
    read_to_the_end(&pair.server)?;
    Ok(())
}

/// A listener goes to another process over a Unix socket; that one accepts.
pub(super) fn passed_listener() -> anyhow::Result<()> {
    let (here, there) = UnixStream::pair()?;
    // Forked first, so that the child has no copy of its own.
    let child = forked(|| {
        let listener = receive_descriptor(&there)?;
        let server = accepted(&listener)?;
        send(&server, b"hi")?;
        Fact::accept("server", &server)?.bytes(2, 0).tell()
    })?;
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    send_descriptor(&here, listener.as_fd())?;
    drop(listener);
    let client = connected(to)?;
    Fact::connect("client", &client)?.bytes(0, 2).tell()?;
    receive(&client, 2)?;
    read_to_the_end(&client)?;
    joined(child)
}

/// Another process takes a copy of a listener with `pidfd_getfd` and accepts.
pub(super) fn taken_listener() -> anyhow::Result<()> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

    let (here, there) = UnixStream::pair()?;
    let parent = Pid::from_raw(i32::try_from(std::process::id())?).context("no number")?;
    let child = forked(|| {
        let mut number = [0; 4];
        std::io::Read::read_exact(&mut &there, &mut number)?;
        let parent = rustix::process::pidfd_open(parent, PidfdFlags::empty())?;
        let listener = rustix::process::pidfd_getfd(
            &parent,
            i32::from_ne_bytes(number),
            PidfdGetfdFlags::empty(),
        )?;
        let server = accepted(&listener)?;
        send(&server, b"hi")?;
        Fact::accept("server", &server)?.bytes(2, 0).tell()
    })?;
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    std::io::Write::write_all(&mut &here, &listener.as_raw_fd().to_ne_bytes())?;
    let client = connected(address(&listener)?)?;
    Fact::connect("client", &client)?.bytes(0, 2).tell()?;
    receive(&client, 2)?;
    read_to_the_end(&client)?;
    joined(child)
}

/// A listener that a starter made and the started program finds open, as
/// systemd does it.
pub(super) fn socket_activation() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let mut server = started_with(&listener, "part-serve-inherited")?;
    drop(listener);
    let client = connected(to)?;
    Fact::connect("client", &client)?.bytes(3, 2).tell()?;
    send(&client, b"who")?;
    receive(&client, 2)?;
    drop(client);
    ended(&mut server)
}

/// The started program of [`socket_activation`].
pub(super) fn serve_inherited() -> anyhow::Result<()> {
    let server = accepted(&inherited())?;
    receive(&server, 3)?;
    send(&server, b"ok")?;
    read_to_the_end(&server)?;
    Fact::accept("server", &server)?.bytes(2, 3).tell()
}

/// Two descriptors of one socket; one is closed, the other is used on.
pub(super) fn duplicated() -> anyhow::Result<()> {
    let Pair {
        listener,
        client,
        server,
    } = Pair::new(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    Fact::connect("client", &client)?.bytes(5, 0).tell()?;
    Fact::accept("server", &server)?.bytes(0, 5).tell()?;
    let copy = rustix::io::fcntl_dupfd_cloexec(&client, 0)?;
    send(&client, b"on")?;
    drop(client);
    hold(Duration::from_millis(50));
    send(&copy, b"e+2")?;
    drop(copy);
    read_to_the_end(&server)?;
    Ok(())
}

/// A connection that is open in the parent and, after a fork, in a child; the
/// parent closes first, the child sends and closes last.
pub(super) fn shared_by_fork() -> anyhow::Result<()> {
    let pair = Pair::new(ANY_V4)?;
    pair.tell(4, 0)?;
    let (here, there) = UnixStream::pair()?;
    let child = forked(|| {
        let mut go = [0];
        std::io::Read::read_exact(&mut &there, &mut go)?;
        send(&pair.client, b"mine")?;
        Ok(())
    })?;
    drop(pair.client);
    std::io::Write::write_all(&mut &here, &[1])?;
    receive(&pair.server, 4)?;
    joined(child)?;
    read_to_the_end(&pair.server)?;
    Ok(())
}

/// A process connects and becomes another program, which uses the socket.
pub(super) fn kept_over_exec() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let child = forked(|| {
        let client = connected(to)?;
        Fact::connect("client", &client)?.bytes(5, 0).tell()?;
        rustix::io::fcntl_setfd(&client, rustix::io::FdFlags::empty())?;
        let descriptor = client.as_raw_fd().to_string();
        Err(part("part-send-inherited", &[descriptor])?.exec().into())
    })?;
    let server = accepted(&listener)?;
    Fact::accept("server", &server)?.bytes(0, 5).tell()?;
    read_to_the_end(&server)?;
    joined(child)
}

/// What the process of [`kept_over_exec`] becomes.
pub(super) fn send_inherited(arguments: &[String]) -> anyhow::Result<()> {
    let descriptor = arguments.first().context("no descriptor")?.parse()?;
    // SAFETY: the program was started with this descriptor, and nothing else
    // here owns it.
    let client = unsafe { OwnedFd::from_raw_fd(descriptor) };
    send(&client, b"after")?;
    Ok(())
}

/// A process connects and becomes another program; the socket does not.
pub(super) fn closed_by_exec() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let child = forked(|| {
        let client = connected(to)?;
        Fact::connect("client", &client)?.tell()?;
        std::mem::forget(client);
        Err(part("part-nothing", &[])?.exec().into())
    })?;
    let server = accepted(&listener)?;
    Fact::accept("server", &server)?.tell()?;
    read_to_the_end(&server)?;
    joined(child)
}

/// Two processes with one table of descriptors: the child connects and goes,
/// the parent uses the connection.
pub(super) fn shared_table() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let (here, there) = UnixStream::pair()?;
    let child = forked_sharing_files(|| {
        let client = connected(to)?;
        Fact::connect("client", &client)?.bytes(4, 0).tell()?;
        std::io::Write::write_all(&mut &there, &client.as_raw_fd().to_ne_bytes())?;
        std::mem::forget(client);
        Ok(())
    })?;
    let mut descriptor = [0; 4];
    std::io::Read::read_exact(&mut &here, &mut descriptor)?;
    joined(child)?;
    // SAFETY: the child made it in the table that both have, and forgot it.
    let client = unsafe { OwnedFd::from_raw_fd(i32::from_ne_bytes(descriptor)) };
    let server = accepted(&listener)?;
    Fact::accept("server", &server)?.bytes(0, 4).tell()?;
    send(&client, b"ours")?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}

/// A thread that is not the leader of its group makes every call.
pub(super) fn other_thread() -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let pair = Pair::new(ANY_V4)?;
        pair.tell(0, 0)?;
        let port = super::stage::udp_at(ANY_V4)?;
        Fact::bind("udp", &port)?.tell()?;
        pair.close()
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

/// The same where the leader has already gone, so that `/proc` tells little.
pub(super) fn leader_gone() -> anyhow::Result<()> {
    let child = forked(|| {
        std::thread::spawn(|| {
            let own = i32::try_from(std::process::id()).unwrap_or(0);
            let outcome = until("a leader that is gone", || state(own) == Some('Z'))
                .and_then(|()| Pair::new(ANY_V4))
                .and_then(|pair| {
                    pair.tell(0, 0)?;
                    pair.close()
                });
            super::stage::leave(outcome);
        });
        // SAFETY: ends this thread alone; it owns nothing that the other needs.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        bail!("the leader lives on")
    })?;
    joined(child)
}

/// Binds a UDP port as root and goes on as somebody else, who connects.
pub(super) fn setuid_after_bind() -> anyhow::Result<()> {
    let child = forked(|| {
        let port = super::stage::udp_at(ANY_V4)?;
        Fact::bind("udp", &port)?.tell()?;
        let listener = listener(ANY_V4)?;
        Fact::listen("listener", &listener)?.tell()?;
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_uid(nobody)?;
        let client = connected(address(&listener)?)?;
        // Opened as nobody, whom the fact has from the system.
        Fact::of(Kind::Connect, "client", &client)?
            .bytes(0, 0)
            .tell()?;
        let server = accepted(&listener)?;
        Fact::accept("server", &server)?.tell()?;
        drop(client);
        read_to_the_end(&server)?;
        Ok(())
    })?;
    joined(child)
}

/// A server that gets each connection from a child of a child: the child that
/// accepted has gone before anything is sent.
pub(super) fn handed_to_grandchild() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let child = forked(|| {
        let server = accepted(&listener)?;
        let accepter = std::process::id();
        forked(|| {
            // Its parent goes first: that is the scenario.
            rustix::process::set_parent_process_death_signal(None)?;
            hold(Duration::from_millis(20));
            send(&server, b"hi")?;
            Fact::accept("server", &server)?
                .by(accepter)
                .bytes(2, 0)
                .tell()
        })?;
        Ok(())
    })?;
    let client = connected(address(&listener)?)?;
    Fact::connect("client", &client)?.bytes(0, 2).tell()?;
    joined(child)?;
    receive(&client, 2)?;
    read_to_the_end(&client)?;
    Ok(())
}

fn send_descriptor(over: &UnixStream, descriptor: BorrowedFd<'_>) -> anyhow::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(
        over,
        &[IoSlice::new(b"d")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn receive_descriptor(over: &UnixStream) -> anyhow::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(
        over,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::empty(),
    )?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .context("no descriptor came")
}

/// Starts this program with a socket at [`INHERITED`].
fn started_with(socket: &OwnedFd, name: &str) -> anyhow::Result<std::process::Child> {
    let socket = socket.as_raw_fd();
    let mut command = part(name, &[])?;
    // SAFETY: between fork and exec only `dup2` and `fcntl` are called.
    unsafe {
        command.pre_exec(move || {
            let code = if socket == INHERITED {
                libc::fcntl(socket, libc::F_SETFD, 0)
            } else {
                libc::dup2(socket, INHERITED)
            };
            if code < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(command.spawn()?)
}

fn inherited() -> OwnedFd {
    // SAFETY: the program was started with this descriptor, and nothing else
    // here owns it.
    unsafe { OwnedFd::from_raw_fd(INHERITED) }
}

fn ended(child: &mut std::process::Child) -> anyhow::Result<()> {
    let status = child.wait()?;
    if !status.success() {
        bail!("a started program ended with {status}");
    }
    Ok(())
}

/// A fork whose two sides have one table of descriptors.
fn forked_sharing_files(
    task: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<rustix::process::Pid> {
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack of its own this is a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        super::stage::leave(task());
    }
    i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| std::io::Error::last_os_error().into())
}

/// Does a process wait in the kernel?
fn sleeps(pid: i32) -> bool {
    state(pid) == Some('S')
}

/// The letter of a process's state.
fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}
