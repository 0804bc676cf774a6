//! A set that is being written, and one that is being opened.
//!
//! A new set comes into being as a whole or not at all. Its four files are made
//! and their heads written while the set before it is still in use; PR-EVENTS
//! carries the name of a draft until then. Only when all of that is on the disk
//! does the old file get its seal and the draft its name ([`Draft::commit`]).
//! Should anything fail before, the new files go and the old set goes on. So a
//! PR-EVENTS file under its own name always holds its `open` and the whole
//! state, and a full disk costs no event.

use std::io;
use std::sync::Arc;

use crate::dir::Dir;
use crate::error::Error;
use crate::format::clock::LocalClock;
use crate::format::events::{EventsEncoder, Gap, Opening};
use crate::format::{pids, ports};
use crate::names::{FileKind, FileName, Form, inventory};
use crate::roll::{Day, is_full};
use crate::seal::Link;
use crate::sink::{Create, Disk, Sink};
use crate::stamp::Stamp;
use crate::writer::{Options, Run, SetState};
use event::{Action, WallTime};

/// So much of a snapshot is written at once.
const CHUNK: usize = 256 * 1024;

/// The lines that the ledger counts.
const COUNTED: [&str; 7] = [
    "accept",
    "bind",
    "close",
    "connect",
    "established",
    "listen",
    "state",
];

/// How many stamps are tried. Beyond that somebody makes files on purpose.
const ATTEMPTS: u32 = 100;

/// The set that is being written.
pub(crate) struct OpenSet {
    pub(crate) stamp: Stamp,
    pub(crate) day: Day,
    /// The directory is another one by now.
    pub(crate) is_left_behind: bool,
    /// When it was opened.
    pub(crate) opened: WallTime,
    /// The number of the first line in PR-EVENTS.
    pub(crate) first_seq: u64,
    /// What happened to sockets and is in PR-EVENTS or waits to be.
    pub(crate) events_kept: u64,
    /// The same for the rows of PR-PORTS.
    pub(crate) rows_kept: u64,
    /// Rows that found no room, and no line says so yet.
    pub(crate) rows_missing: u64,
    /// The same for the entries of PR-PIDS.
    pub(crate) entries_missing: u64,
    initial: Sink,
    pub(crate) ports: Sink,
    pub(crate) pids: Sink,
    pub(crate) events: Sink,
}

impl OpenSet {
    /// Writes what waits for each of the files. After an error it still waits.
    pub(crate) fn drain(&mut self) -> Result<(), (FileName, io::Error)> {
        let mut failed = None;
        for (kind, sink) in [
            (FileKind::Events, &mut self.events),
            (FileKind::Ports, &mut self.ports),
            (FileKind::Pids, &mut self.pids),
        ] {
            // One file that fails does not keep the others from the disk.
            if let Err(error) = sink.drain() {
                let name = FileName::new(kind, self.stamp, Form::Plain);
                failed.get_or_insert((name, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Has a file reached its size?
    pub(crate) fn is_full(&self, options: &Options) -> bool {
        let full = |sink: &Sink, limit| is_full(sink.length(), sink.head(), limit);
        full(&self.events, options.events_size)
            || full(&self.ports, options.set_size)
            || full(&self.pids, options.set_size)
    }

    /// The last line of PR-EVENTS, if it ends here, nothing waiting.
    pub(crate) fn seal_line(
        &self,
        encoder: &mut EventsEncoder,
        clock: &mut LocalClock,
        now: WallTime,
        next: Option<Stamp>,
    ) -> Vec<u8> {
        let mut line = Vec::new();
        let lines = encoder.next_seq() - self.first_seq;
        let hash = self.events.digest().hex();
        let next = next.map(|stamp| stamp.to_string());
        encoder.seal(&mut line, clock, now, lines, &hash, next.as_deref());
        line
    }

    /// The name of its PR-EVENTS.
    pub(crate) fn record(&self) -> FileName {
        FileName::new(FileKind::Events, self.stamp, Form::Plain)
    }

    /// The bytes in those of the four files that are there.
    pub(crate) fn bytes(&self) -> u64 {
        [&self.initial, &self.ports, &self.pids, &self.events]
            .into_iter()
            .filter(|sink| !sink.is_deleted())
            .map(Sink::written)
            .sum()
    }

    /// The first of its files that is no longer in the directory, and whether
    /// it is no longer anywhere.
    pub(crate) fn missing(&self, dir: &Dir) -> Option<(FileName, bool)> {
        [
            (FileKind::Events, &self.events),
            (FileKind::Ports, &self.ports),
            (FileKind::Pids, &self.pids),
            (FileKind::Initial, &self.initial),
        ]
        .into_iter()
        .map(|(kind, sink)| {
            let name = FileName::new(kind, self.stamp, Form::Plain);
            (name, sink.is_deleted())
        })
        .find(|(name, is_deleted)| *is_deleted || !dir.exists(&name.to_string()))
    }

    /// How many events will never be in PR-EVENTS if nothing more is written.
    pub(crate) fn events_unwritten(&self) -> u64 {
        if self.events.is_deleted() {
            return self.events_kept;
        }
        count_lines(self.events.unwritten(), is_counted_line)
    }

    /// The same for the rows of PR-PORTS and the entries of PR-PIDS.
    pub(crate) fn rows_unwritten(&self) -> u64 {
        let rows = if self.ports.is_deleted() {
            self.rows_kept
        } else {
            count_lines(self.ports.unwritten(), |_| true)
        };
        let entries = count_lines(self.pids.unwritten(), pids::begins_entry);
        rows + entries + self.rows_missing + self.entries_missing
    }

    /// Gives the files away, to be closed elsewhere.
    pub(crate) fn into_disks(self) -> Vec<Box<dyn Disk>> {
        [self.events, self.ports, self.pids, self.initial]
            .map(Sink::into_disk)
            .into()
    }
}

/// Is this an event of the kernel, so that the ledger counts it?
pub(crate) fn is_counted(action: &Action) -> bool {
    match action {
        Action::Accept
        | Action::Bind
        | Action::Close { .. }
        | Action::Connect
        | Action::Established { .. }
        | Action::Listen
        | Action::State { .. } => true,
        Action::Discover | Action::Snapshot | Action::Vanish => false,
    }
}

/// The same, asked of a line of ours.
fn is_counted_line(line: &[u8]) -> bool {
    let key = b"\"event\":\"";
    let Some(at) = line.windows(key.len()).position(|window| window == key) else {
        return false;
    };
    let name = &line[at + key.len()..];
    COUNTED.iter().any(|event| {
        let rest = name.strip_prefix(event.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"\""))
    })
}

fn count_lines(lines: &[u8], is_counted: impl Fn(&[u8]) -> bool) -> u64 {
    lines
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| u64::from(is_counted(line)))
        .sum()
}

/// What stands in the head of a set.
pub(crate) struct Head<'a> {
    pub(crate) run: &'a Run,
    pub(crate) previous: Option<&'a Link>,
    pub(crate) state: &'a dyn SetState,
    /// What is missing before the set.
    pub(crate) gaps: &'a [Gap<'a>],
    pub(crate) now: WallTime,
}

/// A set that is being opened. Its files go when it is dropped.
pub(crate) struct Draft {
    set: OpenSet,
    files: Files,
}

impl Draft {
    /// Makes the four files, with the first stamp from this one on that is free.
    pub(crate) fn create(
        dir: &Arc<Dir>,
        create: &Create,
        first: Stamp,
        day: Day,
    ) -> Result<Self, Error> {
        let taken = inventory(dir).map_err(|source| Error::read(dir.path(), source))?;
        let mut stamp = first;
        let mut attempts = 0;
        loop {
            while taken.contains_key(&stamp) {
                stamp = stamp.next_copy();
            }
            match Self::with_stamp(dir, create, stamp, day) {
                // Something that is no file of ours has the name.
                Err((_, error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    attempts += 1;
                    if attempts == ATTEMPTS {
                        return Err(Error::create(dir.path(), error));
                    }
                    stamp = stamp.next_copy();
                }
                Err((name, error)) => return Err(Error::create(&dir.path_of(&name), error)),
                Ok(draft) => return Ok(draft),
            }
        }
    }

    fn with_stamp(
        dir: &Arc<Dir>,
        create: &Create,
        stamp: Stamp,
        day: Day,
    ) -> Result<Self, (String, io::Error)> {
        let mut files = Files {
            dir: Arc::clone(dir),
            names: Vec::new(),
        };
        let record = FileName::new(FileKind::Events, stamp, Form::Plain).to_string();
        if dir.exists(&record) {
            return Err((record, io::ErrorKind::AlreadyExists.into()));
        }
        let mut make = |kind, form| {
            let name = FileName::new(kind, stamp, form).to_string();
            match create(dir, &name) {
                Ok(disk) => {
                    files.names.push(name);
                    Ok(disk)
                }
                Err(error) => Err((name, error)),
            }
        };
        let set = OpenSet {
            stamp,
            day,
            is_left_behind: false,
            opened: WallTime(0),
            first_seq: 0,
            events_kept: 0,
            rows_kept: 0,
            rows_missing: 0,
            entries_missing: 0,
            events: Sink::hashed(make(FileKind::Events, Form::Draft)?),
            initial: Sink::new(make(FileKind::Initial, Form::Plain)?),
            ports: Sink::new(make(FileKind::Ports, Form::Plain)?),
            pids: Sink::new(make(FileKind::Pids, Form::Plain)?),
        };
        Ok(Self { set, files })
    }

    /// The stamp of the new set.
    pub(crate) fn stamp(&self) -> Stamp {
        self.set.stamp
    }

    /// Writes what a set begins with.
    pub(crate) fn write_heads(
        &mut self,
        encoder: &mut EventsEncoder,
        clock: &mut LocalClock,
        head: &Head<'_>,
    ) -> Result<(), Error> {
        let set = &mut self.set;
        let dir = &self.files.dir;
        let stamp = set.stamp;
        let failed = |kind, source| {
            let name = FileName::new(kind, stamp, Form::Plain).to_string();
            Error::create(&dir.path_of(&name), source)
        };

        head.state.initial(set.initial.buffer(), clock, head.now);
        let drained = set.initial.drain();
        drained.map_err(|error| failed(FileKind::Initial, error))?;

        ports::header(set.ports.buffer(), &set.stamp.to_string());
        for gap in head.gaps {
            ports::gap(set.ports.buffer(), clock, gap);
        }
        set.ports.end_head();
        let drained = set.ports.drain();
        drained.map_err(|error| failed(FileKind::Ports, error))?;

        let (host, os) = (&head.run.host, &head.run.os);
        let pids_header = if head.run.names_processes {
            pids::header
        } else {
            pids::header_without_processes
        };
        pids_header(set.pids.buffer(), clock, head.now, host, os);
        set.pids.end_head();
        let drained = set.pids.drain();
        drained.map_err(|error| failed(FileKind::Pids, error))?;

        let written = write_snapshot(set, encoder, clock, head);
        written.map_err(|error| failed(FileKind::Events, error))
    }

    /// Gives PR-EVENTS its name: from now on this is the set in use.
    pub(crate) fn commit(self) -> Result<OpenSet, Error> {
        let Self { set, mut files } = self;
        let name = set.record();
        let draft = name.with_form(Form::Draft).to_string();
        let name = name.to_string();
        let renamed = files.dir.rename(&draft, &name);
        renamed.map_err(|source| Error::create(&files.dir.path_of(&name), source))?;
        files.names.clear();
        Ok(set)
    }
}

/// Writes the head of PR-EVENTS: `open` and every socket in use.
fn write_snapshot(
    set: &mut OpenSet,
    encoder: &mut EventsEncoder,
    clock: &mut LocalClock,
    head: &Head<'_>,
) -> io::Result<()> {
    let run = head.run;
    let stamp = set.stamp.to_string();
    let previous = head.previous.map(|link| link.stamp.to_string());
    let opening = Opening {
        version: &run.version,
        host: &run.host,
        os: &run.os,
        boot_id: &run.boot_id,
        run: &run.run,
        set: &stamp,
        previous: previous.as_deref(),
        previous_sha256: head.previous.and_then(|link| link.sha256.as_deref()),
        engine: &run.engine,
        hooks: &run.hooks,
        degraded: &run.degraded,
    };
    set.opened = head.now;
    set.first_seq = encoder.next_seq();
    let events = &mut set.events;
    encoder.open(events.buffer(), clock, head.now, &opening);
    let mut sockets = 0;
    let mut failed = None;
    head.state.sockets(&mut |socket, attribution, owner| {
        if failed.is_some() {
            return;
        }
        let out = events.buffer();
        let action = Action::Snapshot;
        encoder.socket(
            out,
            clock,
            head.now,
            &action,
            socket,
            attribution,
            owner,
            None,
        );
        sockets += 1;
        if events.waiting() >= CHUNK {
            failed = events.drain().err();
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    encoder.snapshot_end(events.buffer(), clock, head.now, sockets);
    for gap in head.gaps {
        encoder.gap(events.buffer(), clock, head.now, gap);
    }
    events.end_head();
    events.drain()
}

/// The files of a draft, removed when they are not wanted.
struct Files {
    dir: Arc<Dir>,
    names: Vec<String>,
}

impl Drop for Files {
    fn drop(&mut self) {
        for name in &self.names {
            // What stays is removed by the next start.
            let _ = self.dir.remove(name);
        }
    }
}
