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
        8 => Observation::Socket(decode_opening(at, &record)?),
        _ => return None,
    })
}

/// Decodes a row of the snapshot iterator.
pub fn decode_row(bytes: &[u8]) -> Option<SnapshotRow> {
    let row = Reader(bytes);
    let number = row.u16(28)?;
    let protocol = protocol(row.u8(32)?, number)?;
    let family = row.u8(33)?;
    let remote_port = row.u16(30)?;
    let state = match protocol {
        Protocol::Tcp => Some(TcpState::from_linux(row.u8(34)?)?),
        _ => None,
    };
    Some(SnapshotRow {
        socket: Socket {
            cookie: Some(Cookie(row.u64(0)?)),
            netns: Some(row.u32(24)?).filter(|&netns| netns != 0),
            protocol,
            local: Endpoint::new(row.ip(40, family)?, port(protocol, number)),
            remote: remote(row.ip(56, family)?, port(protocol, remote_port)),
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
    let number = record.u16(76)?;
    let protocol = protocol(record.u8(82)?, number)?;
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
    let (attribution, owner, uid) = record.owner(81, 32)?;
    Some(SocketObservation {
        at,
        stream: u16::try_from(record.u32(12)?).ok()?,
        sequence: record.u64(16)?,
        action,
        socket: Socket {
            // A packet socket that is about to be made has none yet.
            cookie: Some(Cookie(record.u64(24)?)).filter(|cookie| cookie.0 != 0),
            netns: Some(record.u32(72)?).filter(|&netns| netns != 0),
            protocol,
            local: Endpoint::new(record.ip(96, family)?, port(protocol, number)),
            remote: if listener {
                None
            } else {
                remote(record.ip(112, family)?, port(protocol, record.u16(78)?))
            },
            state: if protocol == Protocol::Tcp {
                state
            } else {
                None
            },
        },
        attribution,
        owner,
        uid,
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

/// A TCP connection over IPv4 that comes into use.
fn decode_opening(at: BootTime, record: &Reader<'_>) -> Option<SocketObservation> {
    let mut seen = decode_brief(at, record)?;
    seen.action = match seen.socket.state? {
        TcpState::SynSent => Action::Connect,
        TcpState::Established => Action::Accept,
        _ => return None,
    };
    (seen.attribution, seen.owner, seen.uid) = record.owner(45, 56)?;
    Some(seen)
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

/// `RECORD_PROTOCOL` numbers in `bpf/records.h`. What takes whole packets has
/// the number of these where others have a port.
fn protocol(kind: u8, number: u16) -> Option<Protocol> {
    match kind {
        1 => Some(Protocol::Icmp),
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        136 => Some(Protocol::UdpLite),
        254 => Some(Protocol::Packet(number)),
        255 => Some(Protocol::Raw(number)),
        _ => None,
    }
}

/// The port in a member that is one or the number of a protocol.
fn port(protocol: Protocol, member: u16) -> u16 {
    if protocol.number().is_some() {
        0
    } else {
        member
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

    /// The owner of a socket: how it is known (an `enum attribution`), the
    /// process and its effective user ID.
    fn owner(
        &self,
        attribution: usize,
        process: usize,
    ) -> Option<(Attribution, Option<ProcessKey>, Option<u32>)> {
        let attribution = match self.u8(attribution)? {
            1 => Attribution::Creator,
            2 => Attribution::Inherited,
            3 => Attribution::Snapshot,
            _ => Attribution::Unknown,
        };
        let (owner, uid) = self.process(process)?;
        Some(if attribution == Attribution::Unknown || owner.pid == 0 {
            (Attribution::Unknown, None, None)
        } else {
            (attribution, Some(owner), Some(uid))
        })
    }

    fn ip(&self, offset: usize, family: u8) -> Option<IpAddr> {
        match family {
            2 => Some(IpAddr::V4(Ipv4Addr::from(self.array::<4>(offset)?))),
            10 => Some(IpAddr::V6(Ipv6Addr::from(self.array::<16>(offset)?))),
            // Frames have no address here.
            17 => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
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
mod tests;
