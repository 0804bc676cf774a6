//! `build`: a clean release build, and the binary that the other benches run.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::progress;
use super::report::{Figure, Target, Unit};

const BENCH: &str = "build";

/// The package of the binary.
const PACKAGE: &str = "portreporter";

/// Builds everything from nothing. Downloads are not part of it.
pub(super) fn run() -> anyhow::Result<Vec<Figure>> {
    succeed(cargo().args(["fetch", "--locked"]))?;
    let target = tempfile::Builder::new()
        .prefix("portreporter-bench-")
        .tempdir()?;
    progress("build: clean release build");
    let start = Instant::now();
    succeed(
        cargo()
            .args(["build", "--release", "--locked", "--offline", "--quiet"])
            .args(["--package", PACKAGE])
            .env("CARGO_TARGET_DIR", target.path()),
    )?;
    let seconds = start.elapsed().as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(vec![
        Figure::new(
            BENCH,
            format!("clean release build on {cores} cores"),
            Unit::Seconds,
            seconds,
        )
        .target(Target::AtMost(240.0)),
    ])
}

/// Builds the release if it is not up to date, and says where it is.
pub(crate) fn release() -> anyhow::Result<PathBuf> {
    progress("building the release");
    let output = cargo()
        .args(["build", "--release", "--package", PACKAGE])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo: cannot be started")?;
    if !output.status.success() {
        bail!("cargo build: {}", output.status);
    }
    executable(&String::from_utf8_lossy(&output.stdout), PACKAGE)
        .with_context(|| format!("cargo build: no binary {PACKAGE}"))
}

/// Builds an example of the binary's package for tests, and says where it is.
pub(crate) fn example(name: &str) -> anyhow::Result<PathBuf> {
    progress(&format!("building the example {name}"));
    let output = cargo()
        .args(["build", "--package", PACKAGE, "--example", name])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo: cannot be started")?;
    if !output.status.success() {
        bail!("cargo build: {}", output.status);
    }
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("cargo build: no example {name}"))
}

/// One of cargo's messages; the keys that count here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// The program of that name among cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| message.executable)
        .find(|path| path.file_stem().is_some_and(|stem| stem == name))
}

/// The cargo that runs this, in the workspace.
fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            not JSON\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/portreporter\"}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        let found = executable(messages, PACKAGE).unwrap();
        assert_eq!(found, PathBuf::from("/t/release/portreporter"));
        assert!(executable("{}", PACKAGE).is_none());
    }
}
