//! A network namespace with a server in it.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use probe::question::{self, Asked};
use probe::{Answer, Datagrams, Fault, Port, Services, Settings, Stream, Unconnected, Verdict};
use rustix::thread::UnshareFlags;

/// How long a server may take to come up: far longer than any does, so that a
/// busy machine fails nothing.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(20);

/// Runs `play` on a thread in a network namespace of its own whose loopback is
/// up. Children and threads that it starts are in there too.
pub(crate) fn alone(play: fn() -> Result<(), Failed>) -> Result<(), Failed> {
    let scene = thread::spawn(move || {
        // SAFETY: a new network namespace changes no memory, file descriptor or
        // signal that other threads rely on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        play()
    });
    scene.join().unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "panicked".to_owned()).into())
    })
}

/// Runs a command to its end; its output is part of the failure.
pub(crate) fn run(command: &mut Command) -> Result<String, Failed> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{text}\n{errors}", output.status).into());
    }
    Ok(text)
}

/// A server that is killed with all its children when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    output: PathBuf,
}

impl Server {
    /// Starts `command` with its output in `directory`.
    pub(crate) fn start(command: &mut Command, directory: &Path) -> Result<Self, Failed> {
        let output = directory.join("output");
        let file = File::create(&output)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { child, output })
    }

    /// Waits until a TCP connection to `address` succeeds.
    pub(crate) fn listens(&mut self, address: &str) -> Result<(), Failed> {
        let address: SocketAddr = address.parse()?;
        self.until(|| Ok(TcpStream::connect_timeout(&address, WAIT).is_ok()))
    }

    /// Waits until a UDP socket is bound to that port of this namespace.
    pub(crate) fn binds(&mut self, port: u16) -> Result<(), Failed> {
        let end = format!(":{port:04X}");
        self.until(|| {
            // Of the calling thread's namespace, not of the process's first one.
            let mut table = fs::read_to_string("/proc/thread-self/net/udp")?;
            table += &fs::read_to_string("/proc/thread-self/net/udp6").unwrap_or_default();
            Ok(table
                .lines()
                .filter_map(|row| row.split_whitespace().nth(1))
                .any(|local| local.ends_with(&end)))
        })
    }

    /// Asks again and again until `done`, with a failure when the server ends.
    pub(crate) fn until(
        &mut self,
        mut done: impl FnMut() -> Result<bool, Failed>,
    ) -> Result<(), Failed> {
        let end = Instant::now() + PATIENCE;
        while !done()? {
            if let Some(status) = self.child.try_wait()?
                && !status.success()
            {
                return Err(format!("the server ended: {status}\n{}", self.said()).into());
            }
            if Instant::now() > end {
                return Err(format!("the server did not come up\n{}", self.said()).into());
            }
            // A server has no event for "I am up" that a test could wait for.
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn said(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.output) {
            // It is only told beside the failure.
            let _ = file.read_to_end(&mut text);
        }
        let tail = text.len().saturating_sub(4000);
        String::from_utf8_lossy(&text[tail..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Asks over TCP.
pub(crate) fn over_tcp(question: &str, address: &str) -> Result<Answer, Failed> {
    over_tcp_of(question, address, "localhost", "public")
}

/// Asks over TCP, with a host name and an SNMP community.
pub(crate) fn over_tcp_of(
    question: &str,
    address: &str,
    host: &str,
    community: &str,
) -> Result<Answer, Failed> {
    let address: SocketAddr = address.parse()?;
    let question = question::find(question, event::Protocol::Tcp).ok_or("no such question")?;
    let asked = Asked {
        host,
        address,
        community,
        secret: question::DEFAULT_SECRET,
    };
    let mut stream = Stream::new(TcpStream::connect(address)?, WAIT);
    Ok(question.ask_stream(&asked, &mut stream)?)
}

/// Asks over TCP, where silence or nonsense may be the answer.
pub(crate) fn try_over_tcp(
    question: &str,
    address: &str,
    wait: Duration,
) -> Result<Result<Answer, Fault>, Failed> {
    let address: SocketAddr = address.parse()?;
    let question = question::find(question, event::Protocol::Tcp).ok_or("no such question")?;
    let asked = Asked {
        host: "localhost",
        address,
        community: "",
        secret: "",
    };
    let mut stream = Stream::new(TcpStream::connect(address)?, wait);
    Ok(question.ask_stream(&asked, &mut stream))
}

/// Asks over UDP.
pub(crate) fn over_udp(question: &str, address: &str) -> Result<Answer, Failed> {
    Ok(try_over_udp(question, address, "public", WAIT)??)
}

/// Asks over UDP with an SNMP community, where silence may be the answer.
pub(crate) fn try_over_udp(
    question: &str,
    address: &str,
    community: &str,
    wait: Duration,
) -> Result<Result<Answer, Fault>, Failed> {
    let question = question::find(question, event::Protocol::Udp).ok_or("no such question")?;
    let address: SocketAddr = address.parse()?;
    let asked = Asked {
        host: "localhost",
        address,
        community,
        secret: question::DEFAULT_SECRET,
    };
    let any: IpAddr = if address.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    // Every server here is on an address of this namespace, so the port that a
    // question prefers is left alone.
    let socket = UdpSocket::bind((any, 0))?;
    let mut datagrams = if question.answered_elsewhere() {
        Datagrams::new(Unconnected::new(socket, address), wait)
    } else {
        socket.connect(address)?;
        Datagrams::new(socket, wait)
    };
    Ok(question.ask_datagrams(&asked, &mut datagrams))
}

/// Has a UDP port judged the way a user's query does, with that services file.
pub(crate) fn judge(host: &str, number: u16, services: &str) -> Result<Verdict, Failed> {
    judge_with(host, number, services, &Settings::default())
}

/// The same with other settings.
pub(crate) fn judge_with(
    host: &str,
    number: u16,
    services: &str,
    settings: &Settings,
) -> Result<Verdict, Failed> {
    let host = probe::resolve(host)?.into_iter().next().ok_or("no host")?;
    let port = Port {
        protocol: event::Protocol::Udp,
        number,
    };
    let services = Services::parse(services.as_bytes());
    Ok(probe::ask(&host, port, &services, settings)?)
}

/// Fails with `answer` unless the fact's value, as JSON text, contains `part`.
pub(crate) fn expect(answer: &Answer, fact: &str, part: &str) -> Result<(), Failed> {
    let value = answer.get(fact).map(|value| format!("{value:?}"));
    if value.as_deref().is_some_and(|value| value.contains(part)) {
        return Ok(());
    }
    Err(format!("expected {fact} with {part:?} in {answer:#?}").into())
}
