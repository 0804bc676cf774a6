//! Who the processes are, each looked at once.
//!
//! The crate `identity` knows everything about a process, from a dozen small
//! files. A table shows five things, and a machine may have thousands of
//! processes: so for a table three calls are made for each process (the owner
//! of its directory, which the kernel sets to the effective user; the link to
//! its executable; its control group), shared between threads, and `identity`
//! is asked only what they mean. Where everything is printed, it is asked for
//! everything.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use event::{BootTime, Process, ProcessKey, text};
use identity::parse::{self, Place};
use identity::{Identifier, Roots};
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat_raw};
use rustix::io::retry_on_intr;

/// For fewer processes another thread is not worth its start.
const PROCESSES_PER_THREAD: usize = 64;
/// More threads than this only wait for each other.
const THREADS: usize = 4;
/// No path is longer (`PATH_MAX`).
const PATH: usize = 4096;

/// What is known of a process, as far as it was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Person {
    /// The image name.
    pub(super) name: Option<String>,
    /// The path of the executable.
    pub(super) exe: Option<String>,
    /// The effective user ID.
    pub(super) uid: Option<u32>,
    /// The user's name.
    pub(super) user: Option<String>,
    /// The systemd unit.
    pub(super) unit: Option<Arc<str>>,
    /// The container.
    pub(super) container: Option<Arc<str>>,
    /// Everything, where everything was asked for.
    pub(super) process: Option<Box<Process>>,
}

impl Person {
    fn whole(process: Process) -> Self {
        Self {
            name: process.name.clone(),
            exe: process.exe.clone(),
            uid: process.uid,
            user: process.user.clone(),
            unit: process
                .service
                .as_ref()
                .map(|unit| unit.name.as_str().into()),
            container: process.container.as_deref().map(Arc::from),
            process: Some(Box::new(process)),
        }
    }
}

/// The processes that were met, by their numbers; none for one that had gone.
#[derive(Debug, Default)]
pub(super) struct Register(HashMap<u32, Option<Person>>);

impl Register {
    /// The process, if it was met and was there.
    pub(super) fn get(&self, pid: u32) -> Option<&Person> {
        self.0.get(&pid)?.as_ref()
    }

    /// All that were there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Person)> {
        self.0
            .iter()
            .filter_map(|(&pid, person)| Some((pid, person.as_ref()?)))
    }
}

type UnitAndContainer = (Option<Arc<str>>, Option<Arc<str>>);

/// Gets to know processes.
pub(super) struct People {
    whole: bool,
    identifier: Option<Identifier>,
    register: Register,
    /// Some who will probably be met.
    expected: HashMap<u32, Option<Person>>,
    /// The control group of the service manager.
    manager_root: Option<String>,
    /// By the content of the process' `cgroup`.
    places: HashMap<Vec<u8>, UnitAndContainer>,
    users: HashMap<u32, Option<String>>,
}

impl People {
    /// Nobody yet. `whole`: everything about a process is to be printed.
    pub(super) fn new(whole: bool) -> Self {
        Self {
            whole,
            identifier: None,
            register: Register::default(),
            expected: HashMap::new(),
            manager_root: None,
            places: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// The process, if it was met and was there.
    pub(super) fn get(&self, pid: u32) -> Option<&Person> {
        self.register.get(pid)
    }

    /// All that were met.
    pub(super) fn register(&self) -> &Register {
        &self.register
    }

    /// What tells more about them.
    pub(super) fn identifier(&mut self) -> &mut Identifier {
        self.identifier
            .get_or_insert_with(|| Identifier::new(Roots::system()))
    }

    /// Looks at a process that will probably be met, at a time when there is
    /// nothing else to do.
    pub(super) fn expect(&mut self, pid: u32) {
        let person = if self.whole {
            self.know(pid)
        } else {
            glance(pid).map(|glance| self.recognise(glance))
        };
        self.expected.insert(pid, person);
    }

    /// Looks at those processes that were not met yet.
    pub(super) fn meet(&mut self, pids: impl Iterator<Item = u32>) {
        let mut new: Vec<u32> = pids.collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|pid| !self.register.0.contains_key(pid));
        new.retain(|pid| {
            let expected = self.expected.remove(pid);
            let unexpected = expected.is_none();
            self.register
                .0
                .extend(expected.map(|person| (*pid, person)));
            unexpected
        });
        if self.whole {
            for pid in new {
                let person = self.know(pid);
                self.register.0.insert(pid, person);
            }
            return;
        }
        for (pid, glance) in glances(&new) {
            let person = glance.map(|glance| self.recognise(glance));
            self.register.0.insert(pid, person);
        }
    }

    /// Everything about a process.
    fn know(&mut self, pid: u32) -> Option<Person> {
        let start = BootTime(0);
        let process = self.identifier().process(ProcessKey { pid, start });
        process.map(Person::whole)
    }

    /// A user's name, for each user asked once.
    fn user(&mut self, uid: u32) -> Option<String> {
        if let Some(known) = self.users.get(&uid) {
            return known.clone();
        }
        let name = self.identifier().user(uid);
        let name = name.map(|name| name.as_ref().to_owned());
        self.users.insert(uid, name.clone());
        name
    }

    fn recognise(&mut self, glance: Glance) -> Person {
        let user = self.user(glance.uid);
        let manager_root = self.manager_root.get_or_insert_with(|| {
            parse::manager_root(&std::fs::read("/proc/1/cgroup").unwrap_or_default())
        });
        let (unit, container) = self
            .places
            .entry(glance.cgroup)
            .or_insert_with_key(|cgroup| {
                let Place { unit, container } = parse::places(cgroup, manager_root);
                (unit.map(|unit| unit.name.into()), container.map(Arc::from))
            })
            .clone();
        let exe = glance.exe.map(|exe| text::from_bytes(&exe));
        let comm = text::from_bytes(glance.comm.trim_ascii_end());
        Person {
            name: parse::image_name(exe.as_deref(), &comm),
            exe,
            uid: Some(glance.uid),
            user,
            unit,
            container,
            process: None,
        }
    }
}

/// What three calls tell of a process.
struct Glance {
    uid: u32,
    exe: Option<Vec<u8>>,
    /// The kernel's name; read only where there is no executable.
    comm: Vec<u8>,
    cgroup: Vec<u8>,
}

/// Glances at all these processes.
fn glances(pids: &[u32]) -> Vec<(u32, Option<Glance>)> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS)
        .min(pids.len() / PROCESSES_PER_THREAD + 1);
    let look = |pids: &[u32]| -> Vec<_> { pids.iter().map(|&pid| (pid, glance(pid))).collect() };
    let size = pids.len().div_ceil(threads).max(1);
    let (own, others) = pids.split_at(size.min(pids.len()));
    std::thread::scope(|scope| {
        let others: Vec<_> = others
            .chunks(size)
            .map(|part| scope.spawn(move || look(part)))
            .collect();
        let mut all = look(own);
        for other in others {
            all.extend(other.join().unwrap_or_default());
        }
        all
    })
}

fn glance(pid: u32) -> Option<Glance> {
    let directory = openat(
        CWD,
        format!("/proc/{pid}"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    // A file of a process belongs to root if the process may not be dumped; its
    // directory belongs to the effective user all the same.
    let uid = rustix::fs::fstat(&directory).ok()?.st_uid;
    let mut target = [MaybeUninit::uninit(); PATH];
    let exe = readlinkat_raw(&directory, "exe", &mut target)
        .ok()
        .map(|(target, _)| target.to_vec());
    Some(Glance {
        uid,
        comm: match exe {
            Some(_) => Vec::new(),
            None => read(&directory, "comm").unwrap_or_default(),
        },
        exe,
        cgroup: read(&directory, "cgroup").unwrap_or_default(),
    })
}

/// The content of a small file, in no more memory than it needs: most are a
/// few dozen bytes, and each page that is touched for the first time costs as
/// much as a call.
fn read(directory: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let file = openat(
        directory,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let mut content = Vec::new();
    let mut part = [0; 1024];
    loop {
        let length = retry_on_intr(|| rustix::io::read(&file, &mut part)).ok()?;
        content.extend_from_slice(part.get(..length).unwrap_or_default());
        if length < part.len() {
            return Some(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_agrees_with_a_long_look() {
        let own = std::process::id();
        let [quick, whole] = [false, true].map(|whole| {
            let mut people = People::new(whole);
            people.meet([own, own, u32::MAX].into_iter());
            assert!(people.get(u32::MAX).is_none());
            people.get(own).unwrap().clone()
        });
        assert_eq!(quick.name, whole.name);
        assert_eq!(quick.exe, whole.exe);
        assert_eq!((quick.uid, quick.user), (whole.uid, whole.user));
        assert_eq!((quick.unit, quick.container), (whole.unit, whole.container));
        assert!(quick.name.is_some() && quick.process.is_none());
        assert!(whole.process.is_some());
    }

    #[test]
    fn everybody_is_glanced_at_once() {
        let pids: Vec<u32> = std::iter::repeat_n(std::process::id(), 1000).collect();
        let seen = glances(&pids);
        assert_eq!(seen.len(), pids.len());
        assert!(seen.iter().all(|(_, glance)| glance.is_some()));
        assert_eq!(glances(&[]).len(), 0);
    }
}
