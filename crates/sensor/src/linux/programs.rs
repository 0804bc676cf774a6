//! Which program a process runs, read at the moment when the kernel says that
//! it begins to.
//!
//! The [proc connector](super::proc_connector) names a process and nothing
//! else; a moment later the process may be gone, and its name with it. So a
//! thread of its own waits for the news and reads `/proc/PID` at once, while
//! the thread that looks at sockets may be busy for many milliseconds. What it
//! finds waits in a queue for that thread to take along.
//!
//! A process that was too short even for this is not named; nothing is made up
//! for it. Where news found no room (the kernel counts them) every process is
//! looked at once more, so that only those are missing that have come and gone
//! meanwhile; how many were not heard of, [`Programs::lost`] says.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event::{ProcessKey, text};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::changes::Holder;
use super::proc_connector::{Connector, ProcessEvent};
use super::procfs;
use crate::{Error, Execution, Observation};

/// So many bytes of the news may wait in the kernel.
const ROOM: usize = 4 << 20;
/// So many observations may wait to be taken.
const MOST: usize = 256 * 1024;
/// How often every process is looked at, where news keep being lost.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How long a process that is gone can still be asked for.
const REST: Duration = Duration::from_secs(5);
/// Of the arguments, as much is kept.
const ARGUMENTS: u64 = 4096;
/// Where cgroup2 is mounted, alone or beside its predecessor.
const CGROUP2: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The thread that reads, and what it has read.
pub(crate) struct Programs {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    found: Mutex<Found>,
    /// There is something to be taken.
    ready: OwnedFd,
    /// The thread is to end.
    stop: OwnedFd,
}

#[derive(Default)]
struct Found {
    waiting: Vec<Observation>,
    /// The processes that were heard of or own sockets, by number.
    known: HashMap<u32, Holder>,
    gone: HashMap<u32, Holder>,
    order: VecDeque<(Instant, u32)>,
    lost: u64,
}

impl Programs {
    /// Starts to listen; `ticks` is how often the clock of `/proc` ticks in a
    /// second.
    pub(crate) fn start(proc: PathBuf, ticks: u64) -> Result<Self, Error> {
        let connector = Connector::open(ROOM)?;
        let shared = Arc::new(Shared {
            found: Mutex::default(),
            ready: signal()?,
            stop: signal()?,
        });
        let listener = Listener {
            shared: Arc::clone(&shared),
            reader: Reader::new(proc, ticks),
        };
        let thread = std::thread::Builder::new()
            .name("programs".to_owned())
            .spawn(move || {
                // Seldom busy, but never late; not permitted without privileges,
                // and no harm then.
                let _ = rustix::process::setpriority_process(None, -15);
                listener.run(connector);
            })
            .map_err(|source| Error::System {
                what: "cannot start a thread".to_owned(),
                source,
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Readable when there is something to be taken.
    pub(crate) fn ready(&self) -> &OwnedFd {
        &self.shared.ready
    }

    /// Takes what was found since the last time.
    pub(crate) fn take(&self, batch: &mut Vec<Observation>) {
        // The eventfd is not ready, which is no failure.
        let _ = rustix::io::read(&self.shared.ready, &mut [0; 8]);
        batch.append(&mut self.shared.found().waiting);
    }

    /// Takes note of the owner of a socket, so that its end is told.
    pub(crate) fn note(&self, holder: Holder) {
        let mut found = self.shared.found();
        found.known.entry(holder.0.pid).or_insert(holder);
    }

    /// The process with this number, also if it has just gone.
    pub(crate) fn find(&self, pid: u32) -> Option<Holder> {
        let found = self.shared.found();
        found
            .known
            .get(&pid)
            .or_else(|| found.gone.get(&pid))
            .copied()
    }

    /// How much was not heard of so far.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.found().lost
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        raise(&self.shared.stop);
        if let Some(thread) = self.thread.take() {
            // Its panic was already reported on standard error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn push(&mut self, observation: Observation) {
        if self.waiting.len() < MOST {
            self.waiting.push(observation);
        } else {
            self.lost += 1;
        }
    }

    fn end(&mut self, pid: u32, now: Instant) {
        while let Some((_, pid)) = self
            .order
            .pop_front_if(|(since, _)| now.duration_since(*since) >= REST)
        {
            self.gone.remove(&pid);
        }
        if let Some(holder) = self.known.remove(&pid) {
            self.push(Observation::Exit(holder.0));
            self.gone.insert(pid, holder);
            self.order.push_back((now, pid));
        }
    }
}

/// The thread.
struct Listener {
    shared: Arc<Shared>,
    reader: Reader,
}

impl Listener {
    fn run(mut self, mut connector: Connector) {
        // When to look around, if news were lost since the last time.
        let mut due: Option<Instant> = None;
        let mut next = Instant::now();
        loop {
            let mut fds = [
                PollFd::new(&connector, PollFlags::IN),
                PollFd::new(&self.shared.stop, PollFlags::IN),
            ];
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return self.give_up(),
            }
            if !fds[1].revents().is_empty() {
                return;
            }
            if connector.receive(|event| self.take(event)).is_err() {
                return self.give_up();
            }
            let lost = connector.lost();
            if lost > 0 {
                self.shared.found().lost += lost;
                due = due.or(Some(next));
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                self.look_around();
                due = None;
                next = Instant::now() + LOOK_AROUND;
            }
            raise(&self.shared.ready);
        }
    }

    /// Nothing more will be heard: a loss, if of no known size.
    fn give_up(&self) {
        self.shared.found().lost += 1;
    }

    fn take(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Fork { parent, child } => self.fork(parent, child),
            ProcessEvent::Exec(pid) => self.exec(pid),
            ProcessEvent::User(pid) if self.shared.found().known.contains_key(&pid) => {
                self.exec(pid);
            }
            ProcessEvent::Exit(pid) => self.shared.found().end(pid, Instant::now()),
            ProcessEvent::User(_) | ProcessEvent::Answer { .. } => {}
        }
    }

    fn fork(&self, parent: u32, child: u32) {
        // One that has gone already owns nothing that anybody could find.
        let Some(holder) = self.reader.holder(child) else {
            return;
        };
        let known = self.shared.found().known.get(&parent).copied();
        let parent = known.or_else(|| self.reader.holder(parent));
        let mut found = self.shared.found();
        found.known.insert(child, holder);
        if let Some((parent, _)) = parent {
            found.push(Observation::Fork {
                parent,
                child: holder.0,
            });
        }
    }

    fn exec(&mut self, pid: u32) {
        let Some(program) = self.reader.program(pid) else {
            return;
        };
        let mut found = self.shared.found();
        found
            .known
            .insert(pid, (program.execution.key, Some(program.execution.uid)));
        if let Some((id, path)) = program.new_group {
            found.push(Observation::Cgroup { id, path });
        }
        found.push(Observation::Exec(Box::new(program.execution)));
    }

    /// Looks at every process, after some news were not heard: each may run
    /// another program by now.
    fn look_around(&mut self) {
        let Ok(pids) = procfs::processes(&self.reader.proc) else {
            return;
        };
        for &pid in &pids {
            self.exec(pid);
        }
        let there: HashSet<u32> = pids.into_iter().collect();
        let mut found = self.shared.found();
        let ended: Vec<u32> = found
            .known
            .keys()
            .filter(|pid| !there.contains(pid))
            .copied()
            .collect();
        for pid in ended {
            found.end(pid, Instant::now());
        }
    }
}

/// Reads what a process is.
struct Reader {
    proc: PathBuf,
    ticks: u64,
    /// The numbers of control groups by their path.
    groups: HashMap<String, Option<u64>>,
}

/// What was read.
struct Program {
    execution: Execution,
    /// Its control group, if it was not met before.
    new_group: Option<(u64, String)>,
}

impl Reader {
    fn new(proc: PathBuf, ticks: u64) -> Self {
        Self {
            proc,
            ticks,
            groups: HashMap::new(),
        }
    }

    fn holder(&self, pid: u32) -> Option<Holder> {
        procfs::process(&self.proc, pid, self.ticks)
    }

    fn program(&mut self, pid: u32) -> Option<Program> {
        // The kernel binds the open directory to the process, so that its
        // number can go to another one meanwhile.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(self.proc.join(pid.to_string()), flags, Mode::empty()).ok()?;
        let exe = readlinkat(&directory, "exe", Vec::new()).ok();
        let cmdline = read(&directory, "cmdline", ARGUMENTS);
        let stat = read(&directory, "stat", 4096)?;
        let status = read(&directory, "status", 4096)?;
        let group = read(&directory, "cgroup", 64 * 1024);
        let start = procfs::parse_start(&stat)?;
        let (cgroup, new_group) = self.group(&group.unwrap_or_default());
        let execution = Execution {
            key: ProcessKey {
                pid,
                start: procfs::start(start, self.ticks)?,
            },
            ppid: parse_parent(&stat)?,
            uid: procfs::parse_effective_uid(&status)?,
            cgroup,
            comm: text::from_bytes(parse_name(&stat)?),
            exe: exe.map(|path| text::from_bytes(path.as_bytes())),
            cmdline: cmdline
                .as_deref()
                .and_then(|bytes| bytes.strip_suffix(b"\0").or(Some(bytes)))
                .filter(|bytes| !bytes.is_empty())
                .map(|bytes| text::join_arguments(bytes.split(|&byte| byte == 0))),
        };
        Some(Program {
            execution,
            new_group,
        })
    }

    /// The number of the control group, and its path if it is new.
    fn group(&mut self, cgroup: &[u8]) -> (Option<u64>, Option<(u64, String)>) {
        let line = cgroup
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(b"0::/"));
        let Some(line) = line else {
            return (None, None);
        };
        let path = text::from_bytes(line);
        if let Some(&id) = self.groups.get(&path) {
            return (id, None);
        }
        let id = CGROUP2.iter().find_map(|mount| {
            let root = Path::new(mount);
            // Only the second hierarchy has this file in its root.
            let is_second = root.join("cgroup.controllers").exists();
            let group = root.join(OsStr::from_bytes(line));
            std::fs::metadata(group)
                .ok()
                .filter(|_| is_second)
                .map(|group| group.ino())
        });
        // Groups come and go; a few of them are worth remembering.
        if self.groups.len() >= 4096 {
            self.groups.clear();
        }
        self.groups.insert(path.clone(), id);
        (id, id.map(|id| (id, format!("/{path}"))))
    }
}

/// The kernel's name in `stat`: between the first `(` and the last `)`.
pub(crate) fn parse_name(stat: &[u8]) -> Option<&[u8]> {
    let begin = stat.iter().position(|&byte| byte == b'(')?;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    stat.get(begin + 1..end)
}

/// The parent in `stat`, the second field after the name.
pub(crate) fn parse_parent(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The beginning of a file of a process.
fn read(directory: &OwnedFd, name: &str, limit: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(limit)
        .read_to_end(&mut content)
        .ok()?;
    Some(content)
}

/// A signal between threads that can be waited for beside other things.
pub(crate) fn signal() -> Result<OwnedFd, Error> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| Error::System {
        what: "cannot make an eventfd".to_owned(),
        source: errno.into(),
    })
}

/// Gives the signal.
pub(crate) fn raise(signal: impl AsFd) {
    // It fails only when the signal has been given more often than a counter
    // of 64 bits can hold.
    let _ = rustix::io::write(signal, &1_u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use event::BootTime;

    use super::*;

    #[test]
    fn reads_a_program() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("7");
        std::fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink("/bin/hostile (x)", directory.join("exe")).unwrap();
        let stat = "7 (a) R 9 (b) S 3 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 250 9 9";
        for (name, content) in [
            ("stat", stat),
            ("status", "Name:\tx\nUid:\t1\t2\t3\t4\n"),
            ("cmdline", "/bin/hostile\0a b\0\0"),
            ("cgroup", "12:pids:/x\n"),
        ] {
            std::fs::write(directory.join(name), content).unwrap();
        }
        let mut reader = Reader::new(tree.path().to_owned(), 100);
        let program = reader.program(7).unwrap();
        assert_eq!(
            program.execution,
            Execution {
                key: ProcessKey {
                    pid: 7,
                    start: BootTime(2_500_000_000),
                },
                ppid: 3,
                uid: 2,
                cgroup: None,
                comm: "a) R 9 (b".to_owned(),
                exe: Some("/bin/hostile (x)".to_owned()),
                cmdline: Some("/bin/hostile 'a b' ''".to_owned()),
            }
        );
        assert_eq!(program.new_group, None);
        assert!(reader.program(8).is_none());
    }

    #[test]
    fn the_end_of_those_that_are_known_is_told() {
        let key = ProcessKey {
            pid: 4,
            start: BootTime(1),
        };
        let mut found = Found::default();
        found.known.insert(4, (key, None));
        let now = Instant::now();
        found.end(4, now);
        found.end(5, now);
        assert_eq!(found.waiting, [Observation::Exit(key)]);
        assert_eq!(found.gone.get(&4), Some(&(key, None)));
        found.end(5, now + REST);
        assert_eq!(found.gone.get(&4), None);
    }

    #[test]
    fn hears_of_a_program_and_of_its_end() {
        // Not permitted: the tests of the whole program say so.
        let Ok(programs) = Programs::start("/proc".into(), procfs::ticks_per_second()) else {
            return;
        };
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read line", "two words"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let mut batch = Vec::new();
        let mut until = |wanted: &dyn Fn(&Observation) -> bool| {
            loop {
                let mut fds = [PollFd::new(programs.ready(), PollFlags::IN)];
                poll(&mut fds, None).unwrap();
                programs.take(&mut batch);
                if let Some(at) = batch.iter().position(wanted) {
                    return batch.swap_remove(at);
                }
            }
        };
        let told = until(&|seen| matches!(seen, Observation::Exec(told) if told.key.pid == pid));
        let Observation::Exec(told) = told else {
            panic!("{told:?}")
        };
        assert_eq!(told.ppid, std::process::id());
        let cmdline = told.cmdline.clone().unwrap();
        assert!(cmdline.ends_with("'two words'"), "{cmdline}");
        drop(child.stdin.take());
        child.wait().unwrap();
        until(&|seen| matches!(seen, Observation::Exit(key) if *key == told.key));
        assert_eq!(programs.find(pid).map(|(key, _)| key), Some(told.key));
    }

    #[test]
    fn a_program_that_is_gone_at_once_has_a_name() {
        let Ok(programs) = Programs::start("/proc".into(), procfs::ticks_per_second()) else {
            return;
        };
        let mut batch = Vec::new();
        // On a busy machine some are missed.
        let mut caught = false;
        for _ in 0..1000 {
            let mut child = Command::new("/bin/true").spawn().unwrap();
            let pid = child.id();
            child.wait().unwrap();
            let gone =
                |seen: &Observation| matches!(seen, Observation::Exit(key) if key.pid == pid);
            let named = |seen: &Observation| {
                matches!(seen, Observation::Exec(told)
                    if told.key.pid == pid && told.cmdline.as_deref() == Some("/bin/true"))
            };
            programs.take(&mut batch);
            caught |= batch.iter().any(gone) && batch.iter().any(named);
            if caught {
                break;
            }
        }
        assert!(caught);
    }
}
