//! Processes that live elsewhere: network and PID namespaces, a chroot.

use std::path::Path;
use std::process::Command;

use super::record;
use crate::harness::expect::{ACCEPTED, CONNECTED, CREATOR, INHERITED, LISTENED};
use crate::harness::{Fact, Facts, Recorder, Traffic, copy_program, open_directory, traffic};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        "place_two_network_namespaces",
        Needs::Root,
        two_network_namespaces,
    ),
    ("place_pid_namespace", Needs::Root, pid_namespace),
    ("place_chroot", Needs::Root, chroot),
];

fn two_network_namespaces() {
    let scenario = ["in-netns", "pair-at", "127.0.0.1:4001", "127.0.0.1:4002"];
    let mut recorder = Recorder::start();
    // Both at the same time.
    let mut running = [Traffic::start(&scenario), Traffic::start(&scenario)];
    for traffic in &mut running {
        traffic.wait_until_ready();
    }
    let runs = running.map(Traffic::finish);
    for facts in &runs {
        recorder.wait_for_closes(&facts.cookies());
    }
    let log = recorder.stop();
    for facts in &runs {
        log.about(&facts.one("listener"))
            .tell(LISTENED, CREATOR, "closed");
        log.about(&facts.one("client"))
            .tell(CONNECTED, CREATOR, "closed");
        log.about(&facts.one("server"))
            .tell(ACCEPTED, INHERITED, "closed");
    }
    let [first, second] = runs.map(|facts| facts.one("client"));
    assert!(
        first.cookie != second.cookie && first.local_port == second.local_port,
        "one tuple and two sockets were expected: {first:?} {second:?}"
    );
}

fn pid_namespace() {
    let (facts, log) = record(&["in-pidns", "pair"]);
    let outer = facts.line("outer").clone();
    let from_outside = |role: &str| {
        let inside = facts.one(role);
        assert!(
            inside.pid == 1,
            "the traffic is the first process inside: {inside:?}"
        );
        Fact {
            pid: u32::try_from(outer["pid"].as_u64().expect("a pid")).expect("a pid"),
            ppid: u32::try_from(outer["ppid"].as_u64().expect("a pid")).expect("a pid"),
            ..inside
        }
    };
    log.about(&from_outside("listener"))
        .tell(LISTENED, CREATOR, "closed");
    log.about(&from_outside("client"))
        .tell(CONNECTED, CREATOR, "closed");
    log.about(&from_outside("server"))
        .tell(ACCEPTED, INHERITED, "closed");
}

fn chroot() {
    let root = open_directory();
    furnish(root.path());
    let path = root.path().to_str().expect("a plain path");
    let (facts, log): (Facts, _) = record(&["in-chroot", path, "/traffic", "pair"]);
    let client = facts.one("client");
    let lines = log.about(&client);
    lines
        .tell(CONNECTED, CREATOR, "closed")
        .value("connect", "process", "traffic");
    let exe = &lines.line("connect")["exe"];
    lines.check(
        exe.as_str().is_some_and(|exe| exe.ends_with("/traffic")),
        "an exe that ends in /traffic",
    );
    log.about(&facts.one("server"))
        .tell(ACCEPTED, INHERITED, "closed");
}

/// Copies the traffic program and the libraries that it needs.
fn furnish(root: &Path) {
    let program = traffic();
    copy_program(&program, &root.join("traffic"));
    let ldd = Command::new("ldd").arg(&program).output().expect("ldd");
    for word in String::from_utf8_lossy(&ldd.stdout).split_whitespace() {
        let library = Path::new(word);
        if library.is_absolute() {
            let copy = root.join(library.strip_prefix("/").expect("an absolute path"));
            std::fs::create_dir_all(copy.parent().expect("a directory")).expect("a directory");
            std::fs::copy(library, &copy).expect("a copy of a library");
        }
    }
}
