//! The four files of a small, nasty set, byte for byte.
//!
//! `PORTREPORTER_BLESS=1 cargo test -p logs --test golden` writes the golden
//! files anew; read the difference before you commit it.

use std::fs;
use std::path::Path;

use event::{
    Action, Attribution, CloseReason, Cookie, Endpoint, Module, Process, Protocol, Service,
    ServiceKind, Socket, TcpState, WallTime, text,
};
use jiff::tz::TimeZone;
use logs::derive::{self, Mapping};
use logs::format::clock::LocalClock;
use logs::format::events::{Counters, EventsEncoder, Gap, Opening, OwnerText};
use logs::format::listing::{Modules, ProcessPorts};
use logs::format::{initial, pids, ports};
use logs::read::{Event, Line, Reader};

const HOST: &str = "granary";
const OS: &str = "Debian GNU/Linux 13 (trixie), Linux 6.12.0";
const STAMP: &str = "26-10-25-2-59-58";

/// Two seconds before the clocks of central Europe go back.
const START: WallTime = WallTime(1_792_889_998_000_000);

/// The files of one set in memory.
struct Set {
    clock: LocalClock,
    encoder: EventsEncoder,
    now: WallTime,
    events: Vec<u8>,
    ports: Vec<u8>,
    initial: Vec<u8>,
    pids: Vec<u8>,
}

impl Set {
    fn new() -> Self {
        Self {
            clock: LocalClock::new(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone")),
            encoder: EventsEncoder::new(0),
            now: START,
            events: Vec::new(),
            ports: Vec::new(),
            initial: Vec::new(),
            pids: Vec::new(),
        }
    }

    fn misses(&mut self, gap: &Gap<'_>) {
        let (encoder, clock) = (&mut self.encoder, &mut self.clock);
        encoder.gap(&mut self.events, clock, self.now, gap);
        ports::gap(&mut self.ports, clock, gap);
    }

    fn happens(
        &mut self,
        action: Action,
        socket: &Socket,
        attribution: Attribution,
        process: Option<&Process>,
        error: Option<&str>,
    ) {
        self.now.0 += 123_457;
        let started = process.and_then(|process| process.start).map(|start| {
            // This machine was booted a thousand seconds before.
            let micros = i64::try_from(start.0 / 1000).expect("a small number");
            WallTime(START.0 - 1_000_000_000 + micros)
        });
        let owner = process.map_or_else(OwnerText::unknown, |process| {
            OwnerText::new(process, started, &mut self.clock)
        });
        self.encoder.socket(
            &mut self.events,
            &mut self.clock,
            self.now,
            &action,
            socket,
            attribution,
            &owner,
            error,
        );
        if action.has_row(socket.protocol) {
            let owner = process.map(|_| &owner);
            ports::row(&mut self.ports, &mut self.clock, self.now, socket, owner);
        }
    }
}

fn endpoint(text: &str) -> Endpoint {
    let address: std::net::SocketAddr = text.parse().expect("an address");
    Endpoint::new(address.ip(), address.port())
}

fn tcp(cookie: u64, state: TcpState, local: &str, remote: Option<&str>) -> Socket {
    Socket {
        cookie: Some(Cookie(cookie)),
        netns: Some(4_026_531_840),
        protocol: Protocol::Tcp,
        local: endpoint(local),
        remote: remote.map(endpoint),
        state: Some(state),
    }
}

fn udp(cookie: Option<u64>, local: &str) -> Socket {
    Socket {
        cookie: cookie.map(Cookie),
        netns: None,
        protocol: Protocol::Udp,
        local: endpoint(local),
        remote: None,
        state: None,
    }
}

fn sshd() -> Process {
    Process {
        pid: 812,
        ppid: Some(1),
        start: Some(event::BootTime(12_345_678_901)),
        name: Some("sshd".into()),
        exe: Some("/usr/sbin/sshd".into()),
        cmdline: Some("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups".into()),
        uid: Some(0),
        user: Some("root".into()),
        service: Some(Service {
            name: "ssh.service".into(),
            description: Some("OpenBSD Secure Shell server".into()),
            kind: Some(ServiceKind::Own),
        }),
        container: None,
    }
}

/// A process that does what it can to forge lines, fields and colours.
fn villain() -> Process {
    let name = text::from_bytes(b"a,\"b\"\n0:\x1b[31mroot\xff\xc3");
    Process {
        pid: 31_337,
        ppid: Some(31_336),
        start: Some(event::BootTime(999_000_000_000)),
        exe: Some(format!("/tmp/{name} (deleted)")),
        cmdline: Some("'{\"seq\":0}\r\n=====\u{202e}' \u{9b}2J".into()),
        name: Some(name),
        uid: Some(1000),
        user: Some("mal,\"ory\"\n".into()),
        service: None,
        container: Some("docker:0123456789ab".into()),
    }
}

/// A process of which little is known.
fn stranger() -> Process {
    Process {
        pid: 4000,
        ..Process::default()
    }
}

fn write_set() -> Set {
    let (sshd, villain, stranger) = (sshd(), villain(), stranger());
    let listener = tcp(0x1f, TcpState::Listening, "0.0.0.0:22", None);
    let listener6 = tcp(0x20, TcpState::Listening, "[::]:22", None);
    let session = tcp(
        0xdead_beef,
        TcpState::Established,
        "[2001:db8::1]:22",
        Some("[2001:db8::2]:50000"),
    );
    let waiting = tcp(
        0x30,
        TcpState::TimeWait,
        "192.0.2.1:41000",
        Some("198.51.100.7:443"),
    );
    let resolver = udp(None, "127.0.0.53:53");
    let stray = tcp(
        0x31,
        TcpState::TimeWait,
        "192.0.2.1:41001",
        Some("[::ffff:198.51.100.7]:80"),
    );

    let mut set = open_set();
    let modules = [
        Module {
            path: "/usr/sbin/sshd".into(),
            base: 0x55d0_c0de_f000,
        },
        Module {
            path: "/usr/lib/evil\n.so (deleted)".into(),
            base: 0x40_0000,
        },
    ];
    let found = [
        ProcessPorts {
            process: Some(&villain),
            sockets: &[&waiting],
            modules: Modules::Unavailable("the process is gone"),
        },
        ProcessPorts {
            process: None,
            sockets: &[&stray],
            modules: Modules::Unavailable(""),
        },
        ProcessPorts {
            process: Some(&stranger),
            sockets: &[&resolver],
            modules: Modules::Known(&[]),
        },
        ProcessPorts {
            process: Some(&sshd),
            sockets: &[&session, &listener6, &listener],
            modules: Modules::Known(&modules),
        },
    ];
    let mut sockets = 0;
    for ports in &found {
        let attribution = match ports.process {
            Some(_) => Attribution::Snapshot,
            None => Attribution::Unknown,
        };
        for socket in ports.sockets {
            sockets += 1;
            set.happens(Action::Snapshot, socket, attribution, ports.process, None);
        }
    }
    set.encoder
        .snapshot_end(&mut set.events, &mut set.clock, set.now, sockets);
    initial::write(&mut set.initial, &mut set.clock, START, HOST, OS, &found);

    live(&mut set, &sshd, &villain);

    let entry = ProcessPorts {
        sockets: &[&listener6, &session, &listener],
        ..found[3]
    };
    pids::entry(&mut set.pids, &mut set.clock, set.now, &entry, 1, 1);
    let entry = ProcessPorts {
        sockets: &[&waiting, &resolver, &listener],
        ..found[0]
    };
    pids::entry(&mut set.pids, &mut set.clock, set.now, &entry, 12, 4);

    let counters = Counters {
        kernel: 21,
        received: 18,
        written: 18,
        lost: 3,
    };
    set.encoder
        .counters(&mut set.events, &mut set.clock, set.now, &counters, 2);
    let sha256 = "0".repeat(64);
    let next = Some("26-10-25-2-0-0");
    set.encoder
        .seal(&mut set.events, &mut set.clock, set.now, 22, &sha256, next);
    set
}

/// The set with its first line and its headers.
fn open_set() -> Set {
    let mut set = Set::new();
    let opening = Opening {
        version: "0.1.0",
        host: HOST,
        os: OS,
        boot_id: "5e3f7c1a-0000-4000-8000-000000000001",
        run: "0b9de2a4-0000-4000-8000-000000000002",
        set: STAMP,
        previous: None,
        previous_sha256: None,
        engine: "ebpf",
        hooks: &["inet_sock_set_state".into(), "cgroup/post_bind4".into()],
        degraded: &["hook udp: not permitted; the \"first\" send is missed".into()],
    };
    set.encoder
        .open(&mut set.events, &mut set.clock, START, &opening);
    ports::header(&mut set.ports, STAMP);
    pids::header(&mut set.pids, &mut set.clock, START, HOST, OS);
    set
}

/// Each kind of event once.
fn live(set: &mut Set, sshd: &Process, villain: &Process) {
    let peer = Some("203.0.113.9:65535");
    let unbound = tcp(0x40, TcpState::SynSent, "0.0.0.0:0", peer);
    let outbound = |state| tcp(0x40, state, "192.0.2.1:41002", peer);
    let bad = Some(villain);

    let listener = tcp(0x41, TcpState::Listening, "[::1]:8080", None);
    set.happens(Action::Listen, &listener, Attribution::Creator, bad, None);
    let bound = udp(Some(u64::MAX), "[fe80::1]:5353");
    set.happens(Action::Bind, &bound, Attribution::Creator, bad, None);
    set.happens(Action::Connect, &unbound, Attribution::Creator, bad, None);
    let inbound = tcp(0x42, TcpState::Established, "192.0.2.1:22", peer);
    set.happens(
        Action::Accept,
        &inbound,
        Attribution::Inherited,
        Some(sshd),
        None,
    );
    set.happens(Action::Accept, &inbound, Attribution::Unknown, None, None);
    let up = outbound(TcpState::Established);
    let established = Action::Established {
        connect_us: Some(215),
    };
    set.happens(established, &up, Attribution::Creator, bad, None);
    let closing = outbound(TcpState::FinWait2);
    let state = Action::State {
        old: TcpState::FinWait1,
    };
    set.happens(state, &closing, Attribution::Creator, bad, None);

    // Here the clocks go back.
    set.now = WallTime(START.0 + 2_000_000);
    let gap = Gap {
        lost: Some(3),
        from: START,
        to: set.now,
        reason: "the ring was full",
    };
    set.misses(&gap);
    let unknown = Gap {
        lost: None,
        reason: "the recorder did not stop in order (killed, or the machine went down)",
        ..gap
    };
    set.misses(&unknown);
    let close = Action::Close {
        reason: CloseReason::Closed,
        bytes_sent: Some(0),
        bytes_received: Some(u64::MAX),
        duration_us: Some(1_234_567),
    };
    let waiting = outbound(TcpState::TimeWait);
    set.happens(close, &waiting, Attribution::Creator, bad, None);
    let unreachable = Action::Close {
        reason: CloseReason::Unknown,
        bytes_sent: None,
        bytes_received: None,
        duration_us: None,
    };
    let closed = tcp(0x43, TcpState::Closed, "0.0.0.0:0", peer);
    set.happens(
        unreachable,
        &closed,
        Attribution::Creator,
        bad,
        Some("EHOSTUNREACH"),
    );
    let found = tcp(
        0x44,
        TcpState::CloseWait,
        "[2001:db8::1]:9",
        Some("[2001:db8::2]:9"),
    );
    set.happens(
        Action::Discover,
        &found,
        Attribution::Snapshot,
        Some(sshd),
        None,
    );
    set.happens(
        Action::Vanish,
        &found,
        Attribution::Snapshot,
        Some(sshd),
        None,
    );
    let late = udp(Some(0x45), "0.0.0.0:68");
    set.happens(Action::Bind, &late, Attribution::Unknown, None, None);
}

fn compare(name: &str, written: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("PORTREPORTER_BLESS").is_some() {
        fs::write(&path, written).expect("the golden file can be written");
    }
    let golden = fs::read(&path).expect("there is a golden file");
    if golden != written {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&golden), text(written), "{name}");
        panic!("{name} differs in bytes that are not text");
    }
}

#[test]
fn the_four_files() {
    let set = write_set();
    compare("PR-EVENTS.jsonl", &set.events);
    compare("PR-PORTS.log", &set.ports);
    compare("PR-INITIAL.log", &set.initial);
    compare("PR-PIDS.log", &set.pids);
}

#[test]
fn the_files_where_no_process_can_be_named() {
    let mut clock = LocalClock::new(TimeZone::UTC);
    let listener = tcp(0x1f, TcpState::Listening, "[::]:22", None);
    let resolver = udp(None, "127.0.0.53:53");
    let mut initial = Vec::new();
    let sockets = [&resolver, &listener];
    initial::write_without_processes(&mut initial, &mut clock, START, HOST, OS, &sockets);
    compare("PR-INITIAL-without-processes.log", &initial);
    let mut pids = Vec::new();
    pids::header_without_processes(&mut pids, &mut clock, START, HOST, OS);
    compare("PR-PIDS-without-processes.log", &pids);
}

#[test]
fn no_file_can_do_anything_to_a_terminal() {
    let set = write_set();
    for bytes in [&set.events, &set.ports, &set.initial, &set.pids] {
        let text = std::str::from_utf8(bytes).unwrap();
        for line in text.split_terminator('\n') {
            let visible = line.replace('\t', " ");
            assert_eq!(text::escape(&visible), visible);
        }
    }
}

#[test]
fn the_classic_files_follow_from_pr_events() {
    let set = write_set();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("PR-EVENTS.jsonl");
    fs::write(&path, &set.events).unwrap();
    let derived = derive::from_file(&path, Mapping::Available).unwrap();
    assert_eq!(
        String::from_utf8(derived.ports).unwrap(),
        String::from_utf8(set.ports).unwrap()
    );
    let blocks = set
        .initial
        .strip_prefix(derived.initial.as_slice())
        .unwrap();
    assert!(blocks.starts_with(&[b'='; 77]), "the table is complete");

    let derived = derive::from_file(&path, Mapping::Unavailable).unwrap();
    let ports = String::from_utf8(derived.ports).unwrap();
    assert!(ports.ends_with("UDP,68,0.0.0.0,*,*\n"), "{ports}");
}

#[test]
fn without_an_opening_nothing_is_derived() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("PR-EVENTS.jsonl");
    fs::write(&path, "{\"seq\":1,\"event\":\"counters\"}\n").unwrap();
    let error = derive::from_file(&path, Mapping::Available).unwrap_err();
    assert!(matches!(error, derive::Error::NoOpening { .. }));
}

#[test]
fn every_line_of_pr_events_is_understood() {
    let set = write_set();
    let lines = set.events.split(|&byte| byte == b'\n').count() - 1;
    let reader = Reader::new(std::io::Cursor::new(set.events), Path::new("golden")).unwrap();
    let mut next = 0;
    for line in reader {
        let Line::Record(record) = line.unwrap() else {
            panic!("line {next} is not understood");
        };
        assert_eq!(record.seq, Some(next));
        assert!(record.time.is_some());
        assert!(!matches!(record.event, Event::Other(_)));
        next += 1;
    }
    assert_eq!(next, lines as u64);
}
