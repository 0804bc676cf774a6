//! Processes: short ones, forked ones, several on one port, other users.

use std::collections::{BTreeSet, HashSet};

use super::record;
use crate::harness::expect::{ACCEPTED, BOUND, CONNECTED, CREATOR, INHERITED, LISTENED};
use crate::harness::{Recorder, Traffic};
use crate::{Case, Needs};

/// Users by number: `nobody` and `daemon` everywhere, and one without a name.
const NOBODY: u32 = 65534;
const DAEMON: u32 = 1;
const NAMELESS: u32 = 54321;

pub(super) const CASES: &[Case] = &[
    ("process_short", Needs::Root, short),
    (
        "process_exits_with_open_sockets",
        Needs::Root,
        exits_with_open_sockets,
    ),
    ("process_forks_then_accepts", Needs::Root, || prefork("1")),
    ("process_prefork", Needs::Root, || prefork("3")),
    ("process_reuse_port", Needs::Root, reuse_port),
    ("process_users", Needs::Root, users),
];

fn short() {
    let mut recorder = Recorder::start();
    let facts = Traffic::play_as(NOBODY, &["short", "200"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    let short: HashSet<u64> = facts
        .lines
        .iter()
        .filter_map(|line| line["short"].as_u64())
        .collect();
    let clients: Vec<_> = facts
        .all("client")
        .into_iter()
        .filter(|client| short.contains(&client.pid.into()))
        .collect();
    assert!(
        clients.len() == 200,
        "200 short processes were expected: {clients:?}"
    );
    // 99.9 % of 200 is every one.
    for client in &clients {
        log.about(client)
            .tell(CONNECTED, CREATOR, "closed")
            .since(facts.began);
    }
}

fn exits_with_open_sockets() {
    let (facts, log) = record(&["exit-open"]);
    log.about(&facts.one("listener"))
        .events(LISTENED)
        .owner(CREATOR)
        .addresses();
    log.about(&facts.one("udp")).tell(BOUND, CREATOR, "closed");
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
    log.about(&facts.one("server"))
        .tell(ACCEPTED, INHERITED, "closed");
}

fn prefork(children: &str) {
    let (facts, log) = record(&["fork-accept", children]);
    log.about(&facts.one("listener"))
        .tell(LISTENED, CREATOR, "closed");
    let parent = facts.one("listener").pid;
    let servers = facts.all("server");
    let pids: BTreeSet<u32> = servers.iter().map(|server| server.pid).collect();
    assert!(
        pids.len().to_string() == children && !pids.contains(&parent),
        "each of {children} children accepts: {servers:?}"
    );
    for server in &servers {
        log.about(server)
            .events(ACCEPTED)
            .owner_at("accept", INHERITED)
            .owner_at("close", INHERITED)
            .addresses()
            .closed("closed");
    }
    for client in facts.all("client") {
        log.about(&client).tell(CONNECTED, CREATOR, "closed");
    }
}

fn reuse_port() {
    let (facts, log) = record(&["reuse-port", "4"]);
    let listeners = facts.all("listener");
    let owners: BTreeSet<u32> = listeners.iter().map(|listener| listener.pid).collect();
    assert!(
        owners.len() == 4,
        "four owners were expected: {listeners:?}"
    );
    for listener in &listeners {
        log.about(listener).tell(LISTENED, CREATOR, "closed");
    }
    let servers = facts.all("server");
    assert!(
        servers.len() == 40,
        "40 accepted connections were expected: {servers:?}"
    );
    for server in &servers {
        log.about(server).tell(ACCEPTED, INHERITED, "closed");
    }
    for client in facts.all("client") {
        log.about(&client).tell(CONNECTED, CREATOR, "closed");
    }
}

fn users() {
    let mut recorder = Recorder::start();
    let runs = [0, NOBODY, DAEMON, NAMELESS].map(|uid| (uid, Traffic::play_as(uid, &["pair"])));
    for (_, facts) in &runs {
        recorder.wait_for_closes(&facts.cookies());
    }
    let log = recorder.stop();
    for (uid, facts) in &runs {
        let client = facts.one("client");
        assert!(
            client.uid == *uid,
            "the traffic runs as user {uid}: {client:?}"
        );
        log.about(&client).tell(CONNECTED, CREATOR, "closed");
        log.about(&facts.one("server"))
            .tell(ACCEPTED, INHERITED, "closed");
    }
}
