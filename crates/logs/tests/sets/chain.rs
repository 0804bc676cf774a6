//! Many sets, in one run and in several.

use event::WallTime;
use jiff::tz::TimeZone;
use logs::{Logs, Notice, RollReason};

use super::support::*;

#[test]
fn no_event_is_lost_or_doubled_over_ten_sets() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options(temp.path());
    options.compress = true;
    let (mut logs, notices) = Logs::open(options, run("a"), TimeZone::UTC, START).unwrap();
    assert_eq!(notices, []);
    let mut opened = vec![roll(&mut logs, START)];
    for n in 0..20_000 {
        if n % 2_000 == 1_999 {
            let now = WallTime(START.0 + i64::try_from(n).unwrap() * SECOND);
            opened.push(roll(&mut logs, now));
        }
        listen(&mut logs, n);
        if n % 777 == 0 {
            assert!(logs.flush(START));
        }
    }
    let summary = logs.close(START).unwrap();
    assert_eq!(summary.notices, []);
    assert_eq!(summary.sets, 11);
    assert_eq!(summary.lost, 0);

    let lines = verify_chain(temp.path());
    assert_eq!(summary.lines, lines.len() as u64);
    assert_eq!(listeners(&lines), (0..20_000).collect::<Vec<_>>());
    // What event 102 tells outside is what the chain says.
    let files = events_files(temp.path());
    for pair in opened.windows(2) {
        let before = &files[&pair[0].stamp.to_string()];
        assert_eq!(pair[1].previous, Some(pair[0].stamp));
        assert_eq!(pair[1].previous_sha256, Some(sha256(before)));
    }
    let mut rows = 0;
    for name in names(temp.path()) {
        if name.starts_with("PR-PORTS") {
            let text = std::fs::read_to_string(temp.path().join(&name)).unwrap();
            rows += text.lines().filter(|line| line.contains(",TCP,")).count();
        }
        let is_compressed = name.starts_with("PR-EVENTS") || name.starts_with("PR-PIDS");
        assert_eq!(is_compressed, name.ends_with(".zst"), "{name}");
    }
    assert_eq!(rows, 20_000);
}

#[test]
fn the_chain_goes_on_over_runs_and_over_a_clock_that_was_set_back() {
    let temp = tempfile::tempdir().unwrap();
    let mut last = None;
    for (n, hours) in [(0, 0), (1, 5), (2, 2), (3, -48)] {
        let now = WallTime(START.0 + hours * 3_600 * SECOND);
        let (mut logs, notices) =
            Logs::open(options(temp.path()), run("x"), TimeZone::UTC, now).unwrap();
        assert_eq!(notices, []);
        let opened = logs.roll(now, RollReason::Start, &Listeners(1)).unwrap();
        assert_eq!(opened.previous, last);
        assert_eq!(opened.previous_sha256.is_some(), last.is_some());
        listen(&mut logs, n);
        last = Some(opened.stamp);
        logs.close(now).unwrap();
    }
    let lines = verify_chain(temp.path());
    assert_eq!(listeners(&lines), [0, 1, 2, 3]);
}

#[test]
fn a_stamp_that_is_taken_gets_a_number() {
    let temp = tempfile::tempdir().unwrap();
    // Not even a file of ours, but the name is taken.
    std::fs::create_dir(temp.path().join("PR-PIDS-26-11-22-9-5-0-2.log")).unwrap();
    std::fs::write(temp.path().join("PR-EVENTS-26-11-22-9-5-0-3.jsonl.zst"), "").unwrap();
    let (mut logs, _) = open(temp.path());
    let stamps: Vec<_> = (0..3)
        .map(|_| roll(&mut logs, START).stamp.to_string())
        .collect();
    assert_eq!(
        stamps,
        ["26-11-22-9-5-0", "26-11-22-9-5-0-4", "26-11-22-9-5-0-5"]
    );
    logs.close(START).unwrap();
    let initial = temp.path().join("PR-INITIAL-26-11-22-9-5-0-2.log");
    assert!(!initial.exists(), "a file of the refused stamp was left");
}

#[test]
fn retention_removes_whole_sets_the_oldest_first() {
    let temp = tempfile::tempdir().unwrap();
    let foreign = [
        "notes.txt",
        "PR-EVENTS.jsonl",
        "PR-PORTS-26-11-22-9-5-0.log.orig",
    ];
    for name in foreign {
        std::fs::write(temp.path().join(name), vec![b'x'; 100_000]).unwrap();
    }
    let mut options = options(temp.path());
    options.max_total = Some(60_000);
    let (mut logs, _) = Logs::open(options, run("a"), TimeZone::UTC, START).unwrap();
    let mut stamps = Vec::new();
    let mut removed = Vec::new();
    for set in 0..20 {
        let now = WallTime(START.0 + set * SECOND);
        stamps.push(roll(&mut logs, now).stamp);
        for n in 0..20 {
            listen(&mut logs, n);
        }
        assert!(logs.flush(now));
        logs.maintain(now);
        for notice in logs.notices() {
            let Notice::Removed { set, bytes } = notice else {
                panic!("{notice:?}");
            };
            assert!(bytes > 0);
            removed.push(set);
        }
        let total: u64 = names(temp.path())
            .iter()
            .filter(|name| !foreign.contains(&&***name))
            .map(|name| temp.path().join(name).metadata().unwrap().len())
            .sum();
        assert!(total <= 60_000 + 10, "{total} bytes");
    }
    assert!(removed.len() > 5, "removed {}", removed.len());
    assert_eq!(removed, stamps[..removed.len()], "the oldest first");
    for stamp in &stamps {
        let files = names(temp.path())
            .iter()
            .filter(|name| name.ends_with(&format!("-{stamp}.log")))
            .count();
        assert_eq!(files, if removed.contains(stamp) { 0 } else { 3 });
    }
    for name in foreign {
        assert!(temp.path().join(name).exists(), "{name}");
    }
    logs.close(START).unwrap();
}

#[test]
fn old_sets_go_at_the_next_start() {
    let temp = tempfile::tempdir().unwrap();
    for days in [0, 5, 9] {
        let now = WallTime(START.0 + days * 86_400 * SECOND);
        let (mut logs, _) = Logs::open(options(temp.path()), run("a"), TimeZone::UTC, now).unwrap();
        roll(&mut logs, now);
        logs.close(now).unwrap();
    }
    let mut options = options(temp.path());
    options.keep_days = Some(5);
    let now = WallTime(START.0 + 10 * 86_400 * SECOND);
    let (_logs, notices) = Logs::open(options, run("a"), TimeZone::UTC, now).unwrap();
    assert_eq!(notices.len(), 1);
    let kept: Vec<_> = events_files(temp.path()).into_keys().collect();
    assert_eq!(kept, ["26-11-27-9-5-0", "26-12-1-9-5-0"]);
}

#[test]
fn midnight_is_due_in_the_zone_that_holds() {
    let temp = tempfile::tempdir().unwrap();
    let (mut logs, _) = open(temp.path());
    roll(&mut logs, START);
    let evening = WallTime(START.0 + 14 * 3_600 * SECOND);
    let midnight = WallTime(START.0 + 15 * 3_600 * SECOND);
    assert_eq!(logs.roll_due(START), None);
    assert_eq!(logs.roll_due(evening), None);
    assert_eq!(logs.roll_due(midnight), Some(RollReason::Midnight));
    logs.set_zone(TimeZone::fixed(jiff::tz::offset(2)));
    assert_eq!(logs.roll_due(evening), Some(RollReason::Midnight));
    let opened = logs
        .roll(evening, RollReason::Midnight, &Listeners(0))
        .unwrap();
    assert_eq!(opened.stamp.to_string(), "26-11-23-1-5-0");
    assert_eq!(logs.roll_due(evening), None);
    assert_eq!(logs.roll_due(midnight), None);
    logs.close(midnight).unwrap();
}
