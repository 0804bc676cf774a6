//! The modules of a process that is gone, from what the kernel told when it
//! mapped them.
//!
//! The kernel tells of the code only, and of the path at that time. Two things
//! are found by a look at the file, if it is still the same one (file system and
//! inode): where the beginning of the module was, and whether the path still
//! leads to it. Neither may be guessed from another file, and the process may
//! have seen another tree than we do (a container): a file counts as deleted or
//! replaced only if its directory is still of the same file system, and if
//! another file of the process is where the process saw it.
//!
//! The recorder's thread must not wait for a file system that has gone away.
//! Directories are opened only if the kernel has them at hand, which it has just
//! after they were used; otherwise nothing is said. Programs run again and
//! again, so what was found is believed for a moment.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use event::{Mapping, Module, text};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, major, minor};

use super::cache::Cache;
use super::file;
use super::parse;

/// How long it is believed what was found.
const BELIEVE: Duration = Duration::from_secs(1);
/// How many files are remembered at least.
const REMEMBER: usize = 256;
/// What the kernel puts behind the path of a file that is gone.
const GONE: &str = " (deleted)";

/// Looks at files.
#[derive(Debug)]
pub(super) struct Files {
    seen: Cache<Key, (Found, Instant)>,
    page: u64,
}

/// A part of a file: path, file system, inode, offset.
type Key = (Vec<u8>, (u32, u32), u64, u64);

/// What a path leads to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The same file. The part lies so far behind its beginning in memory, if
    /// the file tells.
    Same(Option<u64>),
    /// Another file or none, in a directory of the same file system.
    Other,
    /// It cannot be told.
    Unknown,
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            seen: Cache::new(REMEMBER),
            page: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
        }
    }

    /// The modules, of which the first is the program; the others by address.
    pub(super) fn modules(&mut self, mappings: &[Mapping], now: Instant) -> Vec<Module> {
        let found: Vec<(&Mapping, Found)> = mappings
            .iter()
            .filter(|mapping| parse::is_file(&mapping.path))
            .map(|mapping| (mapping, self.look(mapping, now)))
            .collect();
        let sees_the_same = found
            .iter()
            .any(|(_, found)| matches!(found, Found::Same(_)));
        let mut modules: Vec<Module> = found
            .into_iter()
            .map(|(mapping, found)| {
                let mut path = text::from_bytes(&mapping.path);
                if found == Found::Other && sees_the_same {
                    path.push_str(GONE);
                }
                let before = match found {
                    Found::Same(Some(before)) => before,
                    // As most linkers lay it out.
                    _ => mapping.offset,
                };
                Module {
                    path,
                    base: mapping.address.saturating_sub(before),
                }
            })
            .collect();
        if let Some((_, others)) = modules.split_first_mut() {
            others.sort_by_key(|module| module.base);
        }
        modules
    }

    fn look(&mut self, mapping: &Mapping, now: Instant) -> Found {
        if mapping.path.ends_with(GONE.as_bytes()) {
            return Found::Unknown;
        }
        let key = (
            mapping.path.clone(),
            mapping.device,
            mapping.inode,
            mapping.offset,
        );
        if let Some(&(found, until)) = self.seen.get(&key)
            && now < until
        {
            return found;
        }
        let found = look(mapping, self.page).unwrap_or(Found::Unknown);
        self.seen.insert(key, (found, now + BELIEVE));
        found
    }
}

/// Looks where a path leads to; none if it cannot be told.
fn look(mapping: &Mapping, page: u64) -> Option<Found> {
    let slash = mapping.path.iter().rposition(|&byte| byte == b'/')?;
    let (directory, name) = mapping.path.split_at_checked(slash + 1)?;
    let directory: OwnedFd = rustix::fs::openat2(
        rustix::fs::CWD,
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::CACHED,
    )
    .ok()?;
    if device(&rustix::fs::fstat(&directory).ok()?) != mapping.device {
        return None;
    }
    let is_same = |stat: &Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && device(stat) == mapping.device
            && stat.st_ino == mapping.inode
    };
    match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_same(&stat) => {}
        Ok(_) | Err(rustix::io::Errno::NOENT) => return Some(Found::Other),
        Err(_) => return None,
    }
    let before = || {
        let name = std::str::from_utf8(name).ok()?;
        let file = file::open_at(&directory, name).ok()?;
        if !is_same(&rustix::fs::fstat(&file).ok()?) {
            return None;
        }
        let start = file::read_open(&file, parse::ELF_LIMIT).ok()?;
        let base = parse::base(&start, mapping.address, mapping.offset, page)?;
        mapping.address.checked_sub(base)
    };
    Some(Found::Same(before()))
}

fn device(stat: &Stat) -> (u32, u32) {
    (major(stat.st_dev), minor(stat.st_dev))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use super::*;

    fn mapping(path: &Path, address: u64) -> Mapping {
        let found = std::fs::metadata(path).unwrap();
        Mapping {
            path: path.to_str().unwrap().into(),
            address,
            offset: 0x1000,
            device: (major(found.dev()), minor(found.dev())),
            inode: found.ino(),
        }
    }

    fn names(modules: &[Module]) -> Vec<(&str, u64)> {
        modules
            .iter()
            .map(|module| {
                let name = module.path.rsplit('/').next().unwrap();
                (name, module.base)
            })
            .collect()
    }

    #[test]
    fn what_was_deleted_or_replaced_since_is_marked() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files = ["program", "same", "deleted", "replaced"].map(|name| {
            std::fs::write(path(name), name).unwrap();
            path(name)
        });
        let addresses = [0x9000, 0x4000, 0x3000, 0x2000];
        let mappings: Vec<Mapping> = std::iter::zip(&files, addresses)
            .map(|(file, address)| mapping(file, address))
            .collect();
        std::fs::remove_file(path("deleted")).unwrap();
        std::fs::write(path("new"), "new").unwrap();
        std::fs::rename(path("new"), path("replaced")).unwrap();
        let modules = Files::new().modules(&mappings, Instant::now());
        assert_eq!(
            names(&modules),
            [
                ("program", 0x8000),
                ("replaced (deleted)", 0x1000),
                ("deleted (deleted)", 0x2000),
                ("same", 0x3000),
            ]
        );
        // None of these is where the process saw it.
        let modules = Files::new().modules(&mappings[2..], Instant::now());
        assert_eq!(names(&modules), [("deleted", 0x2000), ("replaced", 0x1000)]);
        // What the kernel marked is marked once; another file system says nothing.
        let mut odd = [
            mappings[1].clone(),
            mappings[2].clone(),
            mappings[3].clone(),
        ];
        odd[1].path.extend(GONE.bytes());
        odd[2].device.0 += 1;
        let modules = Files::new().modules(&odd, Instant::now());
        assert_eq!(
            names(&modules),
            [
                ("same", 0x3000),
                ("replaced", 0x1000),
                ("deleted (deleted)", 0x2000),
            ]
        );
    }

    #[test]
    fn it_is_looked_again_after_a_moment() {
        let directory = tempfile::tempdir().unwrap();
        let [kept, gone] = ["kept", "gone"].map(|name| directory.path().join(name));
        std::fs::write(&kept, "").unwrap();
        std::fs::write(&gone, "").unwrap();
        let mappings = [mapping(&kept, 0x4000), mapping(&gone, 0x8000)];
        let mut files = Files::new();
        let now = Instant::now();
        assert_eq!(names(&files.modules(&mappings, now))[1].0, "gone");
        std::fs::remove_file(&gone).unwrap();
        assert_eq!(names(&files.modules(&mappings, now))[1].0, "gone");
        let later = files.modules(&mappings, now + BELIEVE);
        assert_eq!(names(&later)[1].0, "gone (deleted)");
    }

    #[test]
    fn memory_that_looks_like_a_file_is_no_module() {
        let mapping = Mapping {
            path: b"/SYSV0000002a (deleted)".to_vec(),
            address: 0x1000,
            offset: 0,
            device: (0, 1),
            inode: 3,
        };
        assert_eq!(Files::new().modules(&[mapping], Instant::now()), []);
    }
}
