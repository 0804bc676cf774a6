//! The program behind the process: deleted, in memory only, replaced, or
//! another one under the same number.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use rustix::fs::MemfdFlags;
use rustix::process::Pid;

use super::fact::{Fact, Said};
use super::stage::{
    ANY_V4, accepted, address, connected, forked, joined, leave, listener, needs, number, program,
    read_to_the_end,
};

/// The executable is deleted before the process connects.
pub(super) fn deleted() -> anyhow::Result<()> {
    changed(|image| Ok(std::fs::remove_file(image)?))
}

/// Another file takes the place of the executable before the process connects.
pub(super) fn replaced() -> anyhow::Result<()> {
    changed(|image| {
        let other = image.with_extension("new");
        std::fs::write(&other, "not this one\n")?;
        Ok(std::fs::rename(other, image)?)
    })
}

/// The executable was never on a disk.
pub(super) fn memory() -> anyhow::Result<()> {
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let child = forked(|| {
        let image = needs(
            "memfd_create",
            rustix::fs::memfd_create("scenario", MemfdFlags::empty()).map_err(Into::into),
        )?;
        let mut file = std::fs::File::from(image);
        std::io::copy(&mut std::fs::File::open(program()?)?, &mut file)?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let arguments = connect_arguments(to, "/memfd:scenario");
        Err(Command::new(path).args(arguments).exec().into())
    })?;
    let server = accepted(&listener)?;
    Fact::accept("server", &server)?.tell()?;
    read_to_the_end(&server)?;
    joined(child)
}

/// Two processes, one after the other, with the same number and different
/// programs.
pub(super) fn same_number() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    let images = [
        copy(directory.path(), "first")?,
        copy(directory.path(), "second")?,
    ];
    let mut taken = None;
    for image in images {
        let run = || {
            let arguments = connect_arguments(to, &image.to_string_lossy());
            Err(Command::new(&image).args(arguments).exec().into())
        };
        let child = match taken {
            None => forked(run)?,
            Some(number) => forked_as(number, run)?,
        };
        let server = accepted(&listener)?;
        Fact::accept("server", &server)?.tell()?;
        read_to_the_end(&server)?;
        taken = Some(number(child)?);
        joined(child)?;
    }
    Ok(())
}

/// Connects, says the truth with the executable that it is told to have, and
/// ends: `part-connect ADDRESS EXE [wait]`.
pub(super) fn connect_part(arguments: &[String]) -> anyhow::Result<()> {
    let [to, exe, rest @ ..] = arguments else {
        bail!("an address and a path are needed");
    };
    if !rest.is_empty() {
        super::fact::wait_for_the_suite()?;
    }
    let client = connected(to.parse()?)?;
    let mut fact = Fact::connect("client", &client)?;
    fact.exe = Some(exe.clone());
    fact.tell()
}

/// A copy of this program starts, its file is changed, and it connects.
fn changed(change: impl Fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let image = copy(directory.path(), "image")?;
    let listener = listener(ANY_V4)?;
    Fact::listen("listener", &listener)?.tell()?;
    let mut child = Command::new(&image)
        .args(connect_arguments(
            address(&listener)?,
            &image.to_string_lossy(),
        ))
        .arg("wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let relayed = relay(&mut child, || change(&image));
    let server = accepted(&listener)?;
    Fact::accept("server", &server)?.tell()?;
    read_to_the_end(&server)?;
    let status = child.wait()?;
    relayed?;
    if !status.success() {
        bail!("the copy: {status}");
    }
    Ok(())
}

/// Acts when the child is ready, and repeats the facts that it tells then.
fn relay(child: &mut Child, act: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut input = child.stdin.take().context("no pipe")?;
    for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
        match serde_json::from_str(&line?)? {
            Said::Ready => {
                act()?;
                writeln!(input)?;
            }
            said @ (Said::Fact(_) | Said::Ignored(_)) => super::fact::say(&said)?,
        }
    }
    Ok(())
}

fn connect_arguments(to: SocketAddr, exe: &str) -> [String; 4] {
    [
        "scenario".to_owned(),
        "part-connect".to_owned(),
        to.to_string(),
        exe.to_owned(),
    ]
}

/// Copies this program with `cp`: a file that this process had open for
/// writing could not be executed while a child of another thread has it too.
fn copy(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    let status = Command::new("cp").arg(program()?).arg(&path).status()?;
    if !status.success() {
        bail!("cp: {status}");
    }
    // As the kernel will call it.
    Ok(std::fs::canonicalize(path)?)
}

/// A fork whose child has that number, which must be free.
fn forked_as(number: u32, task: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Pid> {
    let wanted = i32::try_from(number)?;
    // SAFETY: `clone_args` is integers, for which all zeroes is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = u64::try_from(libc::SIGCHLD)?;
    arguments.set_tid = (&raw const wanted).addr() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: without CLONE_VM and with no stack of its own this is a fork; the
    // arguments outlive the call.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of_val(&arguments),
        )
    };
    if pid == 0 {
        leave(task());
    }
    let pid = needs(
        "a process of a chosen number",
        if pid < 0 {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(pid)
        },
    )?;
    Pid::from_raw(i32::try_from(pid)?).context("no number")
}
