//! What a storm left in PR-EVENTS.
//!
//! Every file of a log directory is read, closed and compressed ones included,
//! and each event of the storm is counted: which happened, whether twice,
//! whether its owner is the process that really did it, and what the recorder
//! itself says that it lost. Of the whole run, the numbering must have no hole
//! and the last `counters` must balance.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::load::storm::Outcome;

/// The counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The engine that recorded.
    pub(super) engine: String,
    /// Socket events of any process, without snapshots.
    pub(super) events: u64,
    /// Outbound connections of the storm.
    pub(super) connects: u64,
    /// Of these, established.
    pub(super) established: u64,
    /// Inbound connections of the storm.
    pub(super) accepts: u64,
    /// Ends of the storm's connections; each has two.
    pub(super) closes: u64,
    /// Ends of which no event told: the comparison with the kernel's table found
    /// that the socket was gone.
    pub(super) vanished: u64,
    /// Connects and accepts of a socket that had one already.
    pub(super) doubled: u64,
    /// Connects and accepts of the storm with another owner than the true one.
    pub(super) wrong_owner: u64,
    /// Events lost, by the recorder's own account.
    pub(super) lost: u64,
    /// Numbers missing between the first line and the last.
    pub(super) holes: u64,
    /// By how much the last `counters` does not balance.
    pub(super) unbalanced: u64,
    /// Bytes of all PR-EVENTS, uncompressed.
    pub(super) bytes: u64,
}

impl Tally {
    /// Reads all PR-EVENTS in a log directory.
    pub(super) fn read(logs: &Path, storm: &Outcome) -> anyhow::Result<Self> {
        let mut counter = Counter::new(storm);
        for path in event_files(logs)? {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            let reader: Box<dyn Read> = if path.extension().is_some_and(|end| end == "zst") {
                Box::new(zstd::Decoder::new(file)?)
            } else {
                Box::new(file)
            };
            counter
                .read(BufReader::with_capacity(1 << 18, reader))
                .with_context(|| path.display().to_string())?;
        }
        Ok(counter.finish())
    }

    /// Connections' ends that were neither recorded nor confessed as lost.
    pub(super) fn unexplained(&self, connections: u32) -> u64 {
        (2 * u64::from(connections)).saturating_sub(self.connects + self.accepts + self.lost)
    }

    /// Later events of connections that were neither recorded nor confessed as lost.
    pub(super) fn unfinished(&self, connections: u32) -> u64 {
        let told = self.established + self.closes + self.vanished + self.lost;
        (3 * u64::from(connections)).saturating_sub(told)
    }
}

/// The PR-EVENTS files of a directory, in no particular order.
pub(crate) fn event_files(logs: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(logs).with_context(|| logs.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("PR-EVENTS-") && (name.ends_with(".jsonl") || name.ends_with(".zst")) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The keys that count here.
#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    event: &'a str,
    engine: Option<String>,
    socket: Option<&'a str>,
    protocol: Option<&'a str>,
    local_port: Option<u16>,
    remote_port: Option<u16>,
    pid: Option<u32>,
    lost: Option<u64>,
    kernel: Option<u64>,
    written: Option<u64>,
}

struct Counter<'a> {
    storm: &'a Outcome,
    ports: HashSet<u16>,
    tally: Tally,
    lines: u64,
    last: Option<u64>,
    opened: HashSet<u64>,
    /// The highest `kernel`, with its `written` and `lost`.
    balance: (u64, u64, u64),
}

impl<'a> Counter<'a> {
    fn new(storm: &'a Outcome) -> Self {
        Self {
            storm,
            ports: storm.ports.iter().copied().collect(),
            tally: Tally::default(),
            lines: 0,
            last: None,
            opened: HashSet::new(),
            balance: (0, 0, 0),
        }
    }

    fn read(&mut self, mut reader: impl BufRead) -> anyhow::Result<()> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let length = reader.read_until(b'\n', &mut text)?;
            if length == 0 {
                return Ok(());
            }
            self.tally.bytes += u64::try_from(length)?;
            self.count(&serde_json::from_slice(&text)?);
        }
    }

    fn count(&mut self, line: &Line<'_>) {
        self.lines += 1;
        self.last = self.last.max(Some(line.seq));
        match line.event {
            "open" => {
                if let Some(engine) = &line.engine {
                    self.tally.engine.clone_from(engine);
                }
            }
            "gap" => self.tally.lost += line.lost.unwrap_or(0),
            "counters" => {
                let kernel = line.kernel.unwrap_or(0);
                if kernel >= self.balance.0 {
                    self.balance = (kernel, line.written.unwrap_or(0), line.lost.unwrap_or(0));
                }
            }
            "snapshot" => {}
            event => self.count_socket(event, line),
        }
    }

    fn count_socket(&mut self, event: &str, line: &Line<'_>) {
        let Some(protocol) = line.protocol else {
            return;
        };
        self.tally.events += 1;
        let is_ours = |port: Option<u16>| port.is_some_and(|port| self.ports.contains(&port));
        let outbound = is_ours(line.remote_port);
        // A listener of the storm has its port, but no peer.
        let inbound = is_ours(line.local_port) && line.remote_port.is_some();
        if protocol != "tcp" || !(outbound || inbound) {
            return;
        }
        match event {
            "connect" if outbound => {
                self.tally.connects += 1;
                self.check_opening(line, self.storm.client);
            }
            "accept" if inbound => {
                self.tally.accepts += 1;
                self.check_opening(line, self.storm.server);
            }
            "established" => self.tally.established += 1,
            "close" => self.tally.closes += 1,
            "vanish" => self.tally.vanished += 1,
            _ => {}
        }
    }

    fn check_opening(&mut self, line: &Line<'_>, owner: u32) {
        if line.pid != Some(owner) {
            self.tally.wrong_owner += 1;
        }
        let cookie = line
            .socket
            .and_then(|cookie| u64::from_str_radix(cookie, 16).ok());
        if cookie.is_some_and(|cookie| !self.opened.insert(cookie)) {
            self.tally.doubled += 1;
        }
    }

    fn finish(mut self) -> Tally {
        let numbered = self.last.map_or(0, |last| last + 1);
        self.tally.holes = numbered.abs_diff(self.lines);
        let (kernel, written, lost) = self.balance;
        self.tally.unbalanced = kernel.abs_diff(written + lost);
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const FIRST: &str = r#"{"seq":0,"event":"open","engine":"ebpf"}
{"seq":1,"event":"snapshot","socket":"1","protocol":"tcp","local_port":7000,"remote_port":null,"pid":1}
{"seq":2,"event":"snapshot-end","sockets":1}
{"seq":3,"event":"listen","socket":"2","protocol":"tcp","local_port":7000,"remote_port":null,"pid":20}
{"seq":4,"event":"connect","socket":"3","protocol":"tcp","local_port":40000,"remote_port":7000,"pid":10}
{"seq":5,"event":"accept","socket":"4","protocol":"tcp","local_port":7000,"remote_port":40000,"pid":20}
{"seq":6,"event":"established","socket":"3","protocol":"tcp","local_port":40000,"remote_port":7000,"pid":10}
"#;
    const SECOND: &str = r#"{"seq":7,"event":"close","socket":"3","protocol":"tcp","local_port":40000,"remote_port":7000,"pid":10}
{"seq":8,"event":"accept","socket":"4","protocol":"tcp","local_port":7000,"remote_port":40000,"pid":null}
{"seq":10,"event":"gap","lost":2}
{"seq":11,"event":"connect","socket":"9","protocol":"tcp","local_port":1,"remote_port":22,"pid":99}
{"seq":12,"event":"vanish","socket":"4","protocol":"tcp","local_port":7000,"remote_port":40000,"pid":20}
{"seq":13,"event":"vanish","socket":"9","protocol":"tcp","local_port":1,"remote_port":22,"pid":99}
{"seq":14,"event":"counters","kernel":10,"received":8,"written":7,"lost":2}
{"seq":15,"event":"seal","events":15}
"#;

    fn storm() -> Outcome {
        Outcome {
            connections: 3,
            seconds: 1.0,
            cpu_seconds: 1.0,
            ports: vec![7000],
            client: 10,
            server: 20,
        }
    }

    #[test]
    fn every_flaw_is_found_also_in_compressed_files() {
        let logs = tempfile::tempdir().unwrap();
        let closed = zstd::encode_all(FIRST.as_bytes(), 1).unwrap();
        std::fs::write(logs.path().join("PR-EVENTS-a.jsonl.zst"), closed).unwrap();
        let mut open = File::create(logs.path().join("PR-EVENTS-b.jsonl")).unwrap();
        open.write_all(SECOND.as_bytes()).unwrap();
        std::fs::write(logs.path().join("PR-PORTS-b.log"), "not JSON").unwrap();

        let tally = Tally::read(logs.path(), &storm()).unwrap();
        let expected = Tally {
            engine: "ebpf".to_owned(),
            events: 9,
            connects: 1,
            established: 1,
            accepts: 2,
            closes: 1,
            vanished: 1,
            doubled: 1,
            wrong_owner: 1,
            lost: 2,
            holes: 1,
            unbalanced: 1,
            bytes: (FIRST.len() + SECOND.len()) as u64,
        };
        assert_eq!(tally, expected);
        assert_eq!(tally.unexplained(3), 1);
        assert_eq!(tally.unfinished(3), 4);
    }

    #[test]
    fn a_torn_line_is_an_error() {
        let logs = tempfile::tempdir().unwrap();
        std::fs::write(logs.path().join("PR-EVENTS-a.jsonl"), "{\"seq\":0,").unwrap();
        assert!(Tally::read(logs.path(), &storm()).is_err());
    }
}
