//! Directories that cannot, or must not, hold logs.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use jiff::tz::TimeZone;
use logs::{Error, ErrorKind, Logs};

use super::support::*;

fn refusal(dir: &Path) -> Error {
    match Logs::open(options(dir), run("a"), TimeZone::UTC, START) {
        Ok(_) => panic!("{} was accepted", dir.display()),
        Err(error) => error,
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn it_is_made_with_its_parents() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/b/logs");
    let (mut logs, _) = open(&dir);
    roll(&mut logs, START);
    logs.close(START).unwrap();
    assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o750);
    let names = names(&dir);
    assert_eq!(
        names,
        [
            "PR-EVENTS-26-11-22-9-5-0.jsonl",
            "PR-INITIAL-26-11-22-9-5-0.log",
            "PR-PIDS-26-11-22-9-5-0.log",
            "PR-PORTS-26-11-22-9-5-0.log",
            "portreporter.lock"
        ]
    );
    for name in names {
        let mode = dir.join(&name).metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o640, "{name}");
    }
}

#[test]
fn a_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for path in [file.clone(), file.join(""), file.join("logs")] {
        let error = refusal(&path);
        assert!(matches!(error, Error::NotADirectory { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::CannotCreate);
        assert!(error.to_string().contains("not a directory"));
    }
    assert_eq!(std::fs::read(file).unwrap(), b"mine");
}

#[test]
fn a_symbolic_link_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let link = temp.path().join("link");
    symlink(&target, &link).unwrap();
    let dangling = temp.path().join("dangling");
    symlink(temp.path().join("nowhere"), &dangling).unwrap();
    for path in [link.clone(), link.join(""), link.join("."), dangling] {
        let error = refusal(&path);
        assert!(matches!(error, Error::SymbolicLink { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::CannotCreate);
    }
    assert_eq!(names(&target), [""; 0]);
    // In the middle of a path it is the administrator's own business.
    open(&link.join("logs"));
}

#[test]
fn a_directory_that_everybody_may_write_to_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    for mode in [0o777, 0o1777, 0o702] {
        set_mode(temp.path(), mode);
        let error = refusal(temp.path());
        assert!(matches!(error, Error::WorldWritable { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::CannotCreate);
        assert!(error.to_string().contains("chmod o-w"));
    }
    set_mode(temp.path(), 0o770);
    open(temp.path());
}

#[test]
#[ignore = "needs root: gives a directory to another user"]
fn a_directory_of_somebody_else_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    chown(temp.path(), Some(65_534), None).unwrap();
    let error = refusal(temp.path());
    assert!(
        matches!(error, Error::ForeignOwner { owner: 65_534, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Permission);
}

/// As root everything is allowed, so this is tried by a thread that is not.
#[test]
fn without_permission_it_is_said_so() {
    let temp = tempfile::tempdir().unwrap();
    set_mode(temp.path(), 0o755);
    let dir = temp.path().join("logs");
    std::fs::create_dir(&dir).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(&dir, Some(65_534), Some(65_534)).unwrap();
    }
    set_mode(&dir, 0o555);
    let errors = std::thread::spawn(move || {
        if is_root {
            let nobody = rustix::process::Uid::from_raw(65_534);
            // Of this thread alone.
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        [refusal(&dir), refusal(&dir.join("new"))]
    });
    for error in errors.join().unwrap() {
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Permission);
    }
}

#[test]
fn a_second_recorder_is_refused_with_the_number_of_the_first() {
    let temp = tempfile::tempdir().unwrap();
    let (first, _) = open(temp.path());
    let error = refusal(temp.path());
    assert_eq!(error.kind(), ErrorKind::Permission);
    let pid = format!("(PID {})", std::process::id());
    assert!(error.to_string().contains(&pid), "{error}");
    first.close(START).unwrap();
    open(temp.path());
}
