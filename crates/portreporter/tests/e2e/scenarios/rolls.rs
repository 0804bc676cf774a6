//! Log sets: rolled in a storm, cut off by SIGKILL, guarded against others.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::expect::{ACCEPTED, CONNECTED, CREATOR};
use crate::harness::log::Checks;
use crate::harness::traffic::wall_micros;
use crate::harness::{Launch, Log, Recorder, Traffic};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        "roll_time_wait_keeps_its_owner",
        Needs::Root,
        time_wait_of_a_living_process,
    ),
    (
        "roll_time_wait_outlives_its_owner",
        Needs::Root,
        time_wait_of_a_process_that_is_gone,
    ),
    ("roll_in_a_storm", Needs::RootAlone, in_a_storm),
    ("roll_by_size", Needs::RootAlone, by_size),
    ("roll_after_kill", Needs::RootAlone, after_kill),
    ("loss_is_declared", Needs::RootAlone, loss_is_declared),
    ("roll_stops_on_sigint", Needs::Root, stops_on_sigint),
    ("roll_file_modes", Needs::Root, file_modes),
    (
        "roll_one_recorder_for_a_directory",
        Needs::Root,
        one_recorder_for_a_directory,
    ),
];

fn time_wait_of_a_living_process() {
    let mut recorder = Recorder::start();
    let mut traffic = Traffic::start(&["time-wait", "stay"]);
    let client = traffic.wait_until_ready().one("client");
    recorder.wait_for_closes(&[&client.cookie]);
    recorder.roll();
    traffic.finish();
    check_time_wait(&client, &recorder.stop());
}

fn time_wait_of_a_process_that_is_gone() {
    let mut recorder = Recorder::start();
    let facts = Traffic::play(&["time-wait"]);
    recorder.wait_for_closes(&facts.cookies());
    recorder.roll();
    check_time_wait(&facts.one("client"), &recorder.stop());
}

fn check_time_wait(client: &crate::harness::Fact, log: &Log) {
    log.about(client)
        .tell(CONNECTED, CREATOR, "closed")
        .value("close", "state", "TIME_WAIT");
    let initial = &log.sets[1].initial;
    let port = client.local_port.expect("a port");
    let peer = format!("127.0.0.1:{}", client.remote_port.expect("a port"));
    let rows: Vec<&str> = initial
        .lines()
        .filter(|row| row.contains(&format!("TCP {port} ")) && row.contains(&peer))
        .collect();
    let owner = format!("{}:traffic\t", client.pid);
    assert!(
        rows.iter()
            .any(|row| row.starts_with(&owner) && row.contains("TIME WAIT")),
        "PR-INITIAL was expected to list TCP {port} in TIME WAIT to {peer} under {owner:?}: \
         {rows:?} in\n{initial}"
    );
}

/// The lines that open and close one socket.
#[derive(Default)]
struct Counted<'a> {
    events: HashMap<&'a str, u32>,
    strangers: u32,
}

/// Kernels were seen that make a change without calling the programs attached to
/// it, a few in hundreds of thousands. The end of such a socket is found by
/// reconciliation, which is then as good as told; but no more than so many.
const FOUND_BY_LOOKING: usize = 400;

fn in_a_storm() {
    let mut recorder = Launch::new().args(&["--reconcile", "5"]).start();
    let mut traffic = Traffic::start(&["storm", "20000", "127.0.3.1"]);
    for _ in 0..5 {
        for _ in 0..3 {
            traffic.wait_for(|line| !line["progress"].is_null());
        }
        recorder.roll();
    }
    let facts = traffic.finish();
    let storm = facts.line("storm");
    let cookies = |key: &str| -> Vec<&str> {
        let list = storm[key].as_array().expect("a list");
        list.iter().filter_map(Value::as_str).collect()
    };
    let (clients, servers) = (cookies("clients"), cookies("servers"));
    recorder.wait_for_ends(&[clients.as_slice(), servers.as_slice()].concat());
    let log = recorder.stop();
    assert!(
        log.sets.len() >= 6,
        "six sets were expected, not {}",
        log.sets.len()
    );

    let mut counted: HashMap<&str, Counted<'_>> = HashMap::new();
    for line in log.lines() {
        let (Some(cookie), Some(event)) = (line["socket"].as_str(), line["event"].as_str()) else {
            continue;
        };
        let socket = counted.entry(cookie).or_default();
        *socket.events.entry(event).or_default() += 1;
        socket.strangers += u32::from(line["pid"] != storm["pid"]);
    }
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (list, expected) in [(&clients, CONNECTED), (&servers, ACCEPTED)] {
        assert!(list.len() == 20_000, "20,000 connections were expected");
        for &cookie in list {
            let mut socket = counted.remove(cookie).unwrap_or_default();
            if !socket.events.contains_key("close")
                && let Some(times) = socket.events.remove("vanish")
            {
                socket.events.insert("close", times);
                found += 1;
            }
            let main: u32 = socket
                .events
                .iter()
                .filter(|(event, _)| !["state", "snapshot"].contains(event))
                .map(|(_, count)| count)
                .sum();
            let once = expected
                .iter()
                .all(|event| socket.events.get(event) == Some(&1));
            if !once || main as usize != expected.len() || socket.strangers > 0 {
                wrong.push((cookie, expected, socket.events, socket.strangers));
            }
        }
    }
    assert!(
        found <= FOUND_BY_LOOKING,
        "the ends of {found} sockets were not told"
    );
    assert!(
        wrong.is_empty(),
        "each socket was expected to have its events once, all of process {}; {} have not: {:#?}",
        storm["pid"],
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
}

fn by_size() {
    // The smallest size there is; 5,000 connections are more than that.
    let mut recorder = Launch::new()
        .args(&["-ls", "1000", "--events-size", "1000"])
        .start();
    let facts = Traffic::play(&["storm", "5000", "127.0.3.2"]);
    let servers = facts.line("storm")["servers"].as_array().expect("a list");
    let last = servers.last().and_then(Value::as_str).expect("a cookie");
    recorder.wait_for_closes(&[last]);
    let log = recorder.stop();
    assert!(log.sets.len() > 1, "more than one set was expected");
    for set in &log.sets {
        // A set is closed at its size, counted from the end of its head (the
        // machine may have many sockets), give or take what one look brings.
        let head = set
            .bytes
            .windows(14)
            .position(|window| window == b"\"snapshot-end\"")
            .expect("every set has a head");
        let grown = set.bytes.len() - head;
        let most = 3_000_000.max(head);
        assert!(
            grown < most,
            "PR-EVENTS-{} was expected to be closed at 1,000 KB, but grew by {grown} bytes",
            set.stamp
        );
    }
}

/// A ring of four pages overflows; the books must balance all the same.
fn loss_is_declared() {
    let mut recorder = Launch::new().args(&["--ring-size", "16"]).start();
    Traffic::play(&["storm", "20000", "127.0.3.4"]);
    // Whatever of the storm is lost, this comes after it and is not.
    let facts = recorder.play_pair_until_told();
    let checks = Checks {
        loses: true,
        ..Checks::default()
    };
    let log = recorder.stop_with(Signal::TERM, &checks);
    let gaps: Vec<&Value> = log.lines().filter(|line| line["event"] == "gap").collect();
    assert!(!gaps.is_empty(), "a ring of 16 KB was expected to overflow");
    for gap in gaps {
        let time = |key: &str| gap[key].as_str().expect("a time").to_owned();
        assert!(time("from") <= time("to"), "{gap}");
        assert!(gap["reason"] == "ring buffer full", "{gap}");
    }
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

fn after_kill() {
    let recorder = Recorder::start();
    let mut traffic = Traffic::start(&["churn", "127.0.3.3"]);
    // What was closed a second ago has to be there, unless others kept the
    // recorder from running.
    let within = || Duration::from_secs(1) + recorder.kept_waiting();
    traffic.wait_for(|line| {
        let most = within() + Duration::from_millis(500);
        line["elapsed_ms"]
            .as_u64()
            .is_some_and(|elapsed| u128::from(elapsed) > most.as_millis())
    });
    let killed_at = wall_micros();
    let due_until = killed_at.saturating_sub(u64::try_from(within().as_micros()).expect("seconds"));
    let (left, launch) = recorder.kill();
    let facts = traffic.finish();
    let torn: usize = left.sets.iter().filter(|set| !set.torn.is_empty()).count();
    assert!(torn <= 1, "one torn line was expected at most, not {torn}");
    let closed: HashSet<&str> = left
        .lines()
        .filter(|line| line["event"] == "close")
        .filter_map(|line| line["socket"].as_str())
        .collect();
    let connections = facts.line("churn")["connections"]
        .as_array()
        .expect("a list");
    let due: Vec<&Value> = connections
        .iter()
        .filter(|connection| {
            connection[1]
                .as_u64()
                .is_some_and(|closed| closed < due_until)
        })
        .collect();
    assert!(
        !due.is_empty(),
        "the traffic was too short: {connections:?}"
    );
    let missing: Vec<&&Value> = due
        .iter()
        .filter(|connection| !closed.contains(connection[0].as_str().unwrap_or_default()))
        .collect();
    assert!(
        missing.is_empty(),
        "all {} connections that were closed a second before the kill were expected; {} are missing",
        due.len(),
        missing.len()
    );

    let mut next = launch.start();
    let facts = Traffic::play(&["pair"]);
    next.wait_for_closes(&facts.cookies());
    let checks = Checks {
        killed: true,
        ..Checks::default()
    };
    let log = next.stop_with(Signal::TERM, &checks);
    assert!(
        log.sets.len() > left.sets.len(),
        "the next recorder was expected to open a new set"
    );
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

fn stops_on_sigint() {
    let mut recorder = Recorder::start();
    let facts = Traffic::play(&["pair"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop_with(Signal::INT, &Checks::default());
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

fn file_modes() {
    let recorder = Launch::new()
        .wrapped_by(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""])
        .start();
    let mode = |path: &std::path::Path| {
        let metadata = std::fs::symlink_metadata(path).expect("a file of the recorder");
        metadata.permissions().mode() & 0o7777
    };
    let directory = recorder.directory();
    assert!(
        mode(directory) == 0o750,
        "a directory with mode 0750 was expected"
    );
    let mut files = 0;
    for entry in std::fs::read_dir(directory)
        .expect("the log directory")
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with("PR-") {
            files += 1;
            let path = entry.path();
            assert!(
                mode(&path) == 0o640,
                "{}: mode {:o}",
                path.display(),
                mode(&path)
            );
        }
    }
    assert!(
        files == 4,
        "the four files of a set were expected, not {files}"
    );
    recorder.stop();
}

fn one_recorder_for_a_directory() {
    let first = Recorder::start();
    let (status, stderr) = Launch::new()
        .in_directory(first.directory())
        .run_to_the_end();
    assert!(
        status.code() == Some(77)
            && stderr.starts_with("portreporter: ")
            && stderr.contains(&first.pid().to_string()),
        "77 and the process {} were expected, not {status}: {stderr}",
        first.pid()
    );
    first.stop();
}
