//! A small recorder, and a reader that trusts nothing: it knows the format from
//! its description alone, not from the code under test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use event::{Action, Attribution, Cookie, Endpoint, Protocol, Socket, TcpState, WallTime};
use jiff::tz::TimeZone;
use logs::format::clock::LocalClock;
use logs::format::events::OwnerText;
use logs::{Error, Logs, Notice, Options, RollReason, Run, SetOpened, SetState, Written};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// 2026-11-22T09:05:00Z.
pub(crate) const START: WallTime = WallTime(1_795_338_300_000_000);

pub(crate) const SECOND: i64 = 1_000_000;

/// A state of so many listeners.
pub(crate) struct Listeners(pub(crate) u64);

impl SetState for Listeners {
    fn initial(&self, out: &mut Vec<u8>, _: &mut LocalClock, _: WallTime) {
        out.extend_from_slice(b"Port Reporter Version 2.0 Log File\n");
    }

    fn sockets(&self, each: &mut dyn FnMut(&Socket, Attribution, &OwnerText)) {
        for n in 0..self.0 {
            each(&listener(n), Attribution::Snapshot, &OwnerText::unknown());
        }
    }
}

pub(crate) fn listener(n: u64) -> Socket {
    Socket {
        cookie: Some(Cookie(n)),
        netns: Some(4_026_531_840),
        protocol: Protocol::Tcp,
        local: Endpoint::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            u16::try_from(n % 65_536).unwrap(),
        ),
        remote: None,
        state: Some(TcpState::Listening),
    }
}

pub(crate) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_path_buf(),
        set_size: 5 << 20,
        events_size: 64 << 20,
        max_total: Some(1 << 40),
        keep_days: None,
        compress: false,
    }
}

pub(crate) fn run(name: &str) -> Run {
    Run {
        run: name.to_owned(),
        host: "host".to_owned(),
        names_processes: true,
        ..Run::default()
    }
}

pub(crate) fn open(dir: &Path) -> (Logs, Vec<Notice>) {
    open_as(&options(dir), &run("run"))
}

/// Opens a directory that a recorder has just left. A program that another test
/// starts at that moment holds the lock, with all other open files, until it is
/// executed.
pub(crate) fn open_as(options: &Options, run: &Run) -> (Logs, Vec<Notice>) {
    loop {
        match Logs::open(options.clone(), run.clone(), TimeZone::UTC, START) {
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn roll(logs: &mut Logs, now: WallTime) -> SetOpened {
    logs.roll(now, RollReason::Request, &Listeners(3)).unwrap()
}

/// Records that listener `n` listens.
pub(crate) fn listen(logs: &mut Logs, n: u64) {
    let written = logs.socket(
        WallTime(START.0 + i64::try_from(n).unwrap()),
        &Action::Listen,
        &listener(n),
        Attribution::Unknown,
        &OwnerText::unknown(),
        None,
    );
    assert_eq!(written, Written::Kept);
}

/// The numbers of the listeners that were recorded, in order.
pub(crate) fn listeners(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .filter(|line| line["event"] == "listen")
        .map(|line| u64::from_str_radix(line["socket"].as_str().unwrap(), 16).unwrap())
        .collect()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// Every PR-EVENTS by stamp, uncompressed.
pub(crate) fn events_files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in names(dir) {
        let Some(rest) = name.strip_prefix("PR-EVENTS-") else {
            continue;
        };
        let bytes = std::fs::read(dir.join(&name)).unwrap();
        let known = if let Some(stamp) = rest.strip_suffix(".jsonl") {
            files.insert(stamp.to_owned(), bytes)
        } else if let Some(stamp) = rest.strip_suffix(".jsonl.zst") {
            files.insert(stamp.to_owned(), zstd::decode_all(&*bytes).unwrap())
        } else {
            panic!("{name} was left behind");
        };
        assert_eq!(known, None, "{name} is there twice");
    }
    files
}

/// Checks every promise of the chain and returns all lines in its order.
pub(crate) fn verify_chain(dir: &Path) -> Vec<Value> {
    let files = events_files(dir);
    let mut by_previous = BTreeMap::new();
    for (stamp, bytes) in &files {
        let open: Value = serde_json::from_slice(first_line(bytes)).unwrap();
        assert_eq!(open["event"], "open");
        assert_eq!(open["format"], 1);
        assert_eq!(open["set"], **stamp);
        let previous = open["previous"].as_str().unwrap_or("").to_owned();
        let twice = by_previous.insert(previous, stamp.clone());
        assert_eq!(twice, None, "two sets follow the same one");
    }
    let mut all: Vec<Value> = Vec::new();
    let mut at = String::new();
    let mut expected_hash = Value::Null;
    let mut announced = None;
    while let Some(stamp) = by_previous.remove(&at) {
        let bytes = &files[&stamp];
        let lines = lines(bytes);
        assert_eq!(lines[0]["previous_sha256"], expected_hash, "{stamp}");
        if let Some(announced) = announced.take() {
            assert_eq!(Value::from(stamp.clone()), announced);
        }
        let same_run = all.last().is_some_and(|_| lines[0]["seq"] != 0);
        let first_seq = if same_run {
            all.last().unwrap()["seq"].as_u64().unwrap() + 1
        } else {
            0
        };
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(line["seq"], first_seq + n as u64, "{stamp}");
        }
        let last = lines.last().unwrap();
        if last["event"] == "seal" {
            assert_eq!(last["events"], lines.len() as u64 - 1);
            let seal_at = bytes[..bytes.len() - 1]
                .iter()
                .rposition(|&byte| byte == b'\n')
                .unwrap();
            assert_eq!(last["sha256"], sha256(&bytes[..=seal_at]), "{stamp}");
            announced = Some(last["next"].clone()).filter(|next| !next.is_null());
        }
        expected_hash = sha256(bytes).into();
        all.extend(lines);
        at = stamp;
    }
    assert!(by_previous.is_empty(), "outside the chain: {by_previous:?}");
    assert_eq!(announced, None, "the next set is missing");
    all
}

/// Every line; each must be whole.
pub(crate) fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == b'\n').next().unwrap()
}
