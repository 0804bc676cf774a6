//! rustnet, which captures packets and keeps a table of connections; here
//! without its terminal, with its JSON log, on the loopback interface, where
//! nearly all scenarios are.
//!
//! Its log tells of a connection at its first packet, and of its end by timers
//! that run for half a minute and more; what it counts comes with the end. So
//! only what it says at the beginning is asked for, where it does not name the
//! process yet.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use super::lines::{Lines, Parse};
use crate::bench::peer::find;
use crate::completeness::sighting::{Sighting, What};
use crate::completeness::watcher::NotHere;

/// Starts it.
pub(in crate::completeness) fn start() -> anyhow::Result<Lines<Captured>> {
    let program = find("rustnet")
        .ok_or_else(|| NotHere("not installed (crate rustnet-monitor)".to_owned()))?;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log");
    let mut command = Command::new(program);
    command
        .args(["--interface", "lo", "--show-localhost", "--no-resolve-dns"])
        .args(["--no-geoip", "--headless", "--json-log"])
        .arg(&log);
    let parse = Captured {
        _directory: directory,
    };
    Lines::start("rustnet", &mut command, parse)?
        .writes(log)
        .after(Duration::from_secs(2))
}

/// One JSON object a line.
pub(in crate::completeness) struct Captured {
    /// Where its log is, for as long as it is read.
    _directory: TempDir,
}

/// The keys that count here.
#[derive(Deserialize)]
struct Told {
    event: String,
    protocol: String,
    source_ip: std::net::IpAddr,
    source_port: u16,
    destination_ip: std::net::IpAddr,
    destination_port: u16,
    pid: Option<u32>,
}

impl Parse for Captured {
    fn line(&mut self, line: &str, at: i64) -> Vec<Sighting> {
        let Ok(told) = serde_json::from_str::<Told>(line) else {
            return Vec::new();
        };
        if told.event != "new_connection" {
            return Vec::new();
        }
        vec![Sighting {
            at,
            protocol: told.protocol.to_lowercase(),
            what: What::Found,
            local: Some(SocketAddr::new(told.source_ip, told.source_port)),
            remote: Some(SocketAddr::new(told.destination_ip, told.destination_port)),
            pid: told.pid,
            ..Sighting::default()
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_is_a_sighting() {
        let line = r#"{"destination_ip":"127.0.0.1","destination_port":37063,
            "direction":"outgoing","event":"new_connection","protocol":"TCP",
            "source_ip":"127.0.0.1","source_port":57682,"timestamp":"2026-11-22T16:13:14Z"}"#;
        let mut captured = Captured {
            _directory: tempfile::tempdir().unwrap(),
        };
        let said = captured.line(line, 9);
        assert_eq!(said[0].local, Some("127.0.0.1:57682".parse().unwrap()));
        assert_eq!((said[0].pid, said[0].at), (None, 9));
        assert!(captured.line(&line.replace("new_", "old_"), 9).is_empty());
    }
}
