//! TCP: every way in which a connection begins and ends.

use super::record;
use crate::harness::expect::{ACCEPTED, CONNECTED, CREATOR, FOUND, INHERITED, LISTENED};
use crate::harness::{Recorder, Traffic};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    ("tcp_listen", Needs::Root, listen),
    ("tcp_listen_ipv6", Needs::Root, listen_ipv6),
    ("tcp_listen_without_bind", Needs::Root, listen_without_bind),
    ("tcp_zero_bytes", Needs::Root, zero_bytes),
    ("tcp_zero_bytes_ipv6", Needs::Root, zero_bytes_ipv6),
    ("tcp_refused", Needs::Root, refused),
    ("tcp_timeout", Needs::Root, timeout),
    ("tcp_non_blocking", Needs::Root, non_blocking),
    ("tcp_closed_within_50_us", Needs::Root, closed_within_50_us),
    ("tcp_mapped", Needs::Root, mapped),
    ("tcp_bytes", Needs::Root, bytes),
    ("tcp_reset_by_client", Needs::Root, || reset("client")),
    ("tcp_reset_by_server", Needs::Root, || reset("server")),
    ("tcp_reset_by_unread_data", Needs::Root, || reset("unread")),
    (
        "tcp_older_than_the_recorder",
        Needs::Root,
        older_than_the_recorder,
    ),
];

fn listen() {
    let (facts, log) = record(&["listen"]);
    log.about(&facts.one("listener"))
        .tell(LISTENED, CREATOR, "closed")
        .since(facts.began)
        .value("listen", "state", "LISTENING");
}

fn listen_ipv6() {
    let (facts, log) = record(&["listen", "[::1]:0"]);
    log.about(&facts.one("listener"))
        .tell(LISTENED, CREATOR, "closed")
        .value("listen", "family", "ipv6");
}

fn listen_without_bind() {
    let (facts, log) = record(&["listen-unbound"]);
    log.about(&facts.one("listener"))
        .tell(LISTENED, CREATOR, "closed");
}

fn zero_bytes() {
    check_zero_bytes(&["pair"]);
}

fn zero_bytes_ipv6() {
    check_zero_bytes(&["pair", "6"]);
}

fn check_zero_bytes(scenario: &[&str]) {
    let (facts, log) = record(scenario);
    log.about(&facts.one("listener"))
        .tell(LISTENED, CREATOR, "closed")
        .since(facts.began);
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed")
        .since(facts.began)
        .value("connect", "state", "SYN_SENT")
        .value("established", "state", "ESTABLISHED")
        .between("established", "connect_us", 0, 10_000_000)
        .value("close", "bytes_sent", 0)
        .value("close", "bytes_received", 0);
    log.about(&facts.one("server"))
        .tell(ACCEPTED, INHERITED, "closed")
        .since(facts.began)
        .value("accept", "state", "ESTABLISHED")
        .value("close", "bytes_sent", 0)
        .value("close", "bytes_received", 0);
    let client = facts.one("client");
    let entry = format!("Process ID: {} (traffic)\n", client.pid);
    assert!(
        log.sets.iter().any(|set| set.pids.contains(&entry)),
        "an entry of PR-PIDS was expected to contain {entry:?}:\n{}",
        log.sets[0].pids
    );
}

fn refused() {
    let (facts, log) = record(&["refused"]);
    for role in ["unbound", "bound"] {
        log.about(&facts.one(role))
            .tell(&["connect", "close"], CREATOR, "refused")
            .since(facts.began);
    }
}

fn timeout() {
    let (facts, log) = record(&["timeout"]);
    log.about(&facts.one("client"))
        .tell(&["connect", "close"], CREATOR, "timeout")
        .since(facts.began)
        .between("close", "duration_us", 300_000, 30_000_000);
}

fn non_blocking() {
    let (facts, log) = record(&["non-blocking"]);
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
    log.about(&facts.one("server"))
        .tell(ACCEPTED, INHERITED, "closed");
}

fn closed_within_50_us() {
    let (facts, log) = record(&["quick"]);
    let clients = facts.all("client");
    assert!(
        clients.len() == 10,
        "ten connections were expected: {clients:?}"
    );
    for fact in clients {
        log.about(&fact).tell(CONNECTED, CREATOR, "closed");
    }
    for fact in facts.all("server") {
        log.about(&fact).tell(ACCEPTED, INHERITED, "closed");
    }
}

fn mapped() {
    let (facts, log) = record(&["mapped"]);
    log.about(&facts.one("listener"))
        .tell(LISTENED, CREATOR, "closed")
        .value("listen", "family", "ipv6")
        .value("listen", "local_ip", "::");
    for role in ["v4", "mapped"] {
        log.about(&facts.one(&format!("{role}-client")))
            .tell(CONNECTED, CREATOR, "closed")
            .value("connect", "family", "ipv4");
        log.about(&facts.one(&format!("{role}-server")))
            .tell(ACCEPTED, INHERITED, "closed")
            .value("accept", "family", "ipv4");
    }
}

fn bytes() {
    let (facts, log) = record(&["bytes"]);
    let measures = facts.line("measures");
    let measure = |key: &str| measures[key].as_u64().expect("a measure");
    let (forth, back) = (measure("forth"), measure("back"));
    let (least, most) = (measure("at_least_us"), measure("at_most_us"));
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed")
        .value("close", "bytes_sent", forth)
        .value("close", "bytes_received", back)
        .between("close", "duration_us", least, most);
    log.about(&facts.one("server"))
        .tell(ACCEPTED, INHERITED, "closed")
        .value("close", "bytes_sent", back)
        .value("close", "bytes_received", forth)
        .between("close", "duration_us", least, most);
}

fn reset(by: &str) {
    let (facts, log) = record(&["reset", by]);
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "reset");
    log.about(&facts.one("server"))
        .tell(ACCEPTED, INHERITED, "reset");
}

fn older_than_the_recorder() {
    let mut traffic = Traffic::start(&["hold"]);
    traffic.wait_until_ready();
    let mut recorder = Recorder::start();
    let facts = traffic.finish();
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    for role in ["listener", "client", "server", "udp"] {
        let fact = facts.one(role);
        let lines = log.about(&fact);
        // Since when it was in use nobody can know.
        lines
            .events(&["close"])
            .owner(FOUND)
            .addresses()
            .value("close", "reason", "closed");
        lines.check(
            lines.lines_with("snapshot").len() == 1,
            "one `snapshot` line, since the socket is older than the recorder",
        );
    }
    // Both ends are new; the listener between them is not.
    log.about(&facts.one("late-client"))
        .tell(CONNECTED, CREATOR, "closed");
    log.about(&facts.one("late-server")).tell(
        ACCEPTED,
        &["inherited", "creator", "snapshot"],
        "closed",
    );
}
