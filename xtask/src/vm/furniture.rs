//! What is in every machine: a busybox, our programs, and what they need.
//!
//! The end-to-end tests look for the programs where cargo has put them, so
//! everything has the path that it has here. One thing is different: where the
//! tests expect the recorder, there is its release build. An emulated processor
//! is slow enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::archive::Archive;
use super::programs::Programs;
use super::stdout_of;

/// Where busybox may be, linked without libraries (package `busybox-static`).
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// Of use to whoever looks around in a machine; taken along if they are here.
const TOOLS: [&str; 4] = [
    "/usr/sbin/bpftool",
    "/usr/bin/strace",
    "/bin/ss",
    "/usr/bin/perf",
];

/// The programs of the tests that busybox lacks.
const LDD: &str = "#!/bin/sh\nexec /lib64/ld-linux-x86-64.so.2 --list \"$@\"\n";

const USERS: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
";

/// Puts everything together. `more` are files or directories of this machine
/// that are wanted too.
pub(super) fn archive(programs: &Programs, more: &[PathBuf]) -> anyhow::Result<Archive> {
    let mut archive = Archive::default();
    archive.program("/init", include_str!("init.sh"))?;
    let busybox = BUSYBOX
        .iter()
        .find_map(|path| fs::read(path).ok())
        .context("no busybox (package busybox-static)")?;
    archive.program("/bin/busybox", busybox)?;
    archive.program("/usr/local/bin/ldd", LDD)?;
    archive.file("/etc/passwd", USERS)?;
    archive.file("/etc/group", "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")?;
    archive.file("/etc/nsswitch.conf", "passwd: files\ngroup: files\n")?;
    for directory in ["/proc", "/sys", "/dev", "/tmp", "/root", "/run", "/var/log"] {
        archive.directory(directory)?;
    }

    for tool in TOOLS.map(Path::new) {
        if let (true, Some(name)) = (tool.is_file(), tool.file_name()) {
            let place = Path::new("/usr/local/bin").join(name);
            program(&mut archive, tool, &place)?;
        }
    }
    for (from, to) in programs.places() {
        program(&mut archive, from, to)?;
        let name = to.file_name().context("a program without a name")?;
        archive.link(Path::new("/usr/local/bin").join(name), to)?;
    }
    if let Some(tests) = &programs.tests {
        // Its name has a hash in it.
        archive.link("/usr/local/bin/e2e", tests)?;
    }
    for path in more {
        add(&mut archive, &std::path::absolute(path)?)?;
    }
    Ok(archive)
}

/// Adds a file, or all that is in a directory, at its own path.
fn add(archive: &mut Archive, path: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    if !metadata.is_dir() {
        return program(archive, path, path);
    }
    archive.directory(path)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Links would lead out of it, or round in circles.
        if !entry.file_type()?.is_symlink() {
            add(archive, &entry.path())?;
        }
    }
    Ok(())
}

/// Adds a file of this machine and, if it is a program, the libraries that it
/// needs.
fn program(archive: &mut Archive, from: &Path, to: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let contents = fs::read(from).with_context(|| from.display().to_string())?;
    let is_executable = fs::metadata(from)?.permissions().mode() & 0o111 != 0;
    let is_elf = contents.starts_with(b"\x7fELF");
    if is_executable {
        archive.program(to, contents)?;
    } else {
        archive.file(to, contents)?;
    }
    if is_elf {
        for library in libraries(from)? {
            if !archive.contains(&library) {
                let contents = fs::read(&library).with_context(|| library.display().to_string())?;
                archive.program(&library, contents)?;
            }
        }
    }
    Ok(())
}

/// The libraries of a program. None for one that has none.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(listed) = stdout_of(Command::new("ldd").arg(program)) else {
        // `ldd` fails for a program that was linked without libraries.
        return Ok(Vec::new());
    };
    let listed = String::from_utf8_lossy(&listed);
    if let Some(line) = listed.lines().find(|line| line.contains("not found")) {
        bail!("{}: needs {}", program.display(), line.trim());
    }
    Ok(paths(&listed))
}

/// The paths in what `ldd` prints.
fn paths(listed: &str) -> Vec<PathBuf> {
    listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_libraries_are_found() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(paths(listed), expected.map(PathBuf::from));
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
