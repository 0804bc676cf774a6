//! Many at once: processes that live briefly, processes that fork, and more
//! connections than there are ports.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::fact::{End, Fact};
use super::stage::{
    ANY_V4, accepted, address, connected, forked, joined, listener, own_network, read_to_the_end,
    tcp, udp,
};

/// Listeners of [`many_connections`].
const PORTS: usize = 8;

/// Processes, one after the other, that connect and are gone within 5 ms of
/// their fork. Only those that were that quick are told.
pub(super) fn short_processes(count: u32) -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let mut short = 0;
    // On a busy machine few are that short.
    let deadline = Instant::now() + Duration::from_mins(5);
    while Instant::now() < deadline {
        if short == count {
            return Ok(());
        }
        let (mut read, write) = std::io::pipe()?;
        let begin = Instant::now();
        let child = forked(|| {
            let client = connected(to)?;
            let fact = Fact::connect("client", &client)?;
            Ok(serde_json::to_writer(&write, &fact)?)
        })?;
        drop(write);
        joined(child)?;
        let lived = begin.elapsed();
        let server = accepted(&listener)?;
        read_to_the_end(&server)?;
        let client: Fact = serde_json::from_reader(&mut read)?;
        if lived < Duration::from_millis(5) {
            short += 1;
            client.tell()?;
            Fact::accept("server", &server)?.tell()?;
        }
    }
    bail!("only {short} processes were gone within 5 ms")
}

/// Processes that connect and fork, down to a depth.
pub(super) fn fork_bomb(depth: u32) -> anyhow::Result<()> {
    const CHILDREN: u32 = 4;
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let all: u32 = (1..=depth).map(|level| CHILDREN.pow(level)).sum();
    let server = forked(|| {
        for _ in 0..all {
            let server = accepted(&listener)?;
            read_to_the_end(&server)?;
            Fact::accept("server", &server)?.tell()?;
        }
        Ok(())
    })?;
    multiply(to, depth, CHILDREN)?;
    joined(server)
}

fn multiply(to: SocketAddr, depth: u32, children: u32) -> anyhow::Result<()> {
    if depth == 0 {
        return Ok(());
    }
    let children = (0..children)
        .map(|_| {
            forked(|| {
                let client = connected(to)?;
                Fact::connect("client", &client)?.tell()?;
                drop(client);
                multiply(to, depth - 1, children)
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    children.into_iter().try_for_each(joined)
}

/// So many connections of one process, as many of them open at once as it may
/// have files open.
pub(super) fn many_connections(count: u32) -> anyhow::Result<()> {
    let count = usize::try_from(count)?;
    let open = raise_file_limit()?.saturating_sub(100).min(count);
    own_network()?;
    let listeners = (0..PORTS)
        .map(|_| listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)))
        .collect::<std::io::Result<Vec<_>>>()?;
    for listener in &listeners {
        Fact::listen("listener", listener)?.tell()?;
    }
    let ports = listeners
        .iter()
        .map(|listener| Ok(address(listener)?.port()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let server = forked(|| {
        let finish = |server: OwnedFd| -> anyhow::Result<()> {
            read_to_the_end(&server)?;
            Fact::accept("server", &server)?.tell()
        };
        let mut servers = VecDeque::with_capacity(open + 1);
        for number in 0..count {
            servers.push_back(accepted(&listeners[number % PORTS])?);
            if servers.len() > open {
                servers.pop_front().map_or(Ok(()), finish)?;
            }
        }
        servers.into_iter().try_for_each(finish)
    })?;
    let mut clients = VecDeque::with_capacity(open + 1);
    for number in 0..count {
        if clients.len() == open {
            clients.pop_front();
        }
        // Each port of each address takes as many as there are local ports.
        let last = u8::try_from(1 + number / PORTS % 200)?;
        let to = SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), ports[number % PORTS]);
        let client = connected(to).with_context(|| format!("connection {number} to {to}"))?;
        Fact::connect("client", &client)?.tell()?;
        clients.push_back(client);
    }
    drop(clients);
    joined(server)
}

/// Connects until there is no local port left; those that found one count.
pub(super) fn port_exhaustion() -> anyhow::Result<()> {
    own_network()?;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099")?;
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 4747);
    let listener = listener(at)?;
    Fact::listen("listener", &listener)?.tell()?;
    let mut open = Vec::new();
    loop {
        let client = tcp(at)?;
        match rustix::net::connect(&client, &at) {
            Ok(()) => {
                let server = accepted(&listener)?;
                Fact::connect("client", &client)?.tell()?;
                Fact::accept("server", &server)?.tell()?;
                open.push((client, server));
            }
            Err(Errno::ADDRNOTAVAIL) => break,
            Err(error) => return Err(error.into()),
        }
        ensure!(open.len() <= 100, "more connections than ports");
    }
    // And the same for UDP.
    let mut ports = Vec::new();
    loop {
        let socket = udp(at)?;
        match rustix::net::bind(&socket, &ANY_V4) {
            Ok(()) => {
                Fact::bind("udp", &socket)?.tell()?;
                ports.push(socket);
            }
            Err(Errno::ADDRINUSE) => break,
            Err(error) => return Err(error.into()),
        }
        ensure!(ports.len() <= 100, "more sockets than ports");
    }
    for (client, server) in open {
        drop(client);
        read_to_the_end(&server)?;
    }
    Ok(())
}

/// Connects that fail at once, and leave the socket as it was.
pub(super) fn refused_in_a_row() -> anyhow::Result<()> {
    let deaf = tcp(ANY_V4)?;
    rustix::net::bind(&deaf, &ANY_V4)?;
    let to = address(&deaf)?;
    for _ in 0..200 {
        let client = tcp(to)?;
        ensure!(
            rustix::net::connect(&client, &to) == Err(Errno::CONNREFUSED),
            "it was not refused"
        );
        let mut fact = Fact::connect("client", &client)?.to(to).ends(End::Refused);
        // The kernel chose a port and has already forgotten it.
        fact.local = None;
        fact.tell()?;
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one, and says what it is.
fn raise_file_limit() -> anyhow::Result<usize> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    }))
}
