//! What every scenario needs: sockets made in one known way, and processes.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

use super::fact::{Fact, Said, say};

/// Any port of 127.0.0.1.
pub(crate) const ANY_V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Any port of `::1`.
pub(crate) const ANY_V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// How a child ends that says that the scenario is to be ignored.
const IGNORED: i32 = 77;

/// This machine cannot show the scenario.
#[derive(Debug, thiserror::Error)]
#[error("ignored: {0}")]
pub(crate) struct Ignored(pub(crate) String);

/// Fails with [`Ignored`] where the kernel does not have what is needed.
pub(crate) fn needs<T>(what: &str, outcome: io::Result<T>) -> anyhow::Result<T> {
    outcome.map_err(|error| Ignored(format!("{what}: {error}")).into())
}

/// A connection in one process.
pub(crate) struct Pair {
    pub(crate) listener: OwnedFd,
    pub(crate) client: OwnedFd,
    pub(crate) server: OwnedFd,
}

impl Pair {
    /// Listens there, connects and accepts.
    pub(crate) fn new(at: SocketAddr) -> anyhow::Result<Self> {
        let listener = listener(at)?;
        let client = connected(address(&listener)?)?;
        let server = accepted(&listener)?;
        Ok(Self {
            listener,
            client,
            server,
        })
    }

    /// Tells the truth about the three, with the client's payload. The server
    /// has the same, exchanged.
    pub(crate) fn tell(&self, sent: u64, received: u64) -> anyhow::Result<()> {
        Fact::listen("listener", &self.listener)?.tell()?;
        Fact::connect("client", &self.client)?
            .bytes(sent, received)
            .tell()?;
        Fact::accept("server", &self.server)?
            .bytes(received, sent)
            .tell()
    }

    /// Closes the client, lets the server see it, and closes the rest.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        drop(self.client);
        read_to_the_end(&self.server)?;
        Ok(())
    }
}

/// A TCP socket of the family of an address.
pub(crate) fn tcp(like: SocketAddr) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        family(like),
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A UDP socket of the family of an address.
pub(crate) fn udp(like: SocketAddr) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        family(like),
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A UDP socket with that port.
pub(crate) fn udp_at(at: SocketAddr) -> io::Result<OwnedFd> {
    let socket = udp(at)?;
    rustix::net::bind(&socket, &at)?;
    Ok(socket)
}

/// A listener.
pub(crate) fn listener(at: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(at)?;
    rustix::net::bind(&socket, &at)?;
    rustix::net::listen(&socket, 1024)?;
    Ok(socket)
}

/// A connection to that address.
pub(crate) fn connected(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(to)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}

/// The next connection of a listener. Does not ask for the peer's address.
pub(crate) fn accepted(listener: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

/// The address of a socket.
pub(crate) fn address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?)
}

/// Sends all of it.
pub(crate) fn send(socket: &OwnedFd, mut payload: &[u8]) -> io::Result<()> {
    while !payload.is_empty() {
        let sent = rustix::net::send(socket, payload, SendFlags::NOSIGNAL)?;
        payload = &payload[sent..];
    }
    Ok(())
}

/// Receives that many bytes.
pub(crate) fn receive(socket: &OwnedFd, count: usize) -> anyhow::Result<()> {
    let mut buffer = vec![0; count.clamp(1, 1 << 16)];
    let mut rest = count;
    while rest > 0 {
        let room = rest.min(buffer.len());
        let (got, _) = rustix::net::recv(socket, &mut buffer[..room], RecvFlags::empty())?;
        if got == 0 {
            bail!("the other end closed with {rest} bytes to come");
        }
        rest -= got;
    }
    Ok(())
}

/// Receives until the other end closes; how many bytes came.
pub(crate) fn read_to_the_end(socket: &OwnedFd) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut count = 0;
    loop {
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())? {
            (0, _) => return Ok(count),
            (got, _) => count += got as u64,
        }
    }
}

/// How long to wait for what must come; only a machine that is very busy needs
/// more than a moment.
const UNTIL: Duration = Duration::from_mins(2);

/// Waits until a condition holds, for things that send no signal.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > UNTIL {
            bail!("{what}: not within {UNTIL:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Holds something for a while: where the length of time is the scenario.
pub(crate) fn hold(time: Duration) {
    std::thread::sleep(time);
}

/// Runs a task in a forked child and gives its number. The child dies with its
/// parent, so that a scenario that fails leaves nobody behind.
pub(crate) fn forked(task: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Pid> {
    // SAFETY: scenarios have one thread when they fork, so the child may do
    // whatever the parent may; it leaves through `_exit` below.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let bound = set_parent_process_death_signal(Some(Signal::KILL));
        leave(bound.map_err(Into::into).and_then(|()| task()));
    }
    Pid::from_raw(pid)
        .filter(|_| pid > 0)
        .ok_or_else(|| io::Error::last_os_error().into())
}

/// Ends a forked child without running the parent's exit handlers.
pub(crate) fn leave(outcome: anyhow::Result<()>) -> ! {
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            if let Some(Ignored(why)) = error.downcast_ref() {
                // If the suite has gone, nobody waits for it.
                let _ = say(&Said::Ignored(why.clone()));
                IGNORED
            } else {
                eprintln!("child: {error:#}");
                1
            }
        }
    };
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Waits for a child; fails unless it did well.
pub(crate) fn joined(child: Pid) -> anyhow::Result<()> {
    let status = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(IGNORED) => Err(Ignored("as a part of it said".to_owned()).into()),
        other => bail!("child {child:?} ended with {other:?}"),
    }
}

/// The number of a child.
pub(crate) fn number(child: Pid) -> anyhow::Result<u32> {
    Ok(u32::try_from(child.as_raw_nonzero().get())?)
}

/// Moves to a network namespace of its own, with loopback up.
pub(crate) fn own_network() -> anyhow::Result<()> {
    // SAFETY: CLONE_NEWNET does not touch the table of file descriptors.
    needs("a network namespace", unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET).map_err(io::Error::from)
    })?;
    ip(&["link", "set", "lo", "up"])
}

/// Runs `ip`.
pub(crate) fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = needs(
        "ip",
        Command::new("ip")
            .args(arguments)
            .stdin(Stdio::null())
            .output(),
    )?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Ignored(format!("ip {}: {said}", arguments.join(" "))).into());
    }
    Ok(())
}

/// This program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program has no path")
}

/// This program, about to play another part of a scenario.
pub(crate) fn part(name: &str, arguments: &[String]) -> anyhow::Result<Command> {
    let mut command = Command::new(program()?);
    command.args(["scenario", name]).args(arguments);
    Ok(command)
}

fn family(like: SocketAddr) -> AddressFamily {
    match like {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}
