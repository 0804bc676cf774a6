//! Machines that lack something: rights, files, descriptors. What can be
//! recorded is recorded, and what cannot is said.

use rustix::process::Signal;

use crate::harness::expect::{CONNECTED, CREATOR};
use crate::harness::log::Checks;
use crate::harness::{Launch, Log, Recorder, Traffic};
use crate::{Case, Needs};

const NOBODY: u32 = 65534;

pub(super) const CASES: &[Case] = &[
    ("hardship_unprivileged", Needs::Root, unprivileged),
    ("hardship_64_descriptors", Needs::Root, few_descriptors),
    ("hardship_no_passwd", Needs::Root, no_passwd),
    ("hardship_no_btf", Needs::Root, no_btf),
    ("hardship_no_cgroup2", Needs::Cgroup2, no_cgroup2),
];

fn unprivileged() {
    let recorder = Launch::new().run_by(NOBODY).start();
    degraded(&log_of_a_listener(recorder, Some(NOBODY)));
}

fn few_descriptors() {
    let mut recorder = Launch::new()
        .wrapped_by(&["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .start();
    let facts = Traffic::play(&["pair"]);
    recorder.wait_for_closes(&facts.cookies());
    recorder.roll();
    let log = recorder.stop();
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed");
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
