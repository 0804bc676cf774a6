//! The kernel object: made from `bpf/port_reporter.bpf.c`, or compared with it.
//!
//! The object is committed, though it is made of the source beside it. Whoever
//! builds Port Reporter has cargo, few have clang and the headers of libbpf,
//! and a build script that looks for them would fail on most machines. One
//! object serves all: CO-RE fits it to each kernel when it is loaded, and the
//! byte code is the same for every little-endian processor.
//!
//! A committed binary has to be believed or proved. This chore proves it:
//! `--check` builds the object again and compares every byte. For that to
//! work anywhere, nothing of the machine gets into the object: it is compiled
//! from inside `bpf/` with the path of that directory mapped away, and what
//! only a debugger would read is taken out. The compiler does get into it, so
//! the object is what clang 14 makes, the one of Debian 12; another version
//! makes another object that is no less right, and `--check` names it.
//!
//! This loads nothing into a kernel; whether the object works there is for the
//! tests of `sensor` and for the end-to-end tests to say.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const SOURCE: &str = "port_reporter.bpf.c";
const OBJECT: &str = "port_reporter.bpf.o";

/// The version of LLVM that makes the committed object.
const LLVM: &str = "14";

/// What the loader does not read. The relocations of BTF concern the linking
/// of several objects; what they would fill in is there already.
const UNUSED: [&str; 3] = [".rel.BTF", ".rel.BTF.ext", ".llvm_addrsig"];

/// The functions that are called and not part of their caller: the loader needs
/// their names.
const CALLED: [&str; 1] = ["change_state"];

/// What to do with the object.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if the committed object is not what the source makes.
    #[arg(long)]
    check: bool,
}

/// Makes the object, or compares it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let directory = directory()?;
    let committed = directory.join(OBJECT);
    let made = build(&directory)?;
    let present = match fs::read(&committed) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read bpf/{OBJECT}")),
    };
    if present.as_ref() == Some(&made) {
        println!(
            "bpf/{OBJECT} is what the source makes ({} bytes)",
            made.len()
        );
        return Ok(ExitCode::SUCCESS);
    }
    if options.check {
        eprintln!(
            "bpf/{OBJECT} is not what the source makes: {}",
            difference(present, &made)
        );
        eprintln!(
            "made here by {}; the committed one is of clang {LLVM}",
            version()
        );
        eprintln!("`cargo xtask bpf` makes it anew; commit it with the source");
        return Ok(ExitCode::FAILURE);
    }
    // Only a changed object is written: its date makes cargo build again.
    fs::write(&committed, &made).with_context(|| format!("cannot write bpf/{OBJECT}"))?;
    println!("bpf/{OBJECT}: {} bytes, made by {}", made.len(), version());
    Ok(ExitCode::SUCCESS)
}

/// The directory of the source, without symbolic links in its path.
fn directory() -> anyhow::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bpf");
    fs::canonicalize(&directory).with_context(|| format!("{}: not found", directory.display()))
}

/// Compiles the source and takes out what is not needed.
fn build(directory: &Path) -> anyhow::Result<Vec<u8>> {
    let scratch = tempfile::tempdir()?;
    let compiled = scratch.path().join("compiled.o");
    let stripped = scratch.path().join("stripped.o");
    let bare = scratch.path().join(OBJECT);

    let mut here = OsString::from("-fdebug-prefix-map=");
    here.push(directory);
    here.push("=.");
    let mut clang = tool("clang");
    clang
        .args([
            "-O2", "-g", "-Wall", "-Werror", "-target", "bpfel", "-mcpu=v3",
        ])
        .arg("-D__TARGET_ARCH_x86")
        .arg(here)
        .args(["-c", SOURCE, "-o"])
        .arg(&compiled)
        .current_dir(directory)
        // Where clang believes to be comes from here, if it is set.
        .env("PWD", directory);
    // Debian keeps <asm/types.h> where only its own targets look.
    let multiarch = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    if Path::new(&multiarch).is_dir() {
        clang.arg("-I").arg(multiarch);
    }
    succeed(&mut clang)?;

    // In two steps: a symbol is kept while a relocation names it, and those of
    // BTF name thousands.
    let mut sections = tool("llvm-objcopy");
    sections.arg("--strip-debug");
    for name in UNUSED {
        sections.arg("--remove-section").arg(name);
    }
    succeed(sections.arg(&compiled).arg(&stripped))?;
    let mut symbols = tool("llvm-objcopy");
    symbols.arg("--strip-unneeded");
    for name in CALLED {
        symbols.arg("--keep-symbol").arg(name);
    }
    succeed(symbols.arg(&stripped).arg(&bare))?;

    let bytes = fs::read(&bare).context("llvm-objcopy has left no object")?;
    let path = directory.as_os_str().as_encoded_bytes();
    if bytes.windows(path.len()).any(|window| window == path) {
        bail!("the path of this checkout is in the object: it cannot be the same elsewhere");
    }
    Ok(bytes)
}

/// Where two objects part.
fn difference(present: Option<Vec<u8>>, made: &[u8]) -> String {
    let Some(present) = present else {
        return "there is none".to_owned();
    };
    let first = present
        .iter()
        .zip(made)
        .take_while(|(one, other)| one == other)
        .count();
    format!(
        "{} bytes and {} bytes, which differ from byte {first} on",
        present.len(),
        made.len()
    )
}

/// A program of LLVM, under its name with the version where that is installed.
fn tool(name: &str) -> Command {
    let versioned = format!("{name}-{LLVM}");
    let installed = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(&versioned).is_file())
    });
    Command::new(if installed { &versioned } else { name })
}

/// What clang calls itself.
fn version() -> String {
    let output = tool("clang")
        .arg("--version")
        .output()
        .map(|output| output.stdout);
    let text = String::from_utf8_lossy(output.as_deref().unwrap_or_default()).into_owned();
    text.lines().next().unwrap_or("an unknown clang").to_owned()
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| {
        format!("{program}: cannot be started (Debian: apt-get install clang llvm libbpf-dev)")
    })?;
    if !status.success() {
        bail!("{program}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_found_at_its_place() {
        assert_eq!(difference(None, b"abc"), "there is none");
        let text = difference(Some(b"abXd".to_vec()), b"abcde");
        assert_eq!(text, "4 bytes and 5 bytes, which differ from byte 2 on");
    }

    #[test]
    fn prefix_differs_at_its_end() {
        let text = difference(Some(b"ab".to_vec()), b"abc");
        assert_eq!(text, "2 bytes and 3 bytes, which differ from byte 2 on");
    }
}
