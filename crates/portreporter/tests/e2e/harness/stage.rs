//! A network namespace for a scene, servers in it that say what they are told
//! to, and programs on pipes or on a terminal that are waited for line by line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::termios::{LocalModes, Termios};
use rustix::thread::UnshareFlags;

use super::tail::{PATIENCE, wait};

/// Runs a scene on a thread in a network namespace of its own whose loopback is
/// up. Threads and children that it starts are in there, too.
pub(crate) fn in_namespace(scene: impl FnOnce() + Send + 'static) {
    let ended = thread::spawn(move || {
        // SAFETY: a new network namespace changes no memory, descriptor or
        // signal that other threads rely on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
        ip(&["link", "set", "lo", "up"]);
        scene();
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Changes the network of this namespace.
pub(crate) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    assert!(status.expect("ip runs").success(), "ip {arguments:?}");
}

/// Answers each TCP connection to `address` by a thread of its own.
pub(crate) fn serve(address: &str, talk: impl Fn(TcpStream) + Send + Sync + Clone + 'static) {
    let listener = TcpListener::bind(address).expect("the port is free");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            thread::spawn(move || talk(stream));
        }
    });
}

/// Answers each datagram to `address`, or does not.
pub(crate) fn reply(address: &str, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    let socket = UdpSocket::bind(address).expect("the port is free");
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            if let Some(answer) = answer(&datagram[..length]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// What a program left when it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a program to its end, which must not take forever.
pub(crate) fn run(command: &mut Command, input: &str) -> Ended {
    let mut running = Running::start(command.stderr(Stdio::piped()));
    let mut stdin = running.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let errors = running.child.stderr.take().map(|mut errors| {
        thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        })
    });
    let (status, out) = running.finish();
    Ended {
        code: status.code().expect("it ends by itself"),
        out,
        err: errors.map_or_else(String::new, |errors| errors.join().expect("a thread")),
    }
}

/// A program that prints lines.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<std::process::ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    unread: VecDeque<String>,
}

impl Running {
    /// Starts it, with pipes for input and output.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be executed");
        let output = child.stdout.take().expect("a pipe");
        let stdin = child.stdin.take();
        Self::reading(child, stdin, output)
    }

    fn reading(
        child: Child,
        stdin: Option<std::process::ChildStdin>,
        output: impl Read + Send + 'static,
    ) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            // The master of a terminal fails with EIO when the other side is gone.
            while matches!(output.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                let text = String::from_utf8(std::mem::take(&mut line)).expect("UTF-8");
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            stdin,
            lines,
            seen: Vec::new(),
            unread: VecDeque::new(),
        }
    }

    /// Waits for a line that is wanted, from where the last one was found.
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.unread.pop_front() {
                Some(line) => line,
                None => match self.lines.recv_timeout(left) {
                    Ok(line) => line,
                    Err(error) => panic!("{error}: what is wanted is not in {:#?}", self.seen),
                },
            };
            self.seen.push(line.clone());
            if wanted(line.trim_end()) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it is there");
    }

    /// Waits for its end, without what it prints.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let ended = pidfd_open(pid.expect("a process"), PidfdFlags::empty());
        wait(&[ended.expect("it is a child").as_fd()], PATIENCE);
        self.child.wait().expect("a child can be waited for")
    }

    /// Waits for its end; gives everything that it printed.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("{error}: it does not end: {:#?}", self.seen),
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        (status, std::mem::take(&mut self.seen).concat())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Does nothing to one that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal.
pub(crate) struct Terminal {
    master: File,
    slave: OwnedFd,
}

impl Terminal {
    /// A new one.
    pub(crate) fn new() -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: both point to integers; no name, mode or size is given.
        let result = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        assert_eq!(result, 0, "a terminal");
        // SAFETY: openpty succeeded, so both are open and nobody else's.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        Self { master, slave }
    }

    /// Starts a program as the terminal's own, in its foreground.
    pub(crate) fn start(&self, command: &mut Command) -> Running {
        let end = || self.slave.try_clone().expect("a descriptor");
        command.stdin(end()).stdout(end()).stderr(Stdio::null());
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("it can be executed");
        let master = self.master.try_clone().expect("a descriptor");
        Running::reading(child, None, master)
    }

    /// Types.
    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.master.write_all(keys).expect("a terminal takes keys");
    }

    /// Waits until single keys are read from it.
    pub(crate) fn wait_until_raw(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.modes().local_modes.contains(LocalModes::ICANON) {
            assert!(Instant::now() < deadline, "nobody reads single keys");
            thread::yield_now();
        }
    }

    /// How it is set.
    pub(crate) fn modes(&self) -> Termios {
        rustix::termios::tcgetattr(self.slave.as_fd()).expect("it is a terminal")
    }
}
