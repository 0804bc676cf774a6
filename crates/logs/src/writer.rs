//! The log directory as the recorder sees it.
//!
//! One thread owns a [`Logs`] and calls it; nothing here starts a thread but to
//! look after closed files, and nothing waits for that one. What is recorded is
//! encoded into memory and reaches the files when enough has gathered or when
//! [`Logs::flush`] is called, which is to be done each second.
//!
//! **A disk that fails.** Recording goes on in memory, and each flush tries
//! again. When 16 MiB wait, further events are dropped: [`Logs::socket`] says
//! so and takes no sequence number for them, and as soon as writing works a
//! `gap` with reason `disk` comes before anything else. So `seq` has no holes,
//! and every lost event lies inside a gap.
//!
//! **A new set** that cannot be opened leaves the old one in use.
//! [`Logs::roll_due`] asks for it again, each time a little later.
//!
//! **Files that go.** Somebody may delete or move a file that is being written,
//! or the whole directory. [`Logs::flush`] looks for that; a new set is then
//! due. Events that were kept and went with a file become lost ones, inside a
//! `gap`: [`Logs::withdrawn`] says how many, so that its caller's books stay
//! right.

use event::{Action, Attribution, Socket, WallTime};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compress::Keeper;
use crate::dir::Dir;
use crate::error::Error;
use crate::format::clock::LocalClock;
use crate::format::events::{Counters, EventsEncoder, Gap, OwnerText};
use crate::format::{pids, ports};
use crate::lock::Lock;
use crate::losses::{DISK, Losses};
use crate::recover::{Recovered, recover};
use crate::report::{Notice, Written};
use crate::retain::Retention;
use crate::seal::Link;
use crate::set::{OpenSet, is_counted};
use crate::sink::Create;
use crate::stamp::Stamp;
use crate::unended::Unended;

mod end;
mod gone;
mod turn;
mod upkeep;

use turn::Backoff;

/// When so much waits for a file it is written.
const WRITE_AT: usize = 256 * 1024;

/// When so much waits for a file that cannot be written, events are dropped.
const MOST_WAITING: usize = 16 * 1024 * 1024;

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the sets go; made if it is not there.
    pub dir: PathBuf,
    /// The size of PR-PORTS and PR-PIDS at which a new set is due, in bytes.
    pub set_size: u64,
    /// The size of PR-EVENTS at which a new set is due, in bytes.
    pub events_size: u64,
    /// What all sets together may take, in bytes; none: 10 % of the file
    /// system, at most 4 GiB.
    pub max_total: Option<u64>,
    /// How many days a set is kept; none: without limit.
    pub keep_days: Option<u32>,
    /// Compress closed PR-EVENTS and PR-PIDS files.
    pub compress: bool,
}

/// What the heads of the files say about the recorder and its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The program's version.
    pub version: String,
    /// The computer's name.
    pub host: String,
    /// The operating system.
    pub os: String,
    /// The kernel's number for this boot.
    pub boot_id: String,
    /// A UUID for this run.
    pub run: String,
    /// The capture engine.
    pub engine: String,
    /// Where it looks.
    pub hooks: Vec<String>,
    /// What it cannot see.
    pub degraded: Vec<String>,
    /// Can a process be named at all? If not, the classic files have their
    /// short form.
    pub names_processes: bool,
}

/// The state at the moment in which a set is opened.
pub trait SetState {
    /// Appends the whole PR-INITIAL.
    fn initial(&self, out: &mut Vec<u8>, clock: &mut LocalClock, now: WallTime);

    /// Hands over every socket in use.
    fn sockets(&self, each: &mut dyn FnMut(&Socket, Attribution, &OwnerText));
}

/// The log sets of a directory, and the only one that writes there.
pub struct Logs {
    options: Options,
    run: Run,
    retention: Retention,
    dir: Arc<Dir>,
    create: Create,
    clock: LocalClock,
    encoder: EventsEncoder,
    current: Option<OpenSet>,
    /// The last set of the runs before this one.
    chain: Option<Link>,
    keeper: Keeper,
    /// Sets that the keeper was asked to compress.
    kept: BTreeSet<Stamp>,
    /// Sets that could not be removed.
    stuck: BTreeSet<Stamp>,
    outage: Option<Outage>,
    losses: Losses,
    backoff: Option<Backoff>,
    notices: Vec<Notice>,
    /// The run before did not end in order, and no line says so yet.
    unended: Option<Unended>,
    /// What is being written was deleted or moved.
    gone: bool,
    sets: u64,
    gone_sets: u64,
    lines: u64,
    bytes: u64,
    lost: u64,
    withdrawn: u64,
    /// Last, so that it is given back when all else is over.
    lock: Lock,
}

/// A time in which writing fails.
#[derive(Debug, Default)]
struct Outage {
    lost: u64,
    rows_lost: u64,
}

impl Logs {
    /// Takes the lock, puts in order what a killed run left, removes what
    /// retention says. Opens no set yet; that is [`Logs::roll`].
    pub fn open(
        options: Options,
        run: Run,
        zone: TimeZone,
        now: WallTime,
    ) -> Result<(Self, Vec<Notice>), Error> {
        let create: Create = Box::new(|dir, name| Ok(Box::new(dir.create(name)?)));
        Self::open_with(options, run, zone, now, create)
    }

    fn open_with(
        options: Options,
        run: Run,
        zone: TimeZone,
        now: WallTime,
        create: Create,
    ) -> Result<(Self, Vec<Notice>), Error> {
        let dir = Arc::new(Dir::open(&options.dir)?);
        let lock = Lock::take(&dir)?;
        let Recovered {
            chain,
            unended,
            notices,
        } = recover(&dir)?;
        let capacity = || dir.capacity().unwrap_or(u64::MAX);
        let total = options.max_total;
        let retention = Retention {
            total: total.unwrap_or_else(|| Retention::default_total(capacity())),
            days: options.keep_days,
        };
        let mut logs = Self {
            options,
            run,
            retention,
            keeper: Keeper::start(Arc::clone(&dir))?,
            dir,
            create,
            clock: LocalClock::new(zone),
            encoder: EventsEncoder::new(0),
            current: None,
            chain,
            kept: BTreeSet::new(),
            stuck: BTreeSet::new(),
            outage: None,
            losses: Losses::default(),
            backoff: None,
            notices,
            unended,
            gone: false,
            sets: 0,
            gone_sets: 0,
            lines: 0,
            bytes: 0,
            lost: 0,
            withdrawn: 0,
            lock,
        };
        logs.maintain(now);
        let notices = logs.notices();
        Ok((logs, notices))
    }

    /// Where the sets are: the absolute path.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// The set that is being written.
    pub fn current(&self) -> Option<Stamp> {
        self.current.as_ref().map(|set| set.stamp)
    }

    /// What the heads of the next set say.
    pub fn run_mut(&mut self) -> &mut Run {
        &mut self.run
    }

    /// The system's time zone was changed.
    pub fn set_zone(&mut self, zone: TimeZone) {
        if let Some(set) = &mut self.current {
            set.day = set.day.in_zone(&zone);
        }
        self.clock.set_zone(zone);
    }

    /// Something happened to a socket: a line in PR-EVENTS and, if a port came
    /// into use, a row in PR-PORTS.
    #[inline]
    pub fn socket(
        &mut self,
        t: WallTime,
        action: &Action,
        socket: &Socket,
        attribution: Attribution,
        owner: &OwnerText,
        error: Option<&str>,
    ) -> Written {
        let Some((set, encoder, clock)) = self.recording() else {
            return self.drop_event(t, action.has_row(socket.protocol));
        };
        let out = set.events.buffer();
        encoder.socket(out, clock, t, action, socket, attribution, owner, error);
        set.events_kept += u64::from(is_counted(action));
        let is_enough = set.events.waiting() >= WRITE_AT;
        if action.has_row(socket.protocol) {
            self.port(t, socket, owner);
        }
        if is_enough {
            self.write_early(t);
        }
        Written::Kept
    }

    /// Events were lost before they came here.
    pub fn gap(&mut self, t: WallTime, gap: &Gap<'_>) {
        if let Some((set, encoder, clock)) = self.recording() {
            encoder.gap(set.events.buffer(), clock, t, gap);
            ports::gap(set.ports.buffer(), clock, gap);
        } else {
            self.losses.add(gap.reason, gap.lost, gap.from, gap.to);
        }
    }

    /// The ledger. Dropped while events are: it comes again in a minute.
    pub fn counters(&mut self, t: WallTime, counters: &Counters, processes_lost: u64) -> Written {
        let Some((set, encoder, clock)) = self.recording() else {
            return Written::Dropped;
        };
        let out = set.events.buffer();
        encoder.counters(out, clock, t, counters, processes_lost);
        Written::Kept
    }

    /// An entry of PR-PIDS, whole lines, as `format::pids` makes them.
    pub fn pids(&mut self, t: WallTime, entry: &[u8]) {
        let Some(set) = &mut self.current else {
            return;
        };
        if set.pids.waiting() >= MOST_WAITING {
            set.entries_missing += 1;
            self.lose_row();
            return;
        }
        if set.entries_missing > 0 {
            let entries = std::mem::take(&mut set.entries_missing);
            pids::missing(set.pids.buffer(), &mut self.clock, t, entries);
        }
        set.pids.buffer().extend_from_slice(entry);
        if set.pids.waiting() >= WRITE_AT {
            self.write_early(t);
        }
    }

    /// Writes everything that waits. Returns whether it reached the files; if
    /// not, it still waits. To be called each second.
    pub fn flush(&mut self, now: WallTime) -> bool {
        self.look();
        self.settle(now).is_ok()
    }

    /// How many events that were [`Written::Kept`] are lost after all, inside
    /// a `gap`, since the last call: somebody deleted the file.
    pub fn withdrawn(&mut self) -> u64 {
        std::mem::take(&mut self.withdrawn)
    }

    /// What the administrator should hear of since the last call.
    pub fn notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.notices);
        notices.extend(self.keeper.notices());
        notices
    }

    /// What is needed to add to PR-EVENTS, if something may be added.
    #[inline]
    fn recording(&mut self) -> Option<(&mut OpenSet, &mut EventsEncoder, &mut LocalClock)> {
        let set = self.current.as_mut()?;
        let may_add = self.losses.is_empty() && set.events.waiting() < MOST_WAITING;
        may_add.then_some((set, &mut self.encoder, &mut self.clock))
    }

    #[cold]
    fn drop_event(&mut self, t: WallTime, has_row: bool) -> Written {
        self.losses.add(DISK, Some(1), t, t);
        self.lost += 1;
        if let Some(outage) = &mut self.outage {
            outage.lost += 1;
            // Its row goes with it, and the line about the gap stands for both.
            outage.rows_lost += u64::from(has_row);
        }
        Written::Dropped
    }

    #[cold]
    fn lose_row(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.rows_lost += 1;
        }
    }

    #[inline]
    fn port(&mut self, t: WallTime, socket: &Socket, owner: &OwnerText) {
        let Some(set) = &mut self.current else {
            return;
        };
        if set.ports.waiting() >= MOST_WAITING {
            set.rows_missing += 1;
            self.lose_row();
            return;
        }
        set.rows_kept += 1;
        let out = set.ports.buffer();
        if set.rows_missing > 0 {
            ports::missing(out, std::mem::take(&mut set.rows_missing));
        }
        if self.run.names_processes {
            ports::row(out, &mut self.clock, t, socket, Some(owner));
        } else {
            ports::row_without_process(out, &mut self.clock, t, socket);
        }
    }

    /// Writes because much waits. While that fails only a flush tries again.
    #[cold]
    fn write_early(&mut self, now: WallTime) {
        if self.outage.is_none() {
            let _ = self.settle(now);
        }
    }

    /// Writes everything that waits and tells what was lost.
    fn settle(&mut self, now: WallTime) -> Result<(), Error> {
        loop {
            let Some(set) = &mut self.current else {
                return Ok(());
            };
            if let Err((name, source)) = set.drain() {
                let path = self.dir.path_of(&name.to_string());
                if self.outage.is_none() {
                    self.outage = Some(Outage::default());
                    self.notices.push(Notice::WriteFailed {
                        path: path.clone(),
                        error: source.to_string(),
                    });
                }
                return Err(Error::write(&path, source));
            }
            if self.losses.is_empty() && set.rows_missing + set.entries_missing == 0 {
                break;
            }
            if set.rows_missing > 0 {
                let rows = std::mem::take(&mut set.rows_missing);
                ports::missing(set.ports.buffer(), rows);
            }
            if set.entries_missing > 0 {
                let entries = std::mem::take(&mut set.entries_missing);
                pids::missing(set.pids.buffer(), &mut self.clock, now, entries);
            }
            for loss in self.losses.take() {
                let gap = Gap {
                    lost: loss.lost,
                    from: loss.from,
                    to: loss.to,
                    reason: &loss.reason,
                };
                let out = set.events.buffer();
                self.encoder.gap(out, &mut self.clock, now, &gap);
                ports::gap(set.ports.buffer(), &mut self.clock, &gap);
            }
        }
        if let Some(outage) = self.outage.take() {
            self.notices.push(Notice::WriteWorks {
                lost: outage.lost,
                rows_lost: outage.rows_lost,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
