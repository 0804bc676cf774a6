//! The network namespaces of the machine: which there are, and how to stand in
//! one for a moment.
//!
//! A namespace is known by the inode number of its file, the same in
//! `/proc/PID/ns/net` and where it is mounted (`/run/netns`, where `ip netns`
//! and container engines keep theirs). A namespace that has neither a process
//! nor a mount there, only an open descriptor somewhere, is not found.
//!
//! To look into another one a thread must enter it, which needs
//! `CAP_SYS_ADMIN`. It is always a thread of its own that ends afterwards:
//! one that failed to come back would look at the wrong machine for good.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// Where namespaces are mounted.
pub(crate) const MOUNTS: [&str; 2] = ["run/netns", "run/docker/netns"];

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// Its inode number.
    pub(crate) inode: u32,
    /// A process in it; none if it is only mounted.
    pub(crate) pid: Option<u32>,
    /// A file by which it can be entered.
    pub(crate) path: PathBuf,
}

impl Namespace {
    /// Does its file still lead to it?
    pub(crate) fn is_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.ino() == u64::from(self.inode))
    }
}

/// The namespaces that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Our own.
    pub(crate) own: Option<u32>,
    /// The others, each once.
    pub(crate) others: Vec<Namespace>,
}

/// Our own network namespace.
pub(crate) fn own(proc: &Path) -> Option<u32> {
    read_link(&proc.join("self/ns/net"))
}

/// Finds all namespaces of `pids` below `proc` (usually `/proc`), and those that
/// are mounted below `root` (usually `/`).
pub(crate) fn find(root: &Path, proc: &Path, pids: &[u32]) -> Namespaces {
    let own = own(proc);
    let mut others = BTreeMap::new();
    for &pid in pids {
        // A process that has gone, or that may not be looked into, is in none.
        // The latter are counted when their descriptors are read.
        let inode = read_link(&proc.join(format!("{pid}/ns/net")));
        if let Some(inode) = inode.filter(|_| inode != own) {
            others.entry(inode).or_insert(pid);
        }
    }
    with_mounted(root, proc, own, others)
}

/// Adds those that are mounted to those of processes, which are known.
pub(crate) fn with_mounted(
    root: &Path,
    proc: &Path,
    own: Option<u32>,
    of_processes: BTreeMap<u32, u32>,
) -> Namespaces {
    let namespace = |(inode, pid)| Namespace {
        inode,
        pid: Some(pid),
        path: proc.join(format!("{pid}/ns/net")),
    };
    let mut others: Vec<Namespace> = of_processes.into_iter().map(namespace).collect();
    for directory in MOUNTS {
        let Ok(entries) = std::fs::read_dir(root.join(directory)) else {
            continue;
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let inode = std::fs::metadata(&path).ok().map(|file| file.ino());
            let Some(inode) = inode.and_then(|inode| u32::try_from(inode).ok()) else {
                continue;
            };
            if own != Some(inode) && others.iter().all(|other| other.inode != inode) {
                let pid = None;
                others.push(Namespace { inode, pid, path });
            }
        }
    }
    Namespaces { own, others }
}

/// Runs `look` in a thread that is in the namespace.
pub(crate) fn within<T: Send>(
    namespace: &Namespace,
    look: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let failed = |what: &str, source: io::Error| Error::System {
        what: format!("cannot {what} network namespace {}", namespace.inode),
        source,
    };
    let file = File::open(&namespace.path).map_err(|error| failed("open", error))?;
    // The process may have gone and its number come back elsewhere; and what is
    // mounted may be another file altogether, which setns refuses.
    let found = file.metadata().map_err(|error| failed("open", error))?;
    if found.ino() != u64::from(namespace.inode) {
        return Err(failed("find", io::ErrorKind::NotFound.into()));
    }
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|errno| failed("enter", errno.into()))?;
                look()
            })
            .map_err(|error| failed("start a thread for", error))?
            .join()
            .unwrap_or_else(|_| Err(failed("look into", io::Error::other("the thread failed"))))
    })
}

/// The number in a link that reads `net:[INODE]`.
fn read_link(path: &Path) -> Option<u32> {
    let target = std::fs::read_link(path).ok()?;
    parse_link(target.as_os_str().as_encoded_bytes())
}

fn parse_link(target: &[u8]) -> Option<u32> {
    let digits = target.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn finds_those_of_processes_and_those_that_are_mounted() {
        let tree = tempfile::tempdir().unwrap();
        let proc = tree.path().join("proc");
        for (pid, target) in [
            ("self", "net:[1]"),
            ("5", "net:[1]"),
            ("6", "net:[2]"),
            ("7", "net:[2]"),
            ("8", "net:[x]"),
        ] {
            let directory = proc.join(pid).join("ns");
            std::fs::create_dir_all(&directory).unwrap();
            symlink(target, directory.join("net")).unwrap();
        }
        let mounts = tree.path().join("run/netns");
        std::fs::create_dir_all(&mounts).unwrap();
        std::fs::write(mounts.join("blue"), "").unwrap();

        let found = find(tree.path(), &proc, &[5, 6, 7, 8, 9]);
        assert_eq!(found.own, Some(1));
        let of_process: Vec<_> = found.others.iter().filter(|n| n.pid.is_some()).collect();
        assert_eq!(of_process.len(), 1);
        assert_eq!((of_process[0].inode, of_process[0].pid), (2, Some(6)));
        let mounted = found.others.iter().find(|n| n.pid.is_none()).unwrap();
        assert_eq!(mounted.path, mounts.join("blue"));
    }

    #[test]
    fn a_file_that_is_no_namespace_is_not_entered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inode = u32::try_from(file.as_file().metadata().unwrap().ino()).unwrap();
        let namespace = Namespace {
            inode,
            pid: None,
            path: file.path().to_owned(),
        };
        assert!(within(&namespace, || Ok(())).is_err());
        assert!(namespace.is_there());
        let other = Namespace {
            inode: inode.wrapping_add(1),
            ..namespace
        };
        assert!(within(&other, || Ok(())).is_err());
        assert!(!other.is_there());
    }
}
