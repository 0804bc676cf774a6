//! PortQry's own command line: what it prints, its log file, its exit codes.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::stage::{Ended, Running, Terminal, in_namespace, ip, reply, run, serve};
use crate::harness::{open_directory, portqry, portreporter};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    ("portqry_statuses", Needs::Root, statuses),
    ("portqry_batch_script", Needs::Root, batch_script),
    ("portqry_list_and_range", Needs::Root, list_and_range),
    ("portqry_banner_is_escaped", Needs::Root, banner_is_escaped),
    ("portqry_hostile_servers", Needs::Root, hostile_servers),
    ("portqry_services_file", Needs::Root, services_file),
    ("portqry_source_port", Needs::Root, source_port),
    ("portqry_log_file", Needs::Root, log_file),
    ("portqry_full_disk", Needs::Root, full_disk),
    ("portqry_names", Needs::Nothing, names),
    ("portqry_usage", Needs::Nothing, usage),
    ("portqry_interactive", Needs::Root, interactive),
    ("portqry_on_a_terminal", Needs::Root, on_a_terminal),
    ("portqry_ends_with_ctrl_c", Needs::Root, ends_with_ctrl_c),
    ("portqry_local", Needs::Root, local),
];

/// Runs it to its end.
fn query(line: &str) -> Ended {
    run(Command::new(portqry()).args(line.split(' ')), "")
}

fn asked(line: &str, code: i32, last: &str) -> String {
    let ended = query(line);
    assert_eq!(ended.code, code, "{line}: {ended:#?}");
    let lines = ended.out.trim_end().lines();
    assert_eq!(lines.last(), Some(last), "{line}: {ended:#?}");
    ended.out
}

fn statuses() {
    in_namespace(|| {
        serve("127.0.0.1:61001", |_| {});
        reply("127.0.0.1:61002", |_| None);
        reply("127.0.0.1:61003", |_| Some(b"here".to_vec()));
        ip(&["route", "add", "blackhole", "192.0.2.0/24"]);

        let shown = asked(
            "-n 127.0.0.1 -e 61001 -nr",
            0,
            "TCP port 61001 (unknown service): LISTENING",
        );
        let whole = "Querying target system called:\n\n 127.0.0.1\n\n\
                     TCP port 61001 (unknown service): LISTENING\n";
        assert_eq!(shown, whole);
        asked(
            "-n 127.0.0.1 -e 61009",
            1,
            "TCP port 61009 (unknown service): NOT LISTENING",
        );
        asked(
            "-n 127.0.0.1 -p UDP -e 61009",
            1,
            "UDP port 61009 (unknown service): NOT LISTENING",
        );
        asked(
            "-n 127.0.0.1 -p udp -e 61002",
            2,
            "UDP port 61002 (unknown service): LISTENING or FILTERED",
        );
        asked(
            "-n 127.0.0.1 -p udp -e 61003",
            0,
            "UDP port 61003 (unknown service): LISTENING",
        );
        asked(
            "-n 192.0.2.1 -nr -e 61001",
            2,
            "TCP port 61001 (unknown service): FILTERED",
        );
        // The same through `query`, with the options of the first version.
        let line = ["query", "/n", "127.0.0.1", "/e", "61001", "/p", "tcp"];
        let ended = run(Command::new(portreporter()).args(line), "");
        assert_eq!(ended.code, 0, "{ended:#?}");
        assert!(ended.out.ends_with("): LISTENING\n"), "{ended:#?}");
    });
}

/// In the style of the original's documentation: the greater code first.
const SCRIPT: &str = r#"
"$1" -n 127.0.0.1 -e "$3" -p "$2" -q
code=$?
if [ $code -ge 99 ]; then echo error
elif [ $code -ge 2 ]; then echo filtered
elif [ $code -ge 1 ]; then echo closed
elif [ $code -ge 0 ]; then echo open
fi
"#;

fn batch_script() {
    in_namespace(|| {
        serve("127.0.0.1:61001", |_| {});
        reply("127.0.0.1:61002", |_| None);
        for (protocol, port, wanted) in [
            ("tcp", "61001", "open\n"),
            ("tcp", "61009", "closed\n"),
            ("udp", "61002", "filtered\n"),
        ] {
            let mut script = Command::new("sh");
            let script = script.args(["-c", SCRIPT, "batch"]).arg(portqry());
            let ended = run(script.args([protocol, port]), "");
            assert_eq!(ended.out, wanted, "{protocol} {port}: {ended:#?}");
            assert_eq!(ended.err, "", "quiet is quiet");
        }
    });
}

fn list_and_range() {
    in_namespace(|| {
        serve("127.0.0.1:61001", |_| {});
        serve("127.0.0.1:61003", |_| {});
        let ended = query("-n 127.0.0.1 -nr -o 61003,61001,61002 -p both");
        assert_eq!(ended.code, 1, "the worst counts: {ended:#?}");
        let ports: Vec<&str> = ended
            .out
            .lines()
            .filter(|line| line.contains(" port "))
            .collect();
        let wanted = [
            "TCP port 61003 (unknown service): LISTENING",
            "UDP port 61003 (unknown service): NOT LISTENING",
            "TCP port 61001 (unknown service): LISTENING",
            "UDP port 61001 (unknown service): NOT LISTENING",
            "TCP port 61002 (unknown service): NOT LISTENING",
            "UDP port 61002 (unknown service): NOT LISTENING",
        ];
        assert_eq!(ports, wanted);
        let ended = query("-n 127.0.0.1 -nr -r 60900:61100");
        let ports = ended.out.lines().filter(|line| line.starts_with("TCP"));
        let numbers: Vec<u16> = ports
            .filter_map(|line| line.split(' ').nth(2)?.parse().ok())
            .collect();
        assert_eq!(numbers, (60900..=61100).collect::<Vec<u16>>());
        assert_eq!(ended.out.matches("): LISTENING").count(), 2);
    });
}

fn banner_is_escaped() {
    in_namespace(|| {
        serve("127.0.0.1:25", |mut stream| {
            let _ = stream.write_all(b"220 mail\x1b]0;owned\x07 \xc2\x9b2J\xff ESMTP\r\n");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let ended = query("-n 127.0.0.1 -nr -e 25");
        assert_eq!(ended.code, 0, "{ended:#?}");
        let line = "220 mail\\x1b]0;owned\\x07 \\x9b2J\\xff ESMTP";
        let begin = "TCP port 25 (smtp service): LISTENING\n\nData returned from port:\n";
        assert!(ended.out.contains(begin), "{ended:#?}");
        assert!(ended.out.lines().any(|shown| shown == line), "{ended:#?}");
        let is_control = |c: char| c.is_control() && c != '\n';
        assert!(!ended.out.contains(is_control), "{ended:#?}");
    });
}

/// Servers that never end, say nothing, or close at once, on a port with a
/// question.
fn hostile_servers() {
    in_namespace(|| {
        serve("127.0.0.1:389", |mut stream| {
            while stream.write_all(&[0x30; 4096]).is_ok() {}
        });
        serve("127.0.0.1:110", drop);
        serve("127.0.0.1:143", |mut stream| {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        reply("127.0.0.1:389", |_| Some(vec![0x30; 60_000]));
        for port in ["389", "110", "143"] {
            let ended = query(&format!("-n 127.0.0.1 -nr -e {port}"));
            assert_eq!(ended.code, 0, "{ended:#?}");
        }
        let ended = query("-n 127.0.0.1 -nr -p udp -e 389");
        assert_eq!(ended.code, 0, "something is there: {ended:#?}");
    });
}

/// Which question goes to which port stands in the services file.
fn services_file() {
    in_namespace(|| {
        let home = open_directory();
        let services = home.path().join("services");
        std::fs::write(&services, "pop3 61110/tcp # elsewhere\n").expect("a file");
        serve("127.0.0.1:61110", |mut stream| {
            let _ = stream.write_all(b"+OK ready\r\n");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let mut command = Command::new(portqry());
        let command = command.args(["-n", "127.0.0.1", "-nr", "-e", "61110", "--services"]);
        let ended = run(command.arg(&services), "");
        let shown =
            "TCP port 61110 (pop3 service): LISTENING\n\nData returned from port:\n+OK ready\n";
        assert!(ended.out.ends_with(shown), "{ended:#?}");
    });
}

fn source_port() {
    in_namespace(|| {
        serve("127.0.0.1:61001", |_| {});
        let ended = query("-n 127.0.0.1 -e 61001 -nr -sp 61001");
        assert_eq!(ended.code, 69, "{ended:#?}");
        let said = "Cannot use specified source port.\nPort is already in use.\n\
                    Specify a port that is not in use and run the command again.\n";
        assert!(ended.out.ends_with(said), "{ended:#?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:61004").expect("a listener");
        let ended = query("-n 127.0.0.1 -e 61004 -nr -sp 61321 -q");
        assert_eq!(ended.code, 0, "{ended:#?}");
        // The kernel has accepted it, and knows from where, also after its end.
        let (_, from) = listener.accept().expect("a connection");
        assert_eq!(from.port(), 61321);
        // Ports below 1024 need a privilege.
        let mut command = Command::new(portqry());
        let command = command.args("-n 127.0.0.1 -e 61001 -nr -sp 53 -q".split(' '));
        let ended = run(command.uid(65_534).gid(65_534), "");
        assert_eq!(ended.code, 77, "{ended:#?}");
        assert!(
            ended.err.contains("Port 53 needs a privilege"),
            "{ended:#?}"
        );
    });
}

fn log_file() {
    in_namespace(|| {
        let home = open_directory();
        let log = home.path().join("pq.txt");
        let line = format!("-n 127.0.0.1 -e 61009 -nr -l {}", log.display());
        let read = || std::fs::read_to_string(&log).expect("a log");
        let ended = query(&line);
        assert_eq!(ended.code, 1, "{ended:#?}");
        let first = read();
        assert!(first.starts_with("PortQry Version 2.0 Log File\n\nSystem Date: "));
        assert!(
            first.contains("\n\nCommand run:\n portqry -n 127.0.0.1 -e 61009 -nr -l "),
            "{first}"
        );
        let end = format!("\n\n{}\n\n========= end of log file =========\n", ended.out);
        assert!(first.ends_with(&end), "{first}");

        let answered = |answer: &str| {
            let arguments = line.split(' ');
            run(Command::new(portqry()).args(arguments), answer)
        };
        // No answer is no; other words are asked again.
        for answer in ["n\n", "", "maybe\nNO\n"] {
            let ended = answered(answer);
            assert_eq!(ended.code, 73, "{answer:?}: {ended:#?}");
            assert!(ended.out.starts_with("The log file "), "{ended:#?}");
            assert_eq!(read(), first);
        }
        std::fs::write(&log, "older").expect("a file");
        assert_eq!(answered("y\n").code, 1);
        assert!(read().starts_with("PortQry"));
        for overwrite in ["-y", "-q"] {
            std::fs::write(&log, "older").expect("a file");
            assert_eq!(query(&format!("{line} {overwrite}")).code, 1);
            assert!(read().contains("TCP port 61009 (unknown service): NOT LISTENING\n"));
        }
        let ended = query("-n 127.0.0.1 -e 61009 -l /nonexistent/log");
        assert_eq!(ended.code, 73, "{ended:#?}");
    });
}

fn full_disk() {
    in_namespace(|| {
        let ended = query("-n 127.0.0.1 -e 61009 -nr -l /dev/full -y");
        assert_eq!(ended.code, 74, "{ended:#?}");
        assert!(ended.out.ends_with("NOT LISTENING\n"), "{ended:#?}");
        let said = "portqry: cannot write the log file /dev/full: No space left on device";
        assert!(ended.err.starts_with(said), "{ended:#?}");
    });
}

fn names() {
    let ended = query("-n no-such-host.invalid -e 80");
    assert_eq!(ended.code, 99, "{ended:#?}");
    let said = "Querying target system called:\n\n no-such-host.invalid\n\n\
                Attempting to resolve name to IP address...\n\n\
                Failed to resolve name to IP address\n";
    assert!(ended.out.starts_with(said), "{ended:#?}");
    let ended = query("-n no-such-host.invalid -e 80 -q");
    assert_eq!((ended.code, ended.out.as_str()), (99, ""));
    assert!(ended.err.starts_with("Failed to resolve"), "{ended:#?}");
    let ended = query("-n localhost -e 9 -sl");
    assert!(
        ended
            .out
            .contains("\n\nName resolved to 127.0.0.1\n\nquerying...\n\n"),
        "{ended:#?}"
    );
}

fn usage() {
    for line in [
        "-n h -e 0",
        "-n h -e 65536",
        "-n h -r 9:1",
        "-n h -e 1 -r 1:2",
        "-n h -q -p both",
        "-e 80",
        "-n h -frob",
        "-local -wport 1",
    ] {
        let ended = query(line);
        assert_eq!(ended.code, 64, "{line}: {ended:#?}");
        assert_eq!(ended.out, "", "{line}");
        assert!(ended.err.starts_with("portqry: "), "{line}: {ended:#?}");
    }
    for line in ["-?", "/?", "--help", "-h"] {
        let ended = query(line);
        assert_eq!(ended.code, 0, "{line}");
        assert!(ended.out.contains("portqry -n name_to_query"), "{line}");
    }
}

fn interactive() {
    in_namespace(|| {
        serve("127.0.0.1:21", |mut stream| {
            let _ = stream.write_all(b"220 files\r\n");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let home = open_directory();
        let log = home.path().join("log");
        let typed =
            "q ftp\n\nset port=61009\nset p=both\nfoo\nnode nobody.invalid\nq\nexit\nq ftp\n";
        let mut command = Command::new(portqry());
        let ended = run(command.args(["-i", "-nr", "-l"]).arg(&log), typed);
        assert_eq!(ended.code, 0, "{ended:#?}");
        let begin = "Portqry Interactive Mode\n\nType 'help' for a list of commands\n\n\
                     Default Node: 127.0.0.1\n\nCurrent option values:\n   end port= 80\n   \
                     protocol= TCP\n   source port= 0 (ephemeral)\n";
        assert!(ended.out.starts_with(begin), "{ended:#?}");
        for part in [
            "resolving service name using local services file...\n\
             TCP port resolved to the 'ftp' service\n\nTCP port 21 (ftp service): LISTENING\n\n\
             Data returned from port:\n220 files\n",
            "   end port= 61009\n   protocol= BOTH\n",
            "'foo' is not a command; type 'help' for a list\n",
            "Default Node: nobody.invalid\n",
            "Failed to resolve name to IP address\n",
        ] {
            assert!(ended.out.contains(part), "{part}: {ended:#?}");
        }
        assert_eq!(ended.out.matches("220 files").count(), 1, "exit ends it");
        let log = std::fs::read_to_string(&log).expect("a log");
        assert!(
            log.contains("\n> q ftp\n") && log.ends_with("of log file =========\n"),
            "{log}"
        );
    });
}

fn on_a_terminal() {
    in_namespace(|| {
        serve("127.0.0.1:21", |mut stream| {
            let _ = stream.write_all(b"220 files\r\n");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let mut terminal = Terminal::new();
        let before = format!("{:?}", terminal.modes());
        let mut running = terminal.start(Command::new(portqry()).args(["-i", "-nr"]));
        running.wait_for(|line| line.contains("source port= 0 (ephemeral)"));
        terminal.wait_until_raw();
        // Completed, then taken from what was typed before.
        terminal.press(b"q f\t\r");
        running.wait_for(|line| line == "220 files");
        terminal.wait_until_raw();
        terminal.press(b"\x1b[A\r");
        running.wait_for(|line| line == "220 files");
        terminal.wait_until_raw();
        // Ctrl-C takes the line back, Ctrl-D ends.
        terminal.press(b"nonsense\x03");
        running.wait_for(|line| line.contains("nonsense"));
        terminal.wait_until_raw();
        terminal.press(b"\x04");
        let status = running.wait();
        assert!(status.success(), "{status}");
        assert_eq!(format!("{:?}", terminal.modes()), before);

        // Ended from elsewhere it gives the terminal back, too.
        let terminal = Terminal::new();
        let before = format!("{:?}", terminal.modes());
        let mut running = terminal.start(Command::new(portqry()).arg("-i"));
        running.wait_for(|line| line.contains("source port= 0 (ephemeral)"));
        terminal.wait_until_raw();
        running.signal(Signal::TERM);
        assert_eq!(running.wait().code(), Some(143));
        assert_eq!(format!("{:?}", terminal.modes()), before);
    });
}

/// What is known by then is printed, and the log is whole.
fn ends_with_ctrl_c() {
    in_namespace(|| {
        // Silence takes several seconds to be believed.
        reply("127.0.0.1:61002", |_| None);
        reply("127.0.0.1:61003", |_| None);
        let home = open_directory();
        let log = home.path().join("log");
        let mut command = Command::new(portqry());
        command.args("-n 127.0.0.1 -nr -p udp -o 61002,61003 -l".split(' '));
        let mut running = Running::start(command.arg(&log));
        running.wait_for(|line| line == " 127.0.0.1");
        running.signal(Signal::INT);
        let (status, out) = running.finish();
        assert_eq!(status.code(), Some(130), "{out}");
        let last = "Stopped: 2 of 2 ports were not queried to the end";
        assert_eq!(out.lines().last(), Some(last), "{out}");
        let log = std::fs::read_to_string(&log).expect("a log");
        assert!(
            log.ends_with("\n\n========= end of log file =========\n"),
            "{log}"
        );
    });
}

fn local() {
    in_namespace(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:61005").expect("the port is free");
        let ended = query("-local -v");
        assert_eq!(ended.code, 0, "{ended:#?}");
        let pid = std::process::id();
        let row = format!("{pid}\tTCP 61005  \t127.0.0.1 \tLISTENING\t 0.0.0.0:0\n");
        assert!(
            ended
                .out
                .starts_with("TCP/UDP Port to Process Mappings\n\n")
        );
        assert!(ended.out.contains(&row), "{row}");
        assert!(
            ended
                .out
                .contains("\nPort and Module Information by Process\n")
        );
        assert!(ended.out.contains(&format!("\nProcess ID: {pid} (e2e")));
        assert!(ended.out.contains("\nLoaded modules:\n/"));
        let brief = query("-local");
        assert!(!brief.out.contains("Loaded modules:"));
        drop(listener);
    });
}
