//! TCP: states that most connections pass too quickly to be seen, and odd ways
//! into them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use rustix::io::Errno;
use rustix::net::{Shutdown, sockopt};

use super::fact::{End, Fact, wait_for_the_suite};
use super::stage::{
    ANY_V4, ANY_V6, Pair, accepted, address, connected, hold, listener, read_to_the_end, receive,
    send, tcp,
};

/// A bind, a pause, a listen.
pub(super) fn bind_then_listen() -> anyhow::Result<()> {
    let listener = tcp(ANY_V4)?;
    rustix::net::bind(&listener, &ANY_V4)?;
    hold(Duration::from_millis(300));
    rustix::net::listen(&listener, 16)?;
    Fact::listen("listener", &listener)?.tell()?;
    let client = connected(address(&listener)?)?;
    let server = accepted(&listener)?;
    Fact::connect("client", &client)?.tell()?;
    Fact::accept("server", &server)?.tell()?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}

/// A listener is shut down and listens again: one socket, two lives.
pub(super) fn listen_twice() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("first", &listener)?.tell()?;
    rustix::net::shutdown(&listener, Shutdown::Both)?;
    hold(Duration::from_millis(20));
    rustix::net::listen(&listener, 16)?;
    Fact::listen("second", &listener)?.tell()
}

/// A connection is given up (`AF_UNSPEC`) and its socket connects again.
pub(super) fn tcp_unspec() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let client = tcp(ANY_V4)?;
    for role in ["first", "second"] {
        rustix::net::connect(&client, &address(&listener)?)?;
        let server = accepted(&listener)?;
        Fact::connect(role, &client)?.ends(End::Somehow).tell()?;
        Fact::accept(&format!("{role} server"), &server)?
            .ends(End::Somehow)
            .tell()?;
        rustix::net::connect_unspec(&client)?;
        // The other side sees a reset.
        let _ = read_to_the_end(&server);
    }
    Ok(())
}

/// The peer closes; this side goes on for a while (`CLOSE_WAIT`) and sends.
pub(super) fn close_wait() -> anyhow::Result<()> {
    let pair = Pair::new(ANY_V4)?;
    pair.tell(0, 4)?;
    rustix::net::shutdown(&pair.client, Shutdown::Write)?;
    read_to_the_end(&pair.server)?;
    hold(Duration::from_millis(300));
    send(&pair.server, b"late")?;
    receive(&pair.client, 4)?;
    drop(pair.server);
    read_to_the_end(&pair.client)?;
    Ok(())
}

/// This side closes for good while the peer stays: `FIN_WAIT_2` without a
/// process.
pub(super) fn fin_wait_2() -> anyhow::Result<()> {
    let pair = Pair::new(ANY_V4)?;
    pair.tell(3, 0)?;
    send(&pair.client, b"bye")?;
    drop(pair.client);
    read_to_the_end(&pair.server)?;
    hold(Duration::from_millis(300));
    Ok(())
}

/// Half closed as long as the suite runs.
pub(super) fn half_closed() -> anyhow::Result<()> {
    let pair = Pair::new(ANY_V4)?;
    pair.tell(4, 6)?;
    send(&pair.client, b"then")?;
    rustix::net::shutdown(&pair.client, Shutdown::Write)?;
    read_to_the_end(&pair.server)?;
    wait_for_the_suite()?;
    send(&pair.server, b"at end")?;
    drop(pair.server);
    read_to_the_end(&pair.client)?;
    Ok(())
}

/// A socket connects to itself: both sides open at once, and close at once
/// (`CLOSING`). What it sends it receives.
pub(super) fn simultaneous() -> anyhow::Result<()> {
    let socket = tcp(ANY_V4)?;
    rustix::net::bind(&socket, &ANY_V4)?;
    let own = address(&socket)?;
    rustix::net::connect(&socket, &own)?;
    Fact::connect("itself", &socket)?.bytes(4, 4).tell()?;
    send(&socket, b"echo")?;
    receive(&socket, 4)?;
    Ok(())
}

/// Connections that nobody accepts before the listener closes.
pub(super) fn never_accepted() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let clients = [connected(to)?, connected(to)?];
    for client in &clients {
        Fact::connect("client", client)?.ends(End::Reset).tell()?;
    }
    drop(listener);
    for client in &clients {
        if rustix::net::recv(client, &mut [0_u8; 1][..], rustix::net::RecvFlags::empty()).err()
            != Some(Errno::CONNRESET)
        {
            bail!("no reset came");
        }
    }
    Ok(())
}

/// A connect without waiting that is given up before an answer: the listener's
/// queue is full.
pub(super) fn abandoned() -> anyhow::Result<()> {
    let listener = tcp(ANY_V4)?;
    rustix::net::bind(&listener, &ANY_V4)?;
    rustix::net::listen(&listener, 0)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let filler = connected(to)?;
    Fact::connect("filler", &filler)?
        .ends(End::Somehow)
        .tell()?;
    let client = tcp(ANY_V4)?;
    rustix::net::bind(&client, &ANY_V4)?;
    rustix::io::ioctl_fionbio(&client, true)?;
    if rustix::net::connect(&client, &to) != Err(Errno::INPROGRESS) {
        bail!("the queue is not full");
    }
    Fact::connect("client", &client)?
        .to(to)
        .ends(End::Somehow)
        .tell()?;
    hold(Duration::from_millis(20));
    Ok(())
}

/// Refused over IPv6, without waiting.
pub(super) fn refused_v6() -> anyhow::Result<()> {
    let deaf = tcp(ANY_V6)?;
    rustix::net::bind(&deaf, &ANY_V6)?;
    let to = address(&deaf)?;
    let client = tcp(ANY_V6)?;
    rustix::net::bind(&client, &ANY_V6)?;
    let from = address(&client)?;
    rustix::io::ioctl_fionbio(&client, true)?;
    // On loopback the answer may be there before the call returns.
    if rustix::net::connect(&client, &to).is_ok() {
        bail!("it was not refused");
    }
    Fact::connect("client", &client)?
        .from(from)
        .to(to)
        .ends(End::Refused)
        .tell()
}

/// A process is killed in the middle of a connection with data on the way.
pub(super) fn killed() -> anyhow::Result<()> {
    use super::stage::forked;

    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to: SocketAddr = address(&listener)?;
    let child = forked(|| {
        let client = connected(to)?;
        Fact::connect("client", &client)?.bytes(7, 0).tell()?;
        send(&client, b"unended")?;
        hold(Duration::from_mins(1));
        Ok(())
    })?;
    let server = accepted(&listener)?;
    Fact::accept("server", &server)?.bytes(0, 7).tell()?;
    receive(&server, 7)?;
    rustix::process::kill_process(child, rustix::process::Signal::KILL)?;
    read_to_the_end(&server)?;
    rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())?;
    Ok(())
}

/// Two connects of one socket: refused, then to somebody who listens.
pub(super) fn second_try() -> anyhow::Result<()> {
    let deaf = tcp(ANY_V4)?;
    rustix::net::bind(&deaf, &ANY_V4)?;
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let client = tcp(ANY_V4)?;
    sockopt::set_socket_reuseaddr(&client, true)?;
    rustix::net::bind(&client, &ANY_V4)?;
    let from = address(&client)?;
    let to = address(&deaf)?;
    if rustix::net::connect(&client, &to) != Err(Errno::CONNREFUSED) {
        bail!("it was not refused");
    }
    Fact::connect("refused", &client)?
        .from(from)
        .to(to)
        .ends(End::Refused)
        .tell()?;
    rustix::net::connect(&client, &address(&listener)?)?;
    Fact::connect("client", &client)?.tell()?;
    let server = accepted(&listener)?;
    Fact::accept("server", &server)?.tell()?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}
