//! Who says what, and how it is shown.

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};

use md5::{Digest as _, Md5};
use serde_json::Value;

use crate::Case;
use crate::stage::{Nobody, query, ran, say, serve, verdicts};

pub(super) const CASES: &[Case] = &[
    ("the_services_file_decides", services_file),
    ("as_another_service", as_another),
    ("hostile_banner_is_escaped", hostile_banner),
    ("endless_and_slow_talk_comes_to_an_end", endless_talk),
    ("radius_secret", radius_secret),
    ("source_port", source_port),
    ("sets_have_one_verdict", sets),
    ("ranges_of_addresses", ranges),
    ("every_address_of_a_name", names),
];

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

/// A server of RADIUS that signs with its secret, whoever asks.
fn radius_secret() {
    let socket = UdpSocket::bind("127.0.0.1:1812").expect("a socket");
    std::thread::spawn(move || {
        let mut request = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut request) {
            const ACCEPT: u8 = 2;
            let mut reply = vec![ACCEPT, request[1], 0, 20];
            let signed = Md5::new()
                .chain_update(&reply)
                .chain_update(&request[4..20])
                .chain_update(b"our secret")
                .finalize();
            reply.extend(signed);
            let _ = socket.send_to(&reply, from);
        }
    });
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, "our secret\n").expect("a file");
    let file = file.to_str().expect("text");
    let ports = ["127.0.0.1:udp:1812", "--as", "radius"];
    for (options, authentic) in [(&[][..], false), (&["--radius-secret-file", file], true)] {
        let found = verdicts(&[&ports[..], options].concat());
        assert_eq!(found[0]["status"], "LISTENING", "{found:?}");
        let facts = &found[0]["answer"]["facts"];
        assert_eq!(facts["authentic"], authentic, "{found:?}");
    }
    let missing = ["--radius-secret-file", "/nonexistent/secret"];
    let refused = ran(query(&ports).args(missing)).ended(74);
    assert!(refused.errors.contains("the secret /nonexistent/secret"));

    // Whoever signs wrongly hears nothing, and nothing can be said.
    let silent = UdpSocket::bind("127.0.0.1:1813").expect("a socket");
    let options = ["127.0.0.1:udp:1813", "--as", "radius", "--wait", "0.3"];
    let found = verdicts(&options);
    assert_eq!(found[0]["status"], "LISTENING or FILTERED", "{found:?}");
    drop(silent);
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

    let nobody = Nobody::new();
    let mut command = nobody.query(&["127.0.0.1:1001", "--source-port", "53"]);
    let refused = ran(&mut command).ended(77);
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
