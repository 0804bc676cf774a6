//! Sockets that change hands: accepted without a word, kept over `exec`,
//! duplicated, passed to another process, used as another user.
//!
//! Where the order of two things in different processes matters, one waits for
//! the other over the connection itself.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde_json::json;

use crate::Outcome;
use crate::facts::{cookie, report, say, wait_for_the_test};
use crate::process::{forked, reap};
use crate::tcp::{ANY_V4, address, listener, socket};
use crate::udp;

/// Listens and lets a child accept without asking who is there. The child says
/// nothing to the client until the test has acted.
pub(crate) fn accept_late() -> Outcome {
    let listener = listener(ANY_V4, 16)?;
    report("listener", &listener)?;
    let child = forked(|| {
        let server = rustix::net::accept(&listener)?;
        say_accepted(&server)?;
        wait_for_the_test()?;
        serve(&server)?;
        report("server", &server)
    })?;
    let client = socket(ANY_V4)?;
    rustix::net::connect(&client, &address(&listener)?)?;
    be_served(client)?;
    reap(child)
}

/// Names a connection without asking for its addresses, which would show who
/// has it.
fn say_accepted(server: &OwnedFd) -> io::Result<()> {
    say(&json!({"role": "accepted", "cookie": cookie(server)?, "pid": std::process::id()}));
    Ok(())
}

/// Sends a byte and waits for the client's end. Only the send shows that this
/// process has the connection.
fn serve(server: &OwnedFd) -> io::Result<()> {
    rustix::net::send(server, b"x", SendFlags::empty())?;
    rustix::net::recv(server, &mut [0_u8; 1], RecvFlags::empty())?;
    Ok(())
}

/// The other end: closes after the first byte.
fn be_served(client: OwnedFd) -> io::Result<()> {
    rustix::net::recv(&client, &mut [0_u8; 1], RecvFlags::empty())?;
    drop(client);
    Ok(())
}

/// Takes ports, becomes another user, takes more: `setuid UID`.
pub(crate) fn setuid(arguments: &[String]) -> Outcome {
    let uid = arguments.first().ok_or("no user is named")?.parse()?;
    let listener = listener(ANY_V4, 16)?;
    report("before-listener", &listener)?;
    let udp = udp::socket(ANY_V4)?;
    rustix::net::bind(&udp, &ANY_V4)?;
    report("before-udp", &udp)?;
    // SAFETY: setuid(2) takes a number. There is one thread.
    if unsafe { libc::setuid(uid) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let after = udp::socket(ANY_V4)?;
    rustix::net::bind(&after, &ANY_V4)?;
    report("after", &after)?;
    drop(after);
    report("still-listener", &listener)?;
    report("still-udp", &udp)?;
    Ok(())
}

/// Executes another program with a listener and a UDP port that it keeps, and
/// two that `exec` closes: `exec PROGRAM`.
pub(crate) fn exec(arguments: &[String]) -> Outcome {
    let program = arguments.first().ok_or("no program is named")?;
    let mut open = Vec::new();
    for fate in ["kept", "closed"] {
        let tcp = listener(ANY_V4, 16)?;
        report(&format!("{fate}-listener"), &tcp)?;
        let udp = udp::socket(ANY_V4)?;
        rustix::net::bind(&udp, &ANY_V4)?;
        report(&format!("{fate}-udp"), &udp)?;
        open.push([tcp, udp]);
    }
    let mut command = Command::new(program);
    command.arg("execed");
    for kept in &open[0] {
        keep_over_exec(kept)?;
        command.arg(kept.as_raw_fd().to_string());
    }
    Err(command.exec().into())
}

/// What [`exec`] executes: says what it was given, and keeps it until the test
/// has acted.
pub(crate) fn execed(arguments: &[String]) -> Outcome {
    let mut given = Vec::new();
    for (number, role) in arguments.iter().zip(["listener", "udp"]) {
        let socket = given_descriptor(number)?;
        report(&format!("given-{role}"), &socket)?;
        given.push(socket);
    }
    wait_for_the_test()?;
    Ok(())
}

/// Accepts without asking who is there, and passes the connection, and the
/// listener, to a child that knew neither (`SCM_RIGHTS`). The child keeps the
/// first connection until the test has acted.
pub(crate) fn pass() -> Outcome {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let child = forked(|| {
        let server = receive(&theirs)?;
        serve(&server)?;
        say_accepted(&server)?;
        wait_for_the_test()?;
        report("server", &server)?;
        drop(server);
        let listener = receive(&theirs)?;
        let server = rustix::net::accept(&listener)?;
        serve(&server)?;
        report("second-server", &server)
    })?;
    let listener = listener(ANY_V4, 16)?;
    report("listener", &listener)?;
    let to = address(&listener)?;
    let client = socket(to)?;
    rustix::net::connect(&client, &to)?;
    let server = rustix::net::accept(&listener)?;
    send(&ours, server.as_fd())?;
    drop(server);
    be_served(client)?;
    send(&ours, listener.as_fd())?;
    drop(listener);
    let client = socket(to)?;
    rustix::net::connect(&client, &to)?;
    be_served(client)?;
    reap(child)
}

fn send(over: &OwnedFd, passed: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [passed];
    if !control.push(SendAncillaryMessage::ScmRights(&passed)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    rustix::net::sendmsg(
        over,
        &[IoSlice::new(b"x")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

fn receive(over: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    rustix::net::recvmsg(
        over,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("no descriptor came"))
}

/// Closes one of two descriptors of each socket, then takes and gives back a
/// port, as a mark in time, then closes the others.
pub(crate) fn dup() -> Outcome {
    let tcp = listener(ANY_V4, 16)?;
    report("listener", &tcp)?;
    let client = socket(ANY_V4)?;
    rustix::net::connect(&client, &address(&tcp)?)?;
    report("client", &client)?;
    let udp = udp::socket(ANY_V4)?;
    rustix::net::bind(&udp, &ANY_V4)?;
    report("udp", &udp)?;
    let mut copies = Vec::new();
    for original in [tcp, client, udp] {
        copies.push(rustix::io::dup(&original)?);
        drop(original);
    }
    let mark = udp::socket(ANY_V4)?;
    rustix::net::bind(&mark, &ANY_V4)?;
    report("mark", &mark)?;
    drop(mark);
    // The client before its listener, which would reset it.
    while let Some(copy) = copies.pop() {
        drop(copy);
    }
    Ok(())
}

/// Listens for another program, executes it and gives it the listener, as a
/// socket unit of systemd does.
pub(crate) fn activate() -> Outcome {
    let listener = listener(ANY_V4, 16)?;
    report("listener", &listener)?;
    let client = socket(ANY_V4)?;
    keep_over_exec(&listener)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["activated", &listener.as_raw_fd().to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut facts = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    println!("{}", facts.next().ok_or("the service is silent")??);
    rustix::net::connect(&client, &address(&listener)?)?;
    report("client", &client)?;
    println!("{}", facts.next().ok_or("the service does not accept")??);
    drop(client);
    for fact in facts {
        println!("{}", fact?);
    }
    if !child.wait()?.success() {
        return Err("the service failed".into());
    }
    Ok(())
}

/// What [`activate`] executes. It asks who is there, sends nothing, and closes
/// after the test has acted.
pub(crate) fn activated(arguments: &[String]) -> Outcome {
    let listener = given_descriptor(arguments.first().ok_or("no descriptor is named")?)?;
    report("given-listener", &listener)?;
    let (server, _) = rustix::net::acceptfrom(&listener)?;
    report("server", &server)?;
    rustix::net::recv(&server, &mut [0_u8; 1], RecvFlags::empty())?;
    wait_for_the_test()?;
    Ok(())
}

fn keep_over_exec(socket: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(socket, FdFlags::empty())?)
}

/// A descriptor that the program before left open.
fn given_descriptor(number: &str) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    let number = number.parse()?;
    // SAFETY: the program that executed this one left it open, and nothing else
    // here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
