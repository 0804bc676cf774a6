//! Loss, on purpose: the books balance, each loss lies in a gap, and the table
//! of sockets comes back to the truth.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::expect::{ACCEPTED, CONNECTED, CREATOR, FOUND, INHERITED, LISTENED};
use crate::harness::log::{Checks, Set};
use crate::harness::{Fact, Launch, Log, Recorder, Traffic, open_directory, overload};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        "loss_is_reconciled",
        Needs::RootAlone,
        reconciliation_brings_the_table_back,
    ),
    (
        "loss_of_a_stopped_recorder",
        Needs::RootAlone,
        stopped_under_load,
    ),
    ("loss_no_processor", Needs::RootAlone, no_processor_left),
    ("loss_disk_blocks", Needs::RootAlone, disk_blocks),
    ("loss_full_storage", Needs::RoomByNamespace, full_storage),
    (
        "loss_full_storage_of_children",
        Needs::RoomByNamespace,
        full_storage_of_children,
    ),
];

/// The sockets that `hold` keeps open, and their states.
const HELD: [(&str, Option<&str>); 4] = [
    ("listener", Some("LISTENING")),
    ("client", Some("ESTABLISHED")),
    ("server", Some("ESTABLISHED")),
    ("udp", None),
];

/// By how many microseconds the times of two programs may disagree.
const CLOCKS: u64 = 5_000;

const MAY_LOSE: Checks = Checks {
    engine: Some("ebpf"),
    killed: false,
    loses: true,
};

/// A recorder that does not run cannot empty a ring of one page: when it goes
/// on, only a look tells it of most of the sockets that came and of all that
/// went; also of those whose network namespace has gone with them, into which
/// nobody can look.
fn reconciliation_brings_the_table_back() {
    let mut recorder = Launch::new()
        .args(&["--ring-size", "4", "--reconcile", "1"])
        .start();
    let (mut leaving, mut left) = hold(4, &["hold"]);
    let (elsewhere, facts) = hold(2, &["in-netns", "hold"]);
    leaving.extend(elsewhere);
    left.extend(facts);
    wait_for_all(&mut recorder, &left, &[]);

    recorder.signal(Signal::STOP);
    let (staying, stayed) = hold(12, &["hold"]);
    for traffic in leaving {
        traffic.finish();
    }
    recorder.signal(Signal::CONT);
    wait_for_all(&mut recorder, &stayed, &left);
    recorder.roll();
    let log = recorder.stop_with(Signal::TERM, &MAY_LOSE);
    for traffic in staying {
        traffic.finish();
    }

    for event in ["gap", "discover", "vanish"] {
        assert!(
            log.lines().any(|line| line["event"] == event),
            "a `{event}` was expected; {}",
            log.stderr
        );
    }
    for fact in &stayed {
        log.about(fact)
            .addresses()
            .owner(&[CREATOR, INHERITED, FOUND].concat());
    }
    let last = &log.sets[log.sets.len() - 1];
    check_table(last, &stayed, &left);
}

/// So many programs that hold sockets, and what they hold.
fn hold(count: usize, scenario: &[&str]) -> (Vec<Traffic>, Vec<Fact>) {
    let mut all: Vec<Traffic> = (0..count).map(|_| Traffic::start(scenario)).collect();
    let mut facts = Vec::new();
    for traffic in &mut all {
        let said = traffic.wait_until_ready();
        facts.extend(HELD.iter().map(|(role, _)| said.one(role)));
    }
    (all, facts)
}

/// Waits until the beginning of these and the end of those was told, in
/// whatever way.
fn wait_for_all(recorder: &mut Recorder, come: &[Fact], gone: &[Fact]) {
    let keys = |facts: &[Fact], ends: bool| -> Vec<(String, bool)> {
        let keys = facts.iter().map(|fact| (fact.cookie.clone(), ends));
        keys.collect()
    };
    let open: HashSet<_> = [keys(come, false), keys(gone, true)]
        .concat()
        .into_iter()
        .collect();
    let open = RefCell::new(open);
    recorder.wait_for("what came and what went", |line| {
        let ends = match line["event"].as_str() {
            Some("listen" | "bind" | "connect" | "accept" | "discover") => false,
            Some("close" | "vanish") => true,
            _ => return false,
        };
        let cookie = line["socket"].as_str().unwrap_or_default().to_owned();
        let mut open = open.borrow_mut();
        open.remove(&(cookie, ends));
        open.is_empty()
    });
}

/// The head of a set lists all of these, as they are, and nothing else of their
/// processes; and of those at most what the kernel keeps of the end that closed
/// first.
fn check_table(set: &Set, there: &[Fact], gone: &[Fact]) {
    let listed: Vec<&Value> = set
        .lines
        .iter()
        .filter(|line| line["event"] == "snapshot")
        .collect();
    let about = |fact: &Fact| -> Vec<&Value> {
        let lines = listed.iter().copied();
        lines.filter(|line| line["socket"] == fact.cookie).collect()
    };
    for fact in there {
        let lines = about(fact);
        let state = HELD.iter().find(|(role, _)| *role == fact.role);
        assert!(
            lines.len() == 1
                && lines[0]["pid"] == fact.pid
                && lines[0]["local_port"] == *fact.local_port.as_ref().expect("a port")
                && Some(lines[0]["state"].as_str()) == state.map(|(_, state)| *state),
            "one true line was expected in the head of {} about {fact:?}: {lines:#?}",
            set.stamp
        );
    }
    for fact in gone {
        let lines = about(fact);
        let waits = lines.iter().all(|line| line["state"] == "TIME_WAIT");
        let may_wait = fact.role == "client" && lines.len() == 1;
        assert!(
            lines.is_empty() || may_wait && waits,
            "{fact:?} is gone: {lines:#?}"
        );
    }
    let pids: HashSet<u64> = there.iter().map(|fact| fact.pid.into()).collect();
    let theirs = listed.iter().filter(|line| {
        let pid = line["pid"].as_u64();
        pid.is_some_and(|pid| pids.contains(&pid))
    });
    assert_eq!(theirs.count(), there.len(), "nothing else is theirs");
}

/// Connections are made all the while, and for some thousands of them the
/// recorder does not run: what is missing in the record lies in its gaps.
fn stopped_under_load() {
    let recorder = Launch::new().args(&["--ring-size", "256"]).start();
    let missing = interrupted(recorder, 3_000, |recorder, stops| {
        recorder.signal(if stops { Signal::STOP } else { Signal::CONT });
    });
    assert!(missing > 0, "a ring of 256 KB was expected to overflow");
}

/// The disk takes nothing for ten seconds, and connections are made all the
/// while. Events wait in memory; if that does not suffice, what is missing lies
/// in gaps.
fn disk_blocks() {
    let disk = BlockingDisk::mount();
    let recorder = Launch::new()
        .in_directory(&disk.path().join("logs"))
        .args(&["--ring-size", "256", "--max-total-size", "200M"])
        .start();
    interrupted(recorder, 10_000, |_, stops| disk.freeze(stops));
}

/// Connections are made, for a while and then for at least so many milliseconds
/// during which the recorder is kept from its work, and then for a while more. Says how
/// many are missing in the record; each of them has to lie in a gap, and what
/// happens afterwards has to be there.
fn interrupted(
    mut recorder: Recorder,
    milliseconds: u32,
    interrupt: impl Fn(&Recorder, bool),
) -> u64 {
    let mut traffic = Traffic::start(&["churn", "127.0.3.5"]);
    // At 2,000 connections a second; a slow machine takes longer.
    let mut wait_for = |connections: u32| {
        for _ in 0..connections / 20 {
            traffic.wait_for(|line| !line["elapsed_ms"].is_null());
        }
    };
    wait_for(1_000);
    interrupt(&recorder, true);
    wait_for(2 * milliseconds);
    interrupt(&recorder, false);
    wait_for(2_000);
    let churn = traffic.finish();
    let connections = churn.line("churn")["connections"].as_array();
    let connections = connections.expect("a list");
    // When it has told of the last of them, there is room in the ring again.
    let last = connections.last().and_then(|last| last[0].as_str());
    recorder.wait_for_closes(&[last.expect("a cookie")]);
    let facts = recorder.play_pair_until_told();
    let log = recorder.stop_with(Signal::TERM, &MAY_LOSE);

    let closed: HashSet<&str> = log
        .lines()
        .filter(|line| line["event"] == "close")
        .filter_map(|line| line["socket"].as_str())
        .collect();
    let gaps = gaps(&log);
    let (mut before, mut missing) = (churn.began, 0);
    for connection in connections {
        let cookie = connection[0].as_str().expect("a cookie");
        let after = connection[1].as_u64().expect("a time");
        if !closed.contains(cookie) {
            missing += 1;
            assert!(
                gaps.iter()
                    .any(|&(from, to)| from <= after + CLOCKS && before <= to + CLOCKS),
                "the connection {cookie} ended between {before} and {after}, which is in no gap: \
                 {gaps:?}"
            );
        }
        before = after;
    }
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
    missing
}

/// A file system that can be told to take nothing.
struct BlockingDisk {
    home: tempfile::TempDir,
}

impl BlockingDisk {
    fn mount() -> Self {
        let home = open_directory();
        let image = home.path().join("image");
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(512 << 20).expect("a file with holes");
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        let disk = Self { home };
        std::fs::create_dir(disk.path()).expect("a directory");
        // Who reads must not have to write.
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .arg(&image)
            .arg(disk.path()));
        disk
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("disk")
    }

    fn freeze(&self, stops: bool) {
        let how = if stops { "--freeze" } else { "--unfreeze" };
        run(Command::new("fsfreeze").arg(how).arg(self.path()));
    }
}

impl Drop for BlockingDisk {
    fn drop(&mut self) {
        // One that is not frozen is not harmed.
        for (program, argument) in [("fsfreeze", "--unfreeze"), ("umount", "-l")] {
            let _ = Command::new(program)
                .arg(argument)
                .arg(self.path())
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn run(command: &mut Command) {
    let status = command.status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{command:?} was expected to work: {status:?}"
    );
}

/// Nothing can be kept with a socket in the kernel. Of TCP all is told without
/// it; that a UDP port was taken is counted as lost, and a look finds the port;
/// its end is told with the process that held it.
fn full_storage() {
    overload::is_on_purpose();
    let mut recorder = Launch::new().args(&["--reconcile", "1"]).start();
    let mut traffic = Traffic::start(&["without-room", "hold"]);
    let said = traffic.wait_until_ready();
    let facts: Vec<Fact> = HELD.iter().map(|(role, _)| said.one(role)).collect();
    wait_for_all(&mut recorder, &facts, &[]);
    recorder.roll();
    let late = traffic.finish();
    let late = ["late-client", "late-server"].map(|role| late.one(role));
    wait_for_all(&mut recorder, &[], &[&facts[..], &late[..]].concat());
    let log = recorder.stop_with(Signal::TERM, &MAY_LOSE);

    let [listener, client, server, udp] = &facts[..] else {
        unreachable!("as many as there are roles")
    };
    log.about(listener).tell(LISTENED, CREATOR, "closed");
    for client in [client, &late[0]] {
        log.about(client).tell(CONNECTED, CREATOR, "closed");
    }
    for server in [server, &late[1]] {
        // Found, if somebody looked before it was used.
        let ways = [INHERITED, FOUND].concat();
        log.about(server).tell(ACCEPTED, &ways, "closed");
    }
    log.about(udp)
        .events(&["discover", "close"])
        .owner(FOUND)
        .addresses();
    let bound = said.line("udp")["at"].as_u64().expect("a time");
    let gaps = gaps(&log);
    assert!(
        gaps.iter()
            .any(|&(from, to)| from <= bound + CLOCKS && said.began <= to + CLOCKS),
        "a gap was expected between {} and {bound}: {gaps:?}",
        said.began
    );
    check_table(&log.sets[log.sets.len() - 1], &facts, &[]);
}

/// The same of connections that other processes accept than the listener's: who
/// accepted is not known, and nobody is said to have made the call who did not.
fn full_storage_of_children() {
    overload::is_on_purpose();
    let mut recorder = Recorder::start();
    let facts = Traffic::play(&["without-room", "fork-accept", "4"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop_with(Signal::TERM, &MAY_LOSE);

    log.about(&facts.one("listener"))
        .tell(LISTENED, CREATOR, "closed");
    for client in facts.all("client") {
        log.about(&client).tell(CONNECTED, CREATOR, "closed");
    }
    let listener = facts.one("listener").pid;
    let servers = facts.all("server");
    assert_eq!(servers.len(), 4);
    for server in servers {
        log.about(&server)
            .events(ACCEPTED)
            .addresses()
            .closed("closed");
        let told = log.lines().filter(|line| line["socket"] == server.cookie);
        for line in told {
            let is_guess = line["owner"] == "inherited" && line["pid"] == listener;
            assert!(
                is_guess || line["pid"] == server.pid,
                "the process {} was expected, or the listener's by inheritance: {line}",
                server.pid
            );
        }
    }
}

/// From when to when something is missing, in microseconds since 1970.
fn gaps(log: &Log) -> Vec<(u64, u64)> {
    let time = |gap: &Value, key: &str| -> u64 {
        let time = gap[key].as_str().and_then(|time| time.parse().ok());
        let time: jiff::Timestamp = time.unwrap_or_else(|| panic!("no time: {gap}"));
        u64::try_from(time.as_microsecond()).expect("a time after 1970")
    };
    log.lines()
        .filter(|line| line["event"] == "gap")
        .map(|gap| (time(gap, "from"), time(gap, "to")))
        .collect()
}

/// Everybody else wants to run, too.
fn no_processor_left() {
    let mut recorder = Recorder::start();
    let busy = Busy::start(50);
    let storm = Traffic::play(&["storm", "300", "127.0.3.6"]);
    let facts = recorder.play_pair_until_told();
    drop(busy);
    let log = recorder.stop_with(Signal::TERM, &MAY_LOSE);
    let closes = log.lines().filter(|line| line["event"] == "close");
    let pid = &storm.line("storm")["pid"];
    let of_storm = closes.filter(|line| line["pid"] == *pid).count();
    let has_gaps = !gaps(&log).is_empty();
    // Both ends of each, and the listener.
    assert!(
        of_storm == 601 || has_gaps && of_storm < 601,
        "601 ends or a gap were expected, not {of_storm}"
    );
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
}

/// Processes that use up the processors until this is dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn start(count: usize) -> Self {
        // Should nobody be left to stop them, they end by themselves.
        let script = "ulimit -t 5; while :; do :; done";
        let start = |_| {
            Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::null())
                .spawn()
                .expect("sh runs")
        };
        Self((0..count).map(start).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
