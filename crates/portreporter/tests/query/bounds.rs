//! Limits of this machine, and those who do not wait for the end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::Case;
use crate::stage::{Ran, filter, query, ran, say, serve, verdicts};

pub(super) const CASES: &[Case] = &[
    ("few_descriptors", few_descriptors),
    (
        "few_descriptors_and_many_questions",
        few_descriptors_and_many_questions,
    ),
    ("every_port", every_port),
    ("interrupted", interrupted),
    (
        "interrupted_during_a_question",
        interrupted_during_a_question,
    ),
    ("closed_pipe", closed_pipe),
    ("rate", rate),
];

/// The program with so many descriptors.
fn limited(descriptors: u32, ports: &str) -> Ran {
    let program = env!("CARGO_BIN_EXE_portreporter");
    let script = format!("ulimit -n {descriptors}; exec {program} query {ports}");
    ran(Command::new("sh").args(["-c", &script]))
}

fn few_descriptors() {
    let listener = TcpListener::bind("127.0.0.1:1000").expect("a listener");
    for descriptors in [16, 20, 64, 80] {
        let found = limited(descriptors, "127.0.0.1:both:900-1100 --json").ended(0);
        assert_eq!(found.lines().len(), 402);
        for line in found.lines() {
            let is_open = line["port"] == 1000 && line["protocol"] == "tcp";
            let status = if is_open {
                "LISTENING"
            } else {
                "NOT LISTENING"
            };
            assert_eq!(line["status"], status, "{line}");
        }
    }
    // Not one socket: that is no verdict about a port.
    let none = limited(4, "127.0.0.1:1000 --json").ended(69);
    assert_eq!(none.out, "", "{}", none.out);
    assert!(none.errors.contains("socket"), "{}", none.errors);
    drop(listener);
}

/// Who talks holds a descriptor as well, and a reply that could not be read is
/// none that did not come.
fn few_descriptors_and_many_questions() {
    for port in 1000..1020 {
        serve(&format!("127.0.0.1:{port}"), say(b"220 here\r\n"));
    }
    for port in 3000..3100 {
        let socket = UdpSocket::bind(("127.0.0.1", port)).expect("a socket");
        thread::spawn(move || {
            let mut question = [0; 100];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                const REPLY: u8 = 0x80;
                question[2] |= REPLY;
                let _ = socket.send_to(&question[..length], from);
            }
        });
    }
    let silent: Vec<_> = (3100..3140)
        .map(|port| UdpSocket::bind(("127.0.0.1", port)).expect("a socket"))
        .collect();
    for descriptors in [20, 64, 128] {
        let asked = "127.0.0.1:1000-1999 --as banner --wait 0.3 --json";
        let found = limited(descriptors, asked).ended(0).lines();
        assert_eq!(found.len(), 1000);
        for line in found {
            let talks = (1000..1020).contains(&line["port"].as_u64().unwrap_or(0));
            let status = ["NOT LISTENING", "LISTENING"][usize::from(talks)];
            assert_eq!(line["status"], status, "{descriptors}: {line}");
            assert_eq!(line["answer"].is_object(), talks, "{descriptors}: {line}");
        }
    }
    for descriptors in [64, 128, 200] {
        let asked = "127.0.0.1:udp:3000-3199 --as dns --wait 0.3 --json";
        let found = limited(descriptors, asked).ended(0).lines();
        assert_eq!(found.len(), 200);
        for line in found {
            let status = match line["port"].as_u64() {
                Some(3000..3100) => "LISTENING",
                Some(3100..3140) => "FILTERED",
                _ => "NOT LISTENING",
            };
            assert_eq!(line["status"], status, "{descriptors}: {line}");
        }
    }
    drop(silent);
}

fn every_port() {
    let open: Vec<_> = [1, 22, 40_000, 65_535]
        .map(|port| TcpListener::bind(("127.0.0.1", port)).expect("a listener"))
        .into();
    let found = verdicts(&["127.0.0.1:1-65535", "--no-ask"]);
    assert_eq!(found.len(), 65_535);
    let listening: Vec<_> = found
        .iter()
        .filter(|line| line["status"] == "LISTENING")
        .map(|line| line["port"].as_u64())
        .collect();
    assert_eq!(listening, [1, 22, 40_000, 65_535].map(Some));
    let closed = found
        .iter()
        .filter(|line| line["status"] == "NOT LISTENING");
    assert_eq!(closed.count(), 65_531);
    drop(open);
}

/// Starts a scan that never ends by itself, and interrupts it when its first
/// line is there.
fn interrupt(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut child = query(arguments)
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("an output"));
    let mut text = String::new();
    out.read_line(&mut text).expect("a line");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it is there");
    out.read_to_string(&mut text).expect("the rest");
    let mut errors = String::new();
    let mut from = child.stderr.take().expect("an output");
    from.read_to_string(&mut errors).expect("text");
    (child.wait().expect("it ends").code(), text, errors)
}

fn interrupted() {
    // Not what comes back to a port of ours in that range.
    filter(&["tcp dport 2000-60000 tcp flags & (syn|ack) == syn drop"]);
    let long = [
        "127.0.0.1:1000,2000-60000",
        "--no-ask",
        "--no-shuffle",
        "--concurrency",
        "100",
    ];
    let (code, out, errors) = interrupt(&long);
    assert_eq!(code, Some(2), "{out}{errors}");
    assert!(out.contains("NOT LISTENING"), "{out}");
    assert!(
        errors.contains("of 58002 ports have no verdict"),
        "{errors}"
    );
    let listener = TcpListener::bind("127.0.0.1:1000").expect("a listener");
    let (code, out, _) = interrupt(&long);
    assert_eq!(code, Some(0), "{out}");
    drop(listener);
}

/// That a port listens is known, whatever the answer would have been.
fn interrupted_during_a_question() {
    let listener = TcpListener::bind("127.0.0.1:1000").expect("a listener");
    let ports = ["127.0.0.1:1000,1001", "--wait", "600"];
    let (code, out, _) = interrupt(&ports);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(out.contains("\"port\":1000"), "{out}");
    drop(listener);
}

fn closed_pipe() {
    for switch in ["--json", "--every"] {
        let mut child = query(&["127.0.0.1:1-65535", switch])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut out = BufReader::new(child.stdout.take().expect("an output"));
        out.read_line(&mut String::new()).expect("a line");
        drop(out);
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.status.code(), Some(0));
        assert!(ended.stderr.is_empty());
    }
}

fn rate() {
    let before = std::time::Instant::now();
    let found = verdicts(&["127.0.0.1:1-21", "--rate", "40", "--no-ask"]);
    assert_eq!(found.len(), 21);
    // Twenty pauses of 25 ms, less what may be caught up with.
    let took = before.elapsed();
    assert!(took.as_millis() >= 450, "{took:?}");
}
