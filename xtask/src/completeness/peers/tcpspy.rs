//! `tcpspy`: looks at `/proc/net/tcp` again and again, here every 100 ms. It
//! names users and programs, not processes, so nothing is asked about owners.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::lines::{Lines, Parse, installed};
use crate::completeness::sighting::{Sighting, What};

/// Starts it.
pub(in crate::completeness) fn start() -> anyhow::Result<Lines<Spied>> {
    let program = installed(&["tcpspy"], "tcpspy")?;
    let mut command = Command::new("stdbuf");
    command
        .arg("-oL")
        .arg(program)
        .args(["-d", "-p", "-I", "100"]);
    Lines::start("tcpspy", &mut command, Spied)?.after(Duration::from_millis(500))
}

/// `connect: proc …, user root, local 127.0.0.1:34018, remote 127.0.0.1:80`.
pub(in crate::completeness) struct Spied;

impl Parse for Spied {
    fn line(&mut self, line: &str, at: i64) -> Vec<Sighting> {
        parse(line, at).into_iter().collect()
    }
}

fn parse(line: &str, at: i64) -> Option<Sighting> {
    let (before, rest) = line.rsplit_once("local ")?;
    let (local, remote) = rest.split_once(", remote ")?;
    let end = |text: &str| -> Option<SocketAddr> {
        let (ip, port) = text.trim().rsplit_once(':')?;
        Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
    };
    Some(Sighting {
        at,
        protocol: "tcp".to_owned(),
        what: if before.contains("disconnect") {
            What::Closed(None)
        } else {
            What::Found
        },
        local: Some(end(local)?),
        remote: Some(end(remote)?),
        ..Sighting::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connects_and_disconnects_are_told_apart() {
        let line = "Nov 22 15:19:14: connect: proc /x, user root, local 127.0.0.1:9, \
                    remote 127.0.0.2:80";
        let said = parse(line, 1).unwrap();
        assert_eq!(said.what, What::Found);
        assert_eq!(said.remote, Some("127.0.0.2:80".parse().unwrap()));
        let said = parse(&line.replace(" connect", " disconnect"), 1).unwrap();
        assert_eq!(said.what, What::Closed(None));
        assert!(parse("tcpspy 1.7d started (debug)", 1).is_none());
    }
}
