//! PR-EVENTS: JSON Lines, the complete record.
//!
//! One object a line, every line ended by a single line feed, no spaces, keys
//! always in the same order. A line starts with `seq` (from 0 without holes
//! over all sets of one run), `time` (RFC 3339, local offset, microseconds)
//! and `event`. A line about a socket goes on with the socket (`socket`, its
//! kernel cookie as a hexadecimal string, to `state`), with its owner (`owner`
//! to `container`) and ends with what belongs to the event alone:
//!
//! | `event` | keys at the end |
//! | --- | --- |
//! | `established` | `connect_us` |
//! | `state` | `old_state` |
//! | `close` | `reason`, `bytes_sent`, `bytes_received`, `duration_us`, and `error` (`EHOSTUNREACH`) if one ended the socket |
//!
//! `protocol` is `tcp` or `udp`; beside the ports of these, PR-EVENTS, and it
//! alone of the four files, has sockets of other kinds, with a `bind` and a
//! `close` each:
//!
//! | `protocol` | `bind` | `protocol_number`, after `protocol` | `local_port` |
//! | --- | --- | --- | --- |
//! | `udplite` | its port is taken | – | as for `udp` |
//! | `raw` | the socket is made | the IP protocol: 1, 58 (ICMP), 255 (any) … | `null` |
//! | `icmp` | the socket is made | – | the identifier of its echo requests, once it has one |
//! | `packet` | the socket is made | the EtherType: 3 (every frame), 0 (none yet) … | `null`, and so are `family` and `local_ip` |
//!
//! For a `packet` socket that was gone before anybody could ask for its number
//! `socket` is `null`, and `vanish` follows the `bind` at once.
//!
//! What is not known is `null`: a local port that the kernel has not chosen
//! yet, and an empty text in [`Opening`], included. Text stands whole; only
//! fields longer than [`MAX_TEXT`] (the command line: [`MAX_COMMAND_LINE`]) are
//! cut and end in `…`, which keeps every socket line below
//! [`MAX_LINE`](crate::read::MAX_LINE).
//!
//! The lines about sockets are the hot path of the whole recorder. They are
//! put together by hand, without allocation, and the owner's part, the longest
//! one, is made once for each process ([`OwnerText`]) and copied.

use event::{Action, Attribution, Endpoint, Family, Protocol, Socket, WallTime};

use super::clock::LocalClock;
use super::decimal::{push_hex, push_ip, push_u64};
use super::quote::{push_json, push_json_or_null};

pub use super::owner::{MAX_COMMAND_LINE, MAX_TEXT, OwnerText};

/// The version of PR-EVENTS, `format` in `open`.
///
/// Raise it when a key or a value that exists changes its meaning or goes
/// away. Do not raise it for a new key or a new `event`: readers ignore keys
/// and events that they do not know. A reader that meets a greater number than
/// its own must say so, and may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format(pub u32);

impl Format {
    /// The version written here.
    pub const CURRENT: Self = Self(1);
}

/// What the first line of a file says. An empty text is written as `null`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening<'a> {
    /// The program's version.
    pub version: &'a str,
    /// The computer's name.
    pub host: &'a str,
    /// The operating system.
    pub os: &'a str,
    /// The kernel's number for this boot.
    pub boot_id: &'a str,
    /// The UUID of this run of the recorder.
    pub run: &'a str,
    /// The stamp that the files of this set share.
    pub set: &'a str,
    /// The stamp of the set before, if there is one.
    pub previous: Option<&'a str>,
    /// The hash of the whole PR-EVENTS file of the set before, uncompressed.
    pub previous_sha256: Option<&'a str>,
    /// The capture engine.
    pub engine: &'a str,
    /// The places in the kernel that report.
    pub hooks: &'a [String],
    /// What cannot be seen, and why.
    pub degraded: &'a [String],
}

/// Events were lost.
#[derive(Clone, Copy, Debug)]
pub struct Gap<'a> {
    /// How many; none if nobody can know.
    pub lost: Option<u64>,
    /// None of them was before.
    pub from: WallTime,
    /// None of them was after.
    pub to: WallTime,
    /// Why.
    pub reason: &'a str,
}

/// The ledger: `kernel = written + lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Socket events that the kernel made.
    pub kernel: u64,
    /// Of these, those that arrived.
    pub received: u64,
    /// Of these, those that were written.
    pub written: u64,
    /// Those that were not, each inside a `gap`.
    pub lost: u64,
}

/// Writes lines and numbers them.
#[derive(Clone, Debug)]
pub struct EventsEncoder {
    next_seq: u64,
}

impl EventsEncoder {
    /// An encoder whose first line has this number.
    pub fn new(first_seq: u64) -> Self {
        Self {
            next_seq: first_seq,
        }
    }

    /// The number of the next line.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The first line of a file.
    pub fn open(
        &mut self,
        out: &mut Vec<u8>,
        clock: &mut LocalClock,
        t: WallTime,
        opening: &Opening<'_>,
    ) {
        self.begin(out, clock, t, "open");
        out.extend_from_slice(b"\",\"format\":");
        push_u64(out, Format::CURRENT.0.into());
        for (key, text) in [
            ("version", opening.version),
            ("host", opening.host),
            ("os", opening.os),
            ("boot_id", opening.boot_id),
            ("run", opening.run),
            ("set", opening.set),
        ] {
            push_key(out, key);
            push_json_or_null(out, Some(text).filter(|text| !text.is_empty()));
        }
        push_key(out, "previous");
        push_json_or_null(out, opening.previous);
        push_key(out, "previous_sha256");
        push_json_or_null(out, opening.previous_sha256);
        push_key(out, "engine");
        push_json_or_null(out, Some(opening.engine).filter(|text| !text.is_empty()));
        push_key(out, "hooks");
        push_array(out, opening.hooks);
        push_key(out, "degraded");
        push_array(out, opening.degraded);
        out.extend_from_slice(b"}\n");
    }

    /// A line about a socket. `error` is the name of the error that ended it.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call a line, and a struct for it would be filled and emptied each time"
    )]
    pub fn socket(
        &mut self,
        out: &mut Vec<u8>,
        clock: &mut LocalClock,
        t: WallTime,
        action: &Action,
        socket: &Socket,
        attribution: Attribution,
        owner: &OwnerText,
        error: Option<&str>,
    ) {
        let owner = owner.events();
        // Everything but the owner and the error's name fits into this.
        out.reserve(640 + owner.len());
        self.begin(out, clock, t, action.name());
        push_socket(out, socket);
        out.extend_from_slice(b",\"owner\":\"");
        out.extend_from_slice(attribution.name().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(owner);
        push_details(out, action);
        if let Some(error) = error {
            push_key(out, "error");
            push_json(out, error);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Closes the list of `snapshot` lines.
    pub fn snapshot_end(
        &mut self,
        out: &mut Vec<u8>,
        clock: &mut LocalClock,
        t: WallTime,
        sockets: u64,
    ) {
        self.begin(out, clock, t, "snapshot-end");
        out.extend_from_slice(b"\",\"sockets\":");
        push_u64(out, sockets);
        out.extend_from_slice(b"}\n");
    }

    /// Events were lost.
    pub fn gap(&mut self, out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime, gap: &Gap<'_>) {
        self.begin(out, clock, t, "gap");
        out.extend_from_slice(b"\",\"lost\":");
        push_number_or_null(out, gap.lost);
        out.extend_from_slice(b",\"from\":\"");
        clock.push_rfc3339(out, gap.from);
        out.extend_from_slice(b"\",\"to\":\"");
        clock.push_rfc3339(out, gap.to);
        out.extend_from_slice(b"\",\"reason\":");
        push_json(out, gap.reason);
        out.extend_from_slice(b"}\n");
    }

    /// The ledger. `processes_lost` counts observations about processes.
    pub fn counters(
        &mut self,
        out: &mut Vec<u8>,
        clock: &mut LocalClock,
        t: WallTime,
        counters: &Counters,
        processes_lost: u64,
    ) {
        self.begin(out, clock, t, "counters");
        out.push(b'"');
        for (key, count) in [
            ("kernel", counters.kernel),
            ("received", counters.received),
            ("written", counters.written),
            ("lost", counters.lost),
            ("processes_lost", processes_lost),
        ] {
            push_key(out, key);
            push_u64(out, count);
        }
        out.extend_from_slice(b"}\n");
    }

    /// The last line of a closed file: how many lines stand before it, and the
    /// hash of every byte of them.
    pub fn seal(
        &mut self,
        out: &mut Vec<u8>,
        clock: &mut LocalClock,
        t: WallTime,
        events: u64,
        sha256_hex: &str,
        next: Option<&str>,
    ) {
        self.begin(out, clock, t, "seal");
        out.extend_from_slice(b"\",\"events\":");
        push_u64(out, events);
        push_key(out, "sha256");
        push_json(out, sha256_hex);
        push_key(out, "next");
        push_json_or_null(out, next);
        out.extend_from_slice(b"}\n");
    }

    /// Everything up to the name of the event; its closing quote is left to
    /// the caller, who can write it together with what follows.
    #[inline]
    fn begin(&mut self, out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime, name: &str) {
        out.extend_from_slice(b"{\"seq\":");
        push_u64(out, self.next_seq);
        self.next_seq += 1;
        out.extend_from_slice(b",\"time\":\"");
        clock.push_rfc3339(out, t);
        out.extend_from_slice(b"\",\"event\":\"");
        out.extend_from_slice(name.as_bytes());
    }
}

/// `socket` to `state`, after the name of the event without its closing quote.
#[inline]
fn push_socket(out: &mut Vec<u8>, socket: &Socket) {
    match socket.cookie {
        Some(cookie) => {
            out.extend_from_slice(b"\",\"socket\":\"");
            push_hex(out, cookie.0);
            out.extend_from_slice(b"\",\"netns\":");
        }
        None => out.extend_from_slice(b"\",\"socket\":null,\"netns\":"),
    }
    push_number_or_null(out, socket.netns.map(u64::from));
    let names = match (socket.protocol, socket.family()) {
        (Protocol::Tcp, Family::Ipv4) => {
            b",\"protocol\":\"tcp\",\"family\":\"ipv4\",\"local_ip\":\"".as_slice()
        }
        (Protocol::Tcp, Family::Ipv6) => {
            b",\"protocol\":\"tcp\",\"family\":\"ipv6\",\"local_ip\":\""
        }
        (Protocol::Udp, Family::Ipv4) => {
            b",\"protocol\":\"udp\",\"family\":\"ipv4\",\"local_ip\":\""
        }
        (Protocol::Udp, Family::Ipv6) => {
            b",\"protocol\":\"udp\",\"family\":\"ipv6\",\"local_ip\":\""
        }
        (protocol, family) => {
            push_rare_protocol(out, protocol, family);
            b",\"local_ip\":\""
        }
    };
    out.extend_from_slice(names);
    if let Protocol::Packet(_) = socket.protocol {
        out.pop();
        out.extend_from_slice(b"null,\"local_port\":");
    } else {
        push_ip(out, socket.local.ip);
        out.extend_from_slice(b"\",\"local_port\":");
    }
    match socket.local.port {
        0 => out.extend_from_slice(b"null"),
        port => push_u64(out, port.into()),
    }
    match socket.remote {
        Some(Endpoint { ip, port }) => {
            out.extend_from_slice(b",\"remote_ip\":\"");
            push_ip(out, ip);
            out.extend_from_slice(b"\",\"remote_port\":");
            push_u64(out, port.into());
        }
        None => out.extend_from_slice(b",\"remote_ip\":null,\"remote_port\":null"),
    }
    match socket.state {
        Some(state) => {
            out.extend_from_slice(b",\"state\":\"");
            out.extend_from_slice(state.name().as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b",\"state\":null"),
    }
}

/// `protocol` to `family` of what is neither TCP nor UDP.
#[cold]
fn push_rare_protocol(out: &mut Vec<u8>, protocol: Protocol, family: Family) {
    push_key(out, "protocol");
    push_json(out, protocol.name());
    if let Some(number) = protocol.number() {
        push_key(out, "protocol_number");
        push_u64(out, number.into());
    }
    push_key(out, "family");
    let has_address = !matches!(protocol, Protocol::Packet(_));
    push_json_or_null(out, has_address.then_some(family.name()));
}

/// What belongs to this kind of event alone.
#[inline]
fn push_details(out: &mut Vec<u8>, action: &Action) {
    match *action {
        Action::Close {
            reason,
            bytes_sent,
            bytes_received,
            duration_us,
        } => {
            out.extend_from_slice(b",\"reason\":\"");
            out.extend_from_slice(reason.name().as_bytes());
            out.extend_from_slice(b"\",\"bytes_sent\":");
            push_number_or_null(out, bytes_sent);
            out.extend_from_slice(b",\"bytes_received\":");
            push_number_or_null(out, bytes_received);
            out.extend_from_slice(b",\"duration_us\":");
            push_number_or_null(out, duration_us);
        }
        Action::Established { connect_us } => {
            out.extend_from_slice(b",\"connect_us\":");
            push_number_or_null(out, connect_us);
        }
        Action::State { old } => {
            out.extend_from_slice(b",\"old_state\":\"");
            out.extend_from_slice(old.name().as_bytes());
            out.push(b'"');
        }
        Action::Accept
        | Action::Bind
        | Action::Connect
        | Action::Discover
        | Action::Listen
        | Action::Snapshot
        | Action::Vanish => {}
    }
}

/// `,"key":`; keys are ours and need no escapes.
pub(super) fn push_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

#[inline]
pub(super) fn push_number_or_null(out: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => push_u64(out, number),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_array(out: &mut Vec<u8>, texts: &[String]) {
    out.push(b'[');
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_json(out, text);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use event::Process;
    use jiff::tz::TimeZone;
    use serde_json::Value;

    use super::*;
    use crate::read::MAX_LINE;

    fn encode(
        encode: impl FnOnce(&mut EventsEncoder, &mut Vec<u8>, &mut LocalClock),
    ) -> (Value, usize) {
        let mut out = Vec::new();
        let mut clock = LocalClock::new(TimeZone::UTC);
        encode(&mut EventsEncoder::new(7), &mut out, &mut clock);
        assert_eq!(out.pop(), Some(b'\n'));
        assert!(!out.contains(&b'\n'));
        (serde_json::from_slice(&out).unwrap(), out.len())
    }

    #[test]
    fn an_empty_text_in_open_is_unknown() {
        let (line, _) = encode(|encoder, out, clock| {
            let opening = Opening {
                host: "ha\"st",
                ..Opening::default()
            };
            encoder.open(out, clock, WallTime(0), &opening);
        });
        assert_eq!(line["seq"], 7);
        assert_eq!(line["format"], 1);
        assert_eq!(line["host"], "ha\"st");
        assert!(line["boot_id"].is_null());
        assert!(line["engine"].is_null());
        assert_eq!(line["hooks"], Value::Array(Vec::new()));
    }

    #[test]
    fn the_longest_possible_owner_fits_into_a_line() {
        let long = "\u{7f}".repeat(4 << 20);
        let process = Process {
            pid: u32::MAX,
            name: Some(long.clone()),
            exe: Some(long.clone()),
            cmdline: Some(long.clone()),
            user: Some(long.clone()),
            service: Some(event::Service {
                name: long.clone(),
                description: None,
                kind: None,
            }),
            container: Some(long),
            ..Process::default()
        };
        let socket = Socket {
            cookie: None,
            netns: None,
            protocol: Protocol::Udp,
            local: Endpoint::new("::".parse().unwrap(), 0),
            remote: None,
            state: None,
        };
        let (line, length) = encode(|encoder, out, clock| {
            let owner = OwnerText::new(&process, None, clock);
            encoder.socket(
                out,
                clock,
                WallTime(0),
                &Action::Bind,
                &socket,
                Attribution::Creator,
                &owner,
                None,
            );
        });
        assert!(length < MAX_LINE, "{length}");
        assert!(line["local_port"].is_null());
        assert!(line["cmdline"].as_str().unwrap().ends_with("\u{7f}…"));
    }

    #[test]
    fn the_sequence_goes_on() {
        let mut encoder = EventsEncoder::new(u64::from(u32::MAX));
        let mut clock = LocalClock::new(TimeZone::UTC);
        let mut out = Vec::new();
        encoder.snapshot_end(&mut out, &mut clock, WallTime(0), 0);
        encoder.counters(&mut out, &mut clock, WallTime(0), &Counters::default(), 0);
        assert_eq!(encoder.next_seq(), u64::from(u32::MAX) + 2);
        assert_eq!(out.split(|&byte| byte == b'\n').count(), 3);
    }
}
