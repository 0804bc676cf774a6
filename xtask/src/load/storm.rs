//! A storm: many short loopback connections from one process to another.
//!
//! Client and server share one core. That makes the storm's throughput the
//! inverse of what one connection costs, hooks in the kernel included, and
//! leaves the other cores to whoever watches.
//!
//! A connection carries no data: the client connects and closes, the server
//! accepts and closes. The client closes first and keeps the `TIME_WAIT`, so the
//! connections are spread over several ports and several loopback addresses;
//! otherwise the storm would run out of local ports, not out of breath.
//!
//! The client may be at most [`WINDOW`] connections ahead of the server. No
//! backlog overflows, so no SYN is dropped and sent again a second later, and
//! each side makes exactly as many connections as were asked for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

use super::scenarios::stage;

/// How many connections the client may be ahead of the server.
const WINDOW: u32 = 1024;

/// The server tells the client each time it has closed so many connections.
const CREDIT: u32 = 256;

/// The length of a listener's queue: the whole window fits into one.
const BACKLOG: i32 = 4096;

/// How often a paced client wakes up.
const TICK: Duration = Duration::from_millis(1);

/// What to do.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many connections.
    #[arg(long, default_value_t = 200_000)]
    pub(crate) connections: u32,
    /// Connections a second; without it, as fast as they go.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// The listeners.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) ports: u16,
    /// The destination addresses, 127.0.0.1 and following.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub(crate) addresses: u8,
    /// The core that client and server run on.
    #[arg(long, default_value_t = 0)]
    pub(crate) core: usize,
    /// In a network namespace of its own, so that no storm begins among the
    /// `TIME_WAIT` of another.
    #[arg(long)]
    pub(crate) own_network: bool,
}

/// What the client tells the server.
#[derive(clap::Args)]
pub(crate) struct ServerOptions {
    #[arg(long)]
    connections: u32,
    #[arg(long)]
    ports: u16,
}

/// What came of it, printed as one line of JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Connections made and closed.
    pub(crate) connections: u32,
    /// From the first SYN to the last close.
    pub(crate) seconds: f64,
    /// Processor time of client and server together, hooks included.
    pub(crate) cpu_seconds: f64,
    /// The ports that the server listened on.
    pub(crate) ports: Vec<u16>,
    /// The process that connected.
    pub(crate) client: u32,
    /// The process that accepted.
    pub(crate) server: u32,
}

/// Runs a storm and prints its [`Outcome`].
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.own_network {
        stage::own_network()?;
    }
    pin(options.core)?;
    let mut server = Command::new(std::env::current_exe()?)
        .arg("storm-server")
        .args(["--connections", &options.connections.to_string()])
        .args(["--ports", &options.ports.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("storm: cannot start the server")?;
    let mut credits = BufReader::new(server.stdout.take().context("storm: no pipe")?);
    let mut hello = String::new();
    credits.read_line(&mut hello)?;
    let ports: Vec<u16> = serde_json::from_str(&hello).context("storm: the server failed")?;

    let start = Instant::now();
    let server_cpu = connect_all(options, &ports, &mut credits);
    let seconds = start.elapsed().as_secs_f64();
    if server_cpu.is_err() {
        server.kill()?;
    }
    let status = server.wait()?;
    let server_cpu = server_cpu?;
    if !status.success() {
        bail!("storm: the server failed: {status}");
    }

    let outcome = Outcome {
        connections: options.connections,
        seconds,
        cpu_seconds: own_cpu()? + server_cpu,
        ports,
        client: std::process::id(),
        server: server.id(),
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// The server: prints its ports, then one byte for each [`CREDIT`] connections
/// that it closed, then its processor time in seconds.
pub(crate) fn serve(options: &ServerOptions) -> anyhow::Result<()> {
    let listeners = (0..options.ports)
        .map(|_| listen())
        .collect::<std::io::Result<Vec<_>>>()?;
    let ports = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&ports)?)?;
    out.flush()?;

    let mut polled: Vec<PollFd<'_>> = listeners
        .iter()
        .map(|listener| PollFd::new(listener, PollFlags::IN))
        .collect();
    let mut closed = 0;
    while closed < options.connections {
        rustix::event::poll(&mut polled, None)?;
        for (listener, fd) in listeners.iter().zip(&polled) {
            if !fd.revents().contains(PollFlags::IN) {
                continue;
            }
            while accept_and_close(listener)? {
                closed += 1;
                if closed % CREDIT == 0 {
                    // Not a line, so nothing else flushes it.
                    out.write_all(b".")?;
                    out.flush()?;
                }
            }
        }
    }
    write!(out, "\n{}", own_cpu()?)?;
    out.flush()?;
    Ok(())
}

/// Makes the connections, waits until the server has closed the last one and
/// returns the processor time, in seconds, with which it ends `credits`.
fn connect_all(options: &Options, ports: &[u16], credits: &mut impl Read) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut accepted = 0;
    for number in 0..options.connections {
        if let Some(rate) = options.rate {
            while number >= due(start.elapsed(), rate) {
                std::thread::sleep(TICK);
            }
        }
        while number - accepted >= WINDOW {
            let mut credit = [0];
            credits
                .read_exact(&mut credit)
                .context("storm: the server is gone")?;
            accepted += CREDIT;
        }
        let peer = destination(number, ports, options.addresses);
        TcpStream::connect(peer).with_context(|| format!("storm: cannot connect to {peer}"))?;
    }
    let mut rest = String::new();
    credits.read_to_string(&mut rest)?;
    let cpu = rest.rsplit('\n').next().and_then(|text| text.parse().ok());
    cpu.context("storm: the server failed")
}

/// How many connections a paced client has to have made by then.
fn due(elapsed: Duration, rate: u32) -> u32 {
    let due = elapsed.as_micros() * u128::from(rate) / 1_000_000;
    u32::try_from(due).unwrap_or(u32::MAX)
}

/// Where the connection of that number goes: through all ports, then on to the
/// next address.
fn destination(number: u32, ports: &[u16], addresses: u8) -> SocketAddr {
    let number = number as usize;
    let address = (number / ports.len()) % usize::from(addresses);
    let last = u8::try_from(address).map_or(1, |address| address + 1);
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), ports[number % ports.len()]).into()
}

fn listen() -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listener.set_nonblocking(true)?;
    // A second listen(2) changes the length of the queue.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Accepts one connection and closes it; `false` if none waits.
fn accept_and_close(listener: &TcpListener) -> std::io::Result<bool> {
    match listener.accept() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// The processor time of this process in seconds.
fn own_cpu() -> anyhow::Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let time = Duration::try_from(time).context("the processor clock runs backwards")?;
    Ok(time.as_secs_f64())
}

/// Ties this process and its children to one core.
fn pin(core: usize) -> anyhow::Result<()> {
    if core >= CpuSet::MAX_CPU {
        bail!("core {core}: out of range");
    }
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("core {core}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_are_spread_over_ports_and_addresses() {
        let ports = [7, 8];
        let peers: Vec<String> = (0..7)
            .map(|number| destination(number, &ports, 3).to_string())
            .collect();
        assert_eq!(
            peers,
            [
                "127.0.0.1:7",
                "127.0.0.1:8",
                "127.0.0.2:7",
                "127.0.0.2:8",
                "127.0.0.3:7",
                "127.0.0.3:8",
                "127.0.0.1:7",
            ]
        );
    }
}
