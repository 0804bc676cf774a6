//! Linux: `/proc`, cgroup2, the name service and systemd's unit files.
//!
//! [`Identifier`] joins the readers beside it and remembers what may be
//! remembered. Nothing about a process is kept here: whoever asks has a table
//! of processes and knows when one ends.

mod access;
mod cache;
mod cgroups;
mod file;
mod modules;
mod name_service;
pub mod parse;
mod process;
mod told;
mod units;
mod users;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Degradation, Mapping, Module, Process, ProcessKey, Service, ServiceKind, text};

use self::cache::Cache;
use self::cgroups::Cgroups;
use self::parse::{Place, Unit, UnitName};
use self::process::TickClock;
use self::told::Files;
use self::users::Users;
use crate::ModulesError;

/// Where systemd looks for units, the most important place first.
const UNIT_DIRS: [&str; 14] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
    "/usr/share/systemd/system",
];
/// How long a unit's description is believed.
const KEEP_SERVICE: Duration = Duration::from_mins(10);
/// How long it is believed that there is none.
const KEEP_NO_DESCRIPTION: Duration = Duration::from_mins(1);
/// How many units and paths are remembered at least.
const REMEMBER: usize = 4096;

/// Where the system's facts are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The mounted `proc`.
    pub proc: PathBuf,
    /// The mounted root of the cgroup2 hierarchy, if there is one.
    pub cgroup2: Option<PathBuf>,
    /// The table of users.
    pub passwd: PathBuf,
    /// Where systemd looks for units, the most important place first.
    pub unit_dirs: Vec<PathBuf>,
    /// Whether the system's name service is asked for users before the table.
    pub name_service: bool,
}

impl Roots {
    /// The places of this machine.
    pub fn system() -> Self {
        let proc = PathBuf::from("/proc");
        Self {
            cgroup2: access::cgroup2_mount(&proc),
            proc,
            passwd: PathBuf::from("/etc/passwd"),
            unit_dirs: UNIT_DIRS.map(PathBuf::from).to_vec(),
            name_service: true,
        }
    }
}

/// Says who owns a socket.
#[derive(Debug)]
pub struct Identifier {
    roots: Roots,
    clock: TickClock,
    /// What the paths of the system's groups begin with.
    manager_root: String,
    users: Users,
    cgroups: Cgroups,
    places: Cache<String, Place>,
    services: Cache<Unit, Described>,
    files: Files,
}

#[derive(Debug)]
struct Described {
    service: Service,
    until: Instant,
}

impl Identifier {
    /// An identifier that reads there.
    pub fn new(roots: Roots) -> Self {
        let first = file::read(&roots.proc.join("1/cgroup"), 64 * 1024).unwrap_or_default();
        Self {
            clock: TickClock::system(&roots.proc),
            manager_root: parse::manager_root(&first),
            users: Users::new(roots.passwd.clone(), roots.name_service),
            cgroups: Cgroups::new(roots.cgroup2.as_deref(), &roots.proc),
            places: Cache::new(REMEMBER),
            services: Cache::new(REMEMBER),
            files: Files::new(),
            roots,
        }
    }

    /// Reads a live process. None if there is none of that number, or if it is
    /// not the one that started at `key.start`.
    pub fn process(&mut self, key: ProcessKey) -> Option<Process> {
        let facts = process::read(&self.roots.proc, key, self.clock)?;
        let place = parse::places(&facts.cgroup, &self.manager_root);
        let exe = facts.exe.map(|path| text::from_bytes(&path));
        let comm = text::from_bytes(&facts.comm);
        let user = facts.uid.and_then(|uid| self.user(uid));
        Some(Process {
            pid: key.pid,
            ppid: Some(facts.ppid),
            start: Some(facts.start),
            name: parse::image_name(exe.as_deref(), &comm),
            exe,
            cmdline: facts.cmdline,
            uid: facts.uid,
            user: user.map(|name| name.as_ref().to_owned()),
            service: place.unit.map(|unit| self.service(unit, Instant::now())),
            container: place.container,
        })
    }

    /// The name of a user. Waits at most a fifth of a second for the system's
    /// name service, and not at all while that is known to be slow.
    pub fn user(&mut self, uid: u32) -> Option<Arc<str>> {
        self.users.name(uid, Instant::now())
    }

    /// Takes in the path of a control group that the kernel told.
    pub fn note_cgroup(&mut self, id: u64, path: impl Into<Arc<str>>) {
        self.cgroups.note(id, path.into());
    }

    /// The path of the control group of that number below the root of cgroup2.
    pub fn cgroup_path(&mut self, id: u64) -> Option<Arc<str>> {
        self.cgroups.path(id, Instant::now())
    }

    /// The unit and the container that the path of a control group speaks of.
    pub fn belongs(&mut self, cgroup_path: &str) -> (Option<Service>, Option<String>) {
        let place = if let Some(place) = self.places.get(cgroup_path) {
            place.clone()
        } else {
            let place = parse::place(cgroup_path, &self.manager_root);
            self.places.insert(cgroup_path.to_owned(), place.clone());
            place
        };
        let service = place.unit.map(|unit| self.service(unit, Instant::now()));
        (service, place.container)
    }

    /// The files that a live process has mapped for execution: the main
    /// executable first, then by address. With `key.start` known, another
    /// process that has the number by now is [`ModulesError::Gone`].
    pub fn modules(&self, key: ProcessKey) -> Result<Vec<Module>, ModulesError> {
        modules::read(&self.roots.proc, key, self.clock)
    }

    /// The same for a process that is gone, from what the kernel told when it
    /// mapped the files, its program first. A file that has been deleted or
    /// replaced since is marked, where that can be told.
    pub fn modules_told(&mut self, mappings: &[Mapping]) -> Vec<Module> {
        self.files.modules(mappings, Instant::now())
    }

    /// What keeps owners from being known on this machine.
    pub fn degradations(&self) -> Vec<Degradation> {
        let mut found = access::degradations(&self.roots);
        found.extend(self.users.degradations());
        found
    }

    fn service(&mut self, unit: Unit, now: Instant) -> Service {
        if let Some(known) = self.services.get(&unit)
            && now < known.until
        {
            return known.service.clone();
        }
        let service = describe(&self.roots.unit_dirs, &unit);
        let keep = if service.description.is_some() {
            KEEP_SERVICE
        } else {
            KEEP_NO_DESCRIPTION
        };
        self.services.insert(
            unit,
            Described {
                service: service.clone(),
                until: now + keep,
            },
        );
        service
    }
}

fn describe(unit_dirs: &[PathBuf], unit: &Unit) -> Service {
    let name = UnitName::new(&unit.name);
    Service {
        description: name.and_then(|name| units::description(unit_dirs, &name, unit.manager)),
        kind: name
            .filter(|name| name.kind == "service")
            .map(|_| ServiceKind::Own),
        name: unit.name.clone(),
    }
}

#[cfg(test)]
mod tests;
