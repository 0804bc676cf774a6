//! Disks that are full and files that go: nothing is lost without a number or,
//! where nobody can know it, without a gap that says so.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::expect::{CONNECTED, CREATOR};
use crate::harness::log::Checks;
use crate::harness::recorder::Ended;
use crate::harness::tail::Tail;
use crate::harness::{Launch, Log, Recorder, Traffic, open_directory};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        "faults_stop_on_a_full_disk",
        Needs::Root,
        stop_on_a_full_disk,
    ),
    ("faults_no_room_at_start", Needs::Root, no_room_at_start),
    (
        "faults_refused_set_is_said_once",
        Needs::Root,
        refused_set_is_said_once,
    ),
    ("faults_deleted_record", Needs::Root, deleted_record),
    ("faults_deleted_directory", Needs::Root, deleted_directory),
    ("faults_moved_directory", Needs::Root, moved_directory),
    ("faults_no_gap_after_order", Needs::Root, no_gap_after_order),
];

/// By default a tenth of the disk is used, which a busy machine's sets exceed.
const KEEP: &[&str] = &["--max-total-size", "1G"];

/// A small disk in memory.
struct Disk {
    home: tempfile::TempDir,
}

impl Disk {
    fn mount(options: &str) -> Self {
        let home = open_directory();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(home.path())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "a tmpfs");
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut file = File::create(self.path("filler")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path("filler")).expect("the filler");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.home.path())
            .status();
    }
}

/// `the kernel made 15 events = 12 written + 3 lost`.
fn ledger(ended: &Ended) -> [u64; 3] {
    let line = ended
        .stdout
        .lines()
        .find(|line| line.starts_with("the kernel made "));
    let numbers: Vec<u64> = line
        .unwrap_or_default()
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [kernel, written, lost] if kernel == written + lost => [kernel, written, lost],
        _ => panic!("a ledger that balances was expected:\n{}", ended.stdout),
    }
}

fn messages(stderr: &str, event: u16) -> usize {
    stderr
        .matches(&format!("portreporter: event {event}: "))
        .count()
}

/// The lines that the ledger counts.
fn counted(log: &Log) -> u64 {
    let events = [
        "listen",
        "bind",
        "connect",
        "accept",
        "established",
        "state",
        "close",
    ];
    let is_counted = |line: &&Value| events.iter().any(|event| line["event"] == *event);
    log.lines().filter(is_counted).count() as u64
}

fn pair(recorder: &mut Recorder) -> crate::harness::Facts {
    let facts = Traffic::play(&["pair"]);
    recorder.wait_for_closes(&facts.cookies());
    facts
}

fn stop_on_a_full_disk() {
    let disk = Disk::mount("size=96m");
    let directory = disk.path("logs");
    let mut recorder = Launch::new().in_directory(&directory).args(KEEP).start();
    pair(&mut recorder);
    disk.fill();
    Traffic::play(&["storm", "2000", "127.0.3.9"]);
    recorder.wait_for_message("event 104: ");
    let (ended, next) = recorder.end();
    assert!(
        ended.code == Some(74)
            && ended.stderr.contains("make room")
            && ended
                .stderr
                .contains(" are missing at the end of the log set ")
            && messages(&ended.stderr, 101) == 1,
        "74, what is lost and what to do were expected, not {:?}: {}",
        ended.code,
        ended.stderr
    );
    let [_, written, lost] = ledger(&ended);
    let left = Log::read(&directory, String::new());
    assert!(
        lost > 0 && counted(&left) == written,
        "{written} written and some lost were expected; {} are there",
        counted(&left)
    );
    assert!(
        ended.stderr.contains(&format!("{lost} events and ")),
        "{lost} lost were expected: {}",
        ended.stderr
    );

    disk.make_room();
    let mut next = next.args(KEEP).start();
    let facts = pair(&mut next);
    let checks = Checks {
        killed: true,
        ..Checks::default()
    };
    // The gap is checked with everything else.
    let log = next.stop_with(Signal::TERM, &checks);
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

fn no_room_at_start() {
    let disk = Disk::mount("size=64k");
    disk.fill();
    let launch = Launch::new().in_directory(&disk.path("logs"));
    let (status, stderr) = launch.run_to_the_end();
    let mut lines = stderr.lines();
    let told = lines.find(|line| line.contains("event 110"));
    assert!(
        status.code() == Some(73)
            && told.is_some_and(|told| told.contains(": cannot create "))
            && stderr.matches("make room").count() == 1
            && messages(&stderr, 110) == 1
            && messages(&stderr, 100) == messages(&stderr, 101),
        "73, event 110 and what to do were expected, not {status}: {stderr}"
    );
}

fn refused_set_is_said_once() {
    let disk = Disk::mount("size=96m,nr_inodes=64");
    let mut recorder = Launch::new()
        .in_directory(&disk.path("logs"))
        .args(KEEP)
        .start();
    // Room for lines, but for one more file only: each attempt makes it.
    let name = |n: u32| disk.path(&format!("filler-{n}"));
    let made = (0..100)
        .take_while(|&n| File::create(name(n)).is_ok())
        .count();
    std::fs::remove_file(name(0)).expect("a filler");
    let attempts = Tail::new(recorder.directory());
    recorder.signal(Signal::HUP);
    attempts.wait_for_names(3, |name| name.ends_with(".jsonl.tmp"));
    for n in 1..u32::try_from(made).expect("a few") {
        std::fs::remove_file(name(n)).expect("a filler");
    }
    recorder.wait_for_sets(2);
    let log = recorder.stop();
    assert!(
        messages(&log.stderr, 103) == 1 && log.stderr.contains("make room"),
        "one message was expected for one SIGHUP: {}",
        log.stderr
    );
}

/// The set that takes the place of one that is gone, and its gap.
fn next_set(recorder: &mut Recorder) -> Value {
    recorder.wait_for("a gap in a new set", |line| line["event"] == "gap")
}

fn deleted_record() {
    let mut recorder = Recorder::start();
    pair(&mut recorder);
    for entry in std::fs::read_dir(recorder.directory()).expect("the log directory") {
        let path = entry.expect("a file").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            std::fs::remove_file(path).expect("PR-EVENTS");
        }
    }
    goes_on(recorder, "was deleted");
}

fn deleted_directory() {
    let mut recorder = Recorder::start();
    pair(&mut recorder);
    std::fs::remove_dir_all(recorder.directory()).expect("the log directory");
    goes_on(recorder, "was deleted");
}

/// What was deleted is counted, what comes after it is there.
fn goes_on(mut recorder: Recorder, message: &str) {
    let gap = next_set(&mut recorder);
    let facts = pair(&mut recorder);
    let directory = recorder.directory().to_path_buf();
    let (ended, _home) = recorder.end();
    let [_, written, lost] = ledger(&ended);
    let one = |text: &str| ended.stdout.contains(text);
    assert!(
        ended.code == Some(0)
            && ended.stderr.contains(message)
            && messages(&ended.stderr, 104) == 1
            && messages(&ended.stderr, 105) == 1
            && one("\n1 log set, ")
            && one("\n1 log set more deleted or moved away meanwhile\n")
            && gap["lost"] == lost,
        "an honest end was expected, not {:?} after {gap}: {}{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
    let log = Log::read_alone(&directory, ended.stderr);
    assert!(counted(&log) == written, "{written} events were expected");
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

fn moved_directory() {
    let mut recorder = Recorder::start();
    let before = pair(&mut recorder);
    let directory = recorder.directory().to_path_buf();
    let moved = directory.with_file_name("moved");
    std::fs::rename(&directory, &moved).expect("the log directory");
    recorder.wait_for_sets(1);
    let after = pair(&mut recorder);
    let (ended, _home) = recorder.end();
    assert!(
        ended.code == Some(0)
            && ended.stderr.contains("was moved away")
            && ended
                .stdout
                .contains("\n1 log set more deleted or moved away"),
        "an honest end was expected, not {:?}: {}{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
    for entry in std::fs::read_dir(&moved).expect("the moved directory") {
        let entry = entry.expect("a file");
        if entry.file_name().to_string_lossy().starts_with("PR-") {
            let target = directory.join(entry.file_name());
            std::fs::rename(entry.path(), target).expect("a file can be moved");
        }
    }
    // Together again they are one record without a gap.
    let log = Log::read(&directory, ended.stderr);
    log.verify(&Checks::default());
    for facts in [before, after] {
        log.about(&facts.one("client"))
            .tell(CONNECTED, CREATOR, "closed");
    }
}

fn no_gap_after_order() {
    let mut recorder = Recorder::start();
    pair(&mut recorder);
    let (ended, next) = recorder.end();
    assert!(ended.code == Some(0), "{}", ended.stderr);
    let mut next = next.start();
    pair(&mut next);
    // A gap would be one too many.
    let log = next.stop();
    assert!(log.sets.len() == 2, "two sets were expected");
}
