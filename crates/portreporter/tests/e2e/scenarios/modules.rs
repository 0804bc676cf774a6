//! Modules: of processes that are gone before anybody looks, and of files that
//! are deleted or replaced.
//!
//! The recorder is stopped while the processes live, so that it cannot have
//! read anything of those that are gone.

use std::collections::BTreeMap;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Facts, Log, Recorder, Traffic, copy_program, open_directory, traffic};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    ("modules_of_the_gone", Needs::Root, of_the_gone),
    ("modules_of_the_gone_deleted", Needs::Root, deleted_and_gone),
    ("modules_replaced_while_mapped", Needs::Root, replaced),
];

fn of_the_gone() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let mut recorder = Recorder::start();
    recorder.signal(Signal::STOP);
    let runs: Vec<Facts> = (0..20)
        .map(|_| Traffic::play(&["connect-exit", &port, "maps"]))
        .collect();
    drop(listener);
    recorder.signal(Signal::CONT);
    for facts in &runs {
        recorder.wait_for_closes(&facts.cookies());
    }
    let log = recorder.stop();
    for facts in &runs {
        let found = modules(&log, facts.one("client").pid);
        let expected = mapped(facts.line("client"));
        assert!(
            expected.keys().any(|path| path.contains("/libc")) && expected.len() >= 3,
            "a program, its loader and its library were expected: {expected:?}"
        );
        assert!(found == expected, "{found:#?} is not {expected:#?}");
    }
}

fn deleted_and_gone() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let directory = open_directory();
    let copy = directory.path().join("copy");
    copy_program(&traffic(), &copy);
    let mut recorder = Recorder::start();
    recorder.signal(Signal::STOP);
    let facts = Traffic::play_with(&copy, &["connect-exit", &port, "maps"]);
    std::fs::remove_file(&copy).expect("the copy");
    drop(listener);
    recorder.signal(Signal::CONT);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    let found = modules(&log, facts.one("client").pid);
    only_the_copy_is_marked(&found, copy.to_str().expect("a plain path"));
}

fn replaced() {
    let directory = open_directory();
    let [copy, new] = ["copy", "new"].map(|name| directory.path().join(name));
    copy_program(&traffic(), &copy);
    copy_program(&traffic(), &new);
    let mut recorder = Recorder::start();
    recorder.signal(Signal::STOP);
    let mut traffic = Traffic::start_with(&copy, &["hold"]);
    let facts = traffic.wait_until_ready();
    std::fs::rename(&new, &copy).expect("the copies");
    recorder.signal(Signal::CONT);
    let client = facts.one("client");
    recorder.wait_for("its connection", |line| {
        line["event"] == "connect" && line["socket"] == client.cookie.as_str()
    });
    traffic.finish();
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    let found = modules(&log, client.pid);
    only_the_copy_is_marked(&found, copy.to_str().expect("a plain path"));
}

fn only_the_copy_is_marked(found: &BTreeMap<String, u64>, copy: &str) {
    let marked: Vec<&str> = found
        .keys()
        .filter_map(|path| path.strip_suffix(" (deleted)"))
        .collect();
    assert!(
        marked == [copy] && found.len() >= 3,
        "only {copy} was expected to be marked: {found:#?}"
    );
}

/// The modules in the last entry of PR-PIDS about a process.
fn modules(log: &Log, pid: u32) -> BTreeMap<String, u64> {
    let head = format!("Process ID: {pid} (");
    let entry = log
        .sets
        .iter()
        .filter_map(|set| set.pids.rsplit_once(&head))
        .map(|(_, entry)| entry)
        .next_back()
        .unwrap_or_else(|| panic!("no entry of process {pid}"));
    let (_, list) = entry
        .split_once("Loaded modules:\n")
        .unwrap_or_else(|| panic!("no modules of process {pid}: {entry}"));
    list.lines()
        .map_while(|line| {
            let (path, base) = line.strip_suffix(')')?.rsplit_once(" (0x")?;
            Some((path.to_owned(), u64::from_str_radix(base, 16).ok()?))
        })
        .collect()
}

/// The files in what a process read in its `/proc/self/maps` that have code,
/// each with the lowest address of all its parts.
fn mapped(client: &Value) -> BTreeMap<String, u64> {
    let maps = client["maps"].as_str().expect("its mappings");
    let parts = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let path = &rest[rest.find('/')?..];
        let start = u64::from_str_radix(range.split('-').next()?, 16).ok()?;
        Some((path, start, rest.starts_with("r-xp")))
    });
    let parts: Vec<_> = parts.collect();
    let code = parts.iter().filter(|(_, _, is_code)| *is_code);
    code.map(|&(path, ..)| {
        let all = parts.iter().filter(|part| part.0 == path);
        let base = all.map(|&(_, start, _)| start).min();
        (path.to_owned(), base.expect("at least the code"))
    })
    .collect()
}
