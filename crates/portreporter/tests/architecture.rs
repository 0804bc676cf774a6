//! The invariants of the house that a machine can check: which crate may know
//! which, and where the operating system may show.
//!
//! They are asked of cargo and of the sources as they stand. A new crate has
//! to be given its place in [`PLACES`] before this passes.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates in the order of an event's way, those on one line side by side.
/// A crate knows only those on lines before its own.
const PLACES: &[&[&str]] = &[
    &["event"],
    &["sensor", "identity", "logs", "probe"],
    &["recorder"],
    &["portreporter"],
];

/// Where code may be chosen by operating system, and there only in `lib.rs`,
/// which takes `linux/` or `windows/`.
const SYSTEMS: &[&str] = &["sensor", "identity", "probe", "setup"];

/// How a choice by operating system is written.
const CHOICES: &[&str] = &[
    "target_os",
    "target_family",
    "cfg(unix",
    "cfg(windows",
    "cfg(not(unix",
    "cfg(not(windows",
    "cfg!(unix",
    "cfg!(windows",
];

/// A package of the workspace.
struct Package {
    name: String,
    directory: PathBuf,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    /// It is a crate of ours.
    ours: bool,
    /// It is wanted on some systems only.
    conditional: bool,
}

#[test]
fn crates_know_only_those_to_their_left() -> Result<(), Box<dyn Error>> {
    let packages = packages()?;
    for package in crates(&packages) {
        let place = place(&package.name)
            .ok_or_else(|| format!("{} has no place in this test yet", package.name))?;
        for known in package.dependencies.iter().filter(|known| known.ours) {
            let left = self::place(&known.name).is_some_and(|other| other < place);
            assert!(left, "{} must not depend on {}", package.name, known.name);
        }
    }
    Ok(())
}

#[test]
fn every_place_is_taken() -> Result<(), Box<dyn Error>> {
    let packages = packages()?;
    for name in PLACES.iter().copied().flatten() {
        assert!(
            crates(&packages).any(|package| package.name == *name),
            "there is no crate {name} any more"
        );
    }
    Ok(())
}

#[test]
fn nothing_depends_on_the_binary() -> Result<(), Box<dyn Error>> {
    for package in packages()? {
        let known = package.dependencies.iter();
        assert!(
            known.clone().all(|known| known.name != "portreporter"),
            "{} must not depend on portreporter",
            package.name
        );
    }
    Ok(())
}

#[test]
fn event_depends_on_none_of_ours() -> Result<(), Box<dyn Error>> {
    let packages = packages()?;
    let event = packages.iter().find(|package| package.name == "event");
    let event = event.ok_or("no crate event")?;
    assert!(event.dependencies.iter().all(|known| !known.ours));
    Ok(())
}

#[test]
fn systems_show_only_where_they_are_chosen() -> Result<(), Box<dyn Error>> {
    let packages = packages()?;
    let mut choices = 0;
    for package in crates(&packages) {
        let may_choose = SYSTEMS.contains(&package.name.as_str());
        assert!(
            may_choose || package.dependencies.iter().all(|known| !known.conditional),
            "{} has dependencies for some systems only",
            package.name
        );
        let sources = package.directory.join("src");
        for file in rust_files(&sources)? {
            let here = may_choose && file == sources.join("lib.rs");
            for (index, line) in fs::read_to_string(&file)?.lines().enumerate() {
                if chooses_a_system(line) {
                    choices += 1;
                    assert!(here, "{}:{}: {line}", file.display(), index + 1);
                }
            }
        }
    }
    // What is looked for is there: the search has not gone blind.
    assert!(choices > 0);
    Ok(())
}

fn chooses_a_system(line: &str) -> bool {
    !line.trim_start().starts_with("//") && CHOICES.iter().any(|choice| line.contains(choice))
}

fn place(name: &str) -> Option<usize> {
    PLACES.iter().position(|line| line.contains(&name))
}

/// The packages of the house; its tools stand beside it.
fn crates(packages: &[Package]) -> impl Iterator<Item = &Package> {
    packages.iter().filter(|package| {
        let parent = package.directory.parent().and_then(Path::file_name);
        parent.is_some_and(|name| name == "crates")
    })
}

/// What cargo says of the workspace.
fn packages() -> Result<Vec<Package>, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    packages.iter().map(package).collect()
}

fn package(package: &Value) -> Result<Package, Box<dyn Error>> {
    let manifest = Path::new(text(&package["manifest_path"])?);
    let dependencies = package["dependencies"].as_array();
    let dependencies = dependencies
        .ok_or("no dependencies")?
        .iter()
        .map(dependency);
    Ok(Package {
        name: text(&package["name"])?.to_owned(),
        directory: manifest.parent().ok_or("no directory")?.to_owned(),
        dependencies: dependencies.collect::<Result<_, _>>()?,
    })
}

fn dependency(dependency: &Value) -> Result<Dependency, Box<dyn Error>> {
    Ok(Dependency {
        name: text(&dependency["name"])?.to_owned(),
        ours: dependency["path"].is_string(),
        conditional: dependency["target"].is_string(),
    })
}

fn text(value: &Value) -> Result<&str, Box<dyn Error>> {
    value.as_str().ok_or_else(|| "not a string".into())
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}
