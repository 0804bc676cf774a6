//! Processes: short ones, forked ones, and ones that live elsewhere (another
//! network or PID namespace, a chroot, a control group).

use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::thread::UnshareFlags;
use serde_json::json;

use crate::Outcome;
use crate::facts::{report, say};
use crate::tcp::{ANY_V4, address, listener, socket};

/// Runs processes that execute this program, connect and exit, one after
/// the other, until a number of them lived for less than 5 ms: `short COUNT`.
/// On a busy machine few do.
pub(crate) fn short(arguments: &[String]) -> Outcome {
    let count: usize = arguments.first().ok_or("no count is named")?.parse()?;
    let listener = listener(ANY_V4, 64)?;
    let port = address(&listener)?.port().to_string();
    let program = std::env::current_exe()?;
    let mut short = 0;
    let deadline = Instant::now() + Duration::from_mins(2);
    for number in 0_u32.. {
        if short == count {
            return Ok(());
        }
        if Instant::now() > deadline {
            break;
        }
        let before = Instant::now();
        let mut child = Command::new(&program)
            .args(["connect-exit", &port, &format!("tag {number}")])
            .spawn()?;
        let pid = child.id();
        let status = child.wait()?;
        let lived = before.elapsed();
        if !status.success() {
            return Err(format!("process {pid}: {status}").into());
        }
        drop(rustix::net::accept(&listener)?);
        if lived.as_micros() < 5000 {
            short += 1;
            say(&json!({"short": pid}));
        }
    }
    Err(format!("only {short} processes lived for less than 5 ms").into())
}

/// Listens, forks, and lets each child accept one connection:
/// `fork-accept COUNT`.
pub(crate) fn fork_accept(arguments: &[String]) -> Outcome {
    let count: usize = arguments.first().ok_or("no count is named")?.parse()?;
    let listener = listener(ANY_V4, 16)?;
    report("listener", &listener)?;
    let mut children = Vec::new();
    for _ in 0..count {
        children.push(forked(|| {
            let server = rustix::net::accept(&listener)?;
            report("server", &server)?;
            // Held until the client closes.
            rustix::net::recv(&server, &mut [0_u8; 1], rustix::net::RecvFlags::empty())?;
            Ok(())
        })?);
    }
    // All are held at once: no child can take two.
    let clients: Vec<OwnedFd> = (0..count)
        .map(|_| {
            let client = socket(ANY_V4)?;
            rustix::net::connect(&client, &address(&listener)?)?;
            report("client", &client)?;
            Ok(client)
        })
        .collect::<io::Result<_>>()?;
    drop(clients);
    for child in children {
        reap(child)?;
    }
    Ok(())
}

/// Runs processes that listen on one port together, and connects until each
/// of them has accepted: `reuse-port COUNT`.
pub(crate) fn reuse_port(arguments: &[String]) -> Outcome {
    let count: usize = arguments.first().ok_or("no count is named")?.parse()?;
    let reserved = socket(ANY_V4)?;
    sockopt::set_socket_reuseport(&reserved, true)?;
    rustix::net::bind(&reserved, &ANY_V4)?;
    let to = address(&reserved)?;
    let program = std::env::current_exe()?;
    let mut members = Vec::new();
    for _ in 0..count {
        let mut member = Command::new(&program)
            .args(["reuse-port-member", &to.port().to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut facts = BufReader::new(member.stdout.take().ok_or("no pipe")?).lines();
        // The first fact comes when the member listens.
        println!("{}", facts.next().ok_or("a member is silent")??);
        let forwarder = std::thread::spawn(move || {
            for fact in facts.map_while(Result::ok) {
                println!("{fact}");
            }
        });
        members.push((member, forwarder));
    }
    for _ in 0..count * 10 {
        let client = socket(to)?;
        rustix::net::connect(&client, &to)?;
        report("client", &client)?;
        // Wait until a member has accepted and closed.
        rustix::net::recv(&client, &mut [0_u8; 1], rustix::net::RecvFlags::empty())?;
    }
    for (mut member, forwarder) in members {
        member.kill()?;
        member.wait()?;
        forwarder.join().map_err(|_| "a forwarder panicked")?;
    }
    Ok(())
}

/// One of the processes that [`reuse_port`] runs.
pub(crate) fn reuse_port_member(arguments: &[String]) -> Outcome {
    let port = arguments.first().ok_or("no port is named")?.parse()?;
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let listener = socket(at)?;
    sockopt::set_socket_reuseport(&listener, true)?;
    rustix::net::bind(&listener, &at)?;
    rustix::net::listen(&listener, 16)?;
    report("listener", &listener)?;
    loop {
        let server = rustix::net::accept(&listener)?;
        report("server", &server)?;
    }
}

/// Plays a scenario in a network namespace of its own, with loopback up.
pub(crate) fn in_netns(arguments: &[String]) -> Outcome {
    // SAFETY: CLONE_NEWNET does not touch the table of file descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    raise_loopback()?;
    crate::play(arguments)
}

/// Makes the loopback interface of a new network namespace work.
pub(crate) fn raise_loopback() -> Outcome {
    let raised = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !raised.success() {
        return Err("loopback does not come up".into());
    }
    Ok(())
}

/// Plays a scenario in a PID namespace of its own. The facts of the scenario
/// hold the number that the process has there; the one that it has here comes
/// as the fact `outer`.
pub(crate) fn in_pidns(arguments: &[String]) -> Outcome {
    // SAFETY: CLONE_NEWPID does not touch the table of file descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .spawn()?;
    say(&json!({"role": "outer", "pid": child.id(), "ppid": std::process::id()}));
    if !child.wait()?.success() {
        return Err("the process inside failed".into());
    }
    Ok(())
}

/// Plays a scenario with another root: `in-chroot ROOT PROGRAM SCENARIO…`. The
/// program is executed inside.
pub(crate) fn in_chroot(arguments: &[String]) -> Outcome {
    let [root, program, rest @ ..] = arguments else {
        return Err("a root and a program are needed".into());
    };
    rustix::process::chroot(root.as_str())?;
    std::env::set_current_dir("/")?;
    Err(Command::new(program).args(rest).exec().into())
}

/// Plays a scenario in a control group: `in-cgroup DIRECTORY SCENARIO…`. The
/// program is executed again inside, as a container's first process is.
pub(crate) fn in_cgroup(arguments: &[String]) -> Outcome {
    let (directory, rest) = arguments.split_first().ok_or("no directory is named")?;
    std::fs::write(format!("{directory}/cgroup.procs"), "0\n")?;
    Err(Command::new(std::env::current_exe()?)
        .args(rest)
        .exec()
        .into())
}

/// Waits for a forked child, which must have succeeded.
pub(crate) fn reap(child: rustix::process::Pid) -> Outcome {
    let status = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())?;
    if status.is_none_or(|(_, status)| status.exit_status() != Some(0)) {
        return Err("a child failed".into());
    }
    Ok(())
}

/// Runs a task in a forked child and gives its number.
pub(crate) fn forked(task: impl FnOnce() -> io::Result<()>) -> io::Result<rustix::process::Pid> {
    // SAFETY: this program has one thread when it forks, so the child may do
    // whatever the parent may; it leaves through `_exit` below.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => {
            let status = i32::from(task().is_err());
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
        pid => rustix::process::Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .ok_or_else(io::Error::last_os_error),
    }
}
