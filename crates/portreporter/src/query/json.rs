//! JSON Lines: an object for each port as soon as it is known, and at the end
//! one for each set on each address.
//!
//! Unknown is null. Text from outside stands there as it came, with the
//! characters that a terminal may act on written as `\u` escapes.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use probe::{Answer, Icmp, Reason, Status, Verdict, Works};
use serde::Serialize;
use serde_json::Value;

use super::plan::Group;
use super::results::{Results, bare};
use crate::list;
use crate::local::Finding;

/// A port.
#[derive(Serialize)]
struct Line<'a> {
    host: Option<&'a str>,
    address: String,
    port: u16,
    protocol: &'static str,
    service: Option<&'a str>,
    status: Status,
    first_status: Status,
    reason: String,
    icmp: Option<Message>,
    attempts: u32,
    round_trip_us: Option<u64>,
    question: Option<&'static str>,
    answer: Option<&'a Answer>,
    fault: Option<String>,
    here: Vec<Value>,
}

/// An ICMP message.
#[derive(Serialize)]
struct Message {
    version: u8,
    r#type: u8,
    code: u8,
    from: Option<IpAddr>,
}

/// A set on one address.
#[derive(Serialize)]
struct Judgement<'a> {
    set: &'a str,
    host: &'a str,
    address: String,
    works: Option<bool>,
    missing: Vec<Missing>,
    optional: Vec<String>,
}

/// A needed port that is not known to listen.
#[derive(Serialize)]
struct Missing {
    port: String,
    status: Option<Status>,
}

/// Prints a verdict.
pub(super) fn write(
    out: &mut impl Write,
    group: &Group,
    verdict: &Verdict,
    findings: &[Finding],
) -> io::Result<()> {
    let host = group.name(bare(verdict.address));
    write_line(out, &line(host, verdict, findings))
}

/// Prints what became of the sets.
pub(super) fn write_sets(out: &mut impl Write, results: &Results<'_>) -> io::Result<()> {
    for judged in results.judged() {
        let missing = judged.verdict.missing.iter();
        let set = Judgement {
            set: &judged.set.name,
            host: judged.host,
            address: address(judged.address),
            works: match judged.verdict.works {
                Works::Yes => Some(true),
                Works::No => Some(false),
                Works::Unknown => None,
            },
            missing: missing
                .map(|(port, status)| Missing {
                    port: port.to_string(),
                    status: *status,
                })
                .collect(),
            optional: judged
                .verdict
                .extras
                .iter()
                .map(ToString::to_string)
                .collect(),
        };
        write_line(out, &set)?;
    }
    Ok(())
}

/// In one piece, so that lines of programs that share an output do not mix.
fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut text = list::json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

fn line<'a>(host: Option<&'a str>, verdict: &'a Verdict, findings: &[Finding]) -> Line<'a> {
    let (answer, fault) = match &verdict.answer {
        Some(Ok(answer)) => (Some(answer), None),
        Some(Err(fault)) => (None, Some(fault.to_string())),
        None => (None, None),
    };
    let icmp = match verdict.reason {
        Reason::Icmp(icmp) => Some(message(icmp)),
        _ => None,
    };
    Line {
        host,
        address: address(verdict.address),
        port: verdict.address.port(),
        protocol: verdict.protocol.name(),
        service: verdict.service.as_deref(),
        status: verdict.status,
        first_status: verdict.first,
        reason: verdict.reason.to_string(),
        icmp,
        attempts: verdict.attempts,
        round_trip_us: verdict
            .round_trip
            .and_then(|took| u64::try_from(took.as_micros()).ok()),
        question: verdict.asked,
        answer,
        fault,
        here: findings.iter().map(Finding::to_json).collect(),
    }
}

fn message(icmp: Icmp) -> Message {
    Message {
        version: if icmp.v6 { 6 } else { 4 },
        r#type: icmp.kind,
        code: icmp.code,
        from: icmp.from,
    }
}

/// The address without its port, with the zone that it is in.
pub(super) fn address(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        address => address.ip().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use probe::Fault;

    use super::super::results::tests::verdict;
    use super::*;

    fn shown(verdict: &Verdict) -> String {
        let mut out = Vec::new();
        write_line(&mut out, &line(Some("box"), verdict, &[])).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_field() {
        let mut verdict = verdict("127.0.0.1:80", Status::Filtered);
        verdict.reason = Reason::Icmp(Icmp {
            v6: false,
            kind: 3,
            code: 13,
            from: Some(IpAddr::from([10, 0, 0, 1])),
        });
        assert_eq!(
            shown(&verdict),
            "{\"host\":\"box\",\"address\":\"127.0.0.1\",\"port\":80,\"protocol\":\"tcp\",\
             \"service\":null,\"status\":\"FILTERED\",\"first_status\":\"FILTERED\",\
             \"reason\":\"administratively prohibited (says 10.0.0.1)\",\
             \"icmp\":{\"version\":4,\"type\":3,\"code\":13,\"from\":\"10.0.0.1\"},\
             \"attempts\":3,\"round_trip_us\":null,\"question\":null,\"answer\":null,\
             \"fault\":null,\"here\":[]}\n"
        );
    }

    #[test]
    fn what_a_service_says_cannot_act_on_a_terminal() {
        let mut verdict = verdict("127.0.0.1:80", Status::Listening);
        let mut answer = Answer::of("banner");
        answer.text = Some("220 \u{1b}[2J\r\n".to_owned());
        verdict.answer = Some(Ok(answer));
        let text = shown(&verdict);
        assert!(text.contains("220 \\u001b[2J\\r\\n"), "{text}");
        verdict.answer = Some(Err(Fault::Closed));
        assert!(shown(&verdict).contains("the connection was closed"));
    }

    #[test]
    fn zones_are_shown() {
        let zoned = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(address(zoned), "fe80::1%3");
    }
}
