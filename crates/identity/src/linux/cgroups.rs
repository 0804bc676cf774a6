//! From the number of a control group to its path.
//!
//! The kernel names a group of cgroup2 by a number, which is the inode number
//! of its directory. Most paths are known because the kernel told when the
//! group was made; those from before are looked up once: by a file handle made
//! of the number, which the kernel resolves at once but only for the
//! privileged, or else by walking the hierarchy, within limits of size, time
//! and frequency.
//!
//! Whether handles work here is not guessed from the kernel's version: the
//! handle of the root, whose number can be seen, is tried first.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::text;
use rustix::fs::{Mode, OFlags};

use super::cache::Cache;

/// How many groups are remembered at least.
const REMEMBER: usize = 8192;
/// How long a number stays unknown before it is looked up again.
const KEEP_NONE: Duration = Duration::from_secs(2);
/// How long there is no second walk after one.
const WALK_PAUSE: Duration = Duration::from_secs(2);
/// A walk ends after so many directories …
const WALK_DIRECTORIES: usize = 4096;
/// … or after so long.
const WALK_TIME: Duration = Duration::from_millis(50);
/// The kernel's type of handle for a file of kernfs (`FILEID_KERNFS`).
const FILEID_KERNFS: libc::c_int = 0xfe;

#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchy: Option<Hierarchy>,
    known: Cache<u64, Arc<str>>,
    unknown: Cache<u64, Instant>,
    walked: Option<Instant>,
}

/// The mounted cgroup2 hierarchy.
#[derive(Debug)]
struct Hierarchy {
    path: PathBuf,
    /// Where open files show their paths: `/proc/self/fd`.
    descriptors: PathBuf,
    /// The root, where handles can be resolved.
    handles: Option<OwnedFd>,
}

impl Cgroups {
    /// Groups of the hierarchy that is mounted there, if it is mounted.
    pub(super) fn new(mount: Option<&Path>, proc: &Path) -> Self {
        let hierarchy = mount.map(|path| Hierarchy::open(path, proc));
        let mut known = Cache::new(REMEMBER);
        if let Some(root) = mount.and_then(|path| std::fs::metadata(path).ok()) {
            known.insert(root.ino(), Arc::from("/"));
        }
        Self {
            hierarchy,
            known,
            unknown: Cache::new(REMEMBER),
            walked: None,
        }
    }

    /// Takes in what the kernel told.
    pub(super) fn note(&mut self, id: u64, path: Arc<str>) {
        self.unknown.remove(&id);
        self.known.insert(id, path);
    }

    /// The path of a group below the root of the hierarchy.
    pub(super) fn path(&mut self, id: u64, now: Instant) -> Option<Arc<str>> {
        if let Some(path) = self.known.get(&id) {
            return Some(Arc::clone(path));
        }
        if self.unknown.get(&id).is_some_and(|until| now < *until) {
            return None;
        }
        let found = self.look_up(id, now);
        if found.is_none() {
            self.unknown.insert(id, now + KEEP_NONE);
        }
        found
    }

    fn look_up(&mut self, id: u64, now: Instant) -> Option<Arc<str>> {
        let hierarchy = self.hierarchy.as_ref()?;
        if let Some(root) = &hierarchy.handles {
            let path: Arc<str> = Arc::from(hierarchy.resolve(root, id)?);
            self.known.insert(id, Arc::clone(&path));
            return Some(path);
        }
        if self.walked.is_some_and(|walked| now < walked + WALK_PAUSE) {
            return None;
        }
        self.walked = Some(now);
        walk(&hierarchy.path, |found, path| {
            self.known.insert(found, Arc::from(path));
        });
        self.known.get(&id).cloned()
    }
}

impl Hierarchy {
    fn open(path: &Path, proc: &Path) -> Self {
        let mut hierarchy = Self {
            path: path.to_owned(),
            descriptors: proc.join("self/fd"),
            handles: None,
        };
        hierarchy.handles = hierarchy.try_handles();
        hierarchy
    }

    /// The open root, if the handle of the root leads back to it.
    fn try_handles(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.path, flags, Mode::empty()).ok()?;
        let number = rustix::fs::fstat(&root).ok()?.st_ino;
        (self.resolve(&root, number)? == "/").then_some(root)
    }

    /// Where the group of that number is.
    fn resolve(&self, root: &OwnedFd, id: u64) -> Option<String> {
        let group = open_by_number(root, id)?;
        let link = self.descriptors.join(group.as_raw_fd().to_string());
        let target = rustix::fs::readlink(link, Vec::new()).ok()?;
        let below = target
            .as_bytes()
            .strip_prefix(self.path.as_os_str().as_bytes())?;
        if below.is_empty() {
            return Some("/".to_owned());
        }
        below.starts_with(b"/").then(|| text::from_bytes(below))
    }
}

/// Opens the directory of a group of which only the number is known.
fn open_by_number(root: &OwnedFd, id: u64) -> Option<OwnedFd> {
    /// `struct file_handle` with room for the one type of handle used here.
    #[repr(C)]
    struct Handle {
        length: libc::c_uint,
        kind: libc::c_int,
        id: [u8; 8],
    }
    let mut handle = Handle {
        length: 8,
        kind: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the kernel reads the header and, as its `length` says, the eight
    // bytes behind it, all of which are part of `handle`.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            root.as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    let opened = i32::try_from(opened).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Some(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Visits every directory below `root`, the upper levels first.
fn walk(root: &Path, mut visit: impl FnMut(u64, String)) {
    let begun = Instant::now();
    let mut level = vec![(root.to_owned(), String::new())];
    let mut directories = 0;
    while !level.is_empty() {
        let mut next = Vec::new();
        for (directory, path) in level {
            directories += 1;
            if directories > WALK_DIRECTORIES || begun.elapsed() > WALK_TIME {
                return;
            }
            let Ok(entries) = std::fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let name = entry.file_name();
                    let path = format!("{path}/{}", text::from_bytes(name.as_bytes()));
                    visit(entry.ino(), path.clone());
                    next.push((entry.path(), path));
                }
            }
        }
        level = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_walk_finds_what_handles_cannot() {
        let tree = tempfile::tempdir().unwrap();
        let leaf = tree.path().join("system.slice/a.service");
        std::fs::create_dir_all(&leaf).unwrap();
        let mut cgroups = Cgroups::new(Some(tree.path()), Path::new("/proc"));
        assert!(cgroups.hierarchy.as_ref().unwrap().handles.is_none());
        let now = Instant::now();
        assert_eq!(cgroups.path(number(tree.path()), now).as_deref(), Some("/"));
        assert_eq!(
            cgroups.path(number(&leaf), now).as_deref(),
            Some("/system.slice/a.service")
        );
    }

    /// Each kernel that knows handles of control groups must lead from the
    /// number of a group to the same path as a walk does.
    #[test]
    fn handles_and_a_walk_agree() {
        let proc = Path::new("/proc");
        let Some(mount) = super::super::access::cgroup2_mount(proc) else {
            eprintln!("skipped: no cgroup2");
            return;
        };
        let hierarchy = Hierarchy::open(&mount, proc);
        let Some(root) = &hierarchy.handles else {
            eprintln!("skipped: no handles");
            return;
        };
        let mut groups = Vec::new();
        walk(&mount, |id, path| groups.push((id, path)));
        for (id, path) in groups {
            // A group may be removed in between.
            if let Some(resolved) = hierarchy.resolve(root, id) {
                assert_eq!(resolved, path);
            }
        }
        assert_eq!(hierarchy.resolve(root, u64::MAX), None);
    }

    #[test]
    fn what_is_not_there_is_not_looked_for_all_the_time() {
        let tree = tempfile::tempdir().unwrap();
        let mut cgroups = Cgroups::new(Some(tree.path()), Path::new("/proc"));
        let now = Instant::now();
        assert_eq!(cgroups.path(u64::MAX, now), None);
        let leaf = tree.path().join("late");
        std::fs::create_dir(&leaf).unwrap();
        let id = number(&leaf);
        assert_eq!(cgroups.path(id, now), None);
        assert_eq!(cgroups.path(id, now + KEEP_NONE / 2), None);
        assert_eq!(cgroups.path(id, now + KEEP_NONE).as_deref(), Some("/late"));
    }

    #[test]
    fn what_the_kernel_told_needs_no_hierarchy() {
        let mut cgroups = Cgroups::new(None, Path::new("/proc"));
        let now = Instant::now();
        assert_eq!(cgroups.path(7, now), None);
        cgroups.note(7, "/a.service".into());
        assert_eq!(cgroups.path(7, now).as_deref(), Some("/a.service"));
    }
}
