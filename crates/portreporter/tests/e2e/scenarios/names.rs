//! Names that try to break the logs: a process may call itself anything.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::harness::expect::{CONNECTED, CREATOR};
use crate::harness::{Log, Recorder, Traffic, copy_program, open_directory, ports, traffic};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[("names_are_harmless", Needs::Root, names_are_harmless)];

const NAMES: [&[u8]; 7] = [
    b"comma,comma",
    b"\"quote\"",
    b"line\n26-1-1,0:00:0,TCP,1,0.0.0.0,,0.0.0.0,1,forged,<root>",
    b"escape\x1b[2J\x1b]0;owned\x07",
    b"bytes\xff\xfe\x80",
    "c1\u{9b}2J and \u{202e}override".as_bytes(),
    b" all,of\"them\r\n\t\x1b[31m\xff ",
];

fn names_are_harmless() {
    let directory = open_directory();
    let mut recorder = Recorder::start();
    let runs = NAMES.map(|name| {
        let copy = directory.path().join(OsStr::from_bytes(name));
        copy_program(&traffic(), &copy);
        Traffic::play_with(&copy, &["time-wait"])
    });
    for facts in &runs {
        recorder.wait_for_closes(&facts.cookies());
    }
    // PR-INITIAL of the next set lists the connections in TIME_WAIT.
    recorder.roll();
    let log = recorder.stop();
    for (facts, name) in runs.iter().zip(NAMES) {
        let client = facts.one("client");
        log.about(&client).tell(CONNECTED, CREATOR, "closed").value(
            "connect",
            "process",
            event::text::from_bytes(name),
        );
        let module = event::text::escape(&event::text::from_bytes(name)).into_owned();
        let port = client.local_port.expect("a port").to_string();
        let pid = client.pid.to_string();
        let row = log
            .sets
            .iter()
            .flat_map(ports::rows)
            .map(ports::fields)
            .find(|fields| fields.len() == 10 && fields[3] == port && fields[7] == pid);
        assert!(
            row.as_ref().is_some_and(|fields| fields[8] == module),
            "a row of PR-PORTS with the module {module:?} was expected: {row:?}"
        );
        let listed = log
            .sets
            .iter()
            .any(|set| set.initial.contains(&format!("{pid}:{module}\t")));
        assert!(listed, "PR-INITIAL was expected to list {pid}:{module}");
    }
    harmless(&log);
}

/// Nothing in any file acts on a terminal.
fn harmless(log: &Log) {
    for set in &log.sets {
        let events = String::from_utf8_lossy(&set.bytes);
        for (file, text) in [
            ("PR-EVENTS", events.as_ref()),
            ("PR-INITIAL", &set.initial),
            ("PR-PORTS", &set.ports),
            ("PR-PIDS", &set.pids),
        ] {
            let bad = text.lines().find(|line| {
                line.chars()
                    .any(|c| (c.is_control() && c != '\t') || c == '\u{202e}')
            });
            assert!(
                bad.is_none(),
                "{file}-{} acts on a terminal: {bad:?}",
                set.stamp
            );
        }
    }
    let bad = log.stderr.lines().find(|line| line.contains('\x07'));
    assert!(bad.is_none(), "standard error acts on a terminal: {bad:?}");
}
