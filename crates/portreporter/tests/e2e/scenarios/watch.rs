//! Watching a port or a process: what is seen, and how it ends.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::stage::{Running, Terminal, run};
use crate::harness::{Traffic, open_directory, portqry, portreporter};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    ("watch_a_port", Needs::Root, a_port),
    ("watch_a_process", Needs::Root, a_process),
    ("watch_in_the_original_layout", Needs::Root, original_layout),
    ("watch_ends_with_escape", Needs::Root, ends_with_escape),
    ("watch_gives_the_terminal_back", Needs::Root, gives_back),
    ("watch_without_privileges", Needs::Root, without_privileges),
    ("watch_until_the_pipe_is_closed", Needs::Root, closed_pipe),
    ("watch_a_full_disk", Needs::Root, full_disk),
];

const PAIR: [&str; 4] = ["in-netns", "pair-at", "127.0.0.1:4701", "127.0.0.1:4702"];

fn watch(arguments: &[&str]) -> Running {
    Running::start(Command::new(portreporter()).arg("watch").args(arguments))
}

fn a_port() {
    let mut running = watch(&["--port", "4702", "--json"]);
    let json = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    running.wait_for(|line| json(line)["event"] == "snapshot-end");
    let facts = Traffic::play(&PAIR);
    let [listener, client, server] = ["listener", "client", "server"].map(|role| facts.one(role));
    let mut closed = Vec::new();
    while closed.len() < 3 {
        let line = json(&running.wait_for(|line| json(line)["event"] == "close"));
        let cookie = line["socket"].as_str().expect("a cookie").to_owned();
        if facts.cookies().contains(&cookie.as_str()) {
            closed.push(cookie);
        }
    }
    running.signal(Signal::INT);
    let (status, out) = running.finish();
    assert!(status.success(), "{status}");
    let lines: Vec<Value> = out.lines().map(json).collect();
    assert_eq!(lines[0]["event"], "open");
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], at, "without holes: {line}");
    }
    let told = |fact: &crate::harness::Fact| -> Vec<&str> {
        let of = |line: &&Value| line["socket"] == *fact.cookie;
        let about = lines.iter().filter(of);
        about
            .inspect(|line| assert_eq!(line["pid"], fact.pid, "{line}"))
            .filter_map(|line| line["event"].as_str())
            .collect()
    };
    assert_eq!(told(&listener), ["listen", "close"]);
    assert_eq!(told(&client)[..2], ["connect", "established"]);
    assert_eq!(told(&server)[0], "accept");
    // It lives for less than a look would take, and nothing else is shown.
    for line in lines.iter().filter(|line| line["socket"].is_string()) {
        assert!(
            line["local_port"] == 4702 || line["remote_port"] == 4702,
            "{line}"
        );
    }
}

fn a_process() {
    // The process is there before it is watched, and waits.
    let mut traffic = Traffic::start(&["pair-at", "127.0.0.1:4711", "127.0.0.1:4712"]);
    let facts = traffic.wait_until_ready();
    let pid = facts.one("listener").pid;
    let mut running = watch(&["--pid", &pid.to_string()]);
    running.wait_for(|line| line.starts_with("TIME"));
    running.wait_for(|line| line.contains("  in use") && line.contains("127.0.0.1:4711"));
    traffic.finish();
    running
        .wait_for(|line| line.contains("  close  ") && line.contains(&format!("  {pid} traffic")));
    running.signal(Signal::TERM);
    let (status, out) = running.finish();
    assert!(status.success(), "{status}");
    assert!(out.trim_end().ends_with("signal received"), "{out}");
    let head = out.find("TIME ").expect("a heading");
    for line in out[head..]
        .lines()
        .skip(1)
        .filter(|line| !line.contains("  end  "))
    {
        assert!(line.contains(&format!("  {pid} traffic")), "{line}");
    }
}

fn original_layout() {
    let home = open_directory();
    let log = home.path().join("watch.txt");
    let mut command = Command::new(portqry());
    command
        .args(["-wport", "4702", "-wt", "1", "-v", "-l"])
        .arg(&log);
    let mut running = Running::start(&mut command);
    running.wait_for(|line| line == "port 4702 is not in use");
    let facts = Traffic::play(&PAIR);
    let row = format!("\tlisten\t{}:traffic", facts.one("listener").pid);
    running.wait_for(|line| line.contains(&row));
    running.wait_for(|line| line.contains("\tclose\t"));
    // The table comes again when its time has come.
    running.wait_for(|line| line == "============");
    running.signal(Signal::INT);
    let (status, out) = running.finish();
    assert!(status.success(), "{status}");
    let begin = "Watching port: 4702\n\nChecking for changes every 1 seconds\n\n\
                 verbose output requested\n\n============\n\nSystem Date: ";
    assert!(out.starts_with(begin), "{out}");
    let log = std::fs::read_to_string(&log).expect("a log");
    let end = "\n\n\n========= end of log file =========\n";
    let log = log.strip_suffix(end).expect("an end mark");
    assert!(log.ends_with(out.trim_end()), "{log}");
    assert!(log.contains("\nCtrl-C pressed: stopped watching port 4702\n\nSystem Date: "));
}

fn ends_with_escape() {
    let home = open_directory();
    let log = home.path().join("watch.txt");
    let mut terminal = Terminal::new();
    let before = format!("{:?}", terminal.modes());
    let mut command = Command::new(portqry());
    command.args(["-wpid", "1", "-l"]).arg(&log);
    let mut running = terminal.start(&mut command);
    running.wait_for(|line| line == "============");
    assert_ne!(
        format!("{:?}", terminal.modes()),
        before,
        "keys are read one by one"
    );
    // An arrow key begins with the same byte, and ends nothing.
    terminal.press(b"\x1b[A");
    terminal.press(b"x");
    terminal.press(b"\x1b");
    running.wait_for(|line| line == "escape key pressed: stopped watching PID 1");
    let after = format!("{:?}", wait_for_end(running, &terminal));
    assert_eq!(after, before, "the terminal is as it was");
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(
        log.ends_with("========= end of log file =========\n"),
        "{log}"
    );
}

/// However it ends.
fn gives_back() {
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT, Signal::INT] {
        let terminal = Terminal::new();
        let before = format!("{:?}", terminal.modes());
        let mut running = terminal.start(Command::new(portqry()).args(["-wport", "4721"]));
        running.wait_for(|line| line == "============");
        running.signal(signal);
        let after = format!("{:?}", wait_for_end(running, &terminal));
        assert_eq!(after, before, "{signal:?}");
    }
}

fn wait_for_end(mut running: Running, terminal: &Terminal) -> rustix::termios::Termios {
    let status = running.wait();
    assert!(status.success(), "{status}");
    terminal.modes()
}

fn without_privileges() {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(portreporter());
    command
        .args(["watch", "--port", "4731"])
        .uid(65_534)
        .gid(65_534);
    let home = open_directory();
    let errors = std::fs::File::create(home.path().join("err")).expect("a file");
    let mut running = Running::start(command.stderr(errors));
    running.wait_for(|line| line.starts_with("TIME"));
    let listener = std::net::TcpListener::bind("127.0.0.1:4731").expect("the port is free");
    running.wait_for(|line| line.contains("127.0.0.1:4731") && line.contains("LISTENING"));
    drop(listener);
    running.wait_for(|line| line.contains("127.0.0.1:4731") && line.contains("  close  "));
    running.signal(Signal::INT);
    assert!(running.finish().0.success());
    let said = std::fs::read_to_string(home.path().join("err")).expect("text");
    assert!(
        said.contains("not everything can be seen: engine ebpf"),
        "{said}"
    );
}

fn closed_pipe() {
    let script = "\"$1\" watch --json | head -n 1; echo \"${PIPESTATUS[0]}\"";
    let mut command = Command::new("bash");
    let ended = run(command.args(["-c", script, "sh"]).arg(portreporter()), "");
    let code = ended.out.lines().last();
    assert_eq!(code, Some("0"), "{ended:#?}");
}

fn full_disk() {
    let mut command = Command::new(portreporter());
    command.args(["watch", "--port", "4741", "-l", "/dev/full", "-y"]);
    let mut running = Running::start(&mut command);
    running.wait_for(|line| line.starts_with("TIME"));
    running.signal(Signal::INT);
    let (status, out) = running.finish();
    assert_eq!(status.code(), Some(74), "{out}");
}
