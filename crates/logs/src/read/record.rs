//! What a line of PR-EVENTS says.

use std::net::{IpAddr, Ipv4Addr};

use event::{
    Action, Attribution, CloseReason, Cookie, Endpoint, Process, Protocol, Service, Socket,
    TcpState, WallTime,
};
use serde::Deserialize;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: Option<u64>,
    /// When it happened.
    pub time: Option<Moment>,
    /// What happened.
    pub event: Event,
}

/// A moment, and the offset from UTC with which it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The moment.
    pub wall: WallTime,
    /// Seconds east of UTC.
    pub offset_seconds: i32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first line of a file.
    Open(Box<Open>),
    /// Something about a socket.
    Socket(Box<SocketRecord>),
    /// The list of `snapshot` lines is complete.
    SnapshotEnd {
        /// How many there are.
        sockets: Option<u64>,
    },
    /// Events were lost.
    Gap(Box<GapRecord>),
    /// The ledger.
    Counters(CountersRecord),
    /// The last line of a closed file.
    Seal(Box<Seal>),
    /// An event that this reader does not know.
    Other(String),
}

/// The first line of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// The version of the format.
    pub format: Option<u32>,
    /// The program's version.
    pub version: Option<String>,
    /// The computer's name.
    pub host: Option<String>,
    /// The operating system.
    pub os: Option<String>,
    /// The kernel's number for this boot.
    pub boot_id: Option<String>,
    /// The UUID of the run.
    pub run: Option<String>,
    /// The stamp of the set.
    pub set: Option<String>,
    /// The stamp of the set before.
    pub previous: Option<String>,
    /// The hash of the whole PR-EVENTS file before.
    pub previous_sha256: Option<String>,
    /// The capture engine.
    pub engine: Option<String>,
    /// The places in the kernel that reported.
    pub hooks: Vec<String>,
    /// What could not be seen.
    pub degraded: Vec<String>,
}

/// A line about a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// What happened.
    pub action: Action,
    /// The socket after it happened.
    pub socket: Socket,
    /// How the owner is known.
    pub attribution: Attribution,
    /// The owner. Its `start` is not in the file and is unknown here, as are
    /// the description and the kind of its service.
    pub process: Option<Process>,
    /// When the owner started.
    pub started: Option<Moment>,
    /// The name of the error that ended the socket.
    pub error: Option<String>,
}

/// Events were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GapRecord {
    /// How many; none if that is unknown, as after a recorder was killed.
    pub lost: Option<u64>,
    /// None of them was before.
    pub from: Option<Moment>,
    /// None of them was after.
    pub to: Option<Moment>,
    /// Why.
    pub reason: Option<String>,
}

/// The ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountersRecord {
    /// Socket events that the kernel made.
    pub kernel: Option<u64>,
    /// Of these, those that arrived.
    pub received: Option<u64>,
    /// Of these, those that were written.
    pub written: Option<u64>,
    /// Those that were not.
    pub lost: Option<u64>,
    /// Observations about processes that were lost.
    pub processes_lost: Option<u64>,
}

/// The last line of a closed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// How many lines stand before it.
    pub events: Option<u64>,
    /// The hash of every byte before it.
    pub sha256: Option<String>,
    /// The stamp of the set that follows.
    pub next: Option<String>,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// It is not a JSON object with an `event`, or a value has the wrong type.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A line about a socket lacks something, or its value is not known.
    #[error("`{key}` is missing or has an unknown value")]
    Value {
        /// The key.
        key: &'static str,
    },
    /// It is longer than [`MAX_LINE`](super::MAX_LINE).
    #[error("the line is too long")]
    TooLong,
}

/// Every key of every event. Two events never give one key two types.
#[derive(Deserialize)]
struct Keys {
    seq: Option<u64>,
    time: Option<Moment>,
    event: String,

    socket: Option<String>,
    netns: Option<u32>,
    protocol: Option<String>,
    local_ip: Option<IpAddr>,
    protocol_number: Option<u16>,
    local_port: Option<u16>,
    remote_ip: Option<IpAddr>,
    remote_port: Option<u16>,
    state: Option<String>,
    owner: Option<String>,
    pid: Option<u32>,
    ppid: Option<u32>,
    start_time: Option<Moment>,
    process: Option<String>,
    exe: Option<String>,
    cmdline: Option<String>,
    uid: Option<u32>,
    user: Option<String>,
    service: Option<String>,
    container: Option<String>,

    connect_us: Option<u64>,
    old_state: Option<String>,
    reason: Option<String>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    duration_us: Option<u64>,
    error: Option<String>,

    format: Option<u32>,
    version: Option<String>,
    host: Option<String>,
    os: Option<String>,
    boot_id: Option<String>,
    run: Option<String>,
    set: Option<String>,
    previous: Option<String>,
    previous_sha256: Option<String>,
    engine: Option<String>,
    hooks: Option<Vec<String>>,
    degraded: Option<Vec<String>>,

    sockets: Option<u64>,
    lost: Option<u64>,
    from: Option<Moment>,
    to: Option<Moment>,
    kernel: Option<u64>,
    received: Option<u64>,
    written: Option<u64>,
    processes_lost: Option<u64>,
    events: Option<u64>,
    sha256: Option<String>,
    next: Option<String>,
}

impl Record {
    /// Understands one line, with or without its line feed.
    pub fn parse(line: &[u8]) -> Result<Self, Invalid> {
        let keys: Keys = serde_json::from_slice(line)?;
        Ok(Self {
            seq: keys.seq,
            time: keys.time,
            event: keys.event()?,
        })
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

impl Moment {
    /// Reads RFC 3339 with any precision; what is below a microsecond is cut.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let pieces = jiff::fmt::temporal::DateTimeParser::new()
            .parse_pieces(text)
            .ok()?;
        let offset = pieces.to_numeric_offset()?;
        let civil = pieces.date().to_datetime(pieces.time()?);
        let timestamp = offset.to_timestamp(civil).ok()?;
        Some(Self {
            wall: WallTime(timestamp.as_microsecond()),
            offset_seconds: offset.seconds(),
        })
    }
}

impl Keys {
    fn event(self) -> Result<Event, Invalid> {
        Ok(match self.event.as_str() {
            "open" => Event::Open(Box::new(Open {
                format: self.format,
                version: self.version,
                host: self.host,
                os: self.os,
                boot_id: self.boot_id,
                run: self.run,
                set: self.set,
                previous: self.previous,
                previous_sha256: self.previous_sha256,
                engine: self.engine,
                hooks: self.hooks.unwrap_or_default(),
                degraded: self.degraded.unwrap_or_default(),
            })),
            "snapshot-end" => Event::SnapshotEnd {
                sockets: self.sockets,
            },
            "gap" => Event::Gap(Box::new(GapRecord {
                lost: self.lost,
                from: self.from,
                to: self.to,
                reason: self.reason,
            })),
            "counters" => Event::Counters(CountersRecord {
                kernel: self.kernel,
                received: self.received,
                written: self.written,
                lost: self.lost,
                processes_lost: self.processes_lost,
            }),
            "seal" => Event::Seal(Box::new(Seal {
                events: self.events,
                sha256: self.sha256,
                next: self.next,
            })),
            _ => match self.action()? {
                Some(action) => Event::Socket(Box::new(self.socket(action)?)),
                None => Event::Other(self.event),
            },
        })
    }

    /// What happened to a socket; none if the event is not known.
    fn action(&self) -> Result<Option<Action>, Invalid> {
        Ok(Some(match self.event.as_str() {
            "accept" => Action::Accept,
            "bind" => Action::Bind,
            "close" => Action::Close {
                reason: self
                    .reason
                    .as_deref()
                    .and_then(CloseReason::from_name)
                    .unwrap_or(CloseReason::Unknown),
                bytes_sent: self.bytes_sent,
                bytes_received: self.bytes_received,
                duration_us: self.duration_us,
            },
            "connect" => Action::Connect,
            "discover" => Action::Discover,
            "established" => Action::Established {
                connect_us: self.connect_us,
            },
            "listen" => Action::Listen,
            "snapshot" => Action::Snapshot,
            "state" => Action::State {
                old: known("old_state", self.old_state.as_deref(), TcpState::from_name)?,
            },
            "vanish" => Action::Vanish,
            _ => return Ok(None),
        }))
    }

    fn socket(self, action: Action) -> Result<SocketRecord, Invalid> {
        let cookie = match self.socket.as_deref() {
            Some(hex) => Some(known("socket", Some(hex), cookie)?),
            None => None,
        };
        let state = match self.state.as_deref() {
            Some(name) => Some(known("state", Some(name), TcpState::from_name)?),
            None => None,
        };
        let protocol = known("protocol", self.protocol.as_deref(), |name| {
            Protocol::from_name(name, self.protocol_number)
        })?;
        let local_ip = match (self.local_ip, protocol) {
            (Some(ip), _) => ip,
            // What takes frames has no address.
            (None, Protocol::Packet(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (None, _) => return Err(Invalid::Value { key: "local_ip" }),
        };
        let socket = Socket {
            cookie,
            netns: self.netns,
            protocol,
            local: Endpoint::new(local_ip, self.local_port.unwrap_or(0)),
            remote: match (self.remote_ip, self.remote_port) {
                (Some(ip), Some(port)) => Some(Endpoint::new(ip, port)),
                _ => None,
            },
            state,
        };
        let process = self.pid.map(|pid| Process {
            pid,
            ppid: self.ppid,
            start: None,
            name: self.process,
            exe: self.exe,
            cmdline: self.cmdline,
            uid: self.uid,
            user: self.user,
            service: self.service.map(|name| Service {
                name,
                description: None,
                kind: None,
            }),
            container: self.container,
        });
        Ok(SocketRecord {
            action,
            socket,
            attribution: self
                .owner
                .as_deref()
                .and_then(Attribution::from_name)
                .unwrap_or(Attribution::Unknown),
            process,
            started: self.start_time,
            error: self.error,
        })
    }
}

fn known<T>(
    key: &'static str,
    text: Option<&str>,
    from_name: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Invalid> {
    text.and_then(from_name).ok_or(Invalid::Value { key })
}

fn cookie(hex: &str) -> Option<Cookie> {
    // `from_str_radix` would take a sign.
    let digits = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits
        .then(|| u64::from_str_radix(hex, 16).ok().map(Cookie))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_other_writers_are_read_too() {
        let moment = |text: &str| Moment::parse(text).map(|m| (m.wall.0, m.offset_seconds));
        assert_eq!(moment("1970-01-01T01:00:00.000001+01:00"), Some((1, 3600)));
        assert_eq!(moment("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(moment("1970-01-01"), None);
        assert_eq!(moment("1970-01-01T00:00:00"), None);
        assert_eq!(moment("yesterday"), None);
    }

    #[test]
    fn what_a_socket_line_cannot_do_without() {
        let parse = |line: &str| Record::parse(line.as_bytes());
        for (line, key) in [
            (r#"{"event":"listen","protocol":"tcp"}"#, "local_ip"),
            (r#"{"event":"bind","local_ip":"::"}"#, "protocol"),
            (
                r#"{"event":"bind","protocol":"raw","local_ip":"::"}"#,
                "protocol",
            ),
            (
                r#"{"event":"state","protocol":"tcp","local_ip":"::"}"#,
                "old_state",
            ),
            (
                r#"{"event":"listen","protocol":"tcp","local_ip":"::","state":"ASLEEP"}"#,
                "state",
            ),
            (
                r#"{"event":"listen","protocol":"tcp","local_ip":"::","socket":"+1"}"#,
                "socket",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert!(
                matches!(error, Invalid::Value { key: found } if found == key),
                "{error}"
            );
        }
        let least = parse(r#"{"event":"listen","protocol":"tcp","local_ip":"::ffff:127.0.0.1"}"#);
        let Event::Socket(least) = least.unwrap().event else {
            panic!("not a socket");
        };
        assert_eq!(least.socket.local.to_string(), "127.0.0.1:0");
        assert_eq!(least.attribution, Attribution::Unknown);
        assert_eq!(least.process, None);
    }
}
