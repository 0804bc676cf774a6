//! Why a port of this machine is what it is.
//!
//! From outside a port is open, closed or silent. For a host that is this very
//! machine the reasons can be looked up: who listens there, or only on another
//! address or in another network namespace; a queue that is full; a rule that
//! drops. The machine is looked at once for all ports that are asked about.
//!
//! It is a look from the network namespace in which the question was asked.
//! What may not be read is said ([`Here::unread`]), not passed over.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;

use event::text::escape;
use event::{BootTime, Endpoint, ProcessKey, Protocol, TcpState};
use identity::{Identifier, Roots};
use probe::{Reason, Status, Verdict};
use sensor::{Backlog, Fate, FoundSocket, Obstacle, Packet};
use serde_json::{Value, json};

/// Explains verdicts about ports of this machine, and none about others.
///
/// The machine is looked at when the first of its ports is asked about.
#[derive(Default)]
pub(crate) struct Here {
    machine: Option<Machine>,
    own: HashMap<IpAddr, bool>,
}

impl Here {
    /// What explains the verdict; nothing if it is about another machine.
    pub(crate) fn explain(&mut self, verdict: &Verdict) -> Vec<Finding> {
        let address = verdict.address;
        let own = self.own.entry(address.ip());
        if !*own.or_insert_with(|| probe::is_own(address)) {
            return Vec::new();
        }
        self.machine
            .get_or_insert_with(Machine::look)
            .explain(verdict)
    }

    /// What could not be read, in words.
    pub(crate) fn unread(&self) -> &[String] {
        self.machine.as_ref().map_or(&[], |machine| &machine.unread)
    }
}

/// What this machine knows of its own ports.
struct Machine {
    sockets: Vec<FoundSocket>,
    backlogs: Vec<Backlog>,
    netns: Option<u32>,
    identifier: Identifier,
    holders: HashMap<u32, Holder>,
    unread: Vec<String>,
    filter_is_readable: bool,
}

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: u32,
    name: Option<String>,
    user: Option<String>,
    unit: Option<String>,
    container: Option<String>,
}

/// One thing that explains what was seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It listens there, and who holds it, if that may be seen.
    Owner(Endpoint, Option<Holder>),
    /// It listens, but not on the address that was asked.
    OtherAddress(Endpoint, Option<Holder>),
    /// It listens in another network namespace.
    OtherNamespace(Endpoint, Option<Holder>),
    /// Further connections are dropped: the queue of those that nobody accepts
    /// is full.
    QueueFull(Backlog),
    /// A rule stops the packet, or may.
    Rule(Obstacle),
    /// Nobody listens on the port.
    Nobody,
}

impl Machine {
    /// Looks at the machine.
    fn look() -> Self {
        let mut unread = Vec::new();
        let snapshot = sensor::snapshot().unwrap_or_else(|error| {
            unread.push(format!("sockets: {}", in_full(&error)));
            sensor::Snapshot::default()
        });
        let namespace = std::fs::metadata("/proc/thread-self/ns/net");
        Self {
            sockets: snapshot.sockets,
            backlogs: sensor::backlogs().unwrap_or_else(|error| {
                unread.push(format!("queues of listeners: {}", in_full(&error)));
                Vec::new()
            }),
            netns: namespace
                .ok()
                .and_then(|data| u32::try_from(data.ino()).ok()),
            identifier: Identifier::new(Roots::system()),
            holders: HashMap::new(),
            unread,
            filter_is_readable: true,
        }
    }

    /// What explains the verdict.
    fn explain(&mut self, verdict: &Verdict) -> Vec<Finding> {
        let Verdict {
            address,
            protocol,
            status,
            ..
        } = *verdict;
        let mut findings = Vec::new();
        let is_here =
            |netns: Option<u32>| netns.is_none() || self.netns.is_none() || netns == self.netns;
        let mut places: Vec<_> = self
            .sockets
            .iter()
            .filter(|found| listens(found, protocol, address.port()))
            .map(|found| {
                let socket = &found.socket;
                (socket.local, is_here(socket.netns), owner_of(found))
            })
            .collect();
        let fit = |local: Endpoint| nearness(local, address.ip(), status);
        let here = places.iter().filter(|(_, here, _)| *here);
        let nearest = here.filter_map(|(local, ..)| fit(*local)).max();
        if nearest.is_some() {
            // Those that others stand before, or that are elsewhere, do not matter.
            places.retain(|(local, here, _)| *here && fit(*local) == nearest);
        }
        for (local, here, owner) in places {
            let holder = owner.map(|pid| self.holder(pid));
            let finding = if !here {
                Finding::OtherNamespace(local, holder)
            } else if nearest.is_some() {
                Finding::Owner(local, holder)
            } else {
                Finding::OtherAddress(local, holder)
            };
            // Sockets that share a port may be of one process.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        if findings.is_empty() && !self.sockets.is_empty() {
            findings.push(Finding::Nobody);
        }
        if nearest.is_some() && status == Status::Filtered && protocol == Protocol::Tcp {
            let full = |backlog: &&Backlog| {
                backlog.is_full()
                    && backlog.local.port == address.port()
                    && fit(backlog.local) == nearest
            };
            findings.extend(
                self.backlogs
                    .iter()
                    .filter(full)
                    .copied()
                    .map(Finding::QueueFull),
            );
        }
        if status != Status::Listening {
            let rules = self.rules(address, protocol).into_iter();
            findings.extend(
                rules
                    .filter(|rule| may_explain(&verdict.reason, rule))
                    .map(Finding::Rule),
            );
        }
        // What counts most comes first: what happens here, then elsewhere.
        findings.sort_by_key(|finding| match finding {
            Finding::Owner(..) => 0,
            Finding::QueueFull(_) | Finding::Rule(_) => 1,
            Finding::OtherAddress(..) | Finding::Nobody => 2,
            Finding::OtherNamespace(..) => 3,
        });
        findings
    }

    fn rules(&mut self, address: SocketAddr, protocol: Protocol) -> Vec<Obstacle> {
        if !self.filter_is_readable {
            return Vec::new();
        }
        let packet = Packet {
            protocol,
            // Whoever asks its own address is that address.
            source: address.ip(),
            destination: address.ip(),
            port: address.port(),
        };
        match sensor::filtering(&packet) {
            Ok(filtering) => {
                for text in filtering.unread {
                    if !self.unread.contains(&text) {
                        self.unread.push(text);
                    }
                }
                filtering.obstacles
            }
            Err(error) => {
                self.filter_is_readable = false;
                let remedy = "as root it can be read";
                self.unread
                    .push(format!("packet filter: {error}; {remedy}"));
                Vec::new()
            }
        }
    }

    fn holder(&mut self, pid: u32) -> Holder {
        if let Some(known) = self.holders.get(&pid) {
            return known.clone();
        }
        let key = ProcessKey {
            pid,
            // Whoever has the number now: the socket was seen a moment ago.
            start: BootTime(0),
        };
        let process = self.identifier.process(key);
        let holder = Holder {
            pid,
            name: process.as_ref().and_then(|process| process.name.clone()),
            user: process.as_ref().and_then(|process| process.user.clone()),
            container: process
                .as_ref()
                .and_then(|process| process.container.clone()),
            unit: process.and_then(|process| Some(process.service?.name)),
        };
        self.holders.insert(pid, holder.clone());
        holder
    }
}

/// An error with what is behind it.
fn in_full(error: &sensor::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Whether the socket awaits what is sent to the port.
fn listens(found: &FoundSocket, protocol: Protocol, port: u16) -> bool {
    let socket = &found.socket;
    socket.protocol == protocol
        && socket.local.port == port
        && match protocol {
            Protocol::Tcp => socket.state == Some(TcpState::Listening),
            _ => socket.remote.is_none(),
        }
}

fn owner_of(found: &FoundSocket) -> Option<u32> {
    let kernel = found.owner.map(|owner| owner.pid);
    kernel.or_else(|| found.holders.first().copied())
}

/// How closely a socket that is bound to `local` fits what is sent to `asked`;
/// none if it does not reach it. Of several the kernel takes the one on the very
/// address, then one of the same family. A socket on `::` takes IPv4 too, unless
/// it is told not to; that it does not answer then shows which.
fn nearness(local: Endpoint, asked: IpAddr, status: Status) -> Option<u8> {
    match (local.ip, asked) {
        (local, asked) if local == asked => Some(2),
        (local, _) if !local.is_unspecified() => None,
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Some(1),
        (IpAddr::V6(_), IpAddr::V4(_)) if status != Status::NotListening => Some(0),
        _ => None,
    }
}

/// Whether the rule can be why the port answered, or did not. An answer has come
/// past all that would have dropped it.
fn may_explain(reason: &Reason, rule: &Obstacle) -> bool {
    match reason {
        Reason::Silence | Reason::Refused(_) => true,
        Reason::Reset | Reason::Icmp(_) => rule.fate == Fate::Rejected && !rule.answer,
        Reason::SynAck | Reason::Reply => false,
    }
}

impl Finding {
    /// As a value for programs.
    pub(crate) fn to_json(&self) -> Value {
        let place = |kind: &str, local: &Endpoint, holder: &Option<Holder>| {
            json!({
                "finding": kind,
                "local_ip": local.ip.to_string(),
                "local_port": local.port,
                "pid": holder.as_ref().map(|holder| holder.pid),
                "process": holder.as_ref().map(|holder| &holder.name),
                "user": holder.as_ref().map(|holder| &holder.user),
                "service": holder.as_ref().map(|holder| &holder.unit),
                "container": holder.as_ref().map(|holder| &holder.container),
            })
        };
        match self {
            Self::Owner(local, holder) => place("owner", local, holder),
            Self::OtherAddress(local, holder) => place("other-address", local, holder),
            Self::OtherNamespace(local, holder) => place("other-namespace", local, holder),
            Self::QueueFull(backlog) => json!({
                "finding": "queue-full",
                "local_ip": backlog.local.ip.to_string(),
                "waiting": backlog.waiting,
                "limit": backlog.limit,
            }),
            Self::Rule(obstacle) => json!({
                "finding": "rule",
                "family": obstacle.family,
                "table": obstacle.table,
                "chain": obstacle.chain,
                "handle": obstacle.handle,
                "rule": obstacle.text,
                "comment": obstacle.comment,
                "fate": fate(obstacle.fate),
                "packets": obstacle.packets,
                "certain": obstacle.certain,
                "of_answer": obstacle.answer,
            }),
            Self::Nobody => json!({ "finding": "nobody-listens" }),
        }
    }
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Dropped => "dropped",
        Fate::Rejected => "rejected",
        Fate::Queued => "queued",
    }
}

/// In words, safe for a terminal.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(local, holder) => {
                write!(f, "{} on {}", Who(holder.as_ref()), local.ip)
            }
            Self::OtherAddress(local, holder) => {
                write!(f, "{} listens on {} only", Who(holder.as_ref()), local.ip)
            }
            Self::OtherNamespace(local, holder) => write!(
                f,
                "{} listens on {} in another network namespace",
                Who(holder.as_ref()),
                local.ip
            ),
            Self::QueueFull(backlog) => write!(
                f,
                "the queue of the listener on {} is full: {} connections wait to be accepted, {} may",
                backlog.local.ip, backlog.waiting, backlog.limit
            ),
            Self::Rule(obstacle) => {
                let may = match (obstacle.certain, obstacle.answer) {
                    (true, false) => "",
                    (true, true) => "is ",
                    (false, _) => "may be ",
                };
                let what = if obstacle.answer { "the answer " } else { "" };
                write!(
                    f,
                    "{what}{may}{} by nftables: {} {} {}",
                    fate(obstacle.fate),
                    obstacle.family,
                    escape(&obstacle.table),
                    escape(&obstacle.chain)
                )?;
                if let Some(handle) = obstacle.handle {
                    write!(f, ", handle {handle}")?;
                }
                write!(f, ": {}", obstacle.text)?;
                if let Some(comment) = &obstacle.comment {
                    write!(f, " # {}", escape(comment))?;
                }
                match obstacle.packets {
                    Some(packets) => write!(f, " ({packets} packets so far)"),
                    None => Ok(()),
                }
            }
            Self::Nobody => f.write_str("nobody listens on it here"),
        }
    }
}

/// A process in words.
struct Who<'a>(Option<&'a Holder>);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(holder) = self.0 else {
            return f.write_str("a process that cannot be seen");
        };
        let name = holder.name.as_deref().unwrap_or("?");
        write!(f, "{} (pid {}", escape(name), holder.pid)?;
        let more = [&holder.user, &holder.unit, &holder.container];
        for text in more.into_iter().flatten() {
            write!(f, ", {}", escape(text))?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str) -> Endpoint {
        Endpoint::new(ip.parse().unwrap(), 80)
    }

    #[test]
    fn which_address_reaches_which_socket() {
        let fit =
            |local, asked: &str, status| nearness(endpoint(local), asked.parse().unwrap(), status);
        let silent = |local, asked| fit(local, asked, Status::Filtered);
        assert!(silent("127.0.0.1", "127.0.0.1") > silent("0.0.0.0", "127.0.0.1"));
        assert!(silent("0.0.0.0", "127.0.0.1") > silent("::", "127.0.0.1"));
        assert!(silent("::", "127.0.0.1").is_some());
        assert!(silent("::", "::1").is_some());
        assert!(fit("::", "127.0.0.1", Status::Listening).is_some());
        assert_eq!(fit("::", "127.0.0.1", Status::NotListening), None);
        assert_eq!(silent("127.0.0.2", "127.0.0.1"), None);
        assert_eq!(silent("0.0.0.0", "::1"), None);
    }

    #[test]
    fn a_rule_that_drops_explains_silence_alone() {
        let rule = |fate, answer| Obstacle {
            family: "inet",
            table: "filter".to_owned(),
            chain: "input".to_owned(),
            handle: Some(7),
            text: String::new(),
            comment: None,
            fate,
            packets: None,
            certain: true,
            answer,
        };
        assert!(may_explain(&Reason::Silence, &rule(Fate::Dropped, false)));
        assert!(may_explain(&Reason::Silence, &rule(Fate::Dropped, true)));
        assert!(!may_explain(&Reason::Reset, &rule(Fate::Dropped, false)));
        assert!(may_explain(&Reason::Reset, &rule(Fate::Rejected, false)));
        assert!(!may_explain(&Reason::Reset, &rule(Fate::Rejected, true)));
    }

    #[test]
    fn names_cannot_act_on_the_terminal() {
        let holder = Holder {
            pid: 7,
            name: Some("evil\x1b[2J".to_owned()),
            user: Some("root".to_owned()),
            unit: None,
            container: None,
        };
        let finding = Finding::OtherAddress(endpoint("127.0.0.1"), Some(holder));
        assert_eq!(
            finding.to_string(),
            "evil\\x1b[2J (pid 7, root) listens on 127.0.0.1 only"
        );
    }
}
