//! Who holds which socket: for every process, what its file descriptors are.
//!
//! The kernel's tables name a socket's inode but no process; a process'
//! descriptors, links below `/proc/PID/fd` that read `socket:[INODE]`, close
//! the gap. There is one link to be read for every open file of the machine,
//! which costs more than everything else in a snapshot. So the walk takes as
//! few system calls as there can be: one to open a process' directory, one or
//! two to list it, one for each link, all relative to open directories, and it
//! is shared between threads.
//!
//! Where the kernel lets us, it takes the walk by itself ([`super::task_file`]).
//!
//! A descriptor that is opened, closed or passed on during the walk may be
//! missed. A process that may not be looked into is counted, never dropped in
//! silence.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::{FxBuildHasher, FxHashMap};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, readlinkat_raw, statat};
use rustix::io::Errno;

use crate::Error;

/// So many processes are taken by a thread at a time.
const CHUNK: usize = 8;
/// More threads than this only wait for each other.
const THREADS: usize = 4;
/// For fewer processes another thread is not worth its start.
const PROCESSES_PER_THREAD: usize = 64;

/// Which processes hold which sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    /// The processes by inode, as they were found; none where they were handed
    /// over.
    found: FxHashMap<u32, Option<Vec<u32>>>,
    /// So many processes could not be looked into.
    pub(crate) hidden: usize,
}

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// These processes, ascending, each once.
    By(Vec<u32>),
    /// No process that was found.
    ByNobody,
    /// They were asked for before.
    Again,
}

impl Holders {
    /// From inodes and processes, in any order.
    pub(crate) fn new(pairs: &[(u32, u32)], hidden: usize) -> Self {
        let mut found = FxHashMap::with_capacity_and_hasher(pairs.len(), FxBuildHasher);
        for &(inode, pid) in pairs {
            let holders = found
                .entry(inode)
                .or_insert_with(|| Some(Vec::with_capacity(1)));
            if let Some(holders) = holders {
                holders.push(pid);
            }
        }
        // Nobody holds the sockets without an inode.
        found.remove(&0);
        Self { found, hidden }
    }

    /// Hands over the processes that hold the socket with this inode.
    pub(crate) fn take(&mut self, inode: u32) -> Held {
        let Some(place) = self.found.get_mut(&inode) else {
            return Held::ByNobody;
        };
        let Some(mut holders) = place.take() else {
            return Held::Again;
        };
        if holders.len() > 1 {
            holders.sort_unstable();
            holders.dedup();
        }
        Held::By(holders)
    }

    /// The first of the processes that hold the socket with this inode.
    pub(crate) fn first(&self, inode: u32) -> Option<u32> {
        self.found.get(&inode)?.as_ref()?.iter().min().copied()
    }
}

/// Looks into every process of `pids` below `proc` (usually `/proc`).
pub(crate) fn walk(proc: &Path, pids: &[u32]) -> Result<Holders, Error> {
    let directory = openat(
        CWD,
        proc,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::System {
        what: format!("cannot open {}", proc.display()),
        source: errno.into(),
    })?;
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS)
        .min(pids.len() / PROCESSES_PER_THREAD + 1);
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut pairs, mut hidden) = (Vec::new(), 0);
        loop {
            let start = next.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(rest) = pids.get(start..).filter(|rest| !rest.is_empty()) else {
                return (pairs, hidden);
            };
            for &pid in rest.iter().take(CHUNK) {
                if look_into(&directory, pid, &mut pairs) == Sight::Hidden {
                    hidden += 1;
                }
            }
        }
    };
    let (pairs, hidden) = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let (mut pairs, mut hidden) = work();
        for other in others {
            if let Ok((more, more_hidden)) = other.join() {
                pairs.extend(more);
                hidden += more_hidden;
            }
        }
        (pairs, hidden)
    });
    Ok(Holders::new(&pairs, hidden))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Seen,
    Hidden,
}

/// Adds the sockets of one process.
fn look_into(proc: &OwnedFd, pid: u32, pairs: &mut Vec<(u32, u32)>) -> Sight {
    let directory = match openat(
        proc,
        format!("{pid}/fd"),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(directory) => directory,
        Err(errno) => return refused(proc, pid, errno),
    };
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(errno) => return refused(proc, pid, errno),
        };
        let name: &CStr = entry.file_name();
        if name.to_bytes().first() == Some(&b'.') {
            continue;
        }
        let mut target = [MaybeUninit::<u8>::uninit(); 32];
        match readlinkat_raw(&directory, name, &mut target) {
            Ok((target, _)) => {
                pairs.extend(parse_socket(target).map(|inode| (inode, pid)));
            }
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => return refused(proc, pid, errno),
            Err(_) => {}
        }
    }
    Sight::Seen
}

/// What a failure says. Of a process that ends at this moment the kernel says
/// that it may not be looked into, too.
fn refused(proc: &OwnedFd, pid: u32, errno: Errno) -> Sight {
    let forbidden = matches!(errno, Errno::ACCESS | Errno::PERM);
    if forbidden && statat(proc, pid.to_string(), AtFlags::empty()).is_ok() {
        Sight::Hidden
    } else {
        Sight::Seen
    }
}

/// The inode in `socket:[INODE]`.
pub(crate) fn parse_socket(target: &[u8]) -> Option<u32> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;
    use crate::linux::procfs;

    /// A `/proc` of processes, each with its descriptors.
    fn tree(processes: &[(u32, &[&str])]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (pid, targets) in processes {
            let directory = tree.path().join(pid.to_string()).join("fd");
            std::fs::create_dir_all(&directory).unwrap();
            for (fd, target) in targets.iter().enumerate() {
                symlink(target, directory.join(fd.to_string())).unwrap();
            }
        }
        tree
    }

    fn of(holders: &Holders, inode: u32) -> Vec<u32> {
        let mut holders = holders.clone();
        let first = holders.first(inode);
        let all = match holders.take(inode) {
            Held::By(all) => {
                assert_eq!(holders.take(inode), Held::Again);
                all
            }
            Held::ByNobody => Vec::new(),
            Held::Again => panic!("nobody asked before"),
        };
        assert_eq!(first, all.first().copied());
        all
    }

    #[test]
    fn finds_every_holder_once() {
        let tree = tree(&[
            (20, &["socket:[5]", "/dev/null", "socket:[5]"]),
            (3, &["socket:[5]", "pipe:[7]", "anon_inode:[eventfd]"]),
            (4, &["socket:[6]", "/tmp/socket:[5]"]),
        ]);
        let pids = procfs::processes(tree.path()).unwrap();
        let holders = walk(tree.path(), &pids).unwrap();
        assert_eq!(of(&holders, 5), [3, 20]);
        assert_eq!(of(&holders, 6), [4]);
        assert_eq!(of(&holders, 7), [0; 0]);
        assert_eq!(holders.hidden, 0);
    }

    #[test]
    fn an_inode_of_zero_has_no_holders() {
        let tree = tree(&[(1, &["socket:[0]"])]);
        assert_eq!(of(&walk(tree.path(), &[1]).unwrap(), 0), [0; 0]);
    }

    #[test]
    fn a_process_that_has_gone_is_not_hidden() {
        let tree = tree(&[(1, &["socket:[9]"])]);
        let holders = walk(tree.path(), &[1, 2]).unwrap();
        assert_eq!(holders.hidden, 0);
        assert_eq!(of(&holders, 9), [1]);
    }

    #[test]
    fn finds_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = u32::try_from(rustix::fs::fstat(&listener).unwrap().st_ino).unwrap();
        let own = std::process::id();
        let holders = walk(Path::new("/proc"), &[own]).unwrap();
        assert_eq!(of(&holders, inode), [own]);
    }

    proptest! {
        #[test]
        fn only_a_socket_is_a_socket(target in proptest::collection::vec(any::<u8>(), 0..20), inode: u32) {
            if let Some(inode) = parse_socket(&target) {
                let parsed = String::from_utf8(target).unwrap();
                prop_assert!(parsed.contains(&inode.to_string()));
            }
            prop_assert_eq!(parse_socket(format!("socket:[{inode}]").as_bytes()), Some(inode));
        }
    }
}
