//! A kernel that is played, and the recorder before it.
//!
//! The recorder asks for the sockets when it starts and then again and again.
//! Each time it gets the next [`Look`] of the script, in which something may
//! happen meanwhile. In the look after the last one it opens a new set, whose
//! head tells the table, and is stopped: by then all before were concluded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use event::{
    Action, Attribution, BootTime, Cookie, Degradation, Endpoint, Engine, ProcessKey, Protocol,
    Socket, TcpState,
};
use identity::{Identifier, Roots};
use jiff::tz::TimeZone;
use logs::{Logs, Notice, SetOpened};
use recorder::{Control, Error, Events, Reconciled, Recorder, Setup, Status};
use sensor::{FoundSocket, Inspector, Observation, Sensor, Snapshot, SocketObservation, Stream};
use serde_json::Value;

pub(crate) const PARENT: ProcessKey = ProcessKey {
    pid: 4_000_001,
    start: BootTime(1),
};
pub(crate) const CHILD: ProcessKey = ProcessKey {
    pid: 4_000_002,
    start: BootTime(2),
};
/// A process that `/proc` knows.
pub(crate) const SHOWN: u32 = 4_000_003;

/// The network namespace in which everything is, if nothing else is said.
pub(crate) const NETNS: u32 = 1;

/// What happens, as the kernel tells it.
struct Script(Receiver<Vec<Observation>>);

impl Stream for Script {
    fn read(
        &mut self,
        batch: &mut Vec<Observation>,
        timeout: Duration,
    ) -> Result<(), sensor::Error> {
        // Who tells again at once is not taken for one who has told all.
        let timeout = timeout.max(Duration::from_millis(5));
        if let Ok(next) = self.0.recv_timeout(timeout) {
            batch.extend(next);
        }
        Ok(())
    }
}

/// Makes things happen while the recorder looks.
#[derive(Clone)]
pub(crate) struct Prompter {
    tell: SyncSender<Vec<Observation>>,
    control: Arc<OnceLock<Control>>,
}

impl Prompter {
    /// Tells of something; returns when it was taken from the kernel's buffer.
    pub(crate) fn tell(&self, batch: Vec<Observation>) {
        self.tell.send(batch).unwrap();
    }

    /// Tells of something again and again, until nobody listens any more.
    pub(crate) fn tell_without_end(&self, batch: &[Observation]) {
        while self.tell.send(batch.to_vec()).is_ok() {}
    }

    fn roll(&self) {
        self.control.get().unwrap().roll();
    }

    pub(crate) fn stop(&self) {
        self.control.get().unwrap().stop();
    }
}

/// What one look finds.
pub(crate) struct Look {
    found: Result<Snapshot, sensor::Error>,
    meanwhile: Box<dyn FnOnce(&Prompter) + Send>,
}

impl Look {
    /// Exactly these, and no others in [`NETNS`].
    pub(crate) fn at(sockets: &[FoundSocket]) -> Self {
        let found = Ok(Snapshot {
            sockets: sockets.to_vec(),
            namespaces: BTreeSet::from([NETNS]),
            ..Snapshot::default()
        });
        let meanwhile = Box::new(|_: &Prompter| {});
        Self { found, meanwhile }
    }

    /// None, for nobody could look into [`NETNS`]; the kernel has these.
    pub(crate) fn without(existing: Option<&[u32]>) -> Self {
        let found = Ok(Snapshot {
            existing_namespaces: existing.map(|numbers| numbers.iter().copied().collect()),
            ..Snapshot::default()
        });
        Self {
            found,
            ..Self::at(&[])
        }
    }

    /// Nothing: it fails.
    pub(crate) fn failing() -> Self {
        Self {
            found: Err(sensor::Error::Protocol {
                what: "a look".to_owned(),
            }),
            ..Self::at(&[])
        }
    }

    /// This happens before it is over.
    pub(crate) fn meanwhile(self, meanwhile: impl FnOnce(&Prompter) + Send + 'static) -> Self {
        Self {
            meanwhile: Box::new(meanwhile),
            ..self
        }
    }
}

struct Kernel {
    produced: BTreeMap<u16, u64>,
    looks: VecDeque<Look>,
    prompter: Prompter,
}

impl Inspector for Kernel {
    fn snapshot(&mut self) -> Result<Snapshot, sensor::Error> {
        if let Some(look) = self.looks.pop_front() {
            (look.meanwhile)(&self.prompter);
            return look.found;
        }
        self.prompter.roll();
        self.prompter.stop();
        Ok(Snapshot::default())
    }

    fn produced(&mut self) -> Result<BTreeMap<u16, u64>, sensor::Error> {
        Ok(self.produced.clone())
    }

    fn unnumbered(&mut self) -> Result<u64, sensor::Error> {
        Ok(0)
    }

    fn detach(&mut self) {}
}

#[derive(Default)]
struct Told {
    reconciled: Vec<(Reconciled, bool)>,
}

impl Events for Told {
    fn status(&mut self, _: &Status) {}
    fn opened(&mut self, _: &Path, _: &SetOpened) {}
    fn not_opened(&mut self, _: &Path, _: &Error) {}
    fn notice(&mut self, _: &Notice) {}
    fn degraded(&mut self, _: &Degradation) {}
    fn lost(&mut self, _: u64, _: &str) {}
    fn reconciled(&mut self, found: &Reconciled, explained: bool) {
        self.reconciled.push((*found, explained));
    }
}

/// What a recording left.
pub(crate) struct Record {
    /// The lines of PR-EVENTS of all sets, in order.
    pub(crate) lines: Vec<Value>,
    /// PR-PORTS of all sets, in no order.
    pub(crate) ports: String,
    /// What was told of reconciliation, and whether a loss explained it.
    pub(crate) reconciled: Vec<(Reconciled, bool)>,
    /// What was put right in all.
    pub(crate) total: Reconciled,
}

impl Record {
    /// The lines with this event.
    pub(crate) fn all(&self, event: &str) -> Vec<&Value> {
        self.lines
            .iter()
            .filter(|line| line["event"] == event)
            .collect()
    }

    /// What was in the table at the end: the head of the last set.
    pub(crate) fn table(&self) -> Vec<&Value> {
        let mut lines = self.lines.iter();
        let opened = lines.rposition(|line| line["event"] == "open").unwrap();
        assert!(opened > 0, "one set only");
        self.lines[opened..]
            .iter()
            .filter(|line| line["event"] == "snapshot")
            .collect()
    }
}

/// Plays a script to a recorder that is stopped once it has all, and returns
/// the lines of PR-EVENTS.
pub(crate) fn play(script: Vec<Observation>, produced: BTreeMap<u16, u64>) -> Vec<Value> {
    play_on(&[], script, produced)
}

/// The same with sockets that were there before.
pub(crate) fn play_on(
    sockets: &[FoundSocket],
    script: Vec<Observation>,
    produced: BTreeMap<u16, u64>,
) -> Vec<Value> {
    let before = vec![Look::at(sockets)];
    record(Duration::ZERO, before, produced, |prompter| {
        prompter.tell(script);
        prompter.stop();
    })
    .lines
}

/// Plays batches one by one to a recorder that takes none of them before it is
/// stopped.
pub(crate) fn play_late(
    batches: Vec<Vec<Observation>>,
    produced: BTreeMap<u16, u64>,
) -> Vec<Value> {
    record(Duration::ZERO, vec![Look::at(&[])], produced, |prompter| {
        for batch in batches {
            prompter.tell(batch);
        }
        prompter.stop();
    })
    .lines
}

/// Lets a recorder take these looks, one after the other as soon as it may.
pub(crate) fn look(looks: Vec<Look>, produced: BTreeMap<u16, u64>) -> Record {
    record(Duration::from_nanos(1), looks, produced, |_| {})
}

fn record(
    reconcile: Duration,
    looks: Vec<Look>,
    produced: BTreeMap<u16, u64>,
    begin: impl FnOnce(&Prompter),
) -> Record {
    let dir = tempfile::tempdir().unwrap();
    let options = logs::Options {
        dir: dir.path().join("logs"),
        set_size: 5 << 20,
        events_size: 64 << 20,
        max_total: None,
        keep_days: None,
        compress: false,
    };
    let run = logs::Run {
        names_processes: true,
        ..logs::Run::default()
    };
    let (logs, _) = Logs::open(options, run, TimeZone::UTC, recorder::wall_now()).unwrap();
    let (tell, told) = sync_channel(0);
    let prompter = Prompter {
        tell,
        control: Arc::default(),
    };
    let sensor = Sensor {
        engine: Engine::Ebpf,
        hooks: vec!["cgroup/getpeername4".to_owned()],
        degradations: Vec::new(),
        stream: Box::new(Script(told)),
        mappings: None,
        inspector: Box::new(Kernel {
            produced,
            looks: looks.into(),
            prompter: prompter.clone(),
        }),
    };
    let proc = dir.path().join("proc");
    show_process(&proc);
    let roots = Roots {
        proc,
        cgroup2: None,
        passwd: dir.path().join("none"),
        unit_dirs: Vec::new(),
        name_service: false,
    };
    let setup = Setup {
        sensor,
        sink: logs,
        identifier: Identifier::new(roots),
        zone: TimeZone::UTC,
        host: "host".to_owned(),
        os: "os".to_owned(),
        reconcile,
    };
    let mut told = Told::default();
    let recorder = Recorder::start(setup, &mut told).unwrap();
    assert!(prompter.control.set(recorder.control()).is_ok());
    begin(&prompter);
    let summary = recorder.run().unwrap();
    let (lines, ports) = read(&dir.path().join("logs"));
    Record {
        lines,
        ports,
        reconciled: told.reconciled,
        total: summary.reconciled,
    }
}

/// The one process that `/proc` shows.
fn show_process(proc: &Path) {
    let directory = proc.join(SHOWN.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    let stat = format!("{SHOWN} (shown) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0 0\n");
    std::fs::write(directory.join("stat"), stat).unwrap();
}

fn read(dir: &Path) -> (Vec<Value>, String) {
    let (mut lines, mut ports) = (Vec::new(), String::new());
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("PR-EVENTS-") {
            let text = std::fs::read_to_string(path).unwrap();
            lines.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap()),
            );
        } else if name.starts_with("PR-PORTS-") {
            ports += &std::fs::read_to_string(path).unwrap();
        }
    }
    lines.sort_by_key(|line| line["seq"].as_u64().unwrap());
    (lines, ports)
}

/// A connection from 127.0.0.1:40000 to 127.0.0.1:80, or the other end of it.
pub(crate) fn seen(sequence: u64, action: Action, state: TcpState) -> SocketObservation {
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    SocketObservation {
        at: BootTime(1_000_000 * (sequence + 1)),
        stream: 0,
        sequence,
        action,
        socket: Socket {
            cookie: Some(Cookie(0xabc)),
            netns: Some(NETNS),
            protocol: Protocol::Tcp,
            local: Endpoint {
                ip: localhost,
                port: 80,
            },
            remote: Some(Endpoint {
                ip: localhost,
                port: 40000,
            }),
            state: Some(state),
        },
        attribution: Attribution::Inherited,
        owner: Some(PARENT),
        uid: Some(0),
        error: None,
    }
}

pub(crate) fn accept(sequence: u64) -> SocketObservation {
    seen(sequence, Action::Accept, TcpState::Established)
}

pub(crate) fn close(sequence: u64) -> SocketObservation {
    let action = Action::Close {
        reason: event::CloseReason::Closed,
        bytes_sent: Some(1),
        bytes_received: Some(2),
        duration_us: Some(3),
    };
    seen(sequence, action, TcpState::Closed)
}

pub(crate) fn made(count: u64) -> BTreeMap<u16, u64> {
    BTreeMap::from([(0, count)])
}

/// The one line with this event.
pub(crate) fn line<'a>(lines: &'a [Value], event: &str) -> &'a Value {
    let mut found = lines.iter().filter(|line| line["event"] == event);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {event} in {lines:#?}"));
    assert!(
        found.next().is_none(),
        "more than one {event} in {lines:#?}"
    );
    first
}
