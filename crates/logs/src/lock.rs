//! One recorder for each log directory.
//!
//! The lock is the kernel's, on an open file, so it goes with the process that
//! holds it, however that ends: a file that a killed recorder left behind locks
//! nothing. What stands in the file, the process number, is for people and for
//! the message to a second recorder only. The file stays when the recorder
//! ends; to remove it would open a moment in which two could lock two files of
//! one name.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};

use crate::dir::Dir;
use crate::error::Error;

/// The name of the lock file.
pub(crate) const LOCK_NAME: &str = "portreporter.lock";

/// A held lock; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a log directory, or says who has it.
    pub(crate) fn take(dir: &Dir) -> Result<Self, Error> {
        let path = dir.path_of(LOCK_NAME);
        let mut file = dir
            .create_or_open(LOCK_NAME)
            .map_err(|source| Error::create(&path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: dir.path().to_path_buf(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(Error::create(&path, source)),
        }
        // On a full disk the number is missing; the lock holds all the same,
        // and retention may be about to make room.
        let _ = write_pid(&mut file);
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let first = Lock::take(&dir).unwrap();
        let Err(Error::Locked { pid, .. }) = Lock::take(&dir) else {
            panic!("two locks");
        };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        Lock::take(&dir).unwrap();
    }

    #[test]
    fn a_stale_file_is_no_obstacle_and_its_text_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        std::fs::write(dir.path_of(LOCK_NAME), "4294967295 and some more text").unwrap();
        let _lock = Lock::take(&dir).unwrap();
        let text = std::fs::read_to_string(dir.path_of(LOCK_NAME)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_holder_without_a_number_still_holds() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let _lock = Lock::take(&dir).unwrap();
        std::fs::write(dir.path_of(LOCK_NAME), b"\xff\xfe\0").unwrap();
        let error = Lock::take(&dir).unwrap_err();
        assert!(matches!(error, Error::Locked { pid: None, .. }));
        assert!(error.to_string().contains("another recorder writes"));
    }
}
