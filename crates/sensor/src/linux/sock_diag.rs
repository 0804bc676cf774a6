//! The kernel's socket tables over netlink (`sock_diag(7)`): every TCP and UDP
//! socket of one network namespace, at once and with its cookie.
//!
//! One question per family and protocol, but only one for TCP: for each the
//! kernel goes through the whole of its hash table, which on a large machine
//! takes milliseconds even where it is empty, and the question of the older
//! kind (`TCPDIAG_GETSOCK`) is about both families. The kernel answers with one
//! `inet_diag_msg` of 72 bytes for each socket:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | family (2 IPv4, 10 IPv6) |
//! | 1 | 1 | state |
//! | 2 | 2 | timer, retransmissions |
//! | 4 | 2 + 2 | local and remote port, big-endian |
//! | 8 | 16 + 16 | local and remote address; IPv4 uses the first four bytes |
//! | 40 | 4 | interface |
//! | 44 | 4 + 4 | cookie, low and high half |
//! | 52 | 12 | expiry, receive queue, send queue |
//! | 64 | 4 | user ID |
//! | 68 | 4 | inode |
//!
//! and then attributes, which hold nothing that a table of ports needs. The
//! byte counters of TCP would be among them if asked for (`INET_DIAG_INFO`),
//! at more cost than all the rest. The table is not locked while it is read: a socket that moves from
//! one hash bucket to another (a connection that goes to TIME_WAIT) may be
//! missed or come twice. Those that come twice are told apart by their cookie.
//!
//! Whose sockets these are is not known here: see [`super::holders`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use event::{Cookie, Endpoint, Protocol, Socket, TcpState};

use super::netlink::{Connection, Reader};
use crate::Error;

/// `SOCK_DIAG_BY_FAMILY`.
pub(crate) const BY_FAMILY: u16 = 20;
/// `TCPDIAG_GETSOCK`.
const TCP_OF_BOTH_FAMILIES: u16 = 18;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Tables that keep changing are accepted after so many attempts.
const ATTEMPTS: u32 = 3;

/// A socket as the kernel's table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableSocket {
    /// The socket.
    pub(crate) socket: Socket,
    /// Its inode, by which its holders are found; 0 if no process can hold it
    /// (TIME_WAIT, not yet accepted, closed by its process).
    pub(crate) inode: u32,
    /// The user that made it; none for a socket that is no more than a
    /// remnant or a request, for which the kernel says 0.
    pub(crate) uid: Option<u32>,
}

/// The sockets of one network namespace.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The sockets, each once.
    pub(crate) sockets: Vec<TableSocket>,
    /// The kernel said that the table changed while it was read, again and
    /// again: some may be missing.
    pub(crate) unstable: bool,
}

impl Table {
    /// This table and that one.
    pub(crate) fn and(mut self, mut other: Self) -> Self {
        self.sockets.append(&mut other.sockets);
        self.unstable |= other.unstable;
        self
    }
}

/// Both protocols.
pub(crate) const BOTH: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];

/// Reads the tables of the calling thread's network namespace, whose inode
/// number is `netns`.
pub(crate) fn dump(protocols: &[Protocol], netns: Option<u32>) -> Result<Table, Error> {
    let mut connection = Connection::open()?;
    let mut table = Table::default();
    for &protocol in protocols {
        let mut ask = |question: &Question| {
            let start = table.sockets.len();
            let outcome = dump_one(&mut connection, question, protocol, netns, &mut table);
            if outcome.is_err() {
                table.sockets.truncate(start);
            }
            outcome
        };
        // Whatever is wrong with it, the newer kind says it better.
        if protocol == Protocol::Tcp && ask(&Question::tcp()).is_ok() {
            continue;
        }
        for family in [AF_INET, AF_INET6] {
            match ask(&Question::new(protocol, family)) {
                // A kernel without IPv6, or without udp_diag.
                Err(Error::System { source, .. })
                    if family == AF_INET6 && source.kind() == std::io::ErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
    }
    Ok(table)
}

fn dump_one(
    connection: &mut Connection,
    question: &Question,
    protocol: Protocol,
    netns: Option<u32>,
    table: &mut Table,
) -> Result<(), Error> {
    let start = table.sockets.len();
    for attempt in 1..=ATTEMPTS {
        table.sockets.truncate(start);
        let mut malformed = false;
        let interrupted =
            connection.dump(question.kind, question.body(), |payload| {
                match decode(payload, protocol, netns) {
                    Ok(Some(socket)) => table.sockets.push(socket),
                    Ok(None) => {}
                    Err(Malformed) => malformed = true,
                }
            })?;
        if malformed {
            return Err(Error::Protocol {
                what: format!("sock_diag {}", protocol.name()),
            });
        }
        if !interrupted {
            break;
        }
        table.unstable |= attempt == ATTEMPTS;
    }
    Ok(())
}

/// How full the queue of a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Where it listens.
    pub local: Endpoint,
    /// Its cookie.
    pub cookie: Cookie,
    /// So many connections wait to be accepted.
    pub waiting: u32,
    /// So many may wait; the kernel lets in one more, and then drops.
    pub limit: u32,
}

impl Backlog {
    /// Whether further connections are dropped (`sk_acceptq_is_full`).
    pub fn is_full(self) -> bool {
        self.waiting > self.limit
    }
}

/// The queues of all TCP listeners in the calling thread's network namespace.
pub fn backlogs() -> Result<Vec<Backlog>, Error> {
    let mut connection = Connection::open()?;
    let mut backlogs = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let question = Question::listeners(family);
        let outcome = connection.dump(question.kind, question.body(), |payload| {
            backlogs.extend(Answer::read(&mut Reader::new(payload)).and_then(|answer| {
                Some(Backlog {
                    local: Endpoint::new(address(answer.family, answer.local)?, answer.local_port),
                    cookie: Cookie(answer.cookie),
                    waiting: answer.queues[0],
                    limit: answer.queues[1],
                })
            }));
        });
        match outcome {
            // A kernel without IPv6.
            Err(Error::System { source, .. })
                if family == AF_INET6 && source.kind() == std::io::ErrorKind::NotFound => {}
            outcome => drop(outcome?),
        }
    }
    Ok(backlogs)
}

/// An answer that is not an `inet_diag_msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads one answer. `Ok(None)` is a socket that uses no port, or one of a
/// family or in a state that this program does not know.
pub(crate) fn decode(
    payload: &[u8],
    protocol: Protocol,
    netns: Option<u32>,
) -> Result<Option<TableSocket>, Malformed> {
    let answer = Answer::read(&mut Reader::new(payload)).ok_or(Malformed)?;
    Ok(answer.socket(protocol, netns))
}

/// The fields of an `inet_diag_msg` that are used here.
struct Answer {
    family: u8,
    state: u8,
    local_port: u16,
    remote_port: u16,
    local: [u8; 16],
    remote: [u8; 16],
    cookie: u64,
    /// Receive and send queue in bytes; of a listener: how many connections wait
    /// to be accepted, and how many may.
    queues: [u32; 2],
    uid: u32,
    inode: u32,
}

impl Answer {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let family = reader.u8()?;
        let state = reader.u8()?;
        let _timer_and_retransmissions = reader.u16()?;
        let local_port = reader.u16_be()?;
        let remote_port = reader.u16_be()?;
        let local = reader.array()?;
        let remote = reader.array()?;
        let _interface = reader.u32()?;
        let cookie = u64::from(reader.u32()?) | u64::from(reader.u32()?) << 32;
        let _expiry = reader.u32()?;
        let queues = [reader.u32()?, reader.u32()?];
        Some(Self {
            family,
            state,
            local_port,
            remote_port,
            local,
            remote,
            cookie,
            queues,
            uid: reader.u32()?,
            inode: reader.u32()?,
        })
    }

    fn socket(&self, protocol: Protocol, netns: Option<u32>) -> Option<TableSocket> {
        if self.local_port == 0 {
            return None;
        }
        let local = address(self.family, self.local)?;
        let state = match protocol {
            Protocol::Tcp => Some(TcpState::from_linux(self.state)?),
            _ => None,
        };
        let connected = self.remote_port != 0 && state != Some(TcpState::Listening);
        let remote = address(self.family, self.remote).filter(|_| connected);
        Some(TableSocket {
            socket: Socket {
                cookie: Some(Cookie(self.cookie)),
                netns,
                protocol,
                local: Endpoint::new(local, self.local_port),
                remote: remote.map(|ip| Endpoint::new(ip, self.remote_port)),
                state,
            },
            inode: self.inode,
            // Requests and remnants are told by the missing inode, for which
            // the kernel leaves the user at 0.
            uid: (self.inode != 0).then_some(self.uid),
        })
    }
}

fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

/// All states but CLOSE and "bound, but neither listening nor connected" (13),
/// which newer kernels offer and no event reports.
const TCP_STATES: u32 = !(1 << 7 | 1 << 13);

/// What the kernel is asked.
struct Question {
    /// The type of the message and of those that answer it.
    kind: u16,
    /// What it carries, padded.
    request: [u8; 60],
    length: usize,
}

impl Question {
    /// An `inet_diag_req_v2`: family, protocol, extensions, padding, states, and
    /// a socket ID of 48 bytes that a dump does not use.
    fn new(protocol: Protocol, family: u8) -> Self {
        match protocol {
            Protocol::Tcp => Self::about(6, family, TCP_STATES),
            // It is asked of no others.
            _ => Self::about(17, family, !0),
        }
    }

    /// Only TCP sockets that listen.
    fn listeners(family: u8) -> Self {
        Self::about(6, family, 1 << 10)
    }

    fn about(number: u8, family: u8, states: u32) -> Self {
        let mut request = [0; 60];
        request[0] = family;
        request[1] = number;
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        Self {
            kind: BY_FAMILY,
            request,
            length: 56,
        }
    }

    /// An `inet_diag_req`: family (any), two lengths of prefixes, extensions, a
    /// socket ID of 48 bytes, states, changes.
    fn tcp() -> Self {
        let mut request = [0; 60];
        request[52..56].copy_from_slice(&TCP_STATES.to_ne_bytes());
        Self {
            kind: TCP_OF_BOTH_FAMILIES,
            request,
            length: 60,
        }
    }

    fn body(&self) -> &[u8] {
        self.request.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    /// An answer as the kernel makes it.
    fn answer(
        family: u8,
        state: u8,
        ports: (u16, u16),
        addresses: ([u8; 16], [u8; 16]),
    ) -> Vec<u8> {
        let mut bytes = vec![family, state, 0, 0];
        bytes.extend(ports.0.to_be_bytes());
        bytes.extend(ports.1.to_be_bytes());
        bytes.extend(addresses.0);
        bytes.extend(addresses.1);
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(0x89ab_cdef_u32.to_ne_bytes());
        bytes.extend(0x0123_4567_u32.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes.extend(1000_u32.to_ne_bytes());
        bytes.extend(4711_u32.to_ne_bytes());
        assert_eq!(bytes.len(), 72);
        bytes
    }

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn reads_a_connection() {
        let mapped = (v6("::ffff:192.0.2.1"), v6("::ffff:198.51.100.2"));
        let mut bytes = answer(AF_INET6, 1, (443, 50000), mapped);
        bytes.extend([8, 0, 21, 0, 7, 7, 7, 7]);
        let found = decode(&bytes, Protocol::Tcp, Some(9)).unwrap().unwrap();
        assert_eq!(found.socket.cookie, Some(Cookie(0x0123_4567_89ab_cdef)));
        assert_eq!(found.socket.netns, Some(9));
        assert_eq!(found.socket.local.to_string(), "192.0.2.1:443");
        assert_eq!(
            found.socket.remote.map(|remote| remote.to_string()),
            Some("198.51.100.2:50000".to_owned())
        );
        assert_eq!(found.socket.state, Some(TcpState::Established));
        assert_eq!((found.inode, found.uid), (4711, Some(1000)));
    }

    #[test]
    fn a_port_of_zero_is_no_use_of_a_port() {
        let bytes = answer(AF_INET, 7, (0, 0), ([0; 16], [0; 16]));
        assert_eq!(decode(&bytes, Protocol::Udp, None), Ok(None));
    }

    #[test]
    fn listeners_and_unconnected_sockets_have_no_peer() {
        let bytes = answer(AF_INET6, 10, (22, 0), ([0; 16], [0; 16]));
        let found = decode(&bytes, Protocol::Tcp, None).unwrap().unwrap();
        assert!(found.socket.is_listener());
        assert_eq!(found.socket.remote, None);
        let bytes = answer(AF_INET, 7, (53, 0), ([0; 16], [0; 16]));
        let found = decode(&bytes, Protocol::Udp, None).unwrap().unwrap();
        assert_eq!((found.socket.remote, found.socket.state), (None, None));
    }

    #[test]
    fn the_kernel_knows_our_own_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();

        let table = dump(BOTH, Some(1)).unwrap();
        let find = |local: SocketAddr, remote: Option<SocketAddr>| {
            let endpoint = |address: SocketAddr| Endpoint::new(address.ip(), address.port());
            let found: Vec<_> = table
                .sockets
                .iter()
                .filter(|found| {
                    found.socket.local == endpoint(local)
                        && found.socket.remote == remote.map(endpoint)
                })
                .collect();
            assert_eq!(found.len(), 1, "{local} {remote:?}");
            found[0].clone()
        };
        let listening = find(listener.local_addr().unwrap(), None);
        assert!(listening.socket.is_listener());
        let accepted = find(
            server.local_addr().unwrap(),
            Some(server.peer_addr().unwrap()),
        );
        assert_eq!(accepted.socket.state, Some(TcpState::Established));
        let bound = find(udp.local_addr().unwrap(), None);
        assert_eq!(bound.socket.protocol, Protocol::Udp);
        let inode = rustix::fs::fstat(&udp).unwrap().st_ino;
        assert_eq!(u64::from(bound.inode), inode);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let outcome = decode(&bytes, Protocol::Tcp, None);
            prop_assert_eq!(outcome.is_err(), bytes.len() < 72);
        }
    }
}
