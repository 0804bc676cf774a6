//! The kernels that the machines run: what Debian's archive offers.
//!
//! A package is downloaded and unpacked, never installed: this machine's boot
//! loader is none of our business. Of each series (6.1, 6.12) the newest build
//! for the cloud is taken, which is small and boots fast; it is built from the
//! same source as the one for other machines. What was unpacked stays below
//! `target/` and is used again.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{progress, stdout_of, succeed};

/// What a machine loads before anything runs: the socket tables over netlink,
/// and network devices for namespaces. In the order of their needs.
const MODULES: [&str; 7] = [
    "net/ipv4/inet_diag",
    "net/ipv4/tcp_diag",
    "net/ipv4/udp_diag",
    "net/ipv4/raw_diag",
    "net/unix/unix_diag",
    "drivers/net/veth",
    "drivers/net/dummy",
];

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// Its series: `6.1`.
    pub(super) series: String,
    /// Its full name, as `uname -r` prints it.
    pub(super) release: String,
    /// The file that is booted.
    pub(super) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The modules to load, as (name, contents), in this order. One that the
    /// kernel was built without is left out.
    pub(super) fn modules(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut modules = Vec::new();
        for module in MODULES {
            let plain = self.modules.join(format!("{module}.ko"));
            let compressed = self.modules.join(format!("{module}.ko.xz"));
            let contents = if plain.is_file() {
                fs::read(&plain).with_context(|| plain.display().to_string())?
            } else if compressed.is_file() {
                stdout_of(Command::new("xz").args(["-dc", "--"]).arg(&compressed))?
            } else {
                continue;
            };
            let (_, name) = module.rsplit_once('/').unwrap_or(("", module));
            modules.push((format!("{name}.ko"), contents));
        }
        Ok(modules)
    }
}

/// The kernels of these series, or of all that are offered, the oldest first.
pub(super) fn choose(series: &[String], cache: &Path) -> anyhow::Result<Vec<Kernel>> {
    let names = stdout_of(Command::new("apt-cache").args([
        "search",
        "--names-only",
        r"^linux-image-[0-9].*-cloud-amd64$",
    ]))?;
    let offered = newest(&String::from_utf8_lossy(&names));
    if offered.is_empty() {
        bail!("apt offers no kernel linux-image-*-cloud-amd64; run `apt-get update`");
    }
    for wanted in series {
        if !offered.contains_key(&numbers(wanted)) {
            let all: Vec<String> = offered.keys().map(|series| dotted(series)).collect();
            bail!("apt offers no kernel {wanted}, but: {}", all.join(", "));
        }
    }
    let wanted = |found: &[u32]| series.is_empty() || series.contains(&dotted(found));
    offered
        .iter()
        .filter(|(series, _)| wanted(series))
        .map(|(series, package)| unpacked(dotted(series), package, cache))
        .collect()
}

/// For each series the package of the newest version. `names` is what
/// `apt-cache search` prints.
fn newest(names: &str) -> BTreeMap<Vec<u32>, String> {
    let mut packages: Vec<(Vec<u32>, &str)> = names
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|package| {
            let version = package.strip_prefix("linux-image-")?;
            let version = version.strip_suffix("-cloud-amd64")?;
            // `6.12-cloud-amd64` only points to the newest of the series.
            let numbers = numbers(version);
            (numbers.len() > 2).then_some((numbers, package))
        })
        .collect();
    packages.sort_by_key(|(numbers, _)| Reverse(numbers.clone()));
    let mut newest = BTreeMap::new();
    for (numbers, package) in packages {
        newest
            .entry(numbers[..2].to_vec())
            .or_insert_with(|| package.to_owned());
    }
    newest
}

/// The numbers in a version: `6.12.74+deb12` is 6, 12, 74, 12.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn dotted(series: &[u32]) -> String {
    let numbers: Vec<String> = series.iter().map(u32::to_string).collect();
    numbers.join(".")
}

/// Downloads and unpacks a package, unless that was done before.
fn unpacked(series: String, package: &str, cache: &Path) -> anyhow::Result<Kernel> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-qq", "-o", "Acquire::Retries=3"])
            // The files are for root; a user of apt's own could not write them.
            .args(["-o", "APT::Sandbox::User=root"])
            .args(arguments)
            .arg(package);
        command
    };
    // One line: address, name of the file, size, checksum.
    let described = stdout_of(&mut apt(&["download", "--print-uris"]))?;
    let described = String::from_utf8_lossy(&described);
    let file = described
        .split_whitespace()
        .nth(1)
        .filter(|file| !file.contains('/'))
        .with_context(|| format!("apt does not say from where {package} comes: {described}"))?;

    fs::create_dir_all(cache)?;
    let directory = cache.join(format!("{file}.unpacked"));
    if !directory.is_dir() {
        progress(&format!("downloading {package}"));
        // Whatever is interrupted goes with this directory.
        let scratch = tempfile::tempdir_in(cache)?;
        succeed(apt(&["download"]).current_dir(scratch.path()))?;
        let tree = scratch.path().join("tree");
        succeed(
            Command::new("dpkg-deb")
                .arg("-x")
                .args([&scratch.path().join(file), &tree]),
        )?;
        fs::rename(&tree, &directory)
            .with_context(|| format!("{}: cannot be made", directory.display()))?;
    }
    let release = package.trim_start_matches("linux-image-");
    let kernel = Kernel {
        series,
        release: release.to_owned(),
        image: directory.join(format!("boot/vmlinuz-{release}")),
        modules: directory.join(format!("lib/modules/{release}/kernel")),
    };
    if !kernel.image.is_file() {
        bail!("{}: not in the package", kernel.image.display());
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_series_is_taken() {
        let names = "\
linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.1.0-47-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.12-cloud-amd64 - Linux for x86-64 cloud (meta-package)
linux-image-6.12.74+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-6.12.101+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-6.12.101+deb12-cloud-amd64-dbg - Debug symbols
linux-image-cloud-amd64 - Linux for x86-64 cloud (meta-package)
";
        let found: Vec<(String, String)> = newest(names)
            .into_iter()
            .map(|(series, package)| (dotted(&series), package))
            .collect();
        let expected = [
            ("6.1", "linux-image-6.1.0-47-cloud-amd64"),
            ("6.12", "linux-image-6.12.101+deb12-cloud-amd64"),
        ];
        assert_eq!(
            found,
            expected.map(|(series, package)| (series.to_owned(), package.to_owned()))
        );
    }
}
