//! A network namespace with a test in it, and the program that is tested.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use libtest_mimic::Failed;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde_json::Value;

/// Why the tests cannot run here.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    if !Path::new("/usr/sbin/nft").exists() {
        return Some("needs nft (Debian package nftables)");
    }
    None
}

/// Runs `test` on a thread in a network namespace of its own whose loopback is
/// up. The programs that it starts are in there too.
pub(crate) fn alone(test: fn()) -> Result<(), Failed> {
    let stage = thread::spawn(move || {
        // SAFETY: a new network namespace changes no memory, file descriptor or
        // signal that other threads rely on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
        ip("link set lo up");
        test();
    });
    stage.join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
    })
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}

/// A packet filter for what comes in, with these rules.
pub(crate) fn filter(rules: &[&str]) {
    let mut script =
        "table inet test { chain input { type filter hook input priority 0;\n".to_owned();
    for rule in rules {
        script.push_str(rule);
        script.push('\n');
    }
    script.push_str("}\n}\n");
    run(Command::new("/usr/sbin/nft").arg(&script));
}

/// Sets a parameter of the kernel for this namespace.
pub(crate) fn sysctl(name: &str, value: &str) {
    // What is below shows the namespace of the thread that opens it.
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(path, value).expect("a parameter can be set");
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// The program with these arguments.
pub(crate) fn query(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portreporter"));
    command.arg("query").args(arguments).stdin(Stdio::null());
    command
}

/// Somebody without privileges.
pub(crate) struct Nobody(tempfile::TempDir);

impl Nobody {
    pub(crate) fn new() -> Self {
        // With a copy of the program that everybody may execute.
        let directory = tempfile::tempdir().expect("a directory");
        let nobody = Self(directory);
        let program = env!("CARGO_BIN_EXE_portreporter");
        run(Command::new("cp").arg(program).arg(nobody.program()));
        for path in [nobody.0.path(), &nobody.program()] {
            let everybody = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(path, everybody).expect("a mode");
        }
        nobody
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("portreporter")
    }

    /// The program with these arguments, as this user.
    pub(crate) fn query(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.arg("query").args(arguments).stdin(Stdio::null());
        command.uid(65534).gid(65534);
        command
    }
}

/// What a run left.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

/// Runs a command to its end.
pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the program runs");
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        errors: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Ran {
    /// Ended with that code.
    pub(crate) fn ended(self, code: i32) -> Self {
        let Self { out, errors, .. } = &self;
        assert_eq!(self.code, Some(code), "{out}\n{errors}");
        self
    }

    /// The lines of JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let line = |line| serde_json::from_str(line).expect("an object");
        self.out.lines().map(line).collect()
    }
}

/// The verdicts about these ports, in their order.
pub(crate) fn verdicts(arguments: &[&str]) -> Vec<Value> {
    let mut lines = ran(query(arguments).arg("--json")).lines();
    lines.sort_by_key(|line| {
        let protocol = line["protocol"].as_str().map(str::to_owned);
        (line["port"].as_u64(), protocol)
    });
    lines
}

/// The words and the reason of each verdict.
pub(crate) fn words(verdicts: &[Value]) -> Vec<(&str, &str)> {
    verdicts
        .iter()
        .map(|verdict| {
            let status = verdict["status"].as_str().expect("a status");
            (status, verdict["reason"].as_str().expect("a reason"))
        })
        .collect()
}

/// A server that does that with each connection.
pub(crate) fn serve(address: &str, talk: impl Fn(TcpStream) + Send + Sync + Clone + 'static) {
    let listener = TcpListener::bind(address).expect("a listener");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            thread::spawn(move || talk(stream));
        }
    });
}

/// Says that, and nothing more.
pub(crate) fn say(text: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync + Clone + 'static {
    move |mut stream| {
        let _ = stream.write_all(text);
        // Until the other side goes.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Another network namespace behind a cable: we are 10.0.0.1 and `fd00::1`, it is
/// 10.0.0.2 and `fd00::2`.
pub(crate) struct Neighbour(Child);

impl Neighbour {
    pub(crate) fn new() -> Self {
        // It says a line when it is in its namespace.
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo in; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut said = [0; 3];
        let mut out = child.stdout.take().expect("an output");
        std::io::Read::read_exact(&mut out, &mut said).expect("it is there");
        let neighbour = Self(child);
        let pid = neighbour.0.id();
        ip(&format!(
            "link add here type veth peer name there netns {pid}"
        ));
        ip("addr add 10.0.0.1/24 dev here");
        ip("addr add fd00::1/64 dev here nodad");
        ip("link set here up");
        for words in [
            "link set lo up",
            "addr add 10.0.0.2/24 dev there",
            "addr add fd00::2/64 dev there nodad",
            "link set there up",
        ] {
            neighbour.run("ip", words);
        }
        neighbour
    }

    /// Runs a program over there.
    pub(crate) fn run(&self, program: &str, words: &str) {
        let pid = self.0.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--net", program]);
        run(command.args(words.split_whitespace()));
    }

    /// Does something over there. Sockets that are opened there stay there.
    pub(crate) fn over_there<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.0.id());
        let namespace = std::fs::File::open(path).expect("it is there");
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("it may be entered");
                act()
            });
            there.join().expect("it is done")
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
