//! The recorder's thread: observations in, log lines out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use event::{BootTime, Degradation, Engine, ProcessKey, Socket};
use identity::Identifier;
use jiff::tz::TimeZone;
use logs::format::clock::LocalClock;
use logs::format::events::{Counters, Gap, OwnerText};
use logs::format::pids;
use logs::{Logs, RollReason};
use rustc_hash::FxHashMap;
use sensor::{Inspector, Sensor};

use crate::capture::{Capture, Message};
use crate::clock::Anchor;
use crate::held::Held;
use crate::ledger::{Ledger, Loss};
use crate::lookout::Lookout;
use crate::pids::{Changes, Due};
use crate::processes::Processes;
use crate::reconcile::Reconciliation;
use crate::sink::Sink;
use crate::state::State;
use crate::table::{SocketKey, Table};
use crate::{Error, Events, Status, Summary};

/// How often the counters are written.
const COUNTERS: Duration = Duration::from_mins(1);

/// How often the table of time zones is asked for the system's own.
const ZONE: Duration = Duration::from_mins(1);

/// The hooks that tell who accepts a connection.
const ACCEPT_HOOKS: [&str; 4] = [
    "fexit/inet_csk_accept",
    "cgroup/getpeername4",
    "cgroup/getpeername6",
    "tp_btf/sock_send_length",
];

/// A recording that is under way.
pub struct Recorder<'a, S = Logs> {
    pub(crate) state: State,
    pub(crate) sink: S,
    /// Away while it takes a look for the reconciliation.
    pub(crate) inspector: Option<Box<dyn Inspector>>,
    pub(crate) lookout: Lookout,
    pub(crate) reconciliation: Reconciliation,
    pub(crate) loss_reason: &'static str,
    pub(crate) processes_lost: u64,
    pub(crate) capture: Capture,
    pub(crate) messages: Receiver<Message>,
    pub(crate) control: Control,
    pub(crate) events: &'a mut dyn Events,
    /// Wait for an accepted connection's process before its line is written.
    pub(crate) holds: bool,
    pub(crate) held: Held,
    /// Sockets whose lines wait for the next look.
    pub(crate) asking: Vec<SocketKey>,
    /// When the next look may be taken for them.
    pub(crate) next_ask: Instant,
    pub(crate) ledger: Ledger,
    pub(crate) changes: Changes,
    pub(crate) clock: LocalClock,
    pub(crate) anchor: Anchor,
    pub(crate) second: u64,
    pub(crate) last_counters: Instant,
    pub(crate) last_zone: Instant,
    pub(crate) written: u64,
    pub(crate) dropped: u64,
    /// A new set could not be opened, for a reason of this kind: said already.
    pub(crate) refused: Option<logs::ErrorKind>,
    pub(crate) rate: u64,
    pub(crate) sockets: u64,
    pub(crate) scratch: Vec<u8>,
}

/// What a recording is made of.
pub struct Setup<S = Logs> {
    /// What happens.
    pub sensor: Sensor,
    /// Where it goes; no set is open yet.
    pub sink: S,
    /// Who is who.
    pub identifier: Identifier,
    /// The zone of the times in the logs.
    pub zone: TimeZone,
    /// The computer's name.
    pub host: String,
    /// The operating system.
    pub os: String,
    /// How often the table of sockets is compared with the kernel's; zero:
    /// never. Engines that look again and again need it not.
    pub reconcile: Duration,
}

/// Stops a recording or makes it open a new set, from any thread.
#[derive(Clone)]
pub struct Control {
    to: SyncSender<Message>,
    stops: Arc<AtomicU32>,
}

impl Control {
    fn new(to: SyncSender<Message>) -> Self {
        let stops = Arc::default();
        Self { to, stops }
    }

    /// Ends the recording in order. Told so a second time, it does not wait for
    /// a look that is under way. Events that wait to be written do not hold this
    /// up, and new ones are no longer made when it is heard.
    pub fn stop(&self) {
        self.stops.fetch_add(1, Ordering::Release);
        // Where the queue is full nobody has to be woken, and it may have
        // already ended.
        let _ = self.to.try_send(Message::Stop);
    }

    /// Opens a new set.
    pub fn roll(&self) {
        let _ = self.to.send(Message::Roll);
    }

    /// How often it was told to stop.
    pub(crate) fn stops(&self) -> u32 {
        self.stops.load(Ordering::Acquire)
    }
}

impl<'a, S: Sink> Recorder<'a, S> {
    /// Subscribes, takes the snapshot, opens the first set.
    pub fn start(setup: Setup<S>, events: &'a mut dyn Events) -> Result<Self, Error> {
        let Setup {
            sensor,
            sink,
            identifier,
            zone,
            host,
            os,
            reconcile,
        } = setup;
        let names_processes = true;
        let Sensor {
            engine,
            hooks,
            stream,
            mut inspector,
            mappings,
            ..
        } = sensor;
        let every = match engine {
            Engine::Ebpf => reconcile,
            Engine::SockDiag | Engine::Proc => Duration::ZERO,
        };
        let started = Anchor::now().boot_now();
        let (control, messages) = Capture::queue();
        let capture = Capture::start(stream, control.clone()).map_err(Error::Thread)?;
        let lookout = Lookout::start(control.clone()).map_err(Error::Thread)?;
        let snapshot = inspector.snapshot()?;
        let anchor = Anchor::now();
        let mut recorder = Self {
            state: State {
                table: Table::default(),
                processes: Processes::new(identifier, mappings),
                nobody: OwnerText::unknown(),
                host,
                os,
                names_processes,
                lacks: None,
            },
            sink,
            loss_reason: inspector.loss_reason(),
            inspector: Some(inspector),
            lookout,
            reconciliation: Reconciliation::new(every),
            processes_lost: 0,
            capture,
            messages,
            control: Control::new(control),
            events,
            holds: hooks
                .iter()
                .any(|hook| ACCEPT_HOOKS.contains(&hook.as_str())),
            held: Held::default(),
            asking: Vec::new(),
            next_ask: Instant::now(),
            ledger: Ledger::new(started),
            changes: Changes::default(),
            clock: LocalClock::new(zone),
            anchor,
            second: anchor.boot_now().0 / 1_000_000_000,
            last_counters: Instant::now(),
            last_zone: Instant::now(),
            written: 0,
            dropped: 0,
            refused: None,
            rate: 0,
            sockets: 0,
            scratch: Vec::new(),
        };
        recorder.adopt(snapshot);
        recorder.roll(RollReason::Start)?;
        Ok(recorder)
    }

    /// A handle to stop it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Records until it is told to stop.
    pub fn run(mut self) -> Result<Summary<S::End>, Error> {
        let mut next_tick = Instant::now();
        let failure = loop {
            let now = Instant::now();
            if now >= next_tick {
                self.tick(now);
                next_tick = now + Duration::from_secs(1);
            }
            let wait = self.held.wait(next_tick.saturating_duration_since(now));
            match self.messages.recv_timeout(wait) {
                Ok(Message::Batch(batch)) => self.take(batch),
                Ok(Message::Roll) => {
                    // Who asks gets an answer, also if it is the same again.
                    self.refused = None;
                    self.roll_or_tell(RollReason::Request);
                }
                Ok(Message::Empty) => {
                    self.ledger.handed_over();
                    self.reconciliation.handed_over();
                }
                Ok(Message::Looked(inspector, snapshot)) => self.looked(inspector, snapshot),
                Ok(Message::Failed(error)) => break Some(Error::from(error)),
                Ok(Message::Drained) | Err(RecvTimeoutError::Disconnected) => break None,
                Ok(Message::Stop) | Err(RecvTimeoutError::Timeout) => {}
            }
            self.release(Instant::now());
            if self.control.stops() > 0 || self.sink.is_over() {
                break None;
            }
        };
        self.finish(failure)
    }

    /// What is to be done each second.
    fn tick(&mut self, now: Instant) {
        self.anchor = Anchor::now();
        let boot = self.anchor.boot_now();
        while let Some(live) = self.state.table.expire(boot) {
            self.changes.note(live.owner);
            self.recount(live.owner, None);
        }
        let losses = self.ledger.settle(now);
        self.declare(&losses, self.loss_reason);
        self.second = boot.0 / 1_000_000_000;
        self.write_pids(false);
        // While a look is taken nobody can be asked; it will be over soon.
        if now.duration_since(self.last_counters) >= COUNTERS && self.inspector.is_some() {
            self.last_counters = now;
            self.compare(now);
            self.write_counters();
            self.sink.maintain(self.anchor.wall_now());
        }
        self.reconcile(now);
        if now.duration_since(self.last_zone) >= ZONE {
            self.last_zone = now;
            self.follow_zone();
        }
        self.state.processes.forget(now);
        let wall = self.anchor.wall_now();
        self.sink.second(wall, &mut self.state);
        if let Some(reason) = self.sink.is_due(wall) {
            self.roll_or_tell(reason);
        }
        self.tell();
    }

    /// Asks the kernel what it made.
    pub(crate) fn compare(&mut self, now: Instant) {
        let boot = self.anchor.boot_now();
        let Some(Ok(produced)) = self.inspector.as_mut().map(|it| it.produced()) else {
            return;
        };
        let losses = self.ledger.compare(produced, boot, now);
        self.capture.ask();
        self.declare(&losses, self.loss_reason);
        self.count_unnumbered(boot);
    }

    pub(crate) fn count_unnumbered(&mut self, at: BootTime) {
        let Some(Ok(unnumbered)) = self.inspector.as_mut().map(|it| it.unnumbered()) else {
            return;
        };
        if let Some(loss) = self.ledger.unnumbered(unnumbered, at) {
            self.declare(&[loss], "program interrupted on the same CPU");
        }
    }

    pub(crate) fn declare(&mut self, losses: &[Loss], reason: &str) {
        let now = self.anchor.wall_now();
        for loss in losses {
            let from = self.anchor.wall(loss.from);
            let to = self.anchor.wall(loss.to);
            self.sink.gap(
                now,
                &Gap {
                    lost: Some(loss.events),
                    from,
                    to,
                    reason,
                },
            );
        }
        let lost: u64 = losses.iter().map(|loss| loss.events).sum();
        if lost > 0 {
            self.events.lost(lost, reason);
        }
    }

    /// The ledger as of now, without the lines that wait.
    pub(crate) fn counters(&self) -> Counters {
        let waiting = self.waiting();
        Counters {
            kernel: self.ledger.kernel().saturating_sub(waiting),
            received: self.ledger.received().saturating_sub(waiting),
            written: self.written,
            lost: self.ledger.lost() + self.dropped,
        }
    }

    pub(crate) fn write_counters(&mut self) {
        let counters = self.counters();
        if let Some(Ok(lost)) = self.inspector.as_mut().map(|it| it.processes_lost()) {
            self.processes_lost = lost + self.state.processes.mappings_lost();
        }
        self.sink
            .counters(self.anchor.wall_now(), &counters, self.processes_lost);
    }

    /// Writes the entries of PR-PIDS that are due.
    pub(crate) fn write_pids(&mut self, is_end: bool) {
        let due = self.changes.due(self.second, is_end);
        if due.is_empty() || !self.state.names_processes || !self.sink.takes_entries() {
            return;
        }
        let mut ports: FxHashMap<Option<ProcessKey>, Vec<&Socket>> =
            due.iter().map(|due| (due.owner, Vec::new())).collect();
        for due in &due {
            if let Some(owner) = due.owner {
                self.state.processes.refresh_modules(owner);
            }
        }
        let table = self.state.table.iter();
        for live in table.filter(|live| live.socket.protocol.is_classic()) {
            if let Some(ports) = ports.get_mut(&live.owner) {
                ports.push(&live.socket);
            }
        }
        let now = self.anchor.wall_now();
        for Due {
            owner,
            changes,
            interval_secs,
        } in due
        {
            let sockets = ports.remove(&owner).unwrap_or_default();
            let entry = self.state.ports_of(owner, &sockets);
            self.scratch.clear();
            pids::entry(
                &mut self.scratch,
                &mut self.clock,
                now,
                &entry,
                changes,
                interval_secs,
            );
            self.sink.entry(now, &self.scratch);
            self.changes.wrote(owner, self.scratch.len(), self.second);
        }
        self.scratch.shrink_to(1 << 20);
    }

    fn roll(&mut self, reason: RollReason) -> Result<(), Error> {
        self.write_pids(true);
        let now = self.anchor.wall_now();
        self.state.lacks = self.state.table.lacks(self.anchor.boot_now());
        self.sink.begin(now, reason, &self.state, self.events)
    }

    /// Opens a set. What keeps it from being opened is said once: it is tried
    /// again and again.
    pub(crate) fn roll_or_tell(&mut self, reason: RollReason) {
        let refused = match self.roll(reason) {
            Ok(()) => None,
            Err(error) => {
                let kind = match &error {
                    Error::Logs(error) => Some(error.kind()),
                    _ => None,
                };
                if kind.is_none() || kind != self.refused {
                    self.events.not_opened(self.sink.directory(), &error);
                }
                kind
            }
        };
        self.refused = refused;
        self.withdraw();
    }

    /// What was written and went with its file is lost after all.
    fn withdraw(&mut self) {
        let withdrawn = self.sink.withdrawn();
        self.written = self.written.saturating_sub(withdrawn);
        self.dropped += withdrawn;
    }

    fn follow_zone(&mut self) {
        let zone = TimeZone::system();
        if zone != *self.clock.zone() {
            self.clock.set_zone(zone.clone());
            self.sink.set_zone(zone);
        }
    }

    fn tell(&mut self) {
        for notice in self.sink.notices() {
            self.events.notice(&notice);
        }
        let status = Status {
            ports: self.state.table.len() as u64,
            events_a_second: std::mem::take(&mut self.rate),
            lost: self.ledger.lost() + self.dropped,
            set: self.sink.set(),
        };
        self.events.status(&status);
    }
}

/// Degradations as the head of a set tells them.
pub fn describe(degradations: &[Degradation]) -> Vec<String> {
    degradations.iter().map(ToString::to_string).collect()
}
