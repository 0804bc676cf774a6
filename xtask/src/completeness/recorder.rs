//! Port Reporter as a watcher: the real binary, and PR-EVENTS read back with
//! the reader that every other program uses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use event::{Action, CloseReason, Endpoint, Protocol};
use logs::read::{Event, Line, Reader, SocketRecord};

use super::sighting::{Sighting, Watched, What};
use super::watcher::Watcher;
use crate::bench::events::event_files;
use crate::bench::recorder::Recorder;
use crate::load::scenarios::fact::{End, Kind};

/// How often it compares its table with the kernel's, as it does unless it is
/// told otherwise.
const RECONCILE: Duration = Duration::from_mins(1);

/// A recorder at work.
pub(super) struct Recording {
    recorder: Recorder,
}

impl Recording {
    /// Starts one with that engine, and waits until its first snapshot is there.
    pub(super) fn start(binary: &Path, engine: &str) -> anyhow::Result<Self> {
        let reconcile = RECONCILE.as_secs().to_string();
        let recorder = Recorder::start_with(
            binary,
            &[
                "--engine",
                engine,
                "--reconcile",
                &reconcile,
                "--max-total-size",
                "8G",
            ],
        )?;
        Ok(Self { recorder })
    }
}

impl Watcher for Recording {
    fn cpu(&self) -> anyhow::Result<Duration> {
        self.recorder.subject.cpu()
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.recorder.subject.settle(Duration::from_mins(2))
    }

    fn stop(mut self: Box<Self>) -> anyhow::Result<Watched> {
        // An end that no program was called for is told by the next comparison.
        self.recorder.wait_until_compared(RECONCILE)?;
        let peak = self.recorder.subject.peak()?;
        let recorded = self.recorder.stop()?;
        let mut reading = Reading::default();
        for path in in_order(&recorded.logs())? {
            reading.file(&path)?;
        }
        reading.close();
        Ok(Watched {
            sightings: reading.sightings,
            lost: Some(reading.lost),
            cpu: recorded.life.cpu,
            peak: Some(peak),
            contradictions: reading.contradictions,
        })
    }
}

/// The files of a run. Each begins with its first number, by which they are
/// ordered: a name says only which second it was.
fn in_order(logs: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = event_files(logs)?
        .into_iter()
        .map(|path| {
            let first = match Reader::open(&path)?.next_line()? {
                Some(Line::Record(record)) => record.seq,
                _ => None,
            };
            Ok((first, path))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    sightings: Vec<Sighting>,
    lost: u64,
    ledger: Option<(u64, u64, u64)>,
    next: u64,
    contradictions: Vec<String>,
}

impl Reading {
    fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut reader = Reader::open(path).with_context(|| path.display().to_string())?;
        let is_first = self.next == 0;
        while let Some(line) = reader.next_line()? {
            let record = match line {
                Line::Record(record) => record,
                Line::Damaged { number, why } => {
                    self.contradictions.push(format!("line {number}: {why}"));
                    self.next += 1;
                    continue;
                }
                Line::Torn { number } => {
                    self.contradictions.push(format!("line {number} is torn"));
                    continue;
                }
            };
            if record.seq != Some(self.next) {
                self.contradictions
                    .push(format!("seq {:?} after {}", record.seq, self.next));
            }
            self.next = record.seq.unwrap_or(self.next) + 1;
            match record.event {
                // The head of a later set tells again what was there already.
                Event::Socket(socket) if socket.action == Action::Snapshot && !is_first => {}
                Event::Socket(socket) => {
                    let at = record.time.map_or(0, |moment| moment.wall.0);
                    self.sightings.extend(sighting(&socket, at));
                }
                Event::Gap(gap) => self.lost += gap.lost.unwrap_or(0),
                Event::Counters(counters) => {
                    self.ledger = counters
                        .kernel
                        .zip(counters.written)
                        .zip(counters.lost)
                        .map(|((kernel, written), lost)| (kernel, written, lost));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Holds the ledger against itself.
    fn close(&mut self) {
        match self.ledger {
            None => self.contradictions.push("no counters".to_owned()),
            Some((kernel, written, lost)) if kernel != written + lost => self.contradictions.push(
                format!("kernel {kernel} is not written {written} + lost {lost}"),
            ),
            Some(_) => {}
        }
    }
}

/// A line about a socket, if it says that one came, is there or went.
fn sighting(record: &SocketRecord, at: i64) -> Option<Sighting> {
    let mut said = Sighting {
        at,
        cookie: record.socket.cookie.map(|cookie| cookie.0),
        netns: record.socket.netns.map(u64::from),
        protocol: record.socket.protocol.name().to_owned(),
        local: Some(end(record.socket.local)),
        remote: record.socket.remote.map(end),
        ..Sighting::default()
    };
    if let Some(process) = &record.process {
        said.pid = Some(process.pid);
        said.exe.clone_from(&process.exe);
        said.uid = process.uid;
        said.container.clone_from(&process.container);
    }
    said.what = match record.action {
        Action::Accept => What::Opened(Kind::Accept),
        Action::Bind => What::Opened(match record.socket.protocol {
            Protocol::Raw(_) | Protocol::Icmp | Protocol::Packet(_) => Kind::Create,
            _ => Kind::Bind,
        }),
        Action::Connect => What::Opened(Kind::Connect),
        Action::Listen => What::Opened(Kind::Listen),
        Action::Snapshot | Action::Discover => What::Found,
        Action::Close {
            reason,
            bytes_sent,
            bytes_received,
            ..
        } => {
            (said.sent, said.received) = (bytes_sent, bytes_received);
            What::Closed(reason_of(reason))
        }
        Action::Vanish => What::Closed(None),
        _ => return None,
    };
    Some(said)
}

fn reason_of(reason: CloseReason) -> Option<End> {
    match reason {
        CloseReason::Closed => Some(End::Closed),
        CloseReason::Reset => Some(End::Reset),
        CloseReason::Refused => Some(End::Refused),
        CloseReason::Timeout => Some(End::Timeout),
        CloseReason::Unknown => None,
    }
}

fn end(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.ip, endpoint.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_set_tells_again_is_one_sighting() {
        let directory = tempfile::tempdir().unwrap();
        let mut reading = Reading::default();
        for (seq, event) in [(0, "snapshot"), (1, "snapshot"), (2, "discover")] {
            let path = directory.path().join(format!("PR-EVENTS-{seq}.jsonl"));
            let line = format!(
                r#"{{"seq":{seq},"time":"2026-11-22T13:59:21.545692+00:00","event":"{event}","socket":"c1de69","netns":7,"protocol":"tcp","family":"ipv4","local_ip":"127.0.0.1","local_port":46892,"remote_ip":"127.0.0.1","remote_port":8081,"state":"TIME_WAIT","owner":"unknown","pid":null}}"#
            );
            std::fs::write(&path, line + "\n").unwrap();
            reading.file(&path).unwrap();
        }
        assert_eq!(reading.contradictions, [""; 0]);
        assert_eq!(reading.sightings.len(), 2);
    }
}
