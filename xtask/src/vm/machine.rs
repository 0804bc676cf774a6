//! A virtual machine: one kernel, one file system in memory, one job.
//!
//! The processor is emulated, not virtualised, so that this works wherever
//! qemu can be installed, inside a virtual machine too. There is no disk and
//! no network card; what goes in is in the archive, and what comes out comes
//! over three serial ports: the kernel's console, the job's output, and a
//! report for whoever booted it (see `init.sh`).

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::archive::Archive;
use super::kernel::Kernel;

/// What is emulated.
const QEMU: &str = "qemu-system-x86_64";

/// What runs in a machine.
pub(super) struct Job<'a> {
    /// Text for a shell.
    pub(super) script: &'a str,
    /// More words for the kernel's command line.
    pub(super) append: &'a str,
    /// How long it may take, from power on to power off.
    pub(super) limit: Duration,
}

/// What came of it.
pub(super) struct Ended {
    /// The exit status of the job.
    pub(super) status: u8,
    /// The lines that it wrote to `/vm/report`.
    pub(super) report: Vec<String>,
    /// From power on to power off.
    pub(super) took: Duration,
}

/// Boots a machine, runs the job and hands over what it prints as it comes.
/// `directory` is for the files of this machine; they stay there.
pub(super) fn boot(
    kernel: &Kernel,
    furniture: &Archive,
    job: &Job<'_>,
    directory: &Path,
    output: &mut (dyn std::io::Write + Send),
) -> anyhow::Result<Ended> {
    fs::create_dir_all(directory)?;
    let file = |name: &str| directory.join(name);
    let (archive, console, report) = (file("archive"), file("console"), file("report"));
    write_archive(kernel, furniture, job, &archive)?;

    let begin = Instant::now();
    let mut qemu = Command::new(QEMU)
        .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max"])
        .args(["-smp", "2", "-m", "2048"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none"])
        .args(["-serial", &serial(&console)?, "-serial", "stdio"])
        .args(["-serial", &serial(&report)?])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&archive)
        .args(["-append", &format!("console=ttyS0 panic=-1 {}", job.append)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{QEMU}: cannot be started (package qemu-system-x86)"))?;
    let mut printed = qemu.stdout.take().context("no output")?;

    let ended = std::thread::scope(|scope| {
        let relay = scope.spawn(move || -> std::io::Result<()> {
            let mut buffer = [0; 4096];
            loop {
                let length = printed.read(&mut buffer)?;
                if length == 0 {
                    return output.flush();
                }
                output.write_all(&buffer[..length])?;
                output.flush()?;
            }
        });
        let ended = loop {
            if let Some(status) = qemu.try_wait()? {
                break Some(status);
            }
            if begin.elapsed() > job.limit {
                qemu.kill()?;
                qemu.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        match relay.join() {
            Ok(relayed) => relayed.context("cannot pass on the output")?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        anyhow::Ok(ended)
    })?;
    let took = begin.elapsed();
    // It is large and made anew each time.
    let _ = fs::remove_file(&archive);

    match ended {
        None => bail!(
            "the machine was still running after {} s; its console: {}",
            job.limit.as_secs(),
            last_lines(&console)
        ),
        Some(status) if !status.success() => bail!("{QEMU}: {status}"),
        Some(_) => {}
    }
    let text = fs::read(&report).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.trim_end_matches('\r').to_owned())
        .collect();
    let status = lines
        .pop()
        .and_then(|line| line.strip_prefix("exit ")?.parse().ok());
    let Some(status) = status else {
        bail!(
            "the machine stopped before its job was done; its console: {}",
            last_lines(&console)
        );
    };
    Ok(Ended {
        status,
        report: lines,
        took,
    })
}

/// What is the same for every machine, and after it what this one needs.
fn write_archive(
    kernel: &Kernel,
    furniture: &Archive,
    job: &Job<'_>,
    path: &Path,
) -> anyhow::Result<()> {
    let mut own = Archive::default();
    own.program("/vm/job", job.script)?;
    let mut list = String::new();
    for (name, contents) in kernel.modules()? {
        own.file(format!("/vm/modules/{name}"), contents)?;
        list.push_str(&name);
        list.push('\n');
    }
    own.file("/vm/modules/list", list)?;
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut file = BufWriter::new(file);
    furniture.write(&mut file)?;
    own.write(&mut file)?;
    Ok(file.flush()?)
}

/// A serial port whose output is a file, as qemu wants it.
fn serial(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().context("not a plain path")?;
    // A comma would end the path.
    Ok(format!("file:{}", path.replace(',', ",,")))
}

/// What the kernel said last.
fn last_lines(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
