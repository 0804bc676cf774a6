//! Who says what, and how it is shown.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::thread;

use serde_json::Value;

use crate::Case;
use crate::stage::{query, ran, verdicts};

pub(super) const CASES: &[Case] = &[
    ("the_services_file_decides", services_file),
    ("as_another_service", as_another),
    ("hostile_banner_is_escaped", hostile_banner),
    ("endless_and_slow_talk_comes_to_an_end", endless_talk),
    ("source_port", source_port),
    ("sets_have_one_verdict", sets),
    ("ranges_of_addresses", ranges),
    ("every_address_of_a_name", names),
];

/// A server that does that with each connection.
fn serve(address: &str, talk: impl Fn(TcpStream) + Send + Sync + Clone + 'static) {
    let listener = TcpListener::bind(address).expect("a listener");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            thread::spawn(move || talk(stream));
        }
    });
}

fn say(text: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync + Clone + 'static {
    move |mut stream| {
        let _ = stream.write_all(text);
        // Until the other side goes.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

const SMTP: &[u8] = b"220 mail.example ESMTP\r\n250 mail.example\r\n221 bye\r\n";

fn services_file() {
    serve("127.0.0.1:1025", say(SMTP));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("services");
    std::fs::write(&file, "garbage\nsmtp 1025/tcp\n").expect("a file");
    let file = file.to_str().expect("text");
    let found = verdicts(&["127.0.0.1:1025", "--services", file]);
    assert_eq!(found[0]["service"], "smtp");
    assert_eq!(found[0]["question"], "smtp");
    assert!(
        found[0]["answer"].to_string().contains("mail.example"),
        "{}",
        found[0]
    );
    // A service is a port too.
    let found = verdicts(&["127.0.0.1:smtp", "--services", file]);
    assert_eq!(found[0]["port"], 1025);
    let without = verdicts(&["127.0.0.1:1025", "--services", file, "--no-ask"]);
    assert!(without[0]["question"].is_null());
}

fn as_another() {
    serve("127.0.0.1:1025", say(SMTP));
    let found = verdicts(&["127.0.0.1:1025", "--as", "SMTP"]);
    assert_eq!(found[0]["question"], "smtp");
    let shown = ran(&mut query(&["127.0.0.1:1025", "--as", "smtp", "-v"])).ended(0);
    assert!(shown.out.contains("mail.example"), "{}", shown.out);
    let refused = ran(&mut query(&["127.0.0.1:1025", "--as", "nonsense"])).ended(64);
    assert!(refused.errors.contains("smtp"), "{}", refused.errors);
}

fn hostile_banner() {
    serve(
        "127.0.0.1:1025",
        say(b"220 \x1b[2J\x1b]0;owned\x07 \xff\xe2\x80\xae\r\n"),
    );
    for switch in ["--verbose", "--json", "--every"] {
        let shown = ran(&mut query(&["127.0.0.1:1025", switch, "--wait", "1"])).ended(0);
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.out.contains(bad), "{:?}", shown.out);
        assert!(shown.out.contains("owned"), "{}", shown.out);
    }
}

fn endless_talk() {
    serve("127.0.0.1:1025", |mut stream| {
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    // One byte, and never another.
    serve("127.0.0.1:1026", say(b"2"));
    for service in ["banner", "smtp", "http"] {
        let ports = "127.0.0.1:1025,1026";
        let found = verdicts(&[ports, "--as", service, "--wait", "0.5"]);
        assert_eq!(found.len(), 2);
        for verdict in found {
            assert_eq!(verdict["status"], "LISTENING", "{verdict}");
        }
    }
}

fn source_port() {
    let listener = TcpListener::bind("127.0.0.1:1000").expect("a listener");
    let asked = query(&["127.0.0.1:1000", "--source-port", "2000", "--no-ask"]).spawn();
    let (_, peer) = listener.accept().expect("a connection");
    assert_eq!(peer.port(), 2000);
    assert!(asked.expect("it runs").wait().expect("it ends").success());

    let taken = ["127.0.0.1:1001", "--source-port", "1000"];
    let refused = ran(&mut query(&taken)).ended(69);
    assert!(
        refused.errors.contains("1000 is in use"),
        "{}",
        refused.errors
    );

    // As somebody else, with a copy of the program that everybody may execute.
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("portreporter");
    let program = env!("CARGO_BIN_EXE_portreporter");
    let copied = std::process::Command::new("cp")
        .arg(program)
        .arg(&copy)
        .status();
    assert!(copied.expect("cp runs").success());
    for path in [directory.path(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let mut command = std::process::Command::new(&copy);
    command.args(["query", "127.0.0.1:1001", "--source-port", "53"]);
    let refused = ran(command.uid(65534).gid(65534)).ended(77);
    assert!(refused.errors.contains("privileges"), "{}", refused.errors);
}

fn sets() {
    let web = TcpListener::bind("127.0.0.1:80").expect("a listener");
    let arguments = ["127.0.0.1", "--set", "web", "--no-ask"];
    let shown = ran(&mut query(&arguments)).ended(1);
    let verdict = "WEB Service on 127.0.0.1 cannot be used: 443/tcp is NOT LISTENING";
    assert!(shown.out.contains(verdict), "{}", shown.out);
    let tls = TcpListener::bind("127.0.0.1:443").expect("a listener");
    let shown = ran(&mut query(&arguments)).ended(0);
    assert!(shown.out.contains("can be used"), "{}", shown.out);
    let lines = ran(query(&arguments).arg("--json")).ended(0).lines();
    let last = lines.last().expect("a line");
    assert_eq!(
        (&last["set"], &last["works"]),
        (&"web".into(), &true.into())
    );

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("sets.toml");
    std::fs::write(&file, "[shop]\ntitle = 'Our shop'\nports = '80,81'\n").expect("a file");
    let file = file.to_str().expect("text");
    let shown = ran(&mut query(&["127.0.0.1:shop", "--sets", file, "--no-ask"])).ended(1);
    assert!(shown.out.contains("Our shop on"), "{}", shown.out);
    std::fs::write(file, "[shop]\nports = '80,0'\n").expect("a file");
    let refused = ran(&mut query(&["127.0.0.1:shop", "--sets", file])).ended(65);
    assert!(
        refused.errors.contains("[shop], ports: \"0\""),
        "{}",
        refused.errors
    );
    let refused = ran(&mut query(&["127.0.0.1", "--set", "none"])).ended(64);
    assert!(
        refused.errors.contains("domains-and-trusts"),
        "{}",
        refused.errors
    );
    drop((web, tls));
}

fn ranges() {
    let listener = TcpListener::bind("0.0.0.0:1000").expect("a listener");
    let found = verdicts(&["127.0.0.0/28:1000,1001", "--no-ask"]);
    assert_eq!(found.len(), 32);
    let listening = found.iter().filter(|line| line["status"] == "LISTENING");
    assert_eq!(listening.count(), 16);
    let hosts: std::collections::HashSet<_> = found
        .iter()
        .map(|line| line["address"].to_string())
        .collect();
    assert_eq!(hosts.len(), 16);
    // Of many ports only those that listen are shown.
    let shown = ran(&mut query(&["127.0.0.0/26:1000,1001", "--no-ask"])).ended(0);
    assert!(
        shown.out.contains("64 NOT LISTENING (reset)"),
        "{}",
        shown.out
    );
    assert_eq!(
        shown.out.matches("  LISTENING  ").count(),
        64,
        "{}",
        shown.out
    );
    drop(listener);
}

fn names() {
    let listener = TcpListener::bind("[::1]:1000").expect("a listener");
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let v6 = hosts.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("::1") && words.any(|word| word == "localhost")
    });
    let found = verdicts(&["localhost:1000", "--no-ask"]);
    let on = |address: &str| -> Vec<&Value> {
        let on = |line: &&Value| line["address"] == address;
        found.iter().filter(on).collect()
    };
    if v6 {
        assert_eq!(on("::1")[0]["status"], "LISTENING", "{found:?}");
    }
    assert!(found.iter().all(|line| line["host"] == "localhost"));
    let v4 = ran(&mut query(&["localhost:1000", "-4", "--no-ask"])).ended(1);
    assert!(v4.out.contains("127.0.0.1"), "{}", v4.out);
    drop(listener);
}
