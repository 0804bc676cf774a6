//! The engines without eBPF: what they see is right, what they cannot see is
//! said.

use std::cell::RefCell;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::expect::{ACCEPTED, BOUND, CONNECTED, SocketLines};
use crate::harness::log::Checks;
use crate::harness::{Facts, Launch, Log, Recorder, Traffic};
use crate::{Case, Needs};

const NOBODY: u32 = 65534;

pub(super) const CASES: &[Case] = &[
    ("engine_sock_diag_50_us", Needs::Root, short_connections),
    ("engine_sock_diag_short_udp", Needs::Root, short_udp),
    ("engine_sock_diag_bytes", Needs::Root, bytes),
    ("engine_sock_diag_held", Needs::Root, held),
    ("engine_sock_diag_netns", Needs::Root, namespace),
    ("engine_sock_diag_short_processes", Needs::Root, processes),
    ("engine_sock_diag_loss", Needs::RootAlone, loss),
    (
        "engine_sock_diag_unprivileged",
        Needs::Root,
        sock_diag_unprivileged,
    ),
    ("engine_proc_unprivileged", Needs::Root, proc_unprivileged),
    ("engine_udp_held", Needs::Root, udp_held),
];

fn sock_diag() -> Recorder {
    Launch::new().args(&["--engine", "sock-diag"]).start()
}

fn checks(engine: &'static str) -> Checks {
    Checks {
        engine: Some(engine),
        ..Checks::default()
    }
}

/// Records one scenario with the engine `sock-diag`.
fn record(scenario: &[&str]) -> (Facts, Log) {
    let mut recorder = sock_diag();
    let facts = Traffic::play(scenario);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop_with(Signal::TERM, &checks("sock-diag"));
    (facts, log)
}

/// In every line nobody, or the true process.
fn nobody_wrong(lines: &SocketLines<'_>, pid: u32, uid: u32) {
    for line in lines.all() {
        let nobody = line["owner"] == "unknown" && line["pid"].is_null();
        lines.check(
            nobody || line["pid"] == pid && line["uid"] == uid && line["process"] == "traffic",
            &format!("nobody, or the process {pid}, in\n{line}\n"),
        );
    }
}

fn short_connections() {
    let (facts, log) = record(&["quick"]);
    let clients = facts.all("client");
    assert!(
        clients.len() == 10,
        "ten connections were expected: {clients:?}"
    );
    for (fact, events) in clients
        .iter()
        .map(|client| (client, CONNECTED))
        .chain(facts.all("server").iter().map(|server| (server, ACCEPTED)))
    {
        let lines = log.about(fact);
        lines
            .events(events)
            .addresses()
            .since(facts.began)
            .value("close", "reason", "closed")
            .value("close", "bytes_sent", 0)
            .value("close", "bytes_received", 0);
        nobody_wrong(&lines, fact.pid, fact.uid);
    }
}

fn short_udp() {
    for scenario in [
        &["udp-bind", "4"][..],
        &["udp-bind", "6"],
        &["udp-autobind", "4", "connect"],
    ] {
        let (facts, log) = record(scenario);
        let fact = facts.one("udp");
        let lines = log.about(&fact);
        lines
            .events(BOUND)
            .addresses()
            .since(facts.began)
            .value("close", "reason", "closed");
        nobody_wrong(&lines, fact.pid, fact.uid);
    }
}

fn bytes() {
    let (facts, log) = record(&["bytes"]);
    let measures = facts.line("measures");
    for (role, events, sent, received) in [
        ("client", CONNECTED, "forth", "back"),
        ("server", ACCEPTED, "back", "forth"),
    ] {
        log.about(&facts.one(role))
            .events(events)
            .value("close", "reason", "closed")
            .value("close", "bytes_sent", measures[sent].clone())
            .value("close", "bytes_received", measures[received].clone());
    }
}

/// Plays `hold` with these words before it, until the recorder has seen all.
fn hold(recorder: &mut Recorder, wrapper: &[&str], user: Option<u32>) -> Facts {
    let scenario: Vec<&str> = wrapper.iter().copied().chain(["hold"]).collect();
    let mut traffic = match user {
        Some(user) => Traffic::start_as(user, &scenario),
        None => Traffic::start(&scenario),
    };
    let facts = traffic.wait_until_ready();
    // What one look finds comes in no particular order.
    let missing = RefCell::new(vec![
        (facts.one("listener"), "listen"),
        (facts.one("client"), "connect"),
        (facts.one("server"), "accept"),
        (facts.one("udp"), "bind"),
    ]);
    recorder.wait_for(&format!("about each of {missing:?}"), |line| {
        let mut missing = missing.borrow_mut();
        missing.retain(|(fact, event)| {
            let told = line["event"] == *event
                && line["protocol"] == fact.protocol
                && line["local_port"].as_u64() == fact.local_port.map(u64::from)
                && line["pid"] == fact.pid
                && line["uid"] == fact.uid
                && line["process"] == "traffic"
                && line["cmdline"].as_str() == fact.cmdline.as_deref();
            !told
        });
        missing.is_empty()
    });
    traffic.finish()
}

fn held() {
    let mut recorder = sock_diag();
    let facts = hold(&mut recorder, &[], None);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop_with(Signal::TERM, &checks("sock-diag"));
    for role in ["listener", "udp", "client", "server"] {
        log.about(&facts.one(role))
            .owner(&["snapshot", "creator", "inherited"])
            .addresses()
            .value("close", "reason", "closed");
    }
}

fn namespace() {
    let mut recorder = sock_diag();
    let facts = hold(&mut recorder, &["in-netns"], None);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop_with(Signal::TERM, &checks("sock-diag"));
    for role in ["listener", "udp", "client", "server"] {
        // Nobody tells the reason but the kernel, in that namespace.
        log.about(&facts.one(role))
            .addresses()
            .value("close", "reason", "closed");
    }
}

fn processes() {
    let mut recorder = sock_diag();
    let facts = Traffic::play_as(NOBODY, &["short", "50"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop_with(Signal::TERM, &checks("sock-diag"));
    let clients = facts.all("client");
    assert!(clients.len() >= 50, "50 clients were expected: {clients:?}");
    for client in &clients {
        let lines = log.about(client);
        lines.events(CONNECTED).addresses();
        nobody_wrong(&lines, client.pid, client.uid);
        // Whoever was seen at all has a name, also after its end.
        for line in lines.all().filter(|line| !line["pid"].is_null()) {
            lines.check(
                line["cmdline"].as_str() == client.cmdline.as_deref(),
                &format!("the arguments {:?} in\n{line}\n", client.cmdline),
            );
        }
    }
    let last = log
        .lines()
        .filter(|line| line["event"] == "counters")
        .last();
    assert!(
        last.is_some_and(|counters| counters["processes_lost"].as_u64().unwrap_or(0) == 0),
        "no news of a process was expected to be lost: {last:?}"
    );
}

fn loss() {
    let recorder = Launch::new()
        .args(&["--engine", "sock-diag", "--ring-size", "4"])
        .start();
    Traffic::play(&["storm", "3000", "127.0.3.3"]);
    let log = recorder.stop_with(
        Signal::TERM,
        &Checks {
            loses: true,
            ..checks("sock-diag")
        },
    );
    let gaps: Vec<&Value> = log.lines().filter(|line| line["event"] == "gap").collect();
    assert!(
        !gaps.is_empty(),
        "a gap was expected where the kernel's buffer was too small"
    );
    for gap in gaps {
        assert!(
            gap["lost"].as_u64() > Some(0) && gap["reason"] == "netlink buffer full",
            "so many events, lost in the netlink buffer, were expected: {gap}"
        );
    }
}

fn proc_unprivileged() {
    let recorder = Launch::new()
        .run_by(NOBODY)
        .args(&["--engine", "proc"])
        .start();
    let degraded = unprivileged(recorder, "proc");
    for missing in ["capture", "owners"] {
        assert!(
            degraded.contains(&format!("\"{missing}: ")),
            "what is missing of {missing} was expected to be said: {degraded}"
        );
    }
    assert!(
        degraded.contains("CAP_BPF") && degraded.contains("sock-diag"),
        "what would help was expected to be said: {degraded}"
    );
}

fn sock_diag_unprivileged() {
    let recorder = Launch::new().run_by(NOBODY).start();
    let degraded = unprivileged(recorder, "sock-diag");
    for missing in ["engine ebpf", "owners"] {
        assert!(
            degraded.contains(&format!("\"{missing}: ")),
            "what is missing of {missing} was expected to be said: {degraded}"
        );
    }
}

/// A recorder without privileges sees the sockets of its own user, and says
/// what it cannot see; gives that.
fn unprivileged(mut recorder: Recorder, engine: &'static str) -> String {
    let facts = hold(&mut recorder, &[], Some(NOBODY));
    let missing = RefCell::new(vec![facts.one("listener"), facts.one("udp")]);
    recorder.wait_for(&format!("the close of each of {missing:?}"), |line| {
        let mut missing = missing.borrow_mut();
        missing.retain(|fact| {
            let told = line["event"] == "close"
                && line["protocol"] == fact.protocol
                && line["local_port"].as_u64() == fact.local_port.map(u64::from)
                && line["pid"] == fact.pid;
            !told
        });
        missing.is_empty()
    });
    let log = recorder.stop_with(Signal::TERM, &checks(engine));
    log.open()["degraded"].to_string()
}

/// A UDP socket that stays is seen with its owner by whatever is the best here,
/// also where no program in the kernel may see UDP.
fn udp_held() {
    let mut recorder = Recorder::start();
    let mut traffic = Traffic::start(&["hold"]);
    let fact = traffic.wait_until_ready().one("udp");
    recorder.wait_for("the UDP port", |line| {
        line["socket"] == fact.cookie && line["event"] == "bind" && line["pid"] == fact.pid
    });
    traffic.finish();
    recorder.wait_for_closes(&[fact.cookie.as_str()]);
    let log = recorder.stop();
    let lines = log.about(&fact);
    lines.events(BOUND).addresses();
    nobody_wrong(&lines, fact.pid, fact.uid);
}
