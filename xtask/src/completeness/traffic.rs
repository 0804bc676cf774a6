//! The basic scenarios: those that the end-to-end tests play with the program
//! `traffic`, played as they are.
//!
//! `traffic` says what the kernel says about a socket. How a socket comes into
//! use and how it ends follows from the scenario and the socket's role in it,
//! and is written down here.

use serde::Deserialize;
use serde_json::Value;

use crate::load::scenarios::When;
use crate::load::scenarios::fact::{End, Fact, Kind, Said};

/// The count that a full run puts in place of a smoke test's.
const MANY: &str = "500";
const FEW: &str = "20";

/// Names, and the arguments of `traffic`. `#` stands for a count.
pub(super) const ALL: &[(&str, &[&str])] = &[
    ("hold", &["hold"]),
    ("listen", &["listen"]),
    ("listen-unbound", &["listen-unbound"]),
    ("pair", &["pair"]),
    ("pair-v6", &["pair", "6"]),
    ("refused", &["refused"]),
    ("timeout", &["timeout"]),
    ("non-blocking", &["non-blocking"]),
    ("50-microseconds", &["quick"]),
    ("v4-mapped", &["mapped"]),
    ("bytes", &["bytes"]),
    ("reset-by-client", &["reset", "client"]),
    ("reset-by-server", &["reset", "server"]),
    ("reset-unread", &["reset", "unread"]),
    ("time-wait", &["time-wait"]),
    ("exit-open", &["exit-open"]),
    ("udp-bind", &["udp-bind"]),
    ("udp-bind-v6", &["udp-bind", "6"]),
    ("udp-sendto", &["udp-autobind", "4", "sendto"]),
    ("udp-sendmsg", &["udp-autobind", "4", "sendmsg"]),
    ("udp-connect", &["udp-autobind", "4", "connect"]),
    ("udp-sendto-v6", &["udp-autobind", "6", "sendto"]),
    ("udp-sendmsg-v6", &["udp-autobind", "6", "sendmsg"]),
    ("udp-connect-v6", &["udp-autobind", "6", "connect"]),
    ("udp-receive", &["udp-receive"]),
    ("fork-accept", &["fork-accept", "4"]),
    ("reuse-port", &["reuse-port", "4"]),
    ("own-network", &["in-netns", "pair"]),
    ("short-programs", &["short", "#"]),
];

/// When one of them runs.
pub(super) fn when(name: &str) -> When {
    match name {
        "hold" => When::Before,
        _ => When::Alone,
    }
}

/// The arguments with their counts.
pub(super) fn sized(arguments: &[&'static str], smoke: bool) -> Vec<&'static str> {
    let count = if smoke { FEW } else { MANY };
    arguments
        .iter()
        .map(|argument| if *argument == "#" { count } else { argument })
        .collect()
}

/// A line of `traffic`; none if it is not about a socket.
pub(super) fn parse(scenario: &str, line: &str) -> anyhow::Result<Option<Said>> {
    let value: Value = serde_json::from_str(line)?;
    if value["ready"] == true {
        return Ok(Some(Said::Ready));
    }
    if value["cookie"].is_null() {
        return Ok(None);
    }
    let told: Told = serde_json::from_value(value)?;
    Ok(Some(Said::Fact(Box::new(told.fact(scenario)?))))
}

/// What `traffic` says about a socket; the keys that count here.
#[derive(Deserialize)]
struct Told {
    role: String,
    cookie: String,
    protocol: String,
    netns: Option<u64>,
    local_ip: std::net::IpAddr,
    local_port: u16,
    remote_ip: Option<std::net::IpAddr>,
    remote_port: Option<u16>,
    pid: u32,
    uid: u32,
    exe: Option<String>,
}

impl Told {
    fn fact(self, scenario: &str) -> anyhow::Result<Fact> {
        let kind = if self.protocol == "udp" {
            Kind::Bind
        } else if self.role.ends_with("listener") {
            Kind::Listen
        } else if self.role.ends_with("server") {
            Kind::Accept
        } else {
            Kind::Connect
        };
        let bytes = match (scenario, kind) {
            (_, Kind::Listen | Kind::Bind | Kind::Create)
            // Six bytes arrive and are never read: were they received?
            | ("reset-unread", Kind::Accept) => None,
            ("bytes", Kind::Connect) => Some((1_000_003, 17)),
            ("bytes", Kind::Accept) => Some((17, 1_000_003)),
            ("reset-unread", _) => Some((6, 0)),
            _ => Some((0, 0)),
        };
        let end = match (scenario, kind) {
            ("refused", _) => End::Refused,
            ("timeout", _) => End::Timeout,
            (reset, Kind::Connect | Kind::Accept) if reset.starts_with("reset-") => End::Reset,
            // Both ends are closed by the same death; which FIN is first is open.
            ("exit-open", _) => End::Somehow,
            _ => End::Closed,
        };
        // A port that was chosen by the kernel and given back.
        let local = (self.local_port != 0).then(|| (self.local_ip, self.local_port).into());
        Ok(Fact {
            role: self.role,
            kind,
            protocol: self.protocol,
            cookie: Some(u64::from_str_radix(&self.cookie, 16)?),
            netns: self.netns,
            local,
            remote: self
                .remote_ip
                .zip(self.remote_port)
                .filter(|_| kind != Kind::Bind)
                .map(Into::into),
            pid: self.pid,
            uid: Some(self.uid),
            exe: self.exe,
            container: None,
            sent: bytes.map(|(sent, _)| sent),
            received: bytes.map(|(_, received)| received),
            end: Some(end),
            before: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_of_traffic_becomes_ours() {
        let line = r#"{"role":"v4-client","cookie":"1f","protocol":"tcp","netns":4,
            "local_ip":"127.0.0.1","local_port":1,"remote_ip":"127.0.0.1","remote_port":2,
            "pid":7,"uid":0,"exe":"/x","started":1.5}"#;
        let Some(Said::Fact(fact)) = parse("bytes", line).unwrap() else {
            panic!("no fact");
        };
        assert_eq!((fact.cookie, fact.kind), (Some(31), Kind::Connect));
        assert_eq!((fact.sent, fact.received), (Some(1_000_003), Some(17)));
        assert_eq!(fact.end, Some(End::Closed));
        assert!(parse("short", r#"{"short":3}"#).unwrap().is_none());
        assert!(matches!(
            parse("hold", r#"{"ready":true}"#).unwrap(),
            Some(Said::Ready)
        ));
    }
}
