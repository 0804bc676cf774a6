//! Machines that lack something: rights, files, descriptors. What can be
//! recorded is recorded, and what cannot is said.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::expect::{CONNECTED, CREATOR};
use crate::harness::log::Checks;
use crate::harness::{Launch, Log, Recorder, Traffic};
use crate::{Case, Needs};

const NOBODY: u32 = 65534;

pub(super) const CASES: &[Case] = &[
    ("hardship_unprivileged", Needs::Root, unprivileged),
    (
        "hardship_engine_not_permitted",
        Needs::Root,
        engine_not_permitted,
    ),
    ("hardship_few_descriptors", Needs::Root, few_descriptors),
    (
        "hardship_soft_limit_of_descriptors",
        Needs::Root,
        soft_limit_of_descriptors,
    ),
    (
        "hardship_too_few_descriptors",
        Needs::Nothing,
        too_few_descriptors,
    ),
    (
        "hardship_stopped_while_it_starts",
        Needs::Root,
        stopped_while_it_starts,
    ),
    ("hardship_no_passwd", Needs::Root, no_passwd),
    ("hardship_no_loopback", Needs::Nftables, no_loopback),
    ("hardship_no_btf", Needs::Root, no_btf),
    ("hardship_no_cgroup2", Needs::Cgroup2, no_cgroup2),
];

fn unprivileged() {
    let recorder = Launch::new().run_by(NOBODY).start();
    let log = log_of_a_listener(recorder, Some(NOBODY));
    degraded(&log);
    let told: Vec<&str> = log
        .stderr
        .lines()
        .filter(|line| line.contains("event 107: "))
        .collect();
    assert!(
        told.len() == 1,
        "one event 107 was expected: {}",
        log.stderr
    );
    tells_what_is_missing(told[0]);
}

fn engine_not_permitted() {
    let (status, stderr) = Launch::new()
        .args(&["--engine", "ebpf"])
        .run_by(NOBODY)
        .run_to_the_end();
    assert!(
        status.code() == Some(69) && stderr.lines().count() == 1,
        "69 and one line were expected, not {status}: {stderr}"
    );
    tells_what_is_missing(&stderr);
}

/// What failed, why, and what to do; each once.
fn tells_what_is_missing(message: &str) {
    for part in [
        "engine ebpf: ",
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_NET_ADMIN",
        "run as root",
        "setcap cap_bpf,cap_perfmon,cap_net_admin",
        "Operation not permitted",
    ] {
        assert!(
            message.matches(part).count() == 1,
            "{part:?} was expected once in {message}"
        );
    }
    let mut parts: Vec<&str> = message.split(": ").collect();
    let all = parts.len();
    parts.sort_unstable();
    parts.dedup();
    assert!(parts.len() == all, "something is told twice in {message}");
}

fn few_descriptors() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = format!("ulimit -n {}", 80 + processors);
    let (mut recorder, all) = (limited(&limit), Recorder::start());
    let facts = Traffic::play(&["pair"]);
    recorder.wait_for_closes(&facts.cookies());
    recorder.roll();
    let log = recorder.stop();
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
    lacks_no_more_than(&all.stop(), &log);
}

fn soft_limit_of_descriptors() {
    let (recorder, all) = (limited("ulimit -Sn 20"), Recorder::start());
    lacks_no_more_than(&all.stop(), &recorder.stop());
}

fn limited(limit: &str) -> Recorder {
    let script = format!("{limit}; exec \"$0\" \"$@\"");
    Launch::new().wrapped_by(&["sh", "-c", &script]).start()
}

/// The hooks and what is missing are those of a recorder without a limit.
fn lacks_no_more_than(all: &Log, limited: &Log) {
    for key in ["engine", "hooks"] {
        assert_eq!(limited.open()[key], all.open()[key], "{key}");
    }
    assert_eq!(always_missing(limited), always_missing(all));
}

/// What is missing for as long as the recorder runs. How many connections of the
/// machine do not fit into the head of a set changes from moment to moment.
fn always_missing(log: &Log) -> Vec<&str> {
    let degraded = log.open()["degraded"].as_array().expect("a list");
    degraded
        .iter()
        .filter_map(serde_json::Value::as_str)
        .filter(|degradation| !degradation.starts_with("TIME_WAIT: "))
        .collect()
}

/// A signal makes the kernel's verifier give a program up. That is no reason to
/// do without it.
fn stopped_while_it_starts() {
    let all = Recorder::start().stop();
    // For two seconds, and then it is left alone.
    let script = "(end=$(($(date +%s) + 2)); while [ $(date +%s) -lt $end ]; do \
                  i=0; while [ $i -lt 500 ]; do kill -STOP $$; kill -CONT $$; i=$((i+1)); done; \
                  done) & exec \"$0\" \"$@\"";
    let stopped = Launch::new().wrapped_by(&["sh", "-c", script]).start();
    lacks_no_more_than(&all, &log_of_a_listener(stopped, None));
}

fn too_few_descriptors() {
    let (status, stderr) = Launch::new()
        .wrapped_by(&["sh", "-c", "ulimit -n 20; exec \"$0\" \"$@\""])
        .run_to_the_end();
    let is_clear = ["20 files", " are needed", "ulimit -n", "LimitNOFILE="]
        .iter()
        .all(|part| stderr.contains(part));
    assert!(
        status.code() == Some(69) && is_clear && stderr.lines().count() == 1,
        "69 and one line were expected, not {status}: {stderr}"
    );
}

fn no_passwd() {
    let mut recorder = without(
        // Some name services know root without the file.
        "mount --bind /dev/null /etc/passwd && mount --bind /dev/null /etc/nsswitch.conf",
    );
    let facts = Traffic::play(&["pair"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    let client = facts.one("client");
    log.about(&client)
        .events(CONNECTED)
        .addresses()
        .closed("closed")
        .value("connect", "pid", client.pid)
        .value("connect", "uid", 0)
        .value("connect", "user", serde_json::Value::Null);
}

/// Where the machine may not talk to itself, the recorder cannot prove with a
/// connection that it sees all, but does not try that for minutes.
fn no_loopback() {
    let script = "ip link set lo up && nft 'add table inet wall; \
                  add chain inet wall in { type filter hook input priority 0; policy drop; }' \
                  || exit 99; exec \"$0\" \"$@\"";
    let begun = Instant::now();
    let mut recorder = Launch::new()
        .wrapped_by(&["unshare", "--net", "sh", "-c", script])
        .start();
    let took = begun.elapsed();
    // The kernel itself gives a connection up after two minutes.
    assert!(took < Duration::from_secs(90), "it took {took:?} to start");
    let facts = Traffic::play(&["pair"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

fn no_btf() {
    let recorder = without("mount -t tmpfs none /sys/kernel/btf");
    degraded(&log_of_a_listener(recorder, None));
}

fn no_cgroup2() {
    let mount_point = super::cgroup::mount_point().expect("cgroup2 is mounted");
    let recorder = without(&format!("umount -l {}", mount_point.display()));
    degraded(&log_of_a_listener(recorder, None));
}

/// A recorder in a mount namespace in which something was done before.
fn without(command: &str) -> Recorder {
    let script = format!("{command} || exit 99; exec \"$0\" \"$@\"");
    Launch::new()
        .wrapped_by(&["unshare", "--mount", "sh", "-c", &script])
        .start()
}

/// Holds sockets until the recorder has told of the listener, in whatever way
/// its engine has; then stops both.
fn log_of_a_listener(mut recorder: Recorder, user: Option<u32>) -> Log {
    let mut traffic = match user {
        Some(user) => Traffic::start_as(user, &["hold"]),
        None => Traffic::start(&["hold"]),
    };
    let listener = traffic.wait_until_ready().one("listener");
    let told = recorder.wait_for(&format!("about {listener:?}"), |line| {
        ["listen", "discover", "snapshot"]
            .iter()
            .any(|event| line["event"] == *event)
            && line["protocol"] == "tcp"
            && line["local_port"].as_u64() == listener.local_port.map(u64::from)
            && line["state"] == "LISTENING"
    });
    assert!(
        told["pid"] == listener.pid && told["process"] == "traffic" && told["uid"] == listener.uid,
        "the owner {listener:?} was expected in {told}"
    );
    traffic.finish();
    let checks = Checks {
        engine: None,
        ..Checks::default()
    };
    recorder.stop_with(Signal::TERM, &checks)
}

/// What is missing stands in every log and on standard error.
fn degraded(log: &Log) {
    for set in &log.sets {
        let open = &set.lines[0];
        assert!(
            open["degraded"]
                .as_array()
                .is_some_and(|degraded| !degraded.is_empty()),
            "`degraded` was expected to say what is missing: {open}"
        );
    }
    let first = &log.open()["degraded"][0];
    assert!(
        log.stderr.contains("portreporter: "),
        "standard error was expected to say what is missing ({first}): {:?}",
        log.stderr
    );
}
