//! `ss -tunap` once a second: what people script when they want to know.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Pid;

use super::lines::installed;
use crate::bench::measure::{Life, reap};
use crate::completeness::play::now;
use crate::completeness::sighting::{Sighting, Watched, What};
use crate::completeness::watcher::Watcher;

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// A thread that calls it.
pub(in crate::completeness) struct Polling {
    end: Sender<()>,
    thread: JoinHandle<anyhow::Result<Vec<(i64, String)>>>,
    spent: Arc<Mutex<Duration>>,
}

/// Starts it.
pub(in crate::completeness) fn start() -> anyhow::Result<Polling> {
    let program = installed(&["ss"], "iproute2")?;
    let (end, ended) = channel();
    let spent = Arc::new(Mutex::new(Duration::ZERO));
    let bill = Arc::clone(&spent);
    let thread = std::thread::spawn(move || {
        let mut looks = Vec::new();
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(INTERVAL) {
            let (text, life) = call(&program)?;
            *bill.lock().unwrap_or_else(PoisonError::into_inner) += life.cpu;
            looks.push((now(), text));
        }
        Ok(looks)
    });
    Ok(Polling { end, thread, spent })
}

impl Watcher for Polling {
    fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(*self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        std::thread::sleep(2 * INTERVAL);
        Ok(())
    }

    fn stop(self: Box<Self>) -> anyhow::Result<Watched> {
        drop(self.end);
        let looks = self
            .thread
            .join()
            .ok()
            .context("ss: its caller panicked")??;
        let mut sightings = Vec::new();
        for (at, text) in looks {
            sightings.extend(text.lines().filter_map(|line| parse(line, at)));
        }
        let cpu = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Watched {
            sightings,
            lost: None,
            cpu,
            // Each call is over before it could be looked at.
            peak: None,
            contradictions: Vec::new(),
        })
    }
}

/// One call, and what it cost.
fn call(program: &PathBuf) -> anyhow::Result<(String, Life)> {
    let mut child = Command::new(program)
        .args(["-tunapH"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut text = Vec::new();
    child
        .stdout
        .take()
        .context("no pipe")?
        .read_to_end(&mut text)?;
    let pid = Pid::from_child(&child);
    loop {
        if let Some(life) = reap(pid)? {
            return Ok((String::from_utf8_lossy(&text).into_owned(), life));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `tcp ESTAB 0 0 127.0.0.1:1 127.0.0.1:2 users:(("x",pid=7,fd=3))`.
fn parse(line: &str, at: i64) -> Option<Sighting> {
    let mut fields = line.split_whitespace();
    let protocol = fields.next()?;
    let mut ends = fields.skip(3);
    let local = end(ends.next()?)?;
    let remote = ends.next().and_then(end).filter(|end| end.port() != 0);
    let pid = line
        .rsplit_once("users:(")
        .and_then(|(_, users)| users.split_once(",pid="))
        .and_then(|(_, rest)| rest.split([',', ')']).next()?.parse().ok());
    Some(Sighting {
        at,
        protocol: protocol.to_owned(),
        what: What::Found,
        local: Some(local),
        remote,
        pid,
        ..Sighting::default()
    })
}

/// `127.0.0.1:80`, `[::1]:80`, `*:80`, `127.0.0.1%lo:80`, `0.0.0.0:*`.
fn end(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    let ip = ip.split('%').next()?.trim_end_matches(']');
    let ip: IpAddr = match ip {
        "*" => IpAddr::from([0; 16]),
        ip => ip.parse().ok()?,
    };
    let port = if port == "*" { 0 } else { port.parse().ok()? };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss_is_read() {
        let line =
            "tcp   ESTAB 0 0 127.0.0.1:1 [::ffff:127.0.0.1]:2 users:((\"a,pid=3\",pid=7,fd=3))";
        let said = parse(&line.replace("a,pid=3", "x"), 5).unwrap();
        assert_eq!(said.pid, Some(7));
        assert_eq!(said.local, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(said.remote.unwrap().port(), 2);
        let said = parse("udp UNCONN 0 0 127.0.0.1%lo:4 0.0.0.0:*", 5).unwrap();
        assert_eq!((said.remote, said.pid), (None, None));
        assert_eq!(end("*:80"), Some("[::]:80".parse().unwrap()));
        assert_eq!(
            end("[fe80::1]%one:80"),
            Some("[fe80::1]:80".parse().unwrap())
        );
    }
}
