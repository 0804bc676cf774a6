//! A real disk that is full, and one that is read-only.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::tz::TimeZone;
use logs::{Error, ErrorKind, Logs, Notice};

use super::support::*;

/// A small disk in memory, for as long as this lives.
struct Disk {
    _temp: tempfile::TempDir,
    path: PathBuf,
}

impl Disk {
    fn mount(size: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size},mode=0750");
        run_mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], &path);
        Self { _temp: temp, path }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run_mount(arguments: &[&str], path: &Path) {
    let status = Command::new("mount").args(arguments).arg(path).status();
    assert!(status.unwrap().success());
}

/// Takes all room that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
}

#[test]
#[ignore = "needs root: mounts a tmpfs"]
fn a_full_disk_costs_nothing_that_fits_into_memory() {
    let disk = Disk::mount("2m");
    let dir = disk.path.join("logs");
    let (mut logs, _) = open(&dir);
    let first = roll(&mut logs, START);
    listen(&mut logs, 0);
    assert!(logs.flush(START));
    let filler = disk.path.join("filler");
    fill(&filler);
    for n in 1..1000 {
        listen(&mut logs, n);
    }
    assert!(!logs.flush(START));
    let notices = logs.notices();
    assert!(matches!(&notices[..], [Notice::WriteFailed { .. }]));
    // What is there is whole.
    lines(&events_files(&dir)[&first.stamp.to_string()]);
    let refused = logs.roll(START, logs::RollReason::Request, &Listeners(3));
    assert!(refused.is_err());
    assert_eq!(logs.current(), Some(first.stamp));

    std::fs::remove_file(&filler).unwrap();
    assert!(logs.flush(START));
    assert_eq!(
        logs.notices(),
        [Notice::WriteWorks {
            lost: 0,
            rows_lost: 0
        }]
    );
    logs.close(START).unwrap();
    let lines = verify_chain(&dir);
    assert_eq!(listeners(&lines), (0..1000).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs root: mounts a tmpfs"]
fn a_stop_on_a_full_disk_says_what_is_lost_and_the_next_run_marks_it() {
    let disk = Disk::mount("2m");
    let dir = disk.path.join("logs");
    let (mut logs, _) = open(&dir);
    let first = roll(&mut logs, START);
    for n in 0..10 {
        listen(&mut logs, n);
    }
    assert!(logs.flush(START));
    let filler = disk.path.join("filler");
    fill(&filler);
    for n in 10..1000 {
        listen(&mut logs, n);
    }
    let unfinished = logs.close(START).unwrap_err();
    assert_eq!(unfinished.set, first.stamp);
    assert!(matches!(unfinished.error, Error::Full { .. }));
    assert_eq!(unfinished.error.kind(), ErrorKind::Io);
    let there = lines(&events_files(&dir)[&first.stamp.to_string()]);
    let kept = listeners(&there).len() as u64;
    assert!((10..1000).contains(&kept), "{kept} are there");
    assert_eq!(unfinished.events, 1000 - kept);
    assert_eq!(unfinished.summary.lost, 1000 - kept);
    assert_eq!(unfinished.summary.lines, there.len() as u64);

    std::fs::remove_file(&filler).unwrap();
    let (mut logs, _) = open(&dir);
    let later = event::WallTime(START.0 + SECOND);
    roll(&mut logs, later);
    logs.close(later).unwrap();
    let all = verify_chain(&dir);
    let gaps: Vec<_> = all.iter().filter(|line| line["event"] == "gap").collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0]["lost"], serde_json::Value::Null);
    assert_eq!(gaps[0]["from"], there.last().unwrap()["time"]);
}

#[test]
#[ignore = "needs root: mounts a tmpfs"]
fn a_set_that_does_not_fit_is_an_error_and_leaves_nothing() {
    let disk = Disk::mount("256k");
    let dir = disk.path.join("logs");
    let (mut logs, _) = open(&dir);
    let before = names(&dir);
    let error = logs
        .roll(START, logs::RollReason::Start, &Listeners(10_000))
        .unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::CannotCreate);
    assert!(
        error
            .to_string()
            .contains("; make room on that file system"),
        "{error}"
    );
    assert_eq!(names(&dir), before);
}

#[test]
#[ignore = "needs root: mounts a tmpfs"]
fn a_read_only_disk_is_refused() {
    let disk = Disk::mount("256k");
    let dir = disk.path.join("logs");
    std::fs::create_dir(&dir).unwrap();
    run_mount(&["-o", "remount,ro"], &disk.path);
    for dir in [dir.clone(), disk.path.join("new"), dir.join("new/logs")] {
        let opened = Logs::open(options(&dir), run("a"), TimeZone::UTC, START);
        let error = opened.err().unwrap();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::CannotCreate);
    }
}

#[test]
#[ignore = "needs root: mounts a tmpfs"]
fn by_default_a_tenth_of_the_disk_is_used() {
    let disk = Disk::mount("1m");
    let dir = disk.path.join("logs");
    let mut options = options(&dir);
    options.max_total = None;
    let (mut logs, _) = Logs::open(options, run("a"), TimeZone::UTC, START).unwrap();
    let mut removed = 0;
    for _ in 0..30 {
        roll(&mut logs, START);
        for n in 0..20 {
            listen(&mut logs, n);
        }
        assert!(logs.flush(START));
        logs.maintain(START);
        let total: u64 = names(&dir)
            .iter()
            .map(|name| dir.join(name).metadata().unwrap().len())
            .sum();
        assert!(total <= 105_000, "{total} bytes of 1 MiB");
        removed += logs.notices().len();
    }
    assert!(removed > 5, "removed {removed}");
}
