//! Many connections, as fast as they go, with the cookie of every end kept.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use serde_json::json;

use crate::Outcome;
use crate::facts::{cookie, say, wall_micros};
use crate::tcp::{address, listener, socket};

/// Makes a number of connections at an address of loopback: `storm COUNT IP`.
/// Says how far it is after each twentieth, and every cookie at the end.
pub(crate) fn storm(arguments: &[String]) -> Outcome {
    let [count, ip] = arguments else {
        return Err("a count and an address are needed".into());
    };
    let count: usize = count.parse()?;
    let listener = listener(SocketAddr::new(ip.parse()?, 0), 64)?;
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let (client, server) = connect(&listener)?;
        clients.push(cookie(&client)?);
        servers.push(cookie(&server)?);
        drop(client);
        TcpStream::from(server).read_to_end(&mut Vec::new())?;
        if number % (count / 20).max(1) == 0 {
            say(&json!({"progress": number}));
        }
    }
    say(&json!({
        "role": "storm",
        "pid": std::process::id(),
        "clients": clients,
        "servers": servers,
    }));
    Ok(())
}

/// Makes connections, at most 2,000 a second, until something comes from
/// standard input: `churn IP`. Each ends with a reset, so that no TIME_WAIT
/// uses up the ports. Says after each twenty for how long it has been at it;
/// at the end, every client's cookie with a moment at which its connection was
/// closed already.
pub(crate) fn churn(arguments: &[String]) -> Outcome {
    let ip = arguments.first().ok_or("no address is named")?.parse()?;
    let listener = listener(SocketAddr::new(ip, 0), 64)?;
    let began = Instant::now();
    let mut connections = Vec::new();
    loop {
        for _ in 0..20 {
            let (client, server) = connect(&listener)?;
            let key = cookie(&client)?;
            sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
            drop(client);
            drop(server);
            connections.push(json!([key, wall_micros()]));
        }
        let elapsed = u64::try_from(began.elapsed().as_millis())?;
        say(&json!({"elapsed_ms": elapsed}));
        if ended()? {
            break;
        }
    }
    say(&json!({"role": "churn", "connections": connections}));
    Ok(())
}

fn connect(listener: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let to = address(listener)?;
    let client = socket(to)?;
    rustix::net::connect(&client, &to)?;
    let server = rustix::net::accept(listener)?;
    Ok((client, server))
}

/// Gives the test 10 ms to say that it is enough. Has it?
fn ended() -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    Ok(rustix::event::poll(&mut fds, Some(&pause))? > 0)
}
