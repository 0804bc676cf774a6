//! What is expected of the lines about one socket.
//!
//! Every failure says what was expected and shows all lines about the socket.

use std::fmt::Write as _;

use serde_json::Value;

use super::log::Log;
use super::traffic::{Fact, wall_micros};

/// A connection that this process made, from its SYN to its end.
pub(crate) const CONNECTED: &[&str] = &["connect", "established", "close"];
/// An inbound connection.
pub(crate) const ACCEPTED: &[&str] = &["accept", "close"];
/// A listener.
pub(crate) const LISTENED: &[&str] = &["listen", "close"];
/// A UDP port.
pub(crate) const BOUND: &[&str] = &["bind", "close"];

/// The process made the call itself.
pub(crate) const CREATOR: &[&str] = &["creator"];
/// The process owns the listener, or accepted the connection.
pub(crate) const INHERITED: &[&str] = &["inherited", "creator"];
/// The process was found to hold a socket that is older than the recorder.
pub(crate) const FOUND: &[&str] = &["snapshot"];

/// The lines about one socket, and the truth about it.
pub(crate) struct SocketLines<'a> {
    fact: &'a Fact,
    lines: Vec<&'a Value>,
}

impl Log {
    /// The lines about a socket.
    pub(crate) fn about<'a>(&'a self, fact: &'a Fact) -> SocketLines<'a> {
        SocketLines {
            fact,
            lines: self
                .lines()
                .filter(|line| line["socket"] == fact.cookie)
                .collect(),
        }
    }
}

impl SocketLines<'_> {
    /// The whole life of a socket: these events, this owner, these addresses,
    /// and an end for this reason.
    pub(crate) fn tell(&self, events: &[&str], owner: &[&str], reason: &str) -> &Self {
        self.events(events).owner(owner).addresses().closed(reason)
    }

    /// Exactly these events, beside `state` and `snapshot`.
    pub(crate) fn events(&self, expected: &[&str]) -> &Self {
        let found: Vec<&str> = self
            .lines
            .iter()
            .filter_map(|line| line["event"].as_str())
            .filter(|event| !["state", "snapshot"].contains(event))
            .collect();
        self.check(found == expected, &format!("the events {expected:?}"))
    }

    /// Exactly these events, in turn, beside `state` and `snapshot`: each with
    /// the process and the addresses that were true at that moment.
    pub(crate) fn in_turn(&self, expected: &[(&str, &Fact)], ways: &[&str]) -> &Self {
        let events: Vec<&str> = expected.iter().map(|&(event, _)| event).collect();
        self.events(&events);
        let told = self
            .lines
            .iter()
            .filter(|line| events.contains(&line["event"].as_str().unwrap_or_default()));
        for (line, &(_, fact)) in told.zip(expected) {
            let then = SocketLines {
                fact,
                lines: vec![line],
            };
            then.owner(ways).addresses();
        }
        self
    }

    /// In every line the true process, known in one of these ways.
    pub(crate) fn owner(&self, ways: &[&str]) -> &Self {
        for line in &self.lines {
            self.owner_in(line, ways);
        }
        self
    }

    /// In the lines with this event the true process, known in one of these ways.
    pub(crate) fn owner_at(&self, event: &str, ways: &[&str]) -> &Self {
        self.owner_in(self.line(event), ways);
        self
    }

    /// The true process, in every part that the traffic program knows.
    fn owner_in(&self, line: &Value, ways: &[&str]) {
        let fact = self.fact;
        let expect = |key: &str, expected: Value| {
            self.check(
                line[key] == expected,
                &format!("{key} {expected} in\n{line}\n"),
            );
        };
        // A later set lists a socket that is still there once more.
        let listed = line["event"] == "snapshot" && line["owner"] == "snapshot";
        self.check(
            listed || ways.iter().any(|way| line["owner"] == *way),
            &format!("an owner known by one of {ways:?} in\n{line}\n"),
        );
        expect("pid", fact.pid.into());
        expect("ppid", fact.ppid.into());
        expect("uid", fact.uid.into());
        if let Some(user) = user_name(fact.uid) {
            expect("user", user.into());
        }
        if let Some(exe) = &fact.exe {
            expect("exe", exe.as_str().into());
            let name = exe.rsplit('/').next().unwrap_or_default();
            expect("process", name.into());
        }
        if let Some(cmdline) = &fact.cmdline {
            expect("cmdline", cmdline.as_str().into());
        }
        if let Some(started) = fact.started {
            let told = line["start_time"]
                .as_str()
                .and_then(|time| time.parse::<jiff::Timestamp>().ok())
                .map(|time| time.as_duration().as_secs_f64());
            // The kernel tells when it booted in whole seconds.
            self.check(
                told.is_some_and(|told| (told - started).abs() < 1.5),
                &format!("a start_time near {started} in\n{line}\n"),
            );
        }
    }

    /// In every line the true addresses, protocol, family and namespace.
    pub(crate) fn addresses(&self) -> &Self {
        let fact = self.fact;
        let on_wire = fact.remote_ip.as_ref().or(fact.local_ip.as_ref());
        let family = on_wire.map(|ip| if ip.contains(':') { "ipv6" } else { "ipv4" });
        for line in &self.lines {
            let expect = |key: &str, expected: Value| {
                self.check(
                    line[key] == expected,
                    &format!("{key} {expected} in\n{line}\n"),
                );
            };
            expect("protocol", fact.protocol.as_str().into());
            if let Some(netns) = fact.netns {
                expect("netns", netns.into());
            }
            // An unconnected UDP socket may be bound before its peer is known.
            if fact.protocol == "tcp" {
                expect("remote_ip", fact.remote_ip.clone().into());
                expect("remote_port", fact.remote_port.into());
                if let Some(local_ip) = &fact.local_ip {
                    expect("local_ip", local_ip.as_str().into());
                }
            }
            if let Some(family) = family {
                expect("family", family.into());
            }
            if let Some(port) = fact.local_port {
                expect("local_port", port.into());
            }
        }
        self
    }

    /// An end for this reason, after a time that is counted.
    pub(crate) fn closed(&self, reason: &str) -> &Self {
        let close = self.line("close");
        self.check(close["reason"] == reason, &format!("the reason {reason}"));
        self.check(
            close["duration_us"]
                .as_u64()
                .is_some_and(|duration| duration > 0),
            "a duration_us greater than 0",
        )
    }

    /// This value in the line with this event.
    pub(crate) fn value(&self, event: &str, key: &str, expected: impl Into<Value>) -> &Self {
        let expected = expected.into();
        let found = &self.line(event)[key];
        self.check(
            *found == expected,
            &format!("{key} {expected} in `{event}`"),
        )
    }

    /// A number between these, both included, in the line with this event.
    pub(crate) fn between(&self, event: &str, key: &str, least: u64, most: u64) -> &Self {
        let found = self.line(event)[key].as_u64();
        self.check(
            found.is_some_and(|found| (least..=most).contains(&found)),
            &format!("{key} from {least} to {most} in `{event}`"),
        )
    }

    /// Every line from this moment (microseconds since 1970) to now, and in order.
    pub(crate) fn since(&self, began: u64) -> &Self {
        let mut earliest = began.saturating_sub(1000);
        for line in self.lines.iter().filter(|line| line["event"] != "snapshot") {
            let time = line["time"]
                .as_str()
                .and_then(|time| time.parse::<jiff::Timestamp>().ok())
                .and_then(|time| u64::try_from(time.as_microsecond()).ok())
                .unwrap_or_default();
            self.check(
                (earliest..wall_micros() + 1000).contains(&time),
                &format!("a time from {earliest} on, and not of the future, in\n{line}\n"),
            );
            earliest = time;
        }
        self
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Value> {
        self.lines.iter().copied()
    }

    /// The one line with this event.
    pub(crate) fn line(&self, event: &str) -> &Value {
        let found: Vec<&&Value> = self
            .lines
            .iter()
            .filter(|line| line["event"] == event)
            .collect();
        self.check(found.len() == 1, &format!("one `{event}`"));
        found[0]
    }

    /// The lines with this event.
    pub(crate) fn lines_with(&self, event: &str) -> Vec<&Value> {
        self.lines
            .iter()
            .copied()
            .filter(|line| line["event"] == event)
            .collect()
    }

    /// Fails with every line about the socket.
    #[track_caller]
    pub(crate) fn check(&self, holds: bool, expected: &str) -> &Self {
        if !holds {
            let mut lines = String::new();
            for line in &self.lines {
                let _ = writeln!(lines, "  {line}");
            }
            panic!(
                "expected: {expected}\nof the {} socket {}: {:?}\nthe lines about it:\n{lines}",
                self.fact.role, self.fact.cookie, self.fact
            );
        }
        self
    }
}

/// The name of a user in `/etc/passwd`, where these tests take theirs from.
fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
