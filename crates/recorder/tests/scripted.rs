//! The recorder fed by hand: what must come out for what goes in, also when
//! observations are missing, late or out of order.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use event::{
    Action, Attribution, BootTime, CloseReason, Cookie, Degradation, Endpoint, Engine, ProcessKey,
    Protocol, Socket, TcpState,
};
use identity::{Identifier, Roots};
use jiff::tz::TimeZone;
use logs::{Logs, Notice, SetOpened};
use recorder::{Error, Events, Reconciled, Recorder, Setup, Status};
use sensor::{
    FoundSocket, Inspector, Observation, OwnerObservation, Sensor, Snapshot, SocketObservation,
    Stream,
};
use serde_json::Value;

const PARENT: ProcessKey = ProcessKey {
    pid: 4_000_001,
    start: BootTime(1),
};
const CHILD: ProcessKey = ProcessKey {
    pid: 4_000_002,
    start: BootTime(2),
};

struct Script(Receiver<Vec<Observation>>);

impl Stream for Script {
    fn read(
        &mut self,
        batch: &mut Vec<Observation>,
        timeout: Duration,
    ) -> Result<(), sensor::Error> {
        if let Ok(next) = self.0.recv_timeout(timeout) {
            batch.extend(next);
        }
        Ok(())
    }
}

struct Kernel {
    produced: BTreeMap<u16, u64>,
    sockets: Vec<FoundSocket>,
}

impl Inspector for Kernel {
    fn snapshot(&mut self) -> Result<Snapshot, sensor::Error> {
        Ok(Snapshot {
            sockets: self.sockets.clone(),
            ..Snapshot::default()
        })
    }

    fn produced(&mut self) -> Result<BTreeMap<u16, u64>, sensor::Error> {
        Ok(self.produced.clone())
    }

    fn unnumbered(&mut self) -> Result<u64, sensor::Error> {
        Ok(0)
    }

    fn detach(&mut self) {}
}

struct Silent;

impl Events for Silent {
    fn status(&mut self, _: &Status) {}
    fn opened(&mut self, _: &Path, _: &SetOpened) {}
    fn not_opened(&mut self, _: &Path, _: &Error) {}
    fn notice(&mut self, _: &Notice) {}
    fn degraded(&mut self, _: &Degradation) {}
    fn lost(&mut self, _: u64, _: &str) {}
    fn reconciled(&mut self, _: &Reconciled, _: bool) {}
    fn not_reconciled(&mut self, _: &Error) {}
}

/// Plays a script and returns the lines of PR-EVENTS.
fn play(script: Vec<Observation>, produced: BTreeMap<u16, u64>) -> Vec<Value> {
    let sockets = Vec::new();
    play_on(Kernel { produced, sockets }, script)
}

/// The same with sockets that were there before.
fn play_on(kernel: Kernel, script: Vec<Observation>) -> Vec<Value> {
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
    let (sender, receiver) = channel();
    let sensor = Sensor {
        engine: Engine::Ebpf,
        hooks: vec!["cgroup/getpeername4".to_owned()],
        degradations: Vec::new(),
        stream: Box::new(Script(receiver)),
        inspector: Box::new(kernel),
    };
    let empty = dir.path().join("none");
    let roots = Roots {
        proc: empty.clone(),
        cgroup2: None,
        passwd: empty,
        unit_dirs: Vec::new(),
        name_service: false,
    };
    let setup = Setup {
        sensor,
        logs,
        identifier: Identifier::new(roots),
        zone: TimeZone::UTC,
        host: "host".to_owned(),
        os: "os".to_owned(),
        reconcile: Duration::ZERO,
    };
    let mut silent = Silent;
    let recorder = Recorder::start(setup, &mut silent).unwrap();
    sender.send(script).unwrap();
    recorder.control().stop();
    recorder.run().unwrap();

    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir.path().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            let text = std::fs::read_to_string(path).unwrap();
            lines.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap()),
            );
        }
    }
    lines
}

/// A connection from 127.0.0.1:40000 to 127.0.0.1:80, or the other end of it.
fn seen(sequence: u64, action: Action, state: TcpState) -> SocketObservation {
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    SocketObservation {
        at: BootTime(1_000_000 * (sequence + 1)),
        stream: 0,
        sequence,
        action,
        socket: Socket {
            cookie: Some(Cookie(0xabc)),
            netns: Some(1),
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

fn accept(sequence: u64) -> SocketObservation {
    seen(sequence, Action::Accept, TcpState::Established)
}

fn close(sequence: u64) -> SocketObservation {
    let action = Action::Close {
        reason: CloseReason::Closed,
        bytes_sent: Some(1),
        bytes_received: Some(2),
        duration_us: Some(3),
    };
    seen(sequence, action, TcpState::Closed)
}

fn made(count: u64) -> BTreeMap<u16, u64> {
    BTreeMap::from([(0, count)])
}

fn line<'a>(lines: &'a [Value], event: &str) -> &'a Value {
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

#[test]
fn the_process_that_accepts_owns_the_connection() {
    let owner = OwnerObservation {
        cookie: Cookie(0xabc),
        owner: CHILD,
        uid: 7,
    };
    let waits = seen(
        1,
        Action::State {
            old: TcpState::Established,
        },
        TcpState::CloseWait,
    );
    let script = vec![
        Observation::Socket(accept(0)),
        Observation::Socket(waits),
        Observation::Owner(owner),
        Observation::Socket(close(2)),
    ];
    let lines = play(script, made(3));
    for event in ["accept", "state", "close"] {
        let line = line(&lines, event);
        assert_eq!(
            (&line["pid"], &line["uid"]),
            (&CHILD.pid.into(), &7.into()),
            "{line}"
        );
        assert_eq!(line["owner"], "creator");
    }
}

#[test]
fn a_connection_that_nobody_was_seen_to_accept_is_its_closers() {
    let mut closed = close(1);
    (closed.attribution, closed.owner) = (Attribution::Creator, Some(CHILD));
    let script = vec![Observation::Socket(accept(0)), Observation::Socket(closed)];
    let lines = play(script, made(2));
    assert_eq!(line(&lines, "accept")["pid"], CHILD.pid);
    assert_eq!(line(&lines, "close")["pid"], CHILD.pid);
}

#[test]
fn a_connection_that_nobody_accepts_is_its_listeners() {
    let script = vec![
        Observation::Socket(accept(0)),
        Observation::Socket(close(1)),
    ];
    let lines = play(script, made(2));
    for event in ["accept", "close"] {
        let line = line(&lines, event);
        assert_eq!(
            (&line["pid"], &line["owner"]),
            (&PARENT.pid.into(), &"inherited".into())
        );
    }
}

#[test]
fn a_connect_has_the_port_that_it_gets_later() {
    let mut connect = seen(0, Action::Connect, TcpState::SynSent);
    connect.attribution = Attribution::Creator;
    let mut established = connect.clone();
    connect.socket.local.port = 0;
    established.sequence = 1;
    established.action = Action::Established {
        connect_us: Some(5),
    };
    let script = vec![
        Observation::Socket(connect),
        Observation::Socket(established),
    ];
    let lines = play(script, made(2));
    assert_eq!(line(&lines, "connect")["local_port"], 80);
    assert_eq!(line(&lines, "established")["local_port"], 80);
}

#[test]
fn what_is_missing_is_in_a_gap_and_in_the_books() {
    let script = vec![
        Observation::Socket(accept(0)),
        Observation::Socket(close(3)),
    ];
    // Two are missing between the two, one after them.
    let lines = play(script, made(5));
    let lost: u64 = lines
        .iter()
        .filter(|line| line["event"] == "gap")
        .map(|line| {
            assert!(line["from"].as_str() <= line["to"].as_str(), "{line}");
            line["lost"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(lost, 3, "{lines:#?}");
    let counters = line(&lines, "counters");
    assert_eq!(
        (&counters["kernel"], &counters["written"], &counters["lost"]),
        (&5.into(), &2.into(), &3.into())
    );
}

#[test]
fn what_comes_out_of_order_is_not_lost() {
    let other_cpu = |sequence: u64, stream: u16| {
        let mut seen = accept(sequence);
        seen.stream = stream;
        seen.socket.cookie = Some(Cookie(u64::from(stream) * 100 + sequence));
        Observation::Socket(seen)
    };
    let script = vec![
        other_cpu(1, 0),
        other_cpu(0, 1),
        other_cpu(0, 0),
        other_cpu(1, 1),
    ];
    let lines = play(script, BTreeMap::from([(0, 2), (1, 2)]));
    assert!(
        lines.iter().all(|line| line["event"] != "gap"),
        "{lines:#?}"
    );
    let counters = line(&lines, "counters");
    assert_eq!(
        (&counters["kernel"], &counters["written"]),
        (&4.into(), &4.into())
    );
}

#[test]
fn a_set_says_what_its_head_lacks() {
    /// The most that a set begins with.
    const MOST: u64 = 16_384;
    let waiting = |number: u64| FoundSocket {
        socket: Socket {
            cookie: Some(Cookie(number + 1)),
            ..seen(0, Action::Accept, TcpState::TimeWait).socket
        },
        holders: Vec::new(),
        owner: None,
        uid: None,
    };
    for (count, expected) in [(MOST, None), (MOST + 3, Some("about 3 others"))] {
        let kernel = Kernel {
            produced: made(0),
            sockets: (0..count).map(waiting).collect(),
        };
        let lines = play_on(kernel, Vec::new());
        let listed = lines.iter().filter(|line| line["event"] == "snapshot");
        assert_eq!(listed.count() as u64, MOST);
        let degraded = line(&lines, "open")["degraded"].as_array().unwrap().clone();
        match expected {
            None => assert!(degraded.is_empty(), "{degraded:?}"),
            Some(part) => assert!(
                degraded.len() == 1 && degraded[0].as_str().unwrap().contains(part),
                "{degraded:?}"
            ),
        }
    }
}
