//! The log directory: opened once, then only ever spoken of by its descriptor.
//!
//! Logs are evidence, and the directory may lie where others may write. So it
//! is opened without following a link in its last part and refused if anybody
//! could forge files in it. Every file is made and opened below the open
//! descriptor, by a plain name, without following links, and only if it is new
//! (`O_EXCL`) or a regular file; renaming the directory or a parent turns
//! nothing elsewhere. That it happened is seen by asking ([`Dir::place`]).
//!
//! Everything that this crate asks of the operating system about files is here,
//! so that another system needs a twin of this file alone.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;

/// The mode of a log directory, whatever the umask.
const DIRECTORY_MODE: u32 = 0o750;

/// The mode of a file in it, whatever the umask.
const FILE_MODE: u32 = 0o640;

/// An open log directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What became of the directory since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing.
    Kept,
    /// Its path leads elsewhere or nowhere; what is in it is still somewhere.
    Moved,
    /// It is gone, and what was in it too.
    Deleted,
}

/// A regular file in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) length: u64,
}

impl Dir {
    /// Opens the directory, which is made if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        // Takes `/` and `/.` from the end, which would follow a link.
        let path: PathBuf = std::path::absolute(path)
            .map_err(|source| Error::create(path, source))?
            .components()
            .collect();
        let made = make(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::open(&path, flags, Mode::empty()).map_err(|error| refusal(&path, error))?;
        if made {
            fs::fchmod(&fd, Mode::from_raw_mode(DIRECTORY_MODE))
                .map_err(|error| Error::create(&path, error.into()))?;
        }
        let stat = fs::fstat(&fd).map_err(|error| Error::read(&path, error.into()))?;
        let owner = stat.st_uid;
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return Err(Error::ForeignOwner { path, owner });
        }
        if Mode::from_raw_mode(stat.st_mode).contains(Mode::WOTH) {
            return Err(Error::WorldWritable { path });
        }
        Ok(Self { fd, path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of it is.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Is it still where it was opened? Not known is taken for yes.
    pub(crate) fn place(&self) -> Place {
        let Ok(held) = fs::fstat(&self.fd) else {
            return Place::Kept;
        };
        if held.st_nlink == 0 {
            return Place::Deleted;
        }
        match fs::lstat(&self.path) {
            Ok(found) if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino) => Place::Kept,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Place::Moved,
            Err(_) => Place::Kept,
        }
    }

    /// Makes a file that is not there yet, to append to.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_at(name, flags)?;
        fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
        Ok(file)
    }

    /// Opens a file to read and write it, and makes it if it is not there.
    pub(crate) fn create_or_open(&self, name: &str) -> io::Result<File> {
        let file = regular(self.open_at(name, OFlags::RDWR | OFlags::CREATE)?)?;
        fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
        Ok(file)
    }

    /// Opens a file that is there, to read it.
    pub(crate) fn read(&self, name: &str) -> io::Result<File> {
        regular(self.open_at(name, OFlags::RDONLY)?)
    }

    /// Opens a file that is there, to read and shorten it.
    pub(crate) fn modify(&self, name: &str) -> io::Result<File> {
        regular(self.open_at(name, OFlags::RDWR)?)
    }

    /// Is there anything of that name?
    pub(crate) fn exists(&self, name: &str) -> bool {
        fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Renames a file, over another of the new name if there is one.
    pub(crate) fn rename(&self, old: &str, new: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.fd, old, &self.fd, new)?)
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Makes names that were given or taken away survive a power failure.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }

    /// The regular files in the directory, in no particular order. Names that
    /// are not UTF-8 are left out: none of them is ours.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::Dir::read_from(&self.fd)? {
            let found = found?;
            let Ok(name) = found.file_name().to_str() else {
                continue;
            };
            // Not all file systems tell the type, and what is gone by now is
            // no longer of interest.
            let Ok(stat) = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                entries.push(Entry {
                    name: name.to_owned(),
                    length: u64::try_from(stat.st_size).unwrap_or(0),
                });
            }
        }
        Ok(entries)
    }

    /// How many bytes the whole file system holds.
    pub(crate) fn capacity(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.fd)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // NONBLOCK: a pipe of that name must not hold us up. It means nothing
        // for a regular file.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(FILE_MODE);
        Ok(fs::openat(self.fd.as_fd(), name, flags, mode)?.into())
    }
}

/// Has an open file no name any more?
pub(crate) fn is_deleted(file: &File) -> bool {
    fs::fstat(file).is_ok_and(|stat| stat.st_nlink == 0)
}

/// Makes the directory and its parents. Returns whether it was not there.
fn make(path: &Path) -> Result<bool, Error> {
    let mut builder = DirBuilder::new();
    builder.mode(DIRECTORY_MODE);
    let made = match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                let parents = builder.recursive(true).create(parent);
                parents.map_err(|source| cannot_make(path, source))?;
            }
            builder.recursive(false).create(path)
        }
        made => made,
    };
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // An existing directory on a read-only disk is still worth opening:
        // what is wrong with it may be something else.
        Err(_) if path.is_dir() => Ok(false),
        Err(error) => Err(cannot_make(path, error)),
    }
}

fn cannot_make(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotADirectory => Error::NotADirectory {
            path: path.to_path_buf(),
        },
        _ => Error::create(path, source),
    }
}

/// Why the directory cannot be opened. The system's word for a symbolic link
/// is the same as for a file.
fn refusal(path: &Path, error: Errno) -> Error {
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    let path = path.to_path_buf();
    match io::Error::from(error).kind() {
        _ if is_link => Error::SymbolicLink { path },
        io::ErrorKind::NotADirectory => Error::NotADirectory { path },
        _ => Error::create(&path, error.into()),
    }
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn a_planted_link_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(&temp.path().join("logs")).unwrap();
        let victim = temp.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        symlink(&victim, dir.path_of("a")).unwrap();
        assert!(dir.create("a").is_err());
        assert!(dir.create_or_open("a").is_err());
        assert!(dir.read("a").is_err());
        assert!(dir.modify("a").is_err());
        assert_eq!(dir.entries().unwrap(), []);
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    }

    #[test]
    fn a_planted_pipe_does_not_hold_us_up() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(&temp.path().join("logs")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        fs::mknodat(&dir.fd, "pipe", FileType::Fifo, mode, 0).unwrap();
        assert!(dir.read("pipe").is_err());
        assert!(dir.create_or_open("pipe").is_err());
    }

    #[test]
    fn files_are_new_and_0640() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(&temp.path().join("logs")).unwrap();
        let file = dir.create("a").unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(
            dir.create("a").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn the_directory_may_be_renamed_meanwhile() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(&temp.path().join("logs")).unwrap();
        std::fs::rename(temp.path().join("logs"), temp.path().join("moved")).unwrap();
        dir.create("a").unwrap();
        assert!(temp.path().join("moved/a").exists());
        assert_eq!(dir.place(), Place::Moved);
    }

    #[test]
    fn what_became_of_the_directory_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("parent/logs");
        let dir = Dir::open(&path).unwrap();
        assert_eq!(dir.place(), Place::Kept);
        std::fs::rename(temp.path().join("parent"), temp.path().join("moved")).unwrap();
        assert_eq!(dir.place(), Place::Moved);
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(dir.place(), Place::Moved, "another one has its name");
        std::fs::remove_dir(temp.path().join("moved/logs")).unwrap();
        assert_eq!(dir.place(), Place::Deleted);
        assert_eq!(Dir::open(&path).unwrap().place(), Place::Kept);
    }
}
