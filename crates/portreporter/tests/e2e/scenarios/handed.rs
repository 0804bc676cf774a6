//! Sockets that change hands, and ports that a socket changes: each line names
//! the process, the user and the port of its own moment.

use rustix::process::Signal;
use serde_json::Value;

use super::record;
use crate::harness::expect::{ACCEPTED, BOUND, CONNECTED, CREATOR, LISTENED};
use crate::harness::{
    Fact, Facts, Log, Recorder, Traffic, copy_program, open_directory, traffic as program,
};
use crate::{Case, Needs};

const NOBODY: u32 = 65534;

/// Tells who calls accept.
const ACCEPT: &str = "fexit/inet_csk_accept";

/// Tells who sends.
const SEND: &str = "tp_btf/sock_send_length";

pub(super) const CASES: &[Case] = &[
    ("handed_udp_reconnect", Needs::Root, udp_reconnect),
    ("handed_accept_late", Needs::Root, accept_late),
    ("handed_setuid", Needs::Root, setuid),
    ("handed_setuid_then_close", Needs::Root, setuid_then_close),
    ("handed_exec", Needs::Root, exec),
    ("handed_scm_rights", Needs::Root, scm_rights),
    ("handed_dup", Needs::Root, dup),
    ("handed_socket_activation", Needs::Root, socket_activation),
];

fn udp_reconnect() {
    let (facts, log) = record(&["udp-reconnect"]);
    let [first, second, third] = ["first", "second", "third"].map(|role| facts.one(role));
    let lines = log.about(&first);
    lines.in_turn(
        &[
            ("bind", &first),
            ("close", &first),
            ("bind", &second),
            ("close", &second),
            ("bind", &third),
            ("close", &third),
        ],
        CREATOR,
    );
    // It was not connected any more.
    let last = lines.lines_with("bind")[2];
    lines.check(
        last["remote_ip"].is_null() && last["remote_port"].is_null(),
        "no peer in the last `bind`",
    );
}

/// The process shows itself only after its `accept` line was written, unless
/// the kernel tells who calls accept; else it is looked up.
fn accept_late() {
    let (facts, log) = record_up_to_accept(&["accept-late"], "accepted");
    let (listener, server) = (facts.one("listener"), facts.one("server"));
    assert!(server.pid != listener.pid, "a child accepts: {server:?}");
    let owner = if log.has_hook(ACCEPT) {
        "creator"
    } else {
        "snapshot"
    };
    let lines = log.about(&server);
    lines.in_turn(
        &[("accept", &server), ("close", &server)],
        &["snapshot", "creator"],
    );
    lines.value("accept", "owner", owner).closed("closed");
    if log.has_hook(ACCEPT) || log.has_hook(SEND) {
        shown_before_its_end(&log, &server);
    }
}

fn setuid() {
    let (facts, log) = record(&["setuid", &NOBODY.to_string()]);
    let [before, after] = ["before-listener", "after"].map(|role| facts.one(role));
    assert!(
        before.pid == after.pid && before.uid == 0 && after.uid == NOBODY,
        "one process, two users: {facts:?}"
    );
    log.about(&before)
        .events(LISTENED)
        .owner_at("listen", CREATOR)
        .addresses()
        .closed("closed");
    log.about(&after).tell(BOUND, CREATOR, "closed");
}

/// Each line has the user of its own moment, and the last one does not make the
/// process root again.
fn setuid_then_close() {
    let (facts, log) = record(&["setuid", &NOBODY.to_string()]);
    for kind in ["listener", "udp"] {
        let [before, still] = ["before", "still"].map(|when| facts.one(&format!("{when}-{kind}")));
        let opens = if kind == "udp" { "bind" } else { "listen" };
        assert!(before.uid == 0 && still.uid == NOBODY, "{facts:?}");
        log.about(&before)
            .in_turn(&[(opens, &before), ("close", &still)], CREATOR);
    }
}

fn exec() {
    let directory = open_directory();
    let other = directory.path().join("other-program");
    copy_program(&program(), &other);
    let mut recorder = Recorder::start();
    // It reads of the first program when the second one runs.
    recorder.signal(Signal::STOP);
    let mut traffic = Traffic::start(&["exec", &other.display().to_string()]);
    let facts = traffic.wait_until_ready();
    recorder.signal(Signal::CONT);
    let cookie = facts.line("kept-udp")["cookie"].clone();
    recorder.wait_for("the port that is kept", |line| line["socket"] == cookie);
    let facts = traffic.finish();
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    for (kind, opens) in [("listener", "listen"), ("udp", "bind")] {
        let kept = facts.one(&format!("kept-{kind}"));
        let given = facts.one(&format!("given-{kind}"));
        assert!(
            kept.pid == given.pid && kept.exe != given.exe && kept.cookie == given.cookie,
            "one process, two programs: {kept:?} {given:?}"
        );
        log.about(&kept)
            .in_turn(&[(opens, &kept), ("close", &given)], CREATOR)
            .closed("closed");
        // The kernel lets go of these on its way out of the call, when the
        // process is already the new program.
        let closed = facts.one(&format!("closed-{kind}"));
        let then = as_seen_by(&given, &closed);
        log.about(&closed)
            .in_turn(&[(opens, &closed), ("close", &then)], CREATOR)
            .closed("closed");
    }
}

fn scm_rights() {
    let (facts, log) = record_up_to_accept(&["pass"], "accepted");
    let listener = facts.one("listener");
    log.about(&listener)
        .events(LISTENED)
        .owner_at("listen", CREATOR)
        .addresses()
        .closed("closed");
    for role in ["server", "second-server"] {
        let server = facts.one(role);
        assert!(server.pid != listener.pid, "a child serves: {server:?}");
        log.about(&server)
            .events(ACCEPTED)
            .owner_at("close", CREATOR)
            .addresses()
            .closed("closed");
        if log.has_hook(SEND) {
            shown_before_its_end(&log, &server);
        }
    }
}

fn dup() {
    let (facts, log) = record(&["dup"]);
    let mark = facts.one("mark");
    let mark = log.about(&mark);
    let marked = sequence(mark.line("close"));
    for (role, events) in [
        ("listener", LISTENED),
        ("client", CONNECTED),
        ("udp", BOUND),
    ] {
        let fact = facts.one(role);
        let lines = log.about(&fact);
        lines.events(events).owner(CREATOR).addresses();
        lines.check(
            sequence(lines.line("close")) > marked,
            &format!("a close after line {marked}, when the last descriptor goes"),
        );
    }
}

fn socket_activation() {
    let (facts, log) = record_up_to_accept(&["activate"], "server");
    let (listener, given) = (facts.one("listener"), facts.one("given-listener"));
    let server = facts.one("server");
    assert!(
        listener.cookie == given.cookie && given.pid == server.pid && server.pid != listener.pid,
        "the service serves: {facts:?}"
    );
    log.about(&listener).tell(LISTENED, CREATOR, "closed");
    log.about(&server)
        .events(ACCEPTED)
        .owner_at("close", CREATOR)
        .addresses()
        .closed("closed");
    shown_before_its_end(&log, &server);
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

/// Records a scenario that goes on when the `accept` line of the socket with
/// this role was written. Whoever has the connection must have been seen before
/// that: its lines no longer wait for a close that shows it.
fn record_up_to_accept(scenario: &[&str], role: &str) -> (Facts, Log) {
    let mut recorder = Recorder::start();
    let mut traffic = Traffic::start(scenario);
    let cookie = traffic.wait_until_ready().line(role)["cookie"].clone();
    recorder.wait_for("the accept", |line| {
        line["event"] == "accept" && line["socket"] == cookie
    });
    let facts = traffic.finish();
    recorder.wait_for_closes(&facts.cookies());
    (facts, recorder.stop())
}

/// The client's end reaches the server in a softirq: what the server did before
/// must have told who it is.
fn shown_before_its_end(log: &Log, server: &Fact) {
    let lines = log.about(server);
    let ends = lines.lines_with("state");
    let end = ends.iter().find(|line| line["state"] == "CLOSE_WAIT");
    lines.check(
        end.is_some_and(|end| end["pid"] == server.pid && end["owner"] == "creator"),
        &format!("CLOSE_WAIT of process {}", server.pid),
    );
}

/// The process of one fact with the socket of another.
fn as_seen_by(process: &Fact, socket: &Fact) -> Fact {
    Fact {
        exe: process.exe.clone(),
        cmdline: process.cmdline.clone(),
        pid: process.pid,
        ppid: process.ppid,
        uid: process.uid,
        started: process.started,
        ..socket.clone()
    }
}

fn sequence(line: &Value) -> u64 {
    line["seq"].as_u64().expect("a number")
}
