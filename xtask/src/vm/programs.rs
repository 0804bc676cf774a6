//! The programs that the machines run, built by cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::progress;

/// The package of the binary and its tests.
const PACKAGE: &str = "portreporter";

/// What is to be built beside the recorder and the programs of the tests.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// The release build of the recorder.
    pub(super) release: bool,
    /// The end-to-end tests.
    pub(super) tests: bool,
}

/// Where cargo has put everything.
#[derive(Deserialize, Serialize)]
pub(super) struct Programs {
    /// The recorder.
    recorder: PathBuf,
    /// Where the tests expect the recorder.
    expected: PathBuf,
    /// The programs of the tests.
    examples: Vec<PathBuf>,
    /// The end-to-end tests, if they are wanted.
    pub(super) tests: Option<PathBuf>,
}

impl Programs {
    /// Builds everything that is not up to date. `note` is a file in which is
    /// written down where it is.
    pub(super) fn build(wanted: Wanted, note: &Path) -> anyhow::Result<Self> {
        progress("building the programs");
        let programs = Self::built(wanted)?;
        if let Some(directory) = note.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(note, serde_json::to_vec(&programs)?)
            .with_context(|| note.display().to_string())?;
        Ok(programs)
    }

    /// What was built the last time.
    pub(super) fn again(note: &Path) -> anyhow::Result<Self> {
        let written = fs::read(note).context("nothing was built for the machines yet")?;
        Ok(serde_json::from_slice(&written)?)
    }

    fn built(wanted: Wanted) -> anyhow::Result<Self> {
        let mut plain = cargo(&["build", "--bins", "--examples"])?;
        if wanted.tests {
            plain.extend(cargo(&["test", "--test", "e2e", "--no-run"])?);
        }
        if wanted.release {
            let release = cargo(&["build", "--release", "--bin", PACKAGE])?;
            return Self::among(&release, &plain);
        }
        Self::among(&plain, &plain)
    }

    /// Each program's place here and in a machine.
    pub(super) fn places(&self) -> Vec<(&Path, &Path)> {
        let mut places = vec![(self.recorder.as_path(), self.expected.as_path())];
        let same = self.examples.iter().chain(&self.tests);
        places.extend(same.map(|path| (path.as_path(), path.as_path())));
        places
    }

    /// Finds everything among cargo's messages.
    fn among(recorder: &[Message], plain: &[Message]) -> anyhow::Result<Self> {
        let bin = |messages: &[Message]| {
            let found = messages.iter().find(|message| message.is("bin", PACKAGE));
            found
                .and_then(|message| message.executable.clone())
                .with_context(|| format!("cargo names no binary {PACKAGE}"))
        };
        let tests = plain
            .iter()
            .find(|message| message.is("test", "e2e"))
            .and_then(|message| message.executable.clone());
        let examples = plain
            .iter()
            .filter(|message| message.is_kind("example"))
            .filter_map(|message| message.executable.clone())
            .collect();
        Ok(Self {
            recorder: bin(recorder)?,
            expected: bin(plain)?,
            examples,
            tests,
        })
    }
}

/// One of cargo's messages; the keys that count here.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Message {
    fn is_kind(&self, kind: &str) -> bool {
        let target = self.target.as_ref();
        target.is_some_and(|target| target.kind.iter().any(|of| of == kind))
    }

    fn is(&self, kind: &str, name: &str) -> bool {
        let target = self.target.as_ref();
        self.is_kind(kind) && target.is_some_and(|target| target.name == name)
    }
}

/// Runs cargo and gives its messages about programs.
fn cargo(arguments: &[&str]) -> anyhow::Result<Vec<Message>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--quiet", "--package", PACKAGE])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .context("cargo: cannot be started")?;
    if !output.status.success() {
        bail!("cargo {}: {}", arguments.join(" "), output.status);
    }
    Ok(messages(&String::from_utf8_lossy(&output.stdout)))
}

fn messages(text: &str) -> Vec<Message> {
    text.lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.executable.is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_takes_the_place_of_the_other_build() {
        let release = messages(
            r#"{"target":{"kind":["lib"],"name":"event"},"executable":null}
not JSON
{"target":{"kind":["bin"],"name":"portreporter"},"executable":"/t/release/portreporter"}"#,
        );
        let plain = messages(
            r#"{"target":{"kind":["bin"],"name":"portreporter"},"executable":"/t/debug/portreporter"}
{"target":{"kind":["example"],"name":"traffic"},"executable":"/t/debug/examples/traffic"}
{"target":{"kind":["test"],"name":"e2e"},"executable":"/t/debug/deps/e2e-1f"}
{"reason":"build-finished","success":true}"#,
        );
        let programs = Programs::among(&release, &plain).unwrap();
        let places: Vec<(&str, &str)> = programs
            .places()
            .into_iter()
            .filter_map(|(from, to)| Some((from.to_str()?, to.to_str()?)))
            .collect();
        let expected = [
            ("/t/release/portreporter", "/t/debug/portreporter"),
            ("/t/debug/examples/traffic", "/t/debug/examples/traffic"),
            ("/t/debug/deps/e2e-1f", "/t/debug/deps/e2e-1f"),
        ];
        assert_eq!(places, expected);
        assert!(Programs::among(&[], &plain).is_err());
    }
}
