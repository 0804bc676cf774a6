//! Processes in a container's control group.

use std::path::{Path, PathBuf};

use crate::harness::expect::{CONNECTED, CREATOR};
use crate::harness::traffic::wall_micros;
use crate::harness::{Recorder, Traffic};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    ("cgroup_container", Needs::Cgroup2, container),
    (
        "cgroup_container_short_process",
        Needs::Cgroup2,
        short_process,
    ),
    (
        "cgroup_container_older_than_the_recorder",
        Needs::Cgroup2,
        older,
    ),
];

/// Where cgroup2 is mounted.
pub(crate) fn mount_point() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// A control group as docker makes it under systemd; removed when dropped.
struct Container {
    id: String,
    slice: PathBuf,
    scope: PathBuf,
}

impl Container {
    fn new() -> Self {
        let id = format!("{:016x}", wall_micros() ^ 0xd0c5_e2e0_0000_0000).repeat(4);
        let slice = mount_point()
            .expect("cgroup2 is mounted")
            .join(format!("e2e{}.slice", &id[..16]));
        let scope = slice.join(format!("docker-{id}.scope"));
        std::fs::create_dir_all(&scope).expect("root can make a control group");
        Self { id, slice, scope }
    }

    /// What the log is to call it.
    fn name(&self) -> String {
        format!("docker:{}", &self.id[..12])
    }

    fn path(&self) -> &str {
        self.scope.to_str().expect("a plain path")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let remove = |path: &Path| std::fs::remove_dir(path);
        let _ = remove(&self.scope).and_then(|()| remove(&self.slice));
    }
}

fn container() {
    let container = Container::new();
    let mut recorder = Recorder::start();
    let facts = Traffic::play(&["in-cgroup", container.path(), "pair"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    log.about(&facts.one("client"))
        .tell(CONNECTED, CREATOR, "closed")
        .value("connect", "container", container.name());
    log.about(&facts.one("server"))
        .value("accept", "container", container.name());
}

fn short_process() {
    let container = Container::new();
    let mut recorder = Recorder::start();
    let facts = Traffic::play(&["in-cgroup", container.path(), "short", "5"]);
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    for client in facts.all("client") {
        log.about(&client)
            .tell(CONNECTED, CREATOR, "closed")
            .value("connect", "container", container.name())
            .value("close", "container", container.name());
    }
}

fn older() {
    let container = Container::new();
    let mut traffic = Traffic::start(&["in-cgroup", container.path(), "hold"]);
    traffic.wait_until_ready();
    let mut recorder = Recorder::start();
    let facts = traffic.finish();
    recorder.wait_for_closes(&facts.cookies());
    let log = recorder.stop();
    log.about(&facts.one("listener"))
        .value("snapshot", "container", container.name());
    log.about(&facts.one("late-client"))
        .value("connect", "container", container.name());
}
