//! What the scenarios are told with: a running recorder ([`recorder`]), the
//! log sets that it left ([`log`]), traffic whose truth is known ([`traffic`]),
//! expectations that show the matching lines when they fail ([`expect`]), and
//! places and programs for everything that is not a recorder ([`stage`]).
//! What a busy machine may do to them is told in [`overload`].

pub(crate) mod expect;
pub(crate) mod log;
pub(crate) mod overload;
pub(crate) mod ports;
pub(crate) mod recorder;
pub(crate) mod stage;
pub(crate) mod tail;
pub(crate) mod traffic;

pub(crate) use self::log::Log;
pub(crate) use self::recorder::{Launch, Recorder};
pub(crate) use self::traffic::{Fact, Facts, Traffic};

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

static PROGRAMS: OnceLock<TempDir> = OnceLock::new();

/// A copy of the recorder that every user may execute, wherever the checkout is.
pub(crate) fn portreporter() -> PathBuf {
    programs().join("portreporter")
}

/// A link to it under the name of the original PortQry.
pub(crate) fn portqry() -> PathBuf {
    programs().join("portqry")
}

/// A copy of the traffic program that every user may execute.
pub(crate) fn traffic() -> PathBuf {
    programs().join("traffic")
}

/// Removes the copies. Statics are not dropped.
pub(crate) fn clean_up() {
    if let Some(programs) = PROGRAMS.get() {
        let _ = std::fs::remove_dir_all(programs.path());
    }
}

/// A new directory that every user may enter.
pub(crate) fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    set_mode(directory.path(), 0o755);
    directory
}

/// Sets the mode of a file, whatever the umask.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("a mode can be set");
}

/// Copies a program in a process of its own. Were the copy ever open for
/// writing in this one, a child that another scenario forks at that moment
/// would keep it so, and running it would fail with ETXTBSY.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--").args([from, to]).status();
    let copied = status.expect("cp runs").success();
    assert!(copied, "cp {} {}", from.display(), to.display());
}

fn programs() -> &'static Path {
    let directory = PROGRAMS.get_or_init(|| {
        let directory = open_directory();
        let recorder = Path::new(env!("CARGO_BIN_EXE_portreporter"));
        // Cargo builds the examples beside the tests: target/debug/examples.
        let example = recorder.with_file_name("examples").join("traffic");
        for (program, name) in [(recorder, "portreporter"), (&example, "traffic")] {
            let copy = directory.path().join(name);
            assert!(program.exists(), "{} is not built", program.display());
            copy_program(program, &copy);
            set_mode(&copy, 0o755);
        }
        let link = directory.path().join("portqry");
        std::os::unix::fs::symlink("portreporter", link).expect("a link");
        directory
    });
    directory.path()
}
