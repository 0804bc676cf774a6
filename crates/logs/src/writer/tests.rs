use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use event::{Endpoint, Protocol, TcpState};
use serde_json::Value;

use super::turn::FIRST_BACKOFF;
use super::*;
use crate::roll::RollReason;
use crate::sink::tests::Faults;

const START: WallTime = WallTime(1_795_345_925_000_000);

struct State(usize);

impl SetState for State {
    fn initial(&self, out: &mut Vec<u8>, _: &mut LocalClock, _: WallTime) {
        out.extend_from_slice(b"initial\n");
    }

    fn sockets(&self, each: &mut dyn FnMut(&Socket, Attribution, &OwnerText)) {
        let owner = OwnerText::unknown();
        for n in 0..self.0 {
            each(&listener(n), Attribution::Unknown, &owner);
        }
    }
}

fn listener(n: usize) -> Socket {
    Socket {
        cookie: None,
        netns: None,
        protocol: Protocol::Tcp,
        local: Endpoint::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            u16::try_from(n % 60_000).unwrap(),
        ),
        remote: None,
        state: Some(TcpState::Listening),
    }
}

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_path_buf(),
        set_size: 1 << 30,
        events_size: 1 << 30,
        max_total: Some(1 << 40),
        keep_days: None,
        compress: false,
    }
}

fn logs(dir: &Path, faults: &Faults) -> Logs {
    let run = Run {
        names_processes: true,
        ..Run::default()
    };
    let opened = Logs::open_with(options(dir), run, TimeZone::UTC, START, faults.create());
    opened.unwrap().0
}

fn listen(logs: &mut Logs, n: usize) -> Written {
    let t = WallTime(START.0 + i64::try_from(n).unwrap());
    let owner = OwnerText::unknown();
    logs.socket(
        t,
        &Action::Listen,
        &listener(n),
        Attribution::Unknown,
        &owner,
        None,
    )
}

/// Every line of every PR-EVENTS, by number.
fn record(dir: &Path) -> Vec<Value> {
    let names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("PR-EVENTS"))
        .collect();
    let mut lines: Vec<Value> = names
        .iter()
        .flat_map(|name| {
            let text = std::fs::read_to_string(dir.join(name)).unwrap();
            assert!(text.ends_with('\n'));
            let values: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            values
        })
        .collect();
    lines.sort_by_key(|line| line["seq"].as_u64());
    lines
}

fn assert_no_holes(lines: &[Value]) {
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], n, "{line}");
    }
}

fn count(lines: &[Value], event: &str) -> usize {
    lines.iter().filter(|line| line["event"] == event).count()
}

#[test]
fn a_full_disk_costs_only_what_does_not_fit_into_memory() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    logs.roll(START, RollReason::Start, &State(3)).unwrap();
    faults.set_room(Some(1000));
    let mut kept = 0;
    let mut dropped = 0;
    while dropped < 1000 {
        match listen(&mut logs, kept + dropped) {
            Written::Kept => {
                assert_eq!(dropped, 0, "kept one after a loss that is not told");
                kept += 1;
            }
            Written::Dropped => dropped += 1,
        }
    }
    assert!(!logs.flush(START));
    let notices = logs.notices();
    assert!(
        matches!(&notices[..], [Notice::WriteFailed { .. }]),
        "said {notices:?}"
    );
    // The ledger and a gap from the kernel come in the meantime.
    assert_eq!(
        logs.counters(START, &Counters::default(), 0),
        Written::Dropped
    );
    let gap = Gap {
        lost: Some(7),
        from: START,
        to: START,
        reason: "ring",
    };
    logs.gap(START, &gap);
    faults.set_room(None);
    assert!(logs.flush(START));
    assert_eq!(
        logs.notices(),
        [Notice::WriteWorks {
            lost: 1000,
            // Each of the events would have had a row.
            rows_lost: 1000
        }]
    );
    assert_eq!(listen(&mut logs, 0), Written::Kept);
    let stamp = logs.current().unwrap();
    let summary = logs.close(START).unwrap();
    assert_eq!(summary.lost, 1000);
    let rows = std::fs::read_to_string(temp.path().join(format!("PR-PORTS-{stamp}.log"))).unwrap();
    let notes: Vec<_> = rows
        .lines()
        .filter(|line| line.starts_with("Not recorded: "))
        .collect();
    assert_eq!(
        notes,
        [
            "Not recorded: 1000 events from 26/11/22 11:12:5 to 26/11/22 11:12:5 (see the gap in \
             PR-EVENTS)",
            "Not recorded: 7 events from 26/11/22 11:12:5 to 26/11/22 11:12:5 (see the gap in \
             PR-EVENTS)",
        ]
    );

    let lines = record(temp.path());
    assert_no_holes(&lines);
    assert_eq!(count(&lines, "listen"), kept + 1);
    let gaps: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "gap")
        .map(|line| (line["reason"].as_str().unwrap(), line["lost"].as_u64()))
        .collect();
    assert_eq!(gaps, [("disk", Some(1000)), ("ring", Some(7))]);
    let at = |event: &str| lines.iter().rposition(|line| line["event"] == event);
    assert!(at("gap") < at("listen"), "the gap comes first");
    let gap = lines.iter().find(|line| line["event"] == "gap").unwrap();
    assert!(gap["from"].as_str() <= gap["to"].as_str());
}

#[test]
fn an_outage_that_memory_bridges_leaves_no_trace_in_the_record() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    logs.roll(START, RollReason::Start, &State(0)).unwrap();
    for n in 0..100 {
        faults.set_room((n % 3 == 0).then_some(n * 7));
        assert_eq!(listen(&mut logs, n), Written::Kept);
        logs.flush(START);
    }
    faults.set_room(None);
    logs.close(START).unwrap();
    let lines = record(temp.path());
    assert_no_holes(&lines);
    assert_eq!(count(&lines, "listen"), 100);
    assert_eq!(count(&lines, "gap"), 0);
}

#[test]
fn a_set_that_cannot_be_made_leaves_the_old_one_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    let first = logs.roll(START, RollReason::Start, &State(0)).unwrap();
    let before = names(temp.path());
    faults.set_cannot_create(true);
    assert_eq!(listen(&mut logs, 1), Written::Kept);
    let error = logs
        .roll(START, RollReason::Request, &State(0))
        .unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::CannotCreate);
    assert_eq!(logs.current(), Some(first.stamp));
    assert_eq!(names(temp.path()), before);
    // It is not asked for again at once, but it is asked for again.
    assert_eq!(logs.roll_due(START), None);
    let backoff = logs.backoff.as_mut().unwrap();
    assert_eq!(backoff.wait, FIRST_BACKOFF);
    backoff.until = Instant::now();
    assert_eq!(logs.roll_due(START), Some(RollReason::Request));
    faults.set_cannot_create(false);
    assert_eq!(listen(&mut logs, 2), Written::Kept);
    let second = logs.roll(START, RollReason::Request, &State(0)).unwrap();
    assert_eq!(second.previous, Some(first.stamp));
    logs.close(START).unwrap();
    let lines = record(temp.path());
    assert_no_holes(&lines);
    assert_eq!(count(&lines, "listen"), 2);
}

/// The disk fills up at each byte of the opening of a set in turn.
#[test]
fn a_set_that_cannot_be_finished_leaves_no_trace() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    logs.roll(START, RollReason::Start, &State(0)).unwrap();
    let mut failed = 0;
    let mut sets = 1;
    for room in (0..4000).step_by(13) {
        assert_eq!(listen(&mut logs, room), Written::Kept);
        assert!(logs.flush(START));
        let before = names(temp.path());
        faults.set_room(Some(room));
        let turned = logs.roll(START, RollReason::Request, &State(2));
        faults.set_room(None);
        if turned.is_ok() {
            sets += 1;
        } else {
            failed += 1;
            assert_eq!(names(temp.path()), before);
        }
    }
    assert!(failed > 50, "{failed} failed");
    assert!(sets > 5, "{sets} sets");
    logs.close(START).unwrap();
    let lines = record(temp.path());
    assert_no_holes(&lines);
    assert_eq!(count(&lines, "open"), sets);
    assert_eq!(count(&lines, "seal"), sets);
    assert_eq!(count(&lines, "listen"), failed + sets - 1);
}

#[test]
fn a_large_state_is_not_due_again() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    logs.options.events_size = 100_000;
    logs.roll(START, RollReason::Start, &State(5_000)).unwrap();
    assert_eq!(logs.roll_due(START), None);
    let mut n = 0;
    while logs.roll_due(START).is_none() {
        let _ = listen(&mut logs, n);
        n += 1;
    }
    assert_eq!(logs.roll_due(START), Some(RollReason::Size));
    assert!(n > 50, "due after {n} events");
}

#[test]
fn events_before_the_first_set_are_told_at_its_beginning() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    assert_eq!(listen(&mut logs, 1), Written::Dropped);
    logs.roll(START, RollReason::Start, &State(0)).unwrap();
    assert_eq!(listen(&mut logs, 2), Written::Kept);
    logs.close(START).unwrap();
    let lines = record(temp.path());
    let events: Vec<_> = lines.iter().map(|line| &line["event"]).collect();
    assert_eq!(events, ["open", "snapshot-end", "gap", "listen", "seal"]);
    assert_no_holes(&lines);
}

#[test]
fn an_end_that_cannot_be_written_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    logs.roll(START, RollReason::Start, &State(0)).unwrap();
    let _ = listen(&mut logs, 1);
    faults.set_room(Some(0));
    let unfinished = logs.close(START).unwrap_err();
    assert_eq!(unfinished.error.kind(), crate::ErrorKind::Io);
    assert_eq!((unfinished.events, unfinished.rows), (1, 1));
    assert_eq!(unfinished.summary.lost, 1);
    // `open` and `snapshot-end`.
    assert_eq!((unfinished.summary.sets, unfinished.summary.lines), (1, 2));
}

/// The disk fills up at each byte of the end in turn: what is said to be lost
/// is what is not there.
#[test]
fn what_the_end_lacks_is_counted() {
    let mut lacking = Vec::new();
    for room in (0..4_000).step_by(97) {
        let temp = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let mut logs = logs(temp.path(), &faults);
        logs.roll(START, RollReason::Start, &State(1)).unwrap();
        for n in 0..5 {
            assert_eq!(listen(&mut logs, n), Written::Kept);
        }
        let counters = Counters::default();
        assert_eq!(logs.counters(START, &counters, 0), Written::Kept);
        let mut entry = Vec::new();
        let ports = crate::format::listing::ProcessPorts {
            process: None,
            sockets: &[],
            modules: crate::format::listing::Modules::Known(&[]),
        };
        pids::entry(&mut entry, &mut logs.clock, START, &ports, 1, 1);
        logs.pids(START, &entry);
        let ports = temp
            .path()
            .join(format!("PR-PORTS-{}.log", logs.current().unwrap()));
        faults.set_room(Some(room));
        let (summary, events, rows) = match logs.close(START) {
            Ok(summary) => (summary, 0, 0),
            Err(end) => {
                let (events, rows) = (end.events, end.rows);
                (end.summary, events, rows)
            }
        };
        let lines = record(temp.path());
        assert_no_holes(&lines);
        assert_eq!(lines.len() as u64, summary.lines, "room for {room}");
        assert_eq!(
            count(&lines, "listen") as u64 + events,
            5,
            "room for {room}"
        );
        assert_eq!(summary.lost, events);
        let text = std::fs::read_to_string(ports).unwrap();
        let there = text.lines().filter(|row| row.contains(",TCP,")).count();
        assert!((there as u64..=there as u64 + 1).contains(&(6 - rows.min(6))) || rows == 0);
        lacking.push((events, rows));
    }
    assert_eq!(lacking.first(), Some(&(5, 6)));
    assert_eq!(lacking.last(), Some(&(0, 0)));
    assert!(
        lacking.iter().any(|&(events, _)| events == 3),
        "{lacking:?}"
    );
}

/// Rows that found no room although their events did.
#[test]
fn rows_that_are_missing_are_told_where_they_are_missing() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    let stamp = logs
        .roll(START, RollReason::Start, &State(0))
        .unwrap()
        .stamp;
    assert_eq!(listen(&mut logs, 1), Written::Kept);
    let set = logs.current.as_mut().unwrap();
    (set.rows_missing, set.entries_missing) = (2, 1);
    assert_eq!(listen(&mut logs, 3), Written::Kept);
    assert!(logs.flush(START));
    logs.close(START).unwrap();
    let read = |name: String| std::fs::read_to_string(temp.path().join(name)).unwrap();
    let ports = read(format!("PR-PORTS-{stamp}.log"));
    let ends: Vec<_> = ports.lines().rev().take(3).collect();
    assert_eq!(ends[1], "Not recorded: 2 rows (see PR-EVENTS)");
    assert!(
        ends[0].contains(",TCP,3,") && ends[2].contains(",TCP,1,"),
        "{ports}"
    );
    let pids = read(format!("PR-PIDS-{stamp}.log"));
    assert!(
        pids.ends_with("\nNot recorded: 1 log entry (see PR-EVENTS)\n"),
        "{pids}"
    );
}

#[test]
fn without_processes_the_classic_files_are_short() {
    let temp = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut logs = logs(temp.path(), &faults);
    logs.run_mut().names_processes = false;
    logs.roll(START, RollReason::Start, &State(0)).unwrap();
    let _ = listen(&mut logs, 80);
    let stamp = logs.current().unwrap();
    logs.close(START).unwrap();
    let read = |name: String| std::fs::read_to_string(temp.path().join(name)).unwrap();
    let ports = read(format!("PR-PORTS-{stamp}.log"));
    assert_eq!(ports.lines().last().unwrap().split(',').count(), 7);
    assert!(read(format!("PR-PIDS-{stamp}.log")).contains("not available"));
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}
