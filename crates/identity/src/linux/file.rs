//! Reads files of others: never more than a limit, never waiting for one that
//! turns out to be a pipe or a device.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Opens `name` below an open directory.
pub(super) fn open_at(directory: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(directory, name, FLAGS, Mode::empty())?)
}

/// Opens a file.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, FLAGS, Mode::empty())?)
}

/// The content of a file below `/proc`, up to `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(open(path)?, limit)
}

/// The content of a regular file, up to `limit` bytes; none if it is something
/// else.
pub(super) fn read_regular(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = open(path)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Ok(None);
    }
    read_open(file, limit).map(Some)
}

/// The same for a file below an open directory.
pub(super) fn read_at(directory: impl AsFd, name: &str, limit: usize) -> io::Result<Vec<u8>> {
    read_open(open_at(directory, name)?, limit)
}

/// The rest of an open file, up to `limit` bytes.
pub(super) fn read_open(file: impl AsFd, limit: usize) -> io::Result<Vec<u8>> {
    const FIRST: usize = 4096;
    let mut content = vec![0; limit.min(FIRST)];
    let mut length = 0;
    loop {
        if length == content.len() {
            if length >= limit {
                return Ok(content);
            }
            content.resize(limit.min(length.saturating_mul(2)), 0);
        }
        let room = content.get_mut(length..).unwrap_or_default();
        match rustix::io::read(&file, room) {
            Ok(0) => {
                content.truncate(length);
                return Ok(content);
            }
            Ok(read) => length += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        std::fs::write(&path, &content).unwrap();
        for limit in [0, 1, 4096, 4097, 9999, 10_000, 10_001, 1 << 20] {
            let kept = content.len().min(limit);
            assert_eq!(read(&path, limit).unwrap(), content[..kept]);
        }
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(read_regular(&path, 100).unwrap(), None);
    }
}
