//! Sockets that are neither TCP nor UDP: that one is made, by whom, and its end.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::record;
use crate::harness::expect::{BOUND, CREATOR, FOUND};
use crate::harness::{Facts, Launch, Log, Recorder, Traffic};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    ("other_raw", Needs::Root, || {
        made(&["other", "raw"], "ipv4", &1.into());
    }),
    ("other_raw_ipv6", Needs::Root, || {
        made(&["other", "raw6"], "ipv6", &58.into());
    }),
    ("other_ping", Needs::Root, || {
        made(&["in-netns", "other", "ping"], "ipv4", &Value::Null);
    }),
    ("other_udp_lite", Needs::Root, || {
        made(&["other", "udplite"], "ipv4", &Value::Null);
    }),
    ("other_packet", Needs::Root, packet),
    ("other_packet_gone_at_once", Needs::Root, packet_gone),
    ("other_older_than_the_recorder", Needs::Root, older),
    ("other_by_looking", Needs::Root, by_looking),
];

/// Recorded as any other socket is.
fn made(scenario: &[&str], family: &str, number: &Value) {
    let (facts, log) = record(scenario);
    let fact = facts.one("other");
    let said = log.about(&fact);
    said.tell(BOUND, CREATOR, "closed")
        .value("bind", "family", family)
        .since(facts.began);
    for line in said.all() {
        assert_eq!(&line["protocol_number"], number, "{line}");
    }
    only_in_the_record(&log, &facts);
}

/// The classic files know TCP and UDP.
fn only_in_the_record(log: &Log, facts: &Facts) {
    let pid = format!(",{},", facts.one("other").pid);
    for set in &log.sets {
        let row = set.ports.lines().find(|row| row.contains(&pid));
        assert_eq!(row, None);
    }
}

/// One that stays for a while has a number, and its end is found by looking if
/// it is not told; also where two are made at nearly the same time.
fn packet() {
    let mut recorder = Launch::new().args(&["--reconcile", "1"]).start();
    let traffic = [(); 2].map(|()| Traffic::start(&["other", "packet", "held"]));
    let held = traffic.map(|mut traffic| {
        let facts = traffic.wait_until_ready();
        (traffic, facts)
    });
    let cookies = held.each_ref().map(|(_, facts)| facts.one("other").cookie);
    let unseen = RefCell::new(cookies.to_vec());
    recorder.wait_for("the packet sockets", |line| {
        let mut unseen = unseen.borrow_mut();
        unseen.retain(|cookie| line["socket"] != *cookie);
        unseen.is_empty()
    });
    let all = held.map(|(traffic, facts)| {
        traffic.finish();
        facts
    });
    recorder.wait_for_ends(&cookies.each_ref().map(String::as_str));
    let log = recorder.stop();
    for facts in all {
        let fact = facts.one("other");
        let said = log.about(&fact);
        said.owner(CREATOR).since(facts.began);
        let bind = said.line("bind");
        assert_eq!(bind["protocol"], "packet");
        assert_eq!(bind["protocol_number"], 3);
        assert_eq!(bind["netns"], json!(fact.netns));
        for key in ["family", "local_ip", "local_port", "remote_ip", "state"] {
            assert_eq!(bind[key], Value::Null, "{key}");
        }
        only_in_the_record(&log, &facts);
    }
}

/// One that is gone before anybody could ask is told of with its owner.
fn packet_gone() {
    let mut recorder = Recorder::start();
    let facts = Traffic::play(&["other", "packet"]);
    let fact = facts.one("other");
    let is_its = |line: &Value| line["protocol"] == "packet" && line["pid"] == fact.pid;
    recorder.wait_for("its end", |line| {
        is_its(line) && (line["event"] == "close" || line["event"] == "vanish")
    });
    let log = recorder.stop();
    let told: Vec<&Value> = log.lines().filter(|line| is_its(line)).collect();
    assert!(
        told.len() == 2
            && told[0]["event"] == "bind"
            && told.iter().all(|line| {
                line["owner"] == "creator"
                    && line["exe"] == json!(fact.exe)
                    && line["netns"] == json!(fact.netns)
                    && (line["socket"].is_null() || line["socket"] == fact.cookie)
            }),
        "a bind and an end were expected: {told:#?}"
    );
}

/// Those that were there before are in the head of the set, and their ends are
/// told.
fn older() {
    let held = ["raw", "udplite", "packet"].map(|kind| {
        let mut traffic = Traffic::start(&["other", kind, "held"]);
        let fact = traffic.wait_until_ready().one("other");
        (traffic, fact)
    });
    let mut recorder = Launch::new().args(&["--reconcile", "1"]).start();
    let facts = held.map(|(traffic, fact)| {
        traffic.finish();
        recorder.wait_for("its end", |line| {
            let ends = line["event"] == "close" || line["event"] == "vanish";
            line["socket"] == fact.cookie && ends
        });
        fact
    });
    let log = recorder.stop();
    for fact in &facts {
        let said = log.about(fact);
        said.owner(FOUND);
        let head = said.line("snapshot");
        assert_eq!(head["protocol"], json!(fact.protocol));
    }
}

/// The engines that look find one that stays.
fn by_looking() {
    for engine in ["sock-diag", "proc"] {
        for kind in ["raw", "udplite", "packet"] {
            let mut recorder = Launch::new().args(&["--engine", engine]).start();
            let mut traffic = Traffic::start(&["other", kind, "held"]);
            let fact = traffic.wait_until_ready().one("other");
            let is_its = |line: &Value| {
                line["protocol"] == fact.protocol.as_str() && line["pid"] == fact.pid
            };
            recorder.wait_for("its beginning", |line| {
                is_its(line) && line["event"] == "bind" && line["owner"] == "snapshot"
            });
            traffic.finish();
            recorder.wait_for("its end", |line| is_its(line) && line["event"] == "close");
            recorder.end();
        }
    }
}
