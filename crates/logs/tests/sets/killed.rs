//! A recorder that was killed, at any moment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use event::WallTime;
use logs::{Notice, Run, Stamp};
use serde_json::Value;

use super::support::*;

/// Names the directory in which the child records.
const CHILD_DIR: &str = "PORTREPORTER_TEST_CHILD_DIR";

fn copy(from: &Path, to: &Path) {
    for name in names(from) {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn cut_at_every_length_every_whole_line_stays() {
    let original = tempfile::tempdir().unwrap();
    let (mut logs, _) = open(original.path());
    roll(&mut logs, START);
    roll(&mut logs, WallTime(START.0 + SECOND));
    for n in 0..20 {
        listen(&mut logs, n);
    }
    assert!(logs.flush(START));
    let stamp = logs.current().unwrap();
    let name = format!("PR-EVENTS-{stamp}.jsonl");
    let whole = std::fs::read(original.path().join(&name)).unwrap();
    for length in whole.len() - 2048..=whole.len() {
        let temp = tempfile::tempdir().unwrap();
        copy(original.path(), temp.path());
        std::fs::write(temp.path().join(&name), &whole[..length]).unwrap();
        let kept = whole[..length]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .unwrap()
            + 1;

        let (mut logs, notices) = open(temp.path());
        let torn_bytes = (length - kept) as u64;
        let set = stamp;
        assert_eq!(notices, [Notice::Recovered { set, torn_bytes }]);
        let opened = roll(&mut logs, WallTime(START.0 + 2 * SECOND));
        assert_eq!(opened.previous, Some(stamp));
        assert!(logs.flush(START));
        assert_eq!(
            std::fs::read(temp.path().join(&name)).unwrap(),
            &whole[..kept]
        );
        // The reader is slow, and nothing depends on the length any more.
        if length % 32 == 0 {
            let new = events_files(temp.path()).remove(&opened.stamp.to_string());
            let last = whole[..kept]
                .split_inclusive(|&byte| byte == b'\n')
                .next_back();
            check_gap(&lines(&new.unwrap()), &lines(last.unwrap())[0]);
            verify_chain(temp.path());
        }
    }
}

/// After the head stands one gap, from the last line that there is.
fn check_gap(new: &[Value], last: &Value) {
    let gaps: Vec<_> = new.iter().filter(|line| line["event"] == "gap").collect();
    assert_eq!(gaps.len(), 1);
    let head = new.iter().position(|line| line["event"] == "snapshot-end");
    assert_eq!(Some(gaps[0]), head.and_then(|head| new.get(head + 1)));
    assert_eq!(gaps[0]["lost"], Value::Null);
    assert_eq!(gaps[0]["from"], last["time"]);
    assert_eq!(gaps[0]["to"], new[0]["time"]);
    let reason = gaps[0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the recorder did not stop in order"),
        "{reason}"
    );
}

fn run_in_boot(boot_id: &str) -> Run {
    Run {
        boot_id: boot_id.to_owned(),
        ..run("run")
    }
}

fn gaps(dir: &Path) -> Vec<(Value, String)> {
    let lines = verify_chain(dir);
    let gaps = lines.iter().filter(|line| line["event"] == "gap");
    gaps.map(|gap| {
        let reason = gap["reason"].as_str().unwrap().to_owned();
        (gap["lost"].clone(), reason)
    })
    .collect()
}

#[test]
fn an_unclean_end_is_told_once_even_if_the_next_runs_record_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let open_compressing = |boot_id| {
        let mut options = options(temp.path());
        options.compress = true;
        open_as(&options, &run_in_boot(boot_id))
    };
    let (mut logs, _) = open_compressing("a");
    roll(&mut logs, START);
    listen(&mut logs, 1);
    assert!(logs.flush(START));
    drop(logs);
    // It compresses what it finds, opens no set, and ends in order.
    let (logs, _) = open_compressing("a");
    logs.close(START).unwrap();
    assert!(
        names(temp.path())
            .iter()
            .any(|name| name.ends_with(".jsonl.zst"))
    );

    let (mut logs, _) = open_compressing("b");
    // The clock was set back meanwhile: a gap never ends before it begins.
    roll(&mut logs, WallTime(START.0 - SECOND));
    logs.close(START).unwrap();
    let (mut logs, _) = open_compressing("b");
    roll(&mut logs, START);
    logs.close(START).unwrap();
    let restarted = "the recorder did not stop in order (the machine was restarted since)";
    assert_eq!(gaps(temp.path()), [(Value::Null, restarted.to_owned())]);
    let lines = verify_chain(temp.path());
    let gap = lines.iter().find(|line| line["event"] == "gap").unwrap();
    assert!(gap["from"].as_str() < gap["to"].as_str(), "{gap}");
}

#[test]
fn after_an_orderly_end_there_is_no_gap() {
    let temp = tempfile::tempdir().unwrap();
    for boot_id in ["a", "a", "b"] {
        let (mut logs, notices) = open_as(&options(temp.path()), &run_in_boot(boot_id));
        assert_eq!(notices, []);
        roll(&mut logs, START);
        roll(&mut logs, START);
        listen(&mut logs, 1);
        logs.close(START).unwrap();
    }
    assert_eq!(gaps(temp.path()), []);
}

#[test]
fn a_sealed_set_is_nothing_to_recover() {
    let temp = tempfile::tempdir().unwrap();
    let (mut logs, _) = open(temp.path());
    roll(&mut logs, START);
    logs.close(START).unwrap();
    let before = events_files(temp.path());
    let (_logs, notices) = open(temp.path());
    assert_eq!(notices, []);
    assert_eq!(events_files(temp.path()), before);
}

#[test]
fn a_record_that_is_missing_or_empty_is_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    let (mut logs, _) = open(temp.path());
    let first = roll(&mut logs, START).stamp;
    logs.close(START).unwrap();
    for (name, content) in [
        ("PR-EVENTS-27-01-1-0-0-0.jsonl", ""),
        ("PR-EVENTS-27-01-1-0-0-1.jsonl", "\0\0\0\0\0\0\0\0"),
        ("PR-EVENTS-27-01-1-0-0-2.jsonl.zst", "\u{1}"),
        ("PR-INITIAL-27-01-1-0-0-3.log", "head"),
    ] {
        std::fs::write(temp.path().join(name), content).unwrap();
    }
    let (mut logs, _) = open(temp.path());
    assert_eq!(roll(&mut logs, START).previous, Some(first));
}

/// Not a test but what the next one starts: records, opens sets all the time,
/// and says which events were flushed, until it is killed.
#[test]
#[ignore = "the recorder that another test kills"]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    let (mut logs, _) = open(Path::new(&dir));
    let mut second = 0;
    let mut n = first_free_number(Path::new(&dir));
    loop {
        roll(&mut logs, WallTime(START.0 + second * SECOND));
        second += 1;
        for _ in 0..20 {
            for _ in 0..10 {
                listen(&mut logs, n);
                n += 1;
            }
            assert!(logs.flush(START));
            // Straight to the pipe: the harness would keep it.
            writeln!(std::io::stderr(), "flushed {}", n - 1).unwrap();
        }
    }
}

fn first_free_number(dir: &Path) -> u64 {
    let files = events_files(dir).into_values();
    files
        .flat_map(|bytes| listeners(&lines(&bytes)))
        .max()
        .map_or(0, |last| last + 1)
}

#[test]
fn after_kill_9_the_next_start_succeeds_and_what_was_flushed_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let mut recovered = 0;
    for round in 1..=12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child", "--ignored", "--nocapture"])
            .env(CHILD_DIR, temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut flushed = None;
        for _ in 0..round * 17 {
            let line = told.next().unwrap().unwrap();
            let number = line.strip_prefix("flushed ").expect(&line);
            flushed = Some(number.parse::<u64>().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let (mut logs, notices) = open(temp.path());
        let sets = notices
            .iter()
            .filter(|notice| matches!(notice, Notice::Recovered { .. }));
        recovered += sets.count();
        let lines = verify_chain(temp.path());
        let found = listeners(&lines);
        assert!(found.is_sorted_by(|a, b| a + 1 == *b), "lost or doubled");
        assert!(found.last().copied() >= flushed, "flushed, but not there");
        roll(&mut logs, WallTime(START.0 - SECOND));
        logs.close(START).unwrap();
        verify_chain(temp.path());
    }
    assert!(recovered > 0);
    for name in names(temp.path()) {
        let is_ours = name == "portreporter.lock" || stamp_of(&name).is_some();
        assert!(is_ours, "{name} was left behind");
    }
}

fn stamp_of(name: &str) -> Option<Stamp> {
    let (name, _) = name.split_once('.')?;
    Stamp::parse(name.splitn(3, '-').nth(2)?)
}
