//! TCP scenarios: every way in which a connection begins and ends.
//!
//! All of them talk to themselves over loopback. The client's cookie is asked
//! for before it connects, so that nothing stands between `connect` and what
//! follows it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::json;

use crate::Outcome;
use crate::facts::{cookie, report, report_with, say, wait_for_the_test};

/// A port that the kernel chooses, on 127.0.0.1.
pub(crate) const ANY_V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ANY_V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// A connection with both of its ends, and the listener it came through.
pub(crate) struct Pair {
    pub(crate) listener: OwnedFd,
    pub(crate) client: OwnedFd,
    pub(crate) server: OwnedFd,
}

impl Pair {
    /// Connects over loopback.
    pub(crate) fn new(to: SocketAddr) -> io::Result<Self> {
        let listener = listener(to, 16)?;
        let client = socket(to)?;
        let _ = cookie(&client)?;
        rustix::net::connect(&client, &address(&listener)?)?;
        let server = rustix::net::accept(&listener)?;
        Ok(Self {
            listener,
            client,
            server,
        })
    }

    /// Prints the facts about all three sockets.
    pub(crate) fn report(&self) -> io::Result<()> {
        report("listener", &self.listener)?;
        report("client", &self.client)?;
        report("server", &self.server)
    }
}

/// A TCP socket of the family of an address.
pub(crate) fn socket(like: SocketAddr) -> io::Result<OwnedFd> {
    let family = match like {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A listener at an address.
pub(crate) fn listener(at: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let listener = socket(at)?;
    rustix::net::bind(&listener, &at)?;
    rustix::net::listen(&listener, backlog)?;
    Ok(listener)
}

/// The address of a socket.
pub(crate) fn address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?)
}

/// Listens, at an address or on any port of 127.0.0.1, and closes.
pub(crate) fn listen(arguments: &[String]) -> Outcome {
    let at = match arguments.first() {
        Some(address) => address.parse()?,
        None => ANY_V4,
    };
    report("listener", listener(at, 16)?)?;
    Ok(())
}

/// Listens without a bind before it: the kernel chooses the port.
pub(crate) fn listen_unbound() -> Outcome {
    let listener = socket(ANY_V4)?;
    rustix::net::listen(&listener, 16)?;
    report("listener", &listener)?;
    Ok(())
}

/// Connects and closes, the client first, without a byte of payload. The
/// argument `6` asks for IPv6.
pub(crate) fn pair(arguments: &[String]) -> Outcome {
    let six = arguments.first().is_some_and(|family| family == "6");
    close_in_order(Pair::new(if six { ANY_V6 } else { ANY_V4 })?)
}

/// The same between two fixed addresses, held until the test has acted:
/// `pair-at CLIENT SERVER`.
pub(crate) fn pair_at(arguments: &[String]) -> Outcome {
    let [from, to] = arguments else {
        return Err("two addresses are needed".into());
    };
    let (from, to): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
    let listener = listener(to, 16)?;
    let client = socket(from)?;
    rustix::net::bind(&client, &from)?;
    rustix::net::connect(&client, &to)?;
    let server = rustix::net::accept(&listener)?;
    let pair = Pair {
        listener,
        client,
        server,
    };
    pair.report()?;
    wait_for_the_test()?;
    close_silently(pair)
}

fn close_in_order(pair: Pair) -> Outcome {
    pair.report()?;
    close_silently(pair)
}

/// Closes the client, then the server, then the listener.
fn close_silently(pair: Pair) -> Outcome {
    drop(pair.client);
    TcpStream::from(pair.server).read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Connects to a port that is taken but does not listen, once with a port of
/// the kernel's choice and once with its own.
pub(crate) fn refused() -> Outcome {
    let deaf = socket(ANY_V4)?;
    rustix::net::bind(&deaf, &ANY_V4)?;
    let to = address(&deaf)?;
    for (role, bound) in [("unbound", false), ("bound", true)] {
        let client = socket(to)?;
        // Afterwards the kernel no longer tells all of this.
        let mut more = json!({
            "local_ip": to.ip().to_string(),
            "remote_ip": to.ip().to_string(),
            "remote_port": to.port(),
        });
        if bound {
            rustix::net::bind(&client, &ANY_V4)?;
            more["local_port"] = json!(address(&client)?.port());
        }
        if rustix::net::connect(&client, &to) != Err(rustix::io::Errno::CONNREFUSED) {
            return Err("the connection was not refused".into());
        }
        report_with(role, &client, &more)?;
    }
    Ok(())
}

/// Connects to a listener whose queue is full, so that no SYN is answered.
pub(crate) fn timeout() -> Outcome {
    let listener = listener(ANY_V4, 0)?;
    let to = address(&listener)?;
    // A queue of 0 holds one connection.
    let filler = socket(to)?;
    rustix::net::connect(&filler, &to)?;
    let client = socket(to)?;
    sockopt::set_tcp_user_timeout(&client, 300)?;
    rustix::net::bind(&client, &ANY_V4)?;
    let local_port = address(&client)?.port();
    if rustix::net::connect(&client, &to) != Err(rustix::io::Errno::TIMEDOUT) {
        return Err("the connection did not time out".into());
    }
    let more = json!({
        "local_port": local_port,
        "remote_ip": to.ip().to_string(),
        "remote_port": to.port(),
    });
    report_with("client", &client, &more)?;
    Ok(())
}

/// Connects without waiting, then waits until the socket can be written.
pub(crate) fn non_blocking() -> Outcome {
    let listener = listener(ANY_V4, 16)?;
    let client = socket(ANY_V4)?;
    rustix::io::ioctl_fionbio(&client, true)?;
    match rustix::net::connect(&client, &address(&listener)?) {
        Err(rustix::io::Errno::INPROGRESS) => {}
        Ok(()) => return Err("the connect waited".into()),
        Err(error) => return Err(error.into()),
    }
    rustix::event::poll(&mut [PollFd::new(&client, PollFlags::OUT)], None)?;
    sockopt::socket_error(&client)??;
    let server = rustix::net::accept(&listener)?;
    close_in_order(Pair {
        listener,
        client,
        server,
    })
}

/// Connects and closes within 50 µs. Tries until it has done so ten times, which
/// on a busy machine takes a while.
pub(crate) fn quick() -> Outcome {
    let listener = listener(ANY_V4, 16)?;
    let to = address(&listener)?;
    let deadline = Instant::now() + Duration::from_mins(2);
    let mut shortest = Duration::MAX;
    let mut done = 0;
    while done < 10 {
        if Instant::now() > deadline {
            return Err(format!("the shortest of all connections took {shortest:?}").into());
        }
        let client = socket(to)?;
        let client_cookie = cookie(&client)?;
        let before = Instant::now();
        rustix::net::connect(&client, &to)?;
        drop(client);
        let took = before.elapsed();
        shortest = shortest.min(took);
        let server = rustix::net::accept(&listener)?;
        if took <= Duration::from_micros(50) {
            done += 1;
            // The client is gone: the server's ends, exchanged, are its own.
            let peer = SocketAddr::try_from(
                rustix::net::getpeername(&server)?.ok_or("the server's end has no peer")?,
            )?;
            let more = json!({
                "cookie": client_cookie,
                "local_port": peer.port(),
                "remote_ip": to.ip().to_string(),
                "remote_port": to.port(),
                "took_ns": u64::try_from(took.as_nanos())?,
            });
            report_with("client", &server, &more)?;
            report("server", &server)?;
        } else {
            // Else the port of each attempt would be in use for a minute.
            sockopt::set_socket_linger(&server, Some(Duration::ZERO))?;
        }
    }
    Ok(())
}

/// A dual-stack listener, reached by an IPv4 socket and by an IPv6 socket that
/// uses a v4-mapped address.
pub(crate) fn mapped() -> Outcome {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let listener = socket(any)?;
    sockopt::set_ipv6_v6only(&listener, false)?;
    rustix::net::bind(&listener, &any)?;
    rustix::net::listen(&listener, 16)?;
    report("listener", &listener)?;
    let port = address(&listener)?.port();
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for (role, to) in [
        ("v4", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        ("mapped", SocketAddr::new(mapped.into(), port)),
    ] {
        let client = socket(to)?;
        rustix::net::connect(&client, &to)?;
        let server = rustix::net::accept(&listener)?;
        report(&format!("{role}-client"), &client)?;
        report(&format!("{role}-server"), &server)?;
        drop(client);
        TcpStream::from(server).read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// Sends 1,000,003 bytes one way and 17 the other.
pub(crate) fn bytes() -> Outcome {
    const FORTH: usize = 1_000_003;
    const BACK: usize = 17;
    let before = Instant::now();
    let pair = Pair::new(ANY_V4)?;
    let connected = Instant::now();
    pair.report()?;
    let mut client = TcpStream::from(pair.client);
    let mut server = TcpStream::from(pair.server);
    std::thread::scope(|scope| -> io::Result<()> {
        let reader = scope.spawn(|| -> io::Result<()> {
            server.read_exact(&mut vec![0; FORTH])?;
            server.write_all(&[7; BACK])
        });
        client.write_all(&vec![3; FORTH])?;
        client.read_exact(&mut [0; BACK])?;
        reader
            .join()
            .map_err(|_| io::Error::other("the reader panicked"))?
    })?;
    let at_least = connected.elapsed();
    drop(client);
    server.read_to_end(&mut Vec::new())?;
    drop(server);
    say(&json!({
        "role": "measures",
        "forth": FORTH,
        "back": BACK,
        "at_least_us": u64::try_from(at_least.as_micros())?,
        "at_most_us": u64::try_from(before.elapsed().as_micros())? + 1,
    }));
    Ok(())
}

/// Ends a connection with a reset: `client` or `server` closes with a linger
/// of 0, or the server closes with `unread` data.
pub(crate) fn reset(arguments: &[String]) -> Outcome {
    let pair = Pair::new(ANY_V4)?;
    pair.report()?;
    let Pair { client, server, .. } = pair;
    let survivor = match arguments.first().map(String::as_str) {
        Some("client") => {
            sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
            drop(client);
            server
        }
        Some("server") => {
            sockopt::set_socket_linger(&server, Some(Duration::ZERO))?;
            drop(server);
            client
        }
        Some("unread") => {
            rustix::net::send(&client, b"unread", rustix::net::SendFlags::empty())?;
            rustix::event::poll(&mut [PollFd::new(&server, PollFlags::IN)], None)?;
            drop(server);
            client
        }
        other => return Err(format!("who resets? {other:?}").into()),
    };
    match TcpStream::from(survivor).read(&mut [0; 8]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(format!("no reset arrived but {other:?}").into()),
    }
}

/// Leaves a connection in TIME_WAIT on the client's side. With `stay` the
/// process lives on until the test has acted, else it is gone before.
pub(crate) fn time_wait(arguments: &[String]) -> Outcome {
    let pair = Pair::new(ANY_V4)?;
    pair.report()?;
    let Pair {
        listener,
        client,
        server,
    } = pair;
    drop(client);
    TcpStream::from(server).read_to_end(&mut Vec::new())?;
    if arguments.first().is_some_and(|stay| stay == "stay") {
        wait_for_the_test()?;
    }
    drop(listener);
    Ok(())
}

/// Opens a listener, a connection and a UDP port; lets the test start a
/// recorder; then accepts one more connection and closes everything.
pub(crate) fn hold() -> Outcome {
    let pair = Pair::new(ANY_V4)?;
    pair.report()?;
    let udp = crate::udp::socket(ANY_V4)?;
    rustix::net::bind(&udp, &ANY_V4)?;
    report("udp", &udp)?;
    wait_for_the_test()?;
    let late_client = socket(ANY_V4)?;
    rustix::net::connect(&late_client, &address(&pair.listener)?)?;
    let late_server = rustix::net::accept(&pair.listener)?;
    report("late-client", &late_client)?;
    report("late-server", &late_server)?;
    drop(late_client);
    TcpStream::from(late_server).read_to_end(&mut Vec::new())?;
    close_silently(pair)
}

/// Leaves everything open and lets the kernel clean up after the process.
pub(crate) fn exit_open() -> Outcome {
    let pair = Pair::new(ANY_V4)?;
    pair.report()?;
    let udp = crate::udp::socket(ANY_V4)?;
    rustix::net::bind(&udp, &ANY_V4)?;
    report("udp", &udp)?;
    std::process::exit(0);
}

/// Connects to a port of 127.0.0.1 and exits: `connect-exit PORT [TAG]`. With
/// the tag `maps` it tells what it has mapped.
pub(crate) fn connect_exit(arguments: &[String]) -> Outcome {
    let port = arguments.first().ok_or("no port is named")?.parse()?;
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let client = socket(to)?;
    rustix::net::connect(&client, &to)?;
    if arguments.get(1).is_some_and(|tag| tag == "maps") {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        report_with("client", &client, &json!({"maps": maps}))?;
    } else {
        report("client", &client)?;
    }
    std::process::exit(0);
}
