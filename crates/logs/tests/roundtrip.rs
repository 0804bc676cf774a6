//! What is written is what is read, whatever processes call themselves.

use std::net::IpAddr;

use event::{
    Action, Attribution, CloseReason, Cookie, Endpoint, Process, Protocol, Service, Socket,
    TcpState, WallTime, text,
};
use jiff::tz::{Offset, TimeZone};
use logs::derive::{self, Mapping};
use logs::format::clock::LocalClock;
use logs::format::events::{EventsEncoder, Gap, Opening, OwnerText};
use logs::format::listing::{Modules, ProcessPorts};
use logs::format::{pids, ports};
use logs::read::{Event, GapRecord, Moment, Record, SocketRecord};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

const STAMP: &str = "26-10-25-2-59-58";

/// Text as it comes from outside: bytes that need not be UTF-8, with more of
/// the dangerous ones than chance would give.
fn hostile() -> impl Strategy<Value = String> {
    let byte = prop_oneof![
        any::<u8>(),
        select(b",\"\n\r\t\x1b\\<>{}:\x00\x7f".to_vec())
    ];
    prop_oneof![
        proptest::collection::vec(byte, 0..40).prop_map(|bytes| text::from_bytes(&bytes)),
        any::<String>(),
    ]
}

fn state() -> impl Strategy<Value = TcpState> {
    select(TcpState::ALL.to_vec())
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    any::<(IpAddr, u16)>().prop_map(|(ip, port)| Endpoint::new(ip, port))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        6 => select(vec![Protocol::Tcp, Protocol::Udp]),
        1 => select(vec![Protocol::UdpLite, Protocol::Icmp]),
        1 => any::<u16>().prop_map(Protocol::Raw),
        1 => any::<u16>().prop_map(Protocol::Packet),
    ]
}

fn socket() -> impl Strategy<Value = Socket> {
    (
        of(any::<u64>().prop_map(Cookie)),
        any::<Option<u32>>(),
        protocol(),
        endpoint(),
        of(endpoint()),
        of(state()),
    )
        .prop_map(|(cookie, netns, protocol, local, remote, state)| Socket {
            cookie,
            netns,
            protocol,
            local: match protocol {
                Protocol::Packet(_) => {
                    Endpoint::new(std::net::Ipv4Addr::UNSPECIFIED.into(), local.port)
                }
                _ => local,
            },
            remote,
            state,
        })
}

fn action() -> impl Strategy<Value = Action> {
    let reasons = vec![
        CloseReason::Closed,
        CloseReason::Refused,
        CloseReason::Reset,
        CloseReason::Timeout,
        CloseReason::Unknown,
    ];
    prop_oneof![
        select(vec![
            Action::Accept,
            Action::Bind,
            Action::Connect,
            Action::Discover,
            Action::Listen,
            Action::Snapshot,
            Action::Vanish,
        ]),
        state().prop_map(|old| Action::State { old }),
        any::<Option<u64>>().prop_map(|connect_us| Action::Established { connect_us }),
        (select(reasons), any::<[Option<u64>; 3]>()).prop_map(|(reason, counts)| Action::Close {
            reason,
            bytes_sent: counts[0],
            bytes_received: counts[1],
            duration_us: counts[2],
        }),
    ]
}

fn process() -> impl Strategy<Value = Process> {
    (
        any::<(u32, Option<u32>, Option<u32>)>(),
        of(hostile()),
        of(hostile()),
        of(hostile()),
        of(hostile()),
        of(hostile()),
        of(hostile()),
    )
        .prop_map(
            |((pid, ppid, uid), name, exe, cmdline, user, service, container)| Process {
                pid,
                ppid,
                start: None,
                name,
                exe,
                cmdline,
                uid,
                user,
                service: service.map(|name| Service {
                    name,
                    description: None,
                    kind: None,
                }),
                container,
            },
        )
}

fn wall() -> impl Strategy<Value = WallTime> {
    (0..4_000_000_000_000_000_i64).prop_map(WallTime)
}

proptest! {
    #[test]
    fn a_socket_line_is_read_as_it_was_written(
        seq in 0..u64::MAX,
        (t, started) in (wall(), wall()),
        minutes in -14 * 60..=14 * 60_i32,
        (action, socket) in (action(), socket()),
        attribution in select(vec![
            Attribution::Creator,
            Attribution::Inherited,
            Attribution::Snapshot,
            Attribution::Unknown,
        ]),
        process in of(process()),
        error in of(hostile()),
    ) {
        let offset_seconds = minutes * 60;
        let zone = TimeZone::fixed(Offset::from_seconds(offset_seconds).unwrap());
        let mut clock = LocalClock::new(zone);
        let owner = process.as_ref().map_or_else(OwnerText::unknown, |process| {
            OwnerText::new(process, Some(started), &mut clock)
        });
        let mut line = Vec::new();
        EventsEncoder::new(seq).socket(
            &mut line,
            &mut clock,
            t,
            &action,
            &socket,
            attribution,
            &owner,
            error.as_deref(),
        );

        prop_assert_eq!(line.pop(), Some(b'\n'));
        let shown = std::str::from_utf8(&line).unwrap();
        prop_assert_eq!(text::escape(shown), shown);
        let started = process.as_ref().map(|_| Moment { wall: started, offset_seconds });
        prop_assert_eq!(Record::parse(&line).unwrap(), Record {
            seq: Some(seq),
            time: Some(Moment { wall: t, offset_seconds }),
            event: Event::Socket(Box::new(SocketRecord {
                action,
                socket,
                attribution,
                process,
                started,
                error,
            })),
        });
    }

    #[test]
    fn a_gap_is_read_as_it_was_written_and_no_row_in_pr_ports(
        (t, from, to) in (wall(), wall(), wall()),
        lost in any::<Option<u64>>(),
        reason in hostile(),
    ) {
        let mut clock = LocalClock::new(TimeZone::UTC);
        let gap = Gap { lost, from, to, reason: &reason };
        let mut line = Vec::new();
        EventsEncoder::new(7).gap(&mut line, &mut clock, t, &gap);

        prop_assert_eq!(line.pop(), Some(b'\n'));
        let moment = |wall| Some(Moment { wall, offset_seconds: 0 });
        prop_assert_eq!(Record::parse(&line).unwrap(), Record {
            seq: Some(7),
            time: moment(t),
            event: Event::Gap(Box::new(GapRecord {
                lost,
                from: moment(from),
                to: moment(to),
                reason: Some(reason.clone()),
            })),
        });
        let mut note = Vec::new();
        ports::gap(&mut note, &mut clock, &gap);
        prop_assert_eq!(note.iter().position(|&byte| byte == b'\n'), Some(note.len() - 1));
        prop_assert!(!note.contains(&b','));
    }

    #[test]
    fn the_rows_of_pr_ports_follow_from_the_lines(
        seen in prop::collection::vec((wall(), action(), socket(), of(process())), 0..6),
    ) {
        let mut clock = LocalClock::new(TimeZone::UTC);
        let mut encoder = EventsEncoder::new(0);
        let (mut lines, mut rows) = (Vec::new(), Vec::new());
        encoder.open(&mut lines, &mut clock, WallTime(0), &Opening {
            version: "1",
            host: "host",
            os: "os",
            boot_id: "boot",
            run: "run",
            set: STAMP,
            previous: None,
            previous_sha256: None,
            engine: "ebpf",
            hooks: &[],
            degraded: &[],
        });
        ports::header(&mut rows, STAMP);
        for (t, action, socket, process) in &seen {
            let owner = process.as_ref().map(|process| OwnerText::new(process, None, &mut clock));
            let nobody = OwnerText::unknown();
            let text = owner.as_ref().unwrap_or(&nobody);
            let attribution = Attribution::Snapshot;
            encoder.socket(&mut lines, &mut clock, *t, action, socket, attribution, text, None);
            let has_row = matches!(socket.protocol, Protocol::Tcp | Protocol::Udp) && matches!(
                action,
                Action::Accept | Action::Bind | Action::Connect | Action::Discover | Action::Listen
            );
            if has_row {
                ports::row(&mut rows, &mut clock, *t, socket, owner.as_ref());
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("PR-EVENTS.jsonl");
        std::fs::write(&path, &lines).unwrap();
        let derived = derive::from_file(&path, Mapping::Available).unwrap();
        prop_assert_eq!(
            String::from_utf8(derived.ports).unwrap(),
            String::from_utf8(rows).unwrap()
        );
    }

    #[test]
    fn a_row_is_one_line_of_ten_fields(
        t in wall(),
        socket in socket(),
        process in of(process()),
    ) {
        let mut clock = LocalClock::new(TimeZone::UTC);
        let owner = process.as_ref().map(|process| OwnerText::new(process, None, &mut clock));
        let mut row = Vec::new();
        ports::row(&mut row, &mut clock, t, &socket, owner.as_ref());

        prop_assert_eq!(row.iter().position(|&byte| byte == b'\n'), Some(row.len() - 1));
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(row.as_slice());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        prop_assert_eq!(rows.len(), 1);
        let fields: Vec<_> = rows[0].iter().collect();
        prop_assert_eq!(fields.len(), 10);
        let (pid, module, user) = match &process {
            Some(process) => (
                process.pid,
                text::escape(process.name.as_deref().unwrap_or_default()).into_owned(),
                process.user.as_deref().map(|user| format!("<{}>", text::escape(user))),
            ),
            None => (0, "System Idle".to_owned(), None),
        };
        prop_assert_eq!(fields[7], pid.to_string());
        prop_assert_eq!(fields[8], module);
        prop_assert_eq!(fields[9], user.unwrap_or_default());
    }

    #[test]
    fn the_lines_of_a_block_do_not_depend_on_names(
        t in wall(),
        sockets in proptest::collection::vec(socket(), 0..4),
        process in process(),
    ) {
        let lines = |process: &Process| {
            let mut clock = LocalClock::new(TimeZone::UTC);
            let mut out = Vec::new();
            let entry = ProcessPorts {
                process: Some(process),
                sockets: &sockets.iter().collect::<Vec<_>>(),
                modules: Modules::Unavailable(""),
            };
            pids::entry(&mut out, &mut clock, t, &entry, 1, 1);
            String::from_utf8(out).unwrap().lines().count()
        };
        let plain = |text: &Option<String>| text.as_ref().map(|_| "plain".to_owned());
        let harmless = Process {
            name: plain(&process.name),
            exe: plain(&process.exe),
            cmdline: plain(&process.cmdline),
            user: plain(&process.user),
            container: plain(&process.container),
            service: process.service.as_ref().map(|_| Service {
                name: "plain".into(),
                description: None,
                kind: None,
            }),
            ..process.clone()
        };
        prop_assert_eq!(lines(&process), lines(&harmless));
    }

    #[test]
    fn no_line_makes_the_reader_panic(line in hostile(), at: prop::sample::Index, byte: u8) {
        let _ = Record::parse(line.as_bytes());
        let mut clock = LocalClock::new(TimeZone::UTC);
        let mut damaged = Vec::new();
        EventsEncoder::new(0).snapshot_end(&mut damaged, &mut clock, WallTime(0), 1);
        let at = at.index(damaged.len());
        damaged[at] = byte;
        let _ = Record::parse(&damaged);
    }
}
