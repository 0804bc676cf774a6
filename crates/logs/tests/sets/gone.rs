//! Somebody deletes or moves what is being written.

use logs::{Error, RollReason};
use serde_json::Value;

use super::support::*;

fn notice(path: &std::path::Path, deleted: bool) -> logs::Notice {
    let path = path.to_path_buf();
    logs::Notice::Gone { path, deleted }
}

fn works(lost: u64, rows_lost: u64) -> logs::Notice {
    logs::Notice::WriteWorks { lost, rows_lost }
}

fn gaps(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["event"] == "gap").collect()
}

#[test]
fn a_deleted_record_is_a_gap_in_the_next() {
    let temp = tempfile::tempdir().unwrap();
    let (mut logs, _) = open(temp.path());
    let first = roll(&mut logs, START).stamp;
    for n in 0..5 {
        listen(&mut logs, n);
    }
    assert!(logs.flush(START));
    assert_eq!(logs.roll_due(START), None);
    let path = temp.path().join(format!("PR-EVENTS-{first}.jsonl"));
    std::fs::remove_file(&path).unwrap();
    listen(&mut logs, 5);
    let now = event::WallTime(START.0 + SECOND);
    logs.flush(now);
    assert_eq!(logs.roll_due(now), Some(RollReason::Gone));
    assert_eq!(logs.notices(), [notice(&path, true)]);

    let second = roll(&mut logs, now);
    assert_eq!(second.previous, Some(first));
    assert_eq!(second.previous_sha256, None);
    assert_eq!(logs.roll_due(now), None);
    assert_eq!(logs.withdrawn(), 6);
    assert_eq!(logs.withdrawn(), 0);
    assert_eq!(logs.notices(), [works(6, 0)]);
    listen(&mut logs, 6);
    let summary = logs.close(now).unwrap();
    assert_eq!((summary.sets, summary.gone, summary.lost), (1, 1, 6));
    let lines = lines(&events_files(temp.path())[&second.stamp.to_string()]);
    assert_eq!(summary.lines, lines.len() as u64);
    assert_eq!(listeners(&lines), [6]);
    let gap = gaps(&lines)[0];
    assert_eq!(gap["lost"], 6);
    assert_eq!(gap["from"], "2026-11-22T09:05:00.000000+00:00");
    assert_eq!(gap["to"], "2026-11-22T09:05:01.000000+00:00");
    let ports = temp.path().join(format!("PR-PORTS-{}.log", second.stamp));
    let ports = std::fs::read_to_string(ports).unwrap();
    assert_eq!(ports.matches("Not recorded: 6 events from ").count(), 1);
}

#[test]
fn a_deleted_classic_file_costs_no_event() {
    let temp = tempfile::tempdir().unwrap();
    let (mut logs, _) = open(temp.path());
    let first = roll(&mut logs, START).stamp;
    listen(&mut logs, 0);
    assert!(logs.flush(START));
    std::fs::remove_file(temp.path().join(format!("PR-PORTS-{first}.log"))).unwrap();
    assert!(logs.flush(START));
    assert_eq!(logs.roll_due(START), Some(RollReason::Gone));
    logs.notices();
    let second = roll(&mut logs, START).stamp;
    assert_eq!(logs.withdrawn(), 0);
    assert_eq!(logs.notices(), [works(0, 1)]);
    let summary = logs.close(START).unwrap();
    assert_eq!((summary.sets, summary.gone), (2, 0));
    let lines = verify_chain(temp.path());
    assert_eq!(gaps(&lines).len(), 0);
    let ports = temp.path().join(format!("PR-PORTS-{second}.log"));
    let ports = std::fs::read_to_string(ports).unwrap();
    assert!(
        ports.ends_with("\nNot recorded: 1 row (see PR-EVENTS)\n"),
        "{ports}"
    );
}

#[test]
fn a_deleted_directory_is_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("parent/logs");
    let (mut logs, _) = open(&dir);
    roll(&mut logs, START);
    roll(&mut logs, START);
    listen(&mut logs, 0);
    assert!(logs.flush(START));
    std::fs::remove_dir_all(temp.path().join("parent")).unwrap();
    logs.flush(START);
    assert_eq!(logs.notices(), [notice(&dir, true)]);
    assert_eq!(logs.roll_due(START), Some(RollReason::Gone));
    let third = roll(&mut logs, START);
    assert_eq!(logs.withdrawn(), 1);
    listen(&mut logs, 1);
    // The lock is that of the new directory.
    let second = logs::Logs::open(options(&dir), run("b"), jiff::tz::TimeZone::UTC, START);
    assert!(matches!(second.err(), Some(Error::Locked { .. })));
    let summary = logs.close(START).unwrap();
    assert_eq!((summary.sets, summary.gone, summary.lost), (1, 2, 1));
    let files = events_files(&dir);
    assert_eq!(files.len(), 1);
    let lines = lines(&files[&third.stamp.to_string()]);
    assert_eq!(summary.lines, lines.len() as u64);
    assert_eq!(listeners(&lines), [1]);
    assert_eq!(gaps(&lines)[0]["lost"], 1);
}

#[test]
fn a_moved_directory_is_closed_where_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let moved = temp.path().join("moved");
    let (mut logs, _) = open(&dir);
    let first = roll(&mut logs, START).stamp;
    listen(&mut logs, 0);
    assert!(logs.flush(START));
    std::fs::rename(&dir, &moved).unwrap();
    listen(&mut logs, 1);
    assert!(logs.flush(START));
    assert_eq!(logs.notices(), [notice(&dir, false)]);
    assert_eq!(logs.roll_due(START), Some(RollReason::Gone));
    let second = roll(&mut logs, START);
    assert_eq!(second.previous, Some(first));
    assert_eq!(logs.withdrawn(), 0);
    listen(&mut logs, 2);
    let summary = logs.close(START).unwrap();
    assert_eq!((summary.sets, summary.gone, summary.lost), (1, 1, 0));
    // Put together again the two are a chain without a gap.
    for name in names(&moved).iter().filter(|name| name.starts_with("PR-")) {
        std::fs::rename(moved.join(name), dir.join(name)).unwrap();
    }
    let lines = verify_chain(&dir);
    assert_eq!(listeners(&lines), [0, 1, 2]);
    assert_eq!(gaps(&lines).len(), 0);
}

#[test]
fn a_directory_that_cannot_be_made_again_is_an_error_at_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let (mut logs, _) = open(&dir);
    roll(&mut logs, START);
    listen(&mut logs, 0);
    assert!(logs.flush(START));
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "in the way").unwrap();
    logs.flush(START);
    let error = logs
        .roll(START, RollReason::Gone, &Listeners(0))
        .unwrap_err();
    assert!(matches!(error, Error::NotADirectory { .. }), "{error}");
    // Not at once, but later.
    assert_eq!(logs.roll_due(START), None);
    listen(&mut logs, 1);
    let unfinished = logs.close(START).unwrap_err();
    assert!(matches!(unfinished.error, Error::Gone { .. }));
    assert_eq!((unfinished.events, unfinished.rows), (2, 2));
    let summary = &unfinished.summary;
    assert_eq!((summary.sets, summary.lines, summary.gone), (0, 0, 1));
    assert_eq!(std::fs::read(&dir).unwrap(), b"in the way");
}
