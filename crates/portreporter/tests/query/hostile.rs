//! Every question meets servers that mean no good.
//!
//! What each protocol makes of wrong replies stands beside it in `probe`, and
//! in the fuzz targets. Here the whole program meets them over real sockets,
//! with a bound on its memory: it ends in time, says that somebody is there,
//! and sends nothing to the terminal that the terminal would act on.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Case;
use crate::stage::{query, ran, say, serve, verdicts};

pub(super) const CASES: &[Case] = &[
    ("hostile_servers_of_every_protocol", every_protocol),
    ("hostile_server_that_takes_its_time", slow),
];

/// The longest that a run may take on a busy machine.
const LONG: Duration = Duration::from_mins(2);
/// How much memory a run may write to, in KiB.
const MEMORY: u32 = 200 << 10;
/// A pause between two bytes.
const MOMENT: Duration = Duration::from_millis(20);

/// Sends bytes as fast as they are taken.
fn endlessly(bytes: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync + Clone + 'static {
    move |mut stream| while stream.write_all(bytes).is_ok() {}
}

/// Sends the beginning at once, and then a byte now and then, until the other
/// side goes.
fn slowly(begin: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync + Clone + 'static {
    move |mut stream| {
        let _ = stream.write_all(begin);
        let _ = stream.set_read_timeout(Some(MOMENT));
        while !matches!(stream.read(&mut [0; 1000]), Ok(0)) && stream.write_all(b"2").is_ok() {}
    }
}

fn echoes(mut stream: TcpStream) {
    let mut bytes = [0; 1000];
    while let Ok(length @ 1..) = stream.read(&mut bytes)
        && stream.write_all(&bytes[..length]).is_ok()
    {}
}

/// Sends these datagrams for each one that comes.
fn reply(port: u16, replies: impl Fn(Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) {
    let socket = UdpSocket::bind(("127.0.0.1", port)).expect("a socket");
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for reply in replies(buffer[..length].to_vec()) {
                // Whoever has left hears no more.
                let _ = socket.send_to(&reply, from);
            }
        }
    });
}

fn servers() {
    serve("127.0.0.1:1001", drop);
    serve("127.0.0.1:1002", endlessly(&[b'x'; 4096]));
    serve(
        "127.0.0.1:1003",
        endlessly(b"250-\x1b[2Jmore\r\n* more\r\n"),
    );
    serve("127.0.0.1:1004", slowly(b""));
    serve("127.0.0.1:1005", echoes);
    // Lengths of several protocols that lie: BER, TLS, TPKT, DNS, MySQL.
    serve(
        "127.0.0.1:1006",
        slowly(b"\x30\x84\x7f\xff\xff\xff\x02\x01"),
    );
    serve("127.0.0.1:1007", endlessly(&[0xff; 64]));
    serve(
        "127.0.0.1:1008",
        slowly(b"\x03\x00\xff\xff\x16\x03\x03\xff\xff"),
    );
    serve("127.0.0.1:1009", |mut stream| {
        let _ = stream.write_all(b"\x00\x00\x7f");
    });

    reply(1001, |_| vec![Vec::new()]);
    reply(1002, |_| vec![vec![0xff; 65_507]]);
    reply(1003, |question| vec![question; 3]);
    reply(1004, |_| vec![b"\x1b[2J".to_vec(); 5000]);
    reply(1005, |mut question| {
        // An answer in the name of DNS, whose names lead to themselves.
        if let Some(header) = question.get_mut(..12) {
            header[2] |= 0x80;
            header[4..].fill(0xff);
            question.truncate(12);
            question.extend([0xc0, 12].repeat(200));
        }
        vec![question]
    });
    // Sets within sets, as deep as a datagram is long (BER).
    reply(1006, |_| vec![[0x30, 0x80].repeat(30_000)]);
    reply(1007, |mut question| {
        question.truncate(question.len() / 2);
        vec![question]
    });
}

fn every_protocol() {
    servers();
    let refused = ran(&mut query(&["127.0.0.1:1", "--as", "?"])).ended(64);
    let names = refused.errors.rsplit("there are ").next().expect("a list");
    let names: Vec<_> = names.trim().split(", ").collect();
    assert!(names.len() > 25, "{names:?}");
    let program = env!("CARGO_BIN_EXE_portreporter");
    let begun = Instant::now();
    let runs: Vec<_> = names
        .iter()
        .map(|name| {
            let ports = "127.0.0.1:tcp:1001-1009,udp:1001-1007";
            let script = format!(
                "ulimit -d {MEMORY}; exec {program} query {ports} --as {name} --wait 1 --json"
            );
            let mut command = Command::new("sh");
            command.args(["-c", &script]).stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            (name, command.spawn().expect("it runs"))
        })
        .collect();
    for (name, run) in runs {
        let ended = run.wait_with_output().expect("it ends");
        let out = String::from_utf8(ended.stdout).expect("text");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{name}: {out}{errors}");
        assert!(!errors.contains("panicked"), "{name}: {errors}");
        assert_eq!(out.lines().count(), 16, "{name}: {out}{errors}");
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'));
        for line in out.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("an object");
            let status = line["status"].as_str().expect("a status");
            assert_ne!(status, "NOT LISTENING", "{name}: {line}");
            if line["protocol"] == "tcp" {
                assert_eq!(status, "LISTENING", "{name}: {line}");
            }
        }
    }
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
}

/// A byte at a time, for ever: each is progress, and it comes to an end.
fn slow() {
    serve("127.0.0.1:1001", slowly(b""));
    serve("127.0.0.1:1002", say(b"2"));
    for service in ["smtp", "http", "ldap"] {
        let begun = Instant::now();
        let options = ["--as", service, "--wait", "0.5"];
        let found = verdicts(&[&["127.0.0.1:1001"][..], &options].concat());
        assert!(begun.elapsed() < LONG / 4, "{:?}", begun.elapsed());
        assert_eq!(found[0]["status"], "LISTENING", "{found:?}");
        let fault = "the answer was not complete within 500ms";
        assert_eq!(found[0]["fault"], fault, "{service}: {found:?}");
    }
    let found = verdicts(&["127.0.0.1:1002", "--as", "smtp", "--wait", "0.5"]);
    assert_eq!(
        found[0]["fault"],
        "the answer was not complete within 500ms"
    );
}
