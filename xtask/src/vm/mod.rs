//! Other kernels than the one at hand: `cargo xtask vm`.
//!
//! What the recorder sees depends on the kernel: which hooks it has, which of
//! them it lets us use, what it tells about its types. One machine shows one
//! kernel. So this boots others in small virtual machines, without a disk, a
//! network or a distribution ([`machine`]), and runs the end-to-end tests
//! there: once as the kernel is, and once for each thing that an administrator
//! may have taken away ([`suite`]).
//!
//! The same machines serve for a look at such a kernel: `--shell-command` and
//! `--run` take any command in place of the tests.
//!
//! Nothing here measures: an emulated processor is some twenty times slower
//! than a real one, and unevenly so.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

mod archive;
mod furniture;
mod kernel;
mod machine;
mod programs;
mod suite;

use self::kernel::Kernel;
use self::machine::Job;
use self::programs::{Programs, Wanted};

/// What to boot, and what to run there.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Boot only this kernel, such as 6.1; may be given more than once. Without it: each that apt offers.
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Run only this part of the suite; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Run only tests with this in their name.
    #[arg(long, value_name = "NAME")]
    filter: Vec<String>,
    /// Run this in a shell, in place of the suite.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["only", "filter", "run"])]
    shell_command: Option<String>,
    /// Run this program of this machine, in place of the suite.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["only", "filter"])]
    run: Option<PathBuf>,
    /// Take this file or directory along; it has the same path there.
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// In place of the suite: take the tests along too, as `e2e`.
    #[arg(long)]
    tests: bool,
    /// In place of the suite: take the release build of the recorder.
    #[arg(long)]
    release: bool,
    /// Build nothing; take the programs that were built for the machines the last time.
    #[arg(long)]
    no_build: bool,
    /// More words for the kernel's command line.
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// How long a machine may run.
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    limit: u64,
    /// The arguments of `--run`.
    #[arg(last = true, requires = "run")]
    arguments: Vec<String>,
}

/// Boots the machines.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let directory = target_directory()?.join("vm");
    let kernels = kernel::choose(&options.kernel, &directory.join("kernels"))?;
    if let Some(script) = command(options)? {
        return look(options, &kernels, &script, &directory);
    }
    let programs = programs(options, true, true, &directory)?;
    let furniture = furniture::archive(&programs, &options.with)?;
    suite::run(options, &kernels, &furniture, &directory)
}

/// The command that was asked for in place of the suite.
fn command(options: &Options) -> anyhow::Result<Option<String>> {
    if let Some(program) = &options.run {
        let program = std::path::absolute(program)?;
        let words = std::iter::once(program.to_str().context("not a plain path")?)
            .chain(options.arguments.iter().map(String::as_str));
        let quoted: Vec<String> = words.map(quote).collect();
        return Ok(Some(quoted.join(" ")));
    }
    Ok(options.shell_command.clone())
}

fn programs(
    options: &Options,
    release: bool,
    tests: bool,
    directory: &Path,
) -> anyhow::Result<Programs> {
    let note = directory.join("programs.json");
    if options.no_build {
        return Programs::again(&note);
    }
    Programs::build(Wanted { release, tests }, &note)
}

/// Runs one command in a machine of each kernel and shows what it prints.
fn look(
    options: &Options,
    kernels: &[Kernel],
    script: &str,
    directory: &Path,
) -> anyhow::Result<ExitCode> {
    let programs = programs(options, options.release, options.tests, directory)?;
    let mut with = options.with.clone();
    with.extend(options.run.clone());
    let furniture = furniture::archive(&programs, &with)?;
    let mut worst = 0;
    for kernel in kernels {
        progress(&format!("kernel {}", kernel.release));
        let job = Job {
            script,
            append: &options.append,
            limit: Duration::from_secs(options.limit),
        };
        let place = directory.join(format!("{}-look", kernel.series));
        let ended = machine::boot(kernel, &furniture, &job, &place, &mut std::io::stdout())?;
        for line in &ended.report {
            println!("{line}");
        }
        let seconds = ended.took.as_secs();
        progress(&format!("exit {} after {seconds} s", ended.status));
        worst = worst.max(ended.status);
    }
    Ok(ExitCode::from(worst))
}

/// The word as a shell reads it back.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Tells the one who waits what is going on.
fn progress(what: &str) {
    let _ = std::io::stdout().flush();
    eprintln!("vm: {what}");
}

/// Where cargo puts what it makes.
fn target_directory() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = stdout_of(
        Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
    )?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata)?;
    let directory = metadata["target_directory"].as_str();
    Ok(directory.context("cargo names no target directory")?.into())
}

/// What a command prints.
fn stdout_of(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = name(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name}: cannot be started"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    stdout_of(command).map(drop)
}

fn name(command: &Command) -> String {
    let words: Vec<&OsStr> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    words.join(OsStr::new(" ")).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let word = "it's \"$HOME\" & more";
        let printed = stdout_of(
            Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quote(word))),
        );
        assert_eq!(printed.unwrap(), word.as_bytes());
    }
}
