//! Decodes what the kernel programs write: the mirror of `bpf/records.h`.
//!
//! The bytes come from our own programs, yet they are read like any other
//! input: each read is bounds-checked, an unknown kind or number is an error
//! and not a guess, and text is taken as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use event::{
    Action, Attribution, BootTime, CloseReason, Cookie, Endpoint, ProcessKey, Protocol, Socket,
    TcpState, text,
};

use crate::{Execution, Observation, OwnerObservation, SocketObservation};

/// One row of the snapshot iterator, as decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// The socket.
    pub socket: Socket,
    /// A process that holds it.
    pub holder: ProcessKey,
    /// The user ID that the socket belongs to.
    pub uid: u32,
}

/// The size of a row in bytes.
pub(super) const SNAPSHOT_ROW: usize = 72;

/// Decodes one record of the ring. None: it is not one that this version
/// knows, or it is too short.
pub fn decode(bytes: &[u8]) -> Option<Observation> {
    let record = Reader(bytes);
    let at = BootTime(record.u64(0)?);
    Some(match record.u32(8)? {
        1 => Observation::Socket(decode_socket(at, &record)?),
        2 => {
            let (owner, uid) = record.process(24)?;
            Observation::Owner(OwnerObservation {
                cookie: Cookie(record.u64(16)?),
                owner,
                uid,
            })
        }
        3 => Observation::Exec(Box::new(decode_exec(&record)?)),
        4 => Observation::Fork {
            parent: record.process(16)?.0,
            child: record.process(32)?.0,
        },
        5 => Observation::Exit(record.process(16)?.0),
        6 => Observation::Cgroup {
            id: record.u64(16)?,
            path: text::from_bytes(until_nul(bytes.get(24..)?)),
        },
        7 => Observation::Socket(decode_brief(at, &record)?),
        _ => return None,
    })
}

/// Decodes a row of the snapshot iterator.
pub fn decode_row(bytes: &[u8]) -> Option<SnapshotRow> {
    let row = Reader(bytes);
    let protocol = protocol(row.u8(32)?)?;
    let family = row.u8(33)?;
    let remote_port = row.u16(30)?;
    let state = match protocol {
        Protocol::Tcp => Some(TcpState::from_linux(row.u8(34)?)?),
        Protocol::Udp => None,
    };
    Some(SnapshotRow {
        socket: Socket {
            cookie: Some(Cookie(row.u64(0)?)),
            netns: Some(row.u32(24)?).filter(|&netns| netns != 0),
            protocol,
            local: Endpoint::new(row.ip(40, family)?, row.u16(28)?),
            remote: remote(row.ip(56, family)?, remote_port),
            state,
        },
        holder: ProcessKey {
            pid: row.u32(16)?,
            start: BootTime(row.u64(8)?),
        },
        uid: row.u32(20)?,
    })
}

fn decode_socket(at: BootTime, record: &Reader<'_>) -> Option<SocketObservation> {
    let protocol = protocol(record.u8(82)?)?;
    let family = record.u8(83)?;
    let old_state = TcpState::from_linux(record.u8(84)?);
    let mut state = TcpState::from_linux(record.u8(85)?);
    let error = record.u16(86)?;
    let flags = record.u8(88)?;
    let since = record.u64(48)?;
    let elapsed = (since != 0).then(|| at.micros_since(BootTime(since)));
    let listener = old_state == Some(TcpState::Listening) || state == Some(TcpState::Listening);

    let action = match record.u8(80)? {
        1 => Action::Listen,
        2 => Action::Bind,
        3 => Action::Connect,
        4 => Action::Accept,
        5 => Action::Established {
            connect_us: elapsed,
        },
        6 => Action::State { old: old_state? },
        7 => {
            let counted = flags & FLAG_COUNTED != 0;
            if protocol == Protocol::Tcp && lives_on(old_state, error) {
                state = Some(TcpState::TimeWait);
            }
            Action::Close {
                reason: close_reason(old_state, error),
                bytes_sent: counted.then_some(record.u64(56)?),
                bytes_received: counted.then_some(record.u64(64)?),
                duration_us: elapsed,
            }
        }
        _ => return None,
    };
    let attribution = match record.u8(81)? {
        1 => Attribution::Creator,
        2 => Attribution::Inherited,
        3 => Attribution::Snapshot,
        _ => Attribution::Unknown,
    };
    let (owner, uid) = record.process(32)?;
    let known = attribution != Attribution::Unknown && owner.pid != 0;
    Some(SocketObservation {
        at,
        stream: u16::try_from(record.u32(12)?).ok()?,
        sequence: record.u64(16)?,
        action,
        socket: Socket {
            cookie: Some(Cookie(record.u64(24)?)),
            netns: Some(record.u32(72)?).filter(|&netns| netns != 0),
            protocol,
            local: Endpoint::new(record.ip(96, family)?, record.u16(76)?),
            remote: if listener {
                None
            } else {
                remote(record.ip(112, family)?, record.u16(78)?)
            },
            state: if protocol == Protocol::Tcp {
                state
            } else {
                None
            },
        },
        attribution: if known {
            attribution
        } else {
            Attribution::Unknown
        },
        owner: known.then_some(owner),
        uid: known.then_some(uid),
        error: Some(error).filter(|&error| error != 0),
    })
}

/// A change of a TCP connection over IPv4, without its owner and its beginning,
/// which the record that opened the port has told.
fn decode_brief(at: BootTime, record: &Reader<'_>) -> Option<SocketObservation> {
    const IPV4: u8 = 2;
    let old = TcpState::from_linux(record.u8(40)?)?;
    let mut state = TcpState::from_linux(record.u8(41)?)?;
    let error = record.u16(42)?;
    let action = match state {
        TcpState::Established => Action::Established { connect_us: None },
        TcpState::Closed => {
            let counted = record.u8(44)? & FLAG_COUNTED != 0;
            if lives_on(Some(old), error) {
                state = TcpState::TimeWait;
            }
            Action::Close {
                reason: close_reason(Some(old), error),
                bytes_sent: counted.then_some(record.u64(56)?),
                bytes_received: counted.then_some(record.u64(64)?),
                duration_us: None,
            }
        }
        _ => Action::State { old },
    };
    Some(SocketObservation {
        at,
        stream: u16::try_from(record.u32(12)?).ok()?,
        sequence: record.u64(16)?,
        action,
        socket: Socket {
            cookie: Some(Cookie(record.u64(24)?)),
            netns: Some(record.u32(32)?).filter(|&netns| netns != 0),
            protocol: Protocol::Tcp,
            local: Endpoint::new(record.ip(48, IPV4)?, record.u16(36)?),
            remote: if old == TcpState::Listening {
                None
            } else {
                remote(record.ip(52, IPV4)?, record.u16(38)?)
            },
            state: Some(state),
        },
        attribution: Attribution::Unknown,
        owner: None,
        uid: None,
        error: Some(error).filter(|&error| error != 0),
    })
}

fn decode_exec(record: &Reader<'_>) -> Option<Execution> {
    let (key, uid) = record.process(16)?;
    let path_length = usize::from(record.u16(44)?);
    let arguments_length = usize::from(record.u16(46)?);
    let data = record.0.get(72..)?;
    let path = data.get(..path_length)?;
    let arguments = data.get(path_length..path_length.checked_add(arguments_length)?)?;
    let path_cut = record.u8(48)? != 0;

    let cmdline = (!arguments.is_empty()).then(|| {
        let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
        let mut line = text::join_arguments(arguments.split(|&byte| byte == 0));
        if record.u8(49) != Some(0) {
            line.push('\u{2026}');
        }
        line
    });
    Some(Execution {
        key,
        ppid: record.u32(40)?,
        uid,
        cgroup: Some(record.u64(32)?).filter(|&id| id != 0),
        comm: text::from_bytes(until_nul(record.0.get(56..72)?)),
        exe: join_path(path).filter(|_| !path_cut),
        cmdline,
    })
}

/// The kernel writes the components of a path from the last to the first.
fn join_path(components: &[u8]) -> Option<String> {
    let components = components.strip_suffix(b"\0")?;
    let mut path = String::with_capacity(components.len() + 1);
    for component in components.rsplit(|&byte| byte == 0) {
        path.push('/');
        path.push_str(&text::from_bytes(component));
    }
    Some(path)
}

/// Does a closed connection live on as a TIME_WAIT mini-socket? The kernel
/// reports no transition to TIME_WAIT: it closes the socket and puts a smaller
/// one in its place (`tcp_time_wait`), also for one that waits in `FIN_WAIT_2`
/// for a peer to close.
fn lives_on(old: Option<TcpState>, error: u16) -> bool {
    error == 0
        && matches!(
            old,
            Some(TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing)
        )
}

fn close_reason(old: Option<TcpState>, error: u16) -> CloseReason {
    match error {
        ECONNREFUSED => CloseReason::Refused,
        ETIMEDOUT => CloseReason::Timeout,
        ECONNRESET | EPIPE | ECONNABORTED => CloseReason::Reset,
        // Without an error of the peer's making, a connection that goes
        // straight to CLOSED was reset by this side.
        0 => match old {
            Some(TcpState::Established | TcpState::CloseWait | TcpState::SynReceived) => {
                CloseReason::Reset
            }
            _ => CloseReason::Closed,
        },
        _ => CloseReason::Unknown,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    }
}

fn remote(ip: IpAddr, port: u16) -> Option<Endpoint> {
    (port != 0).then(|| Endpoint::new(ip, port))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

/// Bounds-checked reads at fixed offsets.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn u8(&self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    fn u16(&self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_ne_bytes)
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_ne_bytes)
    }

    fn u64(&self, offset: usize) -> Option<u64> {
        self.array(offset).map(u64::from_ne_bytes)
    }

    /// A `struct process_key`: the process and its effective user ID.
    fn process(&self, offset: usize) -> Option<(ProcessKey, u32)> {
        let start = BootTime(self.u64(offset)?);
        Some((
            ProcessKey {
                start,
                pid: self.u32(offset + 8)?,
            },
            self.u32(offset + 12)?,
        ))
    }

    fn ip(&self, offset: usize, family: u8) -> Option<IpAddr> {
        match family {
            2 => Some(IpAddr::V4(Ipv4Addr::from(self.array::<4>(offset)?))),
            10 => Some(IpAddr::V6(Ipv6Addr::from(self.array::<16>(offset)?))),
            _ => None,
        }
    }
}

const FLAG_COUNTED: u8 = 1;

// Numbers of errors that are the same on every architecture that Linux's
// asm-generic/errno.h serves.
const EPIPE: u16 = 32;
const ECONNABORTED: u16 = 103;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The offsets that this file reads at, by the names of `bpf/records.h`.
    const OFFSETS: &[(&str, &str, usize)] = &[
        ("record_header", "at", 0),
        ("record_header", "kind", 8),
        ("record_header", "cpu", 12),
        ("process_key", "start", 0),
        ("process_key", "pid", 8),
        ("process_key", "uid", 12),
        ("socket_record", "sequence", 16),
        ("socket_record", "cookie", 24),
        ("socket_record", "owner", 32),
        ("socket_record", "since", 48),
        ("socket_record", "bytes_sent", 56),
        ("socket_record", "bytes_received", 64),
        ("socket_record", "netns", 72),
        ("socket_record", "local_port", 76),
        ("socket_record", "remote_port", 78),
        ("socket_record", "action", 80),
        ("socket_record", "attribution", 81),
        ("socket_record", "protocol", 82),
        ("socket_record", "family", 83),
        ("socket_record", "old_state", 84),
        ("socket_record", "state", 85),
        ("socket_record", "error", 86),
        ("socket_record", "flags", 88),
        ("socket_record", "local_ip", 96),
        ("socket_record", "remote_ip", 112),
        ("brief_record", "sequence", 16),
        ("brief_record", "cookie", 24),
        ("brief_record", "netns", 32),
        ("brief_record", "local_port", 36),
        ("brief_record", "remote_port", 38),
        ("brief_record", "old_state", 40),
        ("brief_record", "state", 41),
        ("brief_record", "error", 42),
        ("brief_record", "flags", 44),
        ("brief_record", "local_ip", 48),
        ("brief_record", "remote_ip", 52),
        ("brief_record", "bytes_sent", 56),
        ("brief_record", "bytes_received", 64),
        ("owner_record", "cookie", 16),
        ("owner_record", "owner", 24),
        ("fork_record", "parent", 16),
        ("fork_record", "child", 32),
        ("exit_record", "process", 16),
        ("exec_record", "process", 16),
        ("exec_record", "cgroup", 32),
        ("exec_record", "parent", 40),
        ("exec_record", "path_length", 44),
        ("exec_record", "arguments_length", 46),
        ("exec_record", "path_cut", 48),
        ("exec_record", "arguments_cut", 49),
        ("exec_record", "comm", 56),
        ("exec_record", "data", 72),
        ("cgroup_record", "id", 16),
        ("cgroup_record", "path", 24),
        ("snapshot_row", "cookie", 0),
        ("snapshot_row", "start", 8),
        ("snapshot_row", "pid", 16),
        ("snapshot_row", "uid", 20),
        ("snapshot_row", "netns", 24),
        ("snapshot_row", "local_port", 28),
        ("snapshot_row", "remote_port", 30),
        ("snapshot_row", "protocol", 32),
        ("snapshot_row", "family", 33),
        ("snapshot_row", "state", 34),
        ("snapshot_row", "local_ip", 40),
        ("snapshot_row", "remote_ip", 56),
    ];

    #[test]
    fn the_offsets_are_those_of_the_header() {
        let header = include_str!("../../../../../bpf/records.h");
        let stated: Vec<(String, String, usize)> = header
            .lines()
            .filter_map(|line| line.strip_prefix("OFFSET(")?.strip_suffix(");"))
            .map(|line| {
                let parts: Vec<&str> = line.split(", ").collect();
                (
                    parts[0].to_owned(),
                    parts[1].to_owned(),
                    parts[2].parse().unwrap(),
                )
            })
            .collect();
        let ours: Vec<(String, String, usize)> = OFFSETS
            .iter()
            .map(|&(record, member, offset)| (record.to_owned(), member.to_owned(), offset))
            .collect();
        assert_eq!(stated, ours);
        assert!(header.contains(&format!("SIZE(snapshot_row, {SNAPSHOT_ROW});")));
    }

    fn socket_record(action: u8, old: u8, new: u8, error: u16) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes[0..8].copy_from_slice(&5_000_000u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        bytes[12..16].copy_from_slice(&3u32.to_ne_bytes());
        bytes[16..24].copy_from_slice(&42u64.to_ne_bytes());
        bytes[24..32].copy_from_slice(&0xabcu64.to_ne_bytes());
        bytes[32..40].copy_from_slice(&777u64.to_ne_bytes());
        bytes[40..44].copy_from_slice(&1234u32.to_ne_bytes());
        bytes[48..56].copy_from_slice(&2_000_000u64.to_ne_bytes());
        bytes[76..78].copy_from_slice(&40000u16.to_ne_bytes());
        bytes[78..80].copy_from_slice(&80u16.to_ne_bytes());
        (bytes[80], bytes[81], bytes[82], bytes[83]) = (action, 1, 6, 10);
        (bytes[84], bytes[85]) = (old, new);
        bytes[86..88].copy_from_slice(&error.to_ne_bytes());
        bytes[88] = FLAG_COUNTED;
        for offset in [96, 112] {
            bytes[offset + 10..offset + 16].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        }
        bytes
    }

    fn observed(bytes: &[u8]) -> SocketObservation {
        match decode(bytes) {
            Some(Observation::Socket(observation)) => observation,
            other => panic!("not a socket: {other:?}"),
        }
    }

    fn brief_record(old: u8, new: u8, error: u16) -> Vec<u8> {
        let mut bytes = vec![0; if new == 7 { 72 } else { 56 }];
        bytes[0..8].copy_from_slice(&5_000_000u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        bytes[16..24].copy_from_slice(&42u64.to_ne_bytes());
        bytes[24..32].copy_from_slice(&0xabcu64.to_ne_bytes());
        bytes[36..38].copy_from_slice(&40000u16.to_ne_bytes());
        bytes[38..40].copy_from_slice(&80u16.to_ne_bytes());
        (bytes[40], bytes[41]) = (old, new);
        bytes[42..44].copy_from_slice(&error.to_ne_bytes());
        bytes[48..52].copy_from_slice(&[127, 0, 0, 1]);
        bytes[52..56].copy_from_slice(&[127, 0, 0, 2]);
        if new == 7 {
            bytes[44] = FLAG_COUNTED;
            bytes[56..64].copy_from_slice(&10u64.to_ne_bytes());
            bytes[64..72].copy_from_slice(&20u64.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_brief_record_tells_what_changed() {
        let established = observed(&brief_record(2, 1, 0));
        assert_eq!(established.action, Action::Established { connect_us: None });
        assert_eq!(established.socket.local.to_string(), "127.0.0.1:40000");
        assert_eq!(
            established.socket.remote.unwrap().to_string(),
            "127.0.0.2:80"
        );
        assert_eq!(
            (established.owner, established.attribution),
            (None, Attribution::Unknown)
        );
        let closed = observed(&brief_record(1, 7, ECONNRESET));
        assert_eq!(
            closed.action,
            Action::Close {
                reason: CloseReason::Reset,
                bytes_sent: Some(10),
                bytes_received: Some(20),
                duration_us: None,
            }
        );
        let waits = observed(&brief_record(5, 7, 0));
        assert_eq!(waits.socket.state, Some(TcpState::TimeWait));
        // Without its bytes, or without a state, it is not one.
        assert_eq!(decode(&brief_record(5, 7, 0)[..56]), None);
        assert_eq!(decode(&brief_record(0, 1, 0)), None);
    }

    #[test]
    fn a_mapped_connection_is_read_as_ipv4() {
        let seen = observed(&socket_record(5, 2, 1, 0));
        assert_eq!(
            seen.action,
            Action::Established {
                connect_us: Some(3000)
            }
        );
        assert_eq!(seen.socket.local.to_string(), "127.0.0.1:40000");
        assert_eq!(seen.socket.remote.unwrap().to_string(), "127.0.0.1:80");
        assert_eq!((seen.stream, seen.sequence), (3, 42));
        assert_eq!(
            seen.owner,
            Some(ProcessKey {
                pid: 1234,
                start: BootTime(777)
            })
        );
    }

    #[test]
    fn why_a_connection_closed() {
        for (old, error, reason, state) in [
            (2, ECONNREFUSED, CloseReason::Refused, TcpState::Closed),
            (2, ETIMEDOUT, CloseReason::Timeout, TcpState::Closed),
            (2, 0, CloseReason::Closed, TcpState::Closed),
            (2, 113, CloseReason::Unknown, TcpState::Closed),
            (1, ECONNRESET, CloseReason::Reset, TcpState::Closed),
            (1, 0, CloseReason::Reset, TcpState::Closed),
            (8, EPIPE, CloseReason::Reset, TcpState::Closed),
            (9, 0, CloseReason::Closed, TcpState::Closed),
            (5, 0, CloseReason::Closed, TcpState::TimeWait),
            (11, 0, CloseReason::Closed, TcpState::TimeWait),
            (5, ECONNRESET, CloseReason::Reset, TcpState::Closed),
        ] {
            let seen = observed(&socket_record(7, old, 7, error));
            let Action::Close { reason: found, .. } = seen.action else {
                panic!("not a close: {:?}", seen.action)
            };
            assert_eq!(
                (found, seen.socket.state),
                (reason, Some(state)),
                "{old} {error}"
            );
        }
    }

    #[test]
    fn a_program_run_has_its_path_and_arguments() {
        let mut bytes = vec![0; 72];
        bytes[8..12].copy_from_slice(&3u32.to_ne_bytes());
        bytes[44..46].copy_from_slice(&12u16.to_ne_bytes());
        bytes[46..48].copy_from_slice(&8u16.to_ne_bytes());
        bytes[56..59].copy_from_slice(b"nc\xff");
        bytes.extend_from_slice(b"nc\0bin\0usr\0\0nc\0-l\0\xfe\0");
        // The path is `nc`, `bin`, `usr`: eleven bytes; correct the length.
        bytes.remove(72 + 11);
        bytes[44..46].copy_from_slice(&11u16.to_ne_bytes());
        let Some(Observation::Exec(run)) = decode(&bytes) else {
            panic!("not a run")
        };
        assert_eq!(run.exe.as_deref(), Some("/usr/bin/nc"));
        assert_eq!(run.cmdline.as_deref(), Some("nc -l '\\xfe'"));
        assert_eq!(run.comm, "nc\\xff");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode_row(&bytes);
        }

        #[test]
        fn any_socket_record_is_taken_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 128)) {
            bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
            let _ = decode(&bytes);
        }
    }
}
