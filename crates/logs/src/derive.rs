//! Derives the classic files from PR-EVENTS.
//!
//! PR-EVENTS is the complete record: PR-PORTS, and the header and the table of
//! mappings of PR-INITIAL, follow from it byte for byte. Deriving them proves
//! that the files of a set agree, and restores a file that was lost.
//!
//! What does not follow: the blocks of PR-INITIAL and PR-PIDS below the table
//! hold modules and descriptions of services, which PR-EVENTS leaves out, and
//! when an entry of PR-PIDS was due is the recorder's decision.
//!
//! This writes nothing to a disk and repairs nothing; a line that is damaged is
//! a row that is missing here.

use std::path::{Path, PathBuf};

use event::{Action, Process, Socket};
use jiff::tz::{Offset, TimeZone};

use crate::format::clock::LocalClock;
use crate::format::events::OwnerText;
use crate::format::listing::{self, Modules, ProcessPorts};
use crate::format::{initial, ports};
use crate::read::{self, Event, GapRecord, Line, Moment, Open, Reader, Record, SocketRecord};

/// Could the recorder name processes on the machine? (PR-EVENTS of one that
/// could not has `unknown` owners only, as has one on which nobody was found.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Rows of ten fields.
    Available,
    /// Rows of seven fields, and no process in PR-INITIAL.
    Unavailable,
}

/// What follows from one PR-EVENTS file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The whole PR-PORTS file.
    pub ports: Vec<u8>,
    /// PR-INITIAL to the end of the table of mappings; without a mapping, the
    /// whole file.
    pub initial: Vec<u8>,
}

/// Why nothing can be derived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The file does not begin with an `open` that has a time: it is no
    /// PR-EVENTS file, or its first line is damaged.
    #[error("{path} does not begin with an `open`", path = .path.display())]
    NoOpening {
        /// The file.
        path: PathBuf,
    },
}

/// Derives from a file.
pub fn from_file(path: &Path, mapping: Mapping) -> Result<Derived, Error> {
    let mut derivation: Option<Derivation> = None;
    for line in Reader::open(path)? {
        let Line::Record(record) = line? else {
            continue;
        };
        match &mut derivation {
            Some(derivation) => derivation.push(record),
            None => derivation = Derivation::new(record, mapping),
        }
        if derivation.is_none() {
            break;
        }
    }
    derivation
        .map(Derivation::finish)
        .ok_or_else(|| Error::NoOpening {
            path: path.to_owned(),
        })
}

/// A file on its way through.
struct Derivation {
    mapping: Mapping,
    opened: Moment,
    open: Open,
    clock: LocalClock,
    offset_seconds: i32,
    ports: Vec<u8>,
    snapshot: Vec<(Option<Process>, Socket)>,
}

impl Derivation {
    fn new(first: Record, mapping: Mapping) -> Option<Self> {
        let (Some(opened), Event::Open(open)) = (first.time, first.event) else {
            return None;
        };
        let mut ports = Vec::new();
        ports::header(&mut ports, open.set.as_deref().unwrap_or_default());
        Some(Self {
            mapping,
            opened,
            open: *open,
            clock: LocalClock::new(zone(opened.offset_seconds)),
            offset_seconds: opened.offset_seconds,
            ports,
            snapshot: Vec::new(),
        })
    }

    fn push(&mut self, record: Record) {
        let line = match record.event {
            Event::Socket(line) if line.socket.protocol.is_classic() => line,
            Event::Gap(gap) => return self.gap(&gap),
            _ => return,
        };
        let Some(time) = record.time else {
            return;
        };
        if line.action.has_row(line.socket.protocol) {
            self.row(time, &line);
        } else if line.action == Action::Snapshot {
            self.snapshot.push((line.process, line.socket));
        }
    }

    fn row(&mut self, time: Moment, line: &SocketRecord) {
        self.set_offset(time.offset_seconds);
        let clock = &mut self.clock;
        if self.mapping == Mapping::Unavailable {
            ports::row_without_process(&mut self.ports, clock, time.wall, &line.socket);
            return;
        }
        let owner = line
            .process
            .as_ref()
            .map(|process| OwnerText::new(process, None, clock));
        ports::row(
            &mut self.ports,
            clock,
            time.wall,
            &line.socket,
            owner.as_ref(),
        );
    }

    fn gap(&mut self, gap: &GapRecord) {
        let (Some(from), Some(to)) = (gap.from, gap.to) else {
            return;
        };
        self.set_offset(from.offset_seconds);
        ports::gap_begin(&mut self.ports, &mut self.clock, gap.lost, from.wall);
        self.set_offset(to.offset_seconds);
        ports::gap_end(&mut self.ports, &mut self.clock, to.wall);
    }

    fn finish(mut self) -> Derived {
        self.set_offset(self.opened.offset_seconds);
        let host = self.open.host.as_deref().unwrap_or_default();
        let os = self.open.os.as_deref().unwrap_or_default();
        let t = self.opened.wall;
        let mut initial = Vec::new();
        let sockets: Vec<_> = self.snapshot.iter().map(|(_, socket)| socket).collect();
        if self.mapping == Mapping::Unavailable {
            initial::write_without_processes(&mut initial, &mut self.clock, t, host, os, &sockets);
        } else {
            let processes: Vec<_> = self
                .snapshot
                .iter()
                .zip(&sockets)
                .map(|((process, _), socket)| ProcessPorts {
                    process: process.as_ref(),
                    sockets: std::slice::from_ref(socket),
                    modules: Modules::Known(&[]),
                })
                .collect();
            initial::head(&mut initial, &mut self.clock, t, host, os);
            listing::mappings(&mut initial, &processes);
        }
        Derived {
            ports: self.ports,
            initial,
        }
    }

    /// Times are derived with the offset with which they were written.
    fn set_offset(&mut self, offset_seconds: i32) {
        if self.offset_seconds != offset_seconds {
            self.offset_seconds = offset_seconds;
            self.clock.set_zone(zone(offset_seconds));
        }
    }
}

fn zone(offset_seconds: i32) -> TimeZone {
    TimeZone::fixed(Offset::from_seconds(offset_seconds).unwrap_or(Offset::UTC))
}
