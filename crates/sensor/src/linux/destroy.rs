//! The end of every socket, from the kernel: the destroy groups of
//! `sock_diag`.
//!
//! There is a group for TCP and one for UDP, for IPv4 and for IPv6 each. As a
//! socket dies the kernel sends the answer that a dump would have given, with
//! three differences: inode and user are 0, the state is that of a dead socket,
//! and the attributes `INET_DIAG_PROTOCOL` and, for TCP, `INET_DIAG_INFO` come
//! unasked. The latter is a `tcp_info`, which grows at its end from kernel to
//! kernel; these are read:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 120 | 8 | bytes acknowledged; SYN and FIN count one each |
//! | 128 | 8 | bytes received; the peer's FIN counts one |
//! | 152 | 4 | segments received with data |
//! | 200 | 8 | bytes sent, with those sent again (Linux 4.19) |
//! | 208 | 8 | bytes sent again |
//!
//! So nothing says who owned the socket, when it was made, and by which side;
//! what can be concluded is concluded in [`changes`](super::changes).
//!
//! A subscription sees one network namespace, so there is one for each that can
//! be entered. An open one keeps its namespace alive, so it is given up when
//! neither a process nor a mount is left there; but not at once. A process
//! that exits leaves its namespaces before its sockets are closed, and the kernel
//! tells of their ends later still, from a queue. So a subscription stays
//! [a moment](LINGER), and for as long as there are sockets of which the end is to come.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, BorrowedFd};

use event::{BootTime, Cookie, Protocol, Socket};
use rustix::net::netlink;

use super::netlink::{Malformed, Reader, next_message};
use super::netns::{self, Namespaces};
use super::sock_diag::{self, BY_FAMILY};
use super::subscription::Subscription;
use crate::Error;

/// `SKNLGRP_INET_TCP_DESTROY` and the three after it, a bit for each: TCP and UDP
/// over IPv4, then over IPv6.
const TCP_GROUPS: u32 = 0b0101;
const UDP_GROUPS: u32 = 0b1010;
/// What ends in a namespace that nobody uses any more is heard for so long, in
/// nanoseconds.
const LINGER: u64 = 250_000_000;
/// The `inet_diag_msg` before the attributes.
const MESSAGE: usize = 72;
/// `INET_DIAG_INFO`.
const INFO: u16 = 2;
/// `INET_DIAG_PROTOCOL`.
const PROTOCOL: u16 = 10;

/// A socket that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// When we heard of it.
    pub(crate) at: BootTime,
    /// Its cookie.
    pub(crate) cookie: Cookie,
    /// The network namespace.
    pub(crate) netns: Option<u32>,
    /// What it was at the end; none if it had no port.
    pub(crate) socket: Option<Socket>,
    /// What the kernel counted, for TCP.
    pub(crate) counted: Option<Counted>,
    /// Bytes received that nobody read; the peer's FIN counts one.
    pub(crate) unread: u32,
}

/// What the kernel counted for a connection, in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Bytes acknowledged; SYN and FIN count one each.
    pub(crate) acknowledged: u64,
    /// Bytes received; the peer's FIN counts one.
    pub(crate) received: u64,
    /// Segments received that had data.
    pub(crate) data_segments: u32,
    /// Payload bytes sent, each once.
    pub(crate) sent: u64,
}

/// Reads a datagram of the destroy groups and calls `each` with every socket
/// in it.
pub(crate) fn decode(
    datagram: &[u8],
    netns: Option<u32>,
    at: BootTime,
    mut each: impl FnMut(Death),
) -> Result<(), Malformed> {
    let mut reader = Reader::new(datagram);
    while let Some(message) = next_message(&mut reader)? {
        if message.kind == BY_FAMILY
            && let Some(death) = decode_one(message.payload, netns, at)?
        {
            each(death);
        }
    }
    Ok(())
}

/// None is a socket of a protocol that is not ours.
fn decode_one(
    payload: &[u8],
    netns: Option<u32>,
    at: BootTime,
) -> Result<Option<Death>, Malformed> {
    let (message, attributes) = payload.split_at_checked(MESSAGE).ok_or(Malformed)?;
    let number = |at: usize| {
        let bytes = message.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    let low = number(44).ok_or(Malformed)?;
    let high = number(48).ok_or(Malformed)?;
    let unread = number(56).ok_or(Malformed)?;
    let mut protocol = None;
    let mut counted = None;
    let mut rest = Reader::new(attributes);
    while let Some((kind, value)) = next_attribute(&mut rest) {
        match kind {
            PROTOCOL => {
                protocol = match value {
                    [6] => Some(Protocol::Tcp),
                    [17] => Some(Protocol::Udp),
                    _ => None,
                }
            }
            INFO => counted = Counted::read(value),
            _ => {}
        }
    }
    let Some(protocol) = protocol else {
        return Ok(None);
    };
    let table =
        sock_diag::decode(payload, protocol, netns).map_err(|sock_diag::Malformed| Malformed)?;
    Ok(Some(Death {
        at,
        cookie: Cookie(u64::from(low) | u64::from(high) << 32),
        netns,
        socket: table.map(|table| table.socket),
        counted: counted.filter(|_| protocol == Protocol::Tcp),
        unread,
    }))
}

/// The next attribute: its type and its value. What is cut off is none.
fn next_attribute<'a>(reader: &mut Reader<'a>) -> Option<(u16, &'a [u8])> {
    let length = usize::from(reader.u16()?);
    let kind = reader.u16()?;
    let value = reader.take(length.checked_sub(4)?)?;
    // The last one may come without its padding.
    let _ = reader.take(length.next_multiple_of(4) - length);
    Some((kind, value))
}

impl Counted {
    /// None before Linux 4.19, which does not count what is sent again.
    fn read(info: &[u8]) -> Option<Self> {
        let long = |at: usize| {
            let bytes = info.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let segments = info.get(152..156)?.try_into().ok()?;
        Some(Self {
            acknowledged: long(120)?,
            received: long(128)?,
            data_segments: u32::from_ne_bytes(segments),
            sent: long(200)?.saturating_sub(long(208)?),
        })
    }
}

/// A subscription in each network namespace that can be entered.
pub(crate) struct Deaths {
    groups: u32,
    room: usize,
    own: Option<u32>,
    places: Vec<Place>,
    /// Namespaces that could not be entered.
    refused: HashSet<u32>,
}

/// A namespace in which ends are told.
struct Place {
    netns: Option<u32>,
    subscription: Subscription,
    /// When it was first seen that nobody uses it any more.
    left: Option<BootTime>,
}

impl Place {
    fn new(netns: Option<u32>, subscription: Subscription) -> Self {
        Self {
            netns,
            subscription,
            left: None,
        }
    }
}

impl Deaths {
    /// Subscribes in our own network namespace, which is `own`, to the ends of
    /// sockets of these protocols, TCP and UDP or only one of them.
    pub(crate) fn open(
        own: Option<u32>,
        protocols: &[Protocol],
        room: usize,
    ) -> Result<Self, Error> {
        let groups = protocols.iter().fold(0, |groups, protocol| {
            groups
                | match protocol {
                    Protocol::Tcp => TCP_GROUPS,
                    Protocol::Udp => UDP_GROUPS,
                    _ => 0,
                }
        });
        Ok(Self {
            groups,
            room,
            own,
            places: vec![Place::new(own, subscribe(groups, room)?)],
            refused: HashSet::new(),
        })
    }

    /// Subscribes in namespaces that are new, and leaves those that nobody uses
    /// any more and where no end is to come (`has_open`); call it after
    /// [`receive`](Self::receive).
    pub(crate) fn follow(
        &mut self,
        namespaces: &Namespaces,
        at: BootTime,
        has_open: impl Fn(Option<u32>) -> bool,
    ) {
        let there: HashSet<u32> = namespaces.others.iter().map(|other| other.inode).collect();
        let own = self.own;
        self.places.retain_mut(|place| {
            let netns = place.netns;
            if netns == own || netns.is_some_and(|netns| there.contains(&netns)) {
                place.left = None;
                return true;
            }
            let left = *place.left.get_or_insert(at);
            at.0.saturating_sub(left.0) < LINGER || has_open(netns)
        });
        self.refused.retain(|netns| there.contains(netns));
        for namespace in &namespaces.others {
            let inode = namespace.inode;
            if self.refused.contains(&inode) || self.covered().any(|netns| netns == Some(inode)) {
                continue;
            }
            let (groups, room) = (self.groups, self.room);
            match netns::within(namespace, || subscribe(groups, room)) {
                Ok(subscription) => {
                    self.places.push(Place::new(Some(inode), subscription));
                }
                // The process that led there may have gone, others may be left.
                Err(_) if namespace.is_there() => _ = self.refused.insert(inode),
                Err(_) => {}
            }
        }
    }

    /// The namespaces in which the ends of sockets are told.
    pub(crate) fn covered(&self) -> impl Iterator<Item = Option<u32>> {
        self.places.iter().map(|place| place.netns)
    }

    /// The namespaces that could not be entered.
    pub(crate) fn refused(&self) -> impl Iterator<Item = u32> {
        self.refused.iter().copied()
    }

    /// Appends what was told since the last time.
    pub(crate) fn receive(&mut self, at: BootTime, deaths: &mut Vec<Death>) -> Result<(), Error> {
        for place in &mut self.places {
            let netns = place.netns;
            let mut malformed = false;
            place.subscription.receive(|datagram| {
                let read = decode(datagram, netns, at, |death| deaths.push(death));
                malformed |= read.is_err();
            })?;
            if malformed {
                return Err(Error::Protocol {
                    what: "sock_diag destroy".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// How many ends were told and found no room.
    pub(crate) fn lost(&mut self) -> u64 {
        self.places
            .iter_mut()
            .map(|place| place.subscription.lost())
            .sum()
    }

    /// What can be waited for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.places.iter().map(|place| place.subscription.as_fd())
    }
}

fn subscribe(groups: u32, room: usize) -> Result<Subscription, Error> {
    Subscription::open(
        "the sock_diag destroy groups",
        netlink::SOCK_DIAG,
        groups,
        room,
    )
}

#[cfg(test)]
mod tests {
    use super::super::sock_diag::BOTH;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use proptest::prelude::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::net::sockopt::socket_cookie;

    use super::*;

    /// A message as the kernel makes it, of a socket with the cookie 9.
    fn message(port: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = vec![0; MESSAGE];
        payload[..2].copy_from_slice(&[2, 7]);
        payload[4..6].copy_from_slice(&port.to_be_bytes());
        payload[6..8].copy_from_slice(&99_u16.to_be_bytes());
        payload[8..12].copy_from_slice(&[127, 0, 0, 1]);
        payload[24..28].copy_from_slice(&[127, 0, 0, 2]);
        payload[44..48].copy_from_slice(&9_u32.to_ne_bytes());
        payload[56..60].copy_from_slice(&3_u32.to_ne_bytes());
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            payload.extend(length.to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(*value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        super::super::netlink::encode_request(BY_FAMILY, 0, &payload)
    }

    fn info(length: usize) -> Vec<u8> {
        let mut info = vec![0; 280];
        for (at, value) in [(120, 12_u64), (128, 21), (200, 15), (208, 5)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        info[152..156].copy_from_slice(&2_u32.to_ne_bytes());
        info.truncate(length);
        info
    }

    fn read(datagram: &[u8]) -> Vec<Death> {
        let mut deaths = Vec::new();
        decode(datagram, Some(4), BootTime(8), |death| deaths.push(death)).unwrap();
        deaths
    }

    #[test]
    fn reads_what_was_counted() {
        let deaths = read(&message(80, &[(PROTOCOL, &[6]), (INFO, &info(280))]));
        let [death] = deaths.as_slice() else {
            panic!("{deaths:?}")
        };
        assert_eq!(
            (death.cookie, death.netns, death.at),
            (Cookie(9), Some(4), BootTime(8))
        );
        let socket = death.socket.as_ref().unwrap();
        assert_eq!(socket.local.to_string(), "127.0.0.1:80");
        assert_eq!(
            death.counted,
            Some(Counted {
                acknowledged: 12,
                received: 21,
                data_segments: 2,
                sent: 10
            })
        );
        assert_eq!(death.unread, 3);
    }

    #[test]
    fn an_older_kernel_counts_less() {
        let deaths = read(&message(80, &[(PROTOCOL, &[6]), (INFO, &info(192))]));
        assert_eq!(deaths[0].counted, None);
    }

    #[test]
    fn a_socket_without_a_port_has_a_cookie_all_the_same() {
        let deaths = read(&message(0, &[(PROTOCOL, &[17])]));
        assert_eq!((deaths[0].cookie, &deaths[0].socket), (Cookie(9), &None));
    }

    #[test]
    fn other_protocols_are_not_ours() {
        assert_eq!(read(&message(80, &[(PROTOCOL, &[132])])), []);
        assert_eq!(read(&message(80, &[])), []);
    }

    #[test]
    fn a_message_that_is_cut_off_is_malformed() {
        let mut datagram = message(80, &[]);
        datagram.truncate(60);
        datagram[..4].copy_from_slice(&60_u32.to_ne_bytes());
        assert_eq!(decode(&datagram, None, BootTime(0), |_| ()), Err(Malformed));
    }

    /// Waits until the ends of these sockets were told; needs `CAP_NET_ADMIN`.
    fn heard(deaths: &mut Deaths, cookies: &[u64]) -> Vec<Death> {
        let mut all = Vec::new();
        while !cookies
            .iter()
            .all(|&cookie| all.iter().any(|death: &Death| death.cookie.0 == cookie))
        {
            let mut fds: Vec<_> = deaths
                .descriptors()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            poll(&mut fds, None).unwrap();
            drop(fds);
            deaths.receive(BootTime(1), &mut all).unwrap();
        }
        cookies
            .iter()
            .filter_map(|&cookie| all.iter().find(|death| death.cookie.0 == cookie).cloned())
            .collect()
    }

    #[test]
    fn the_kernel_tells_of_our_own_sockets() {
        // Not permitted: the tests of the whole program say so.
        // Others may close sockets by the thousand meanwhile.
        let Ok(mut deaths) = Deaths::open(Some(1), BOTH, 1 << 28) else {
            return;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let ports = [client.local_addr(), udp.local_addr()].map(|a| a.unwrap().port());
        let cookies = [
            socket_cookie(&client).unwrap(),
            socket_cookie(&udp).unwrap(),
        ];
        drop((client, udp, listener));
        let told = heard(&mut deaths, &cookies);
        let local = |death: &Death| death.socket.as_ref().unwrap().local.port;
        assert_eq!(told.iter().map(local).collect::<Vec<_>>(), ports);
        assert_eq!(told[0].counted.map(|counted| counted.sent), Some(0));
        assert_eq!(told[1].counted, None);
        assert_eq!(deaths.lost(), 0);
    }

    #[test]
    fn a_namespace_that_nobody_uses_is_heard_a_moment_longer() {
        let (own, other) = (Some(1), Some(2));
        let (Ok(mut deaths), Ok(subscription)) =
            (Deaths::open(own, BOTH, 1 << 20), subscribe(TCP_GROUPS, 1))
        else {
            return;
        };
        deaths.places.push(Place::new(other, subscription));
        let mut follow = |at, has_open: bool| {
            deaths.follow(&Namespaces::default(), BootTime(at), |netns| {
                netns == other && has_open
            });
            deaths.covered().collect::<Vec<_>>()
        };
        assert_eq!(follow(5, false), [own, other]);
        assert_eq!(follow(4 + LINGER, false), [own, other]);
        assert_eq!(follow(5 + LINGER, true), [own, other]);
        assert_eq!(follow(5 + LINGER, false), [own]);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let Ok(mut deaths) = Deaths::open(Some(1), BOTH, 1) else {
            return;
        };
        // The kernel tells a little later, from a queue of its own.
        let mut lost = 0;
        while lost < 10 {
            drop(UdpSocket::bind("127.0.0.1:0").unwrap());
            lost += deaths.lost();
        }
        // The error that stands before the rest is not the end of it.
        let mut all = Vec::new();
        deaths.receive(BootTime(1), &mut all).unwrap();
        assert!(!all.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes, None, BootTime(0), |_| ());
            let whole = super::super::netlink::encode_request(BY_FAMILY, 0, &bytes);
            let outcome = decode(&whole, None, BootTime(0), |_| ());
            prop_assert_eq!(outcome.is_err(), bytes.len() < MESSAGE);
        }
    }
}
