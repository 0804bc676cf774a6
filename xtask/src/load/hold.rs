//! Sockets that stay open: a listener, UDP ports and connected pairs.
//!
//! Prints `ready` when all are open and keeps them until standard input ends,
//! which it also does when the bench dies.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use anyhow::Context;
use rustix::process::{Resource, Rlimit};

/// What to hold.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// UDP sockets, each with a port.
    #[arg(long, default_value_t = 0)]
    udp: u32,
    /// Loopback connections, both ends in this process. They come from one
    /// listener, which stays open too.
    #[arg(long, default_value_t = 0)]
    pairs: u32,
}

/// Opens the sockets, says `ready` and waits for the end of standard input.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    raise_file_limit()?;
    let udp = (0..options.udp)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<Vec<_>>>()
        .context("hold: cannot open a UDP socket")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut pairs = Vec::new();
    for number in 0..options.pairs {
        let client = TcpStream::connect(address)
            .with_context(|| format!("hold: connection {number} to {address}"))?;
        let (server, _) = listener
            .accept()
            .with_context(|| format!("hold: accept {number} on {address}"))?;
        pairs.push((client, server));
    }

    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    drop((udp, pairs));
    Ok(())
}

/// Raises the soft limit of open files to the hard one.
fn raise_file_limit() -> anyhow::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("hold: cannot raise the limit of open files")
}
