//! The sockets in use, by kernel cookie, each with its owner.
//!
//! A connection that went into TIME_WAIT has no socket any more, yet its port
//! is in use; it is kept aside with the owner that it had until the kernel's
//! minute is over.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher as _};

use event::{Action, Attribution, BootTime, Cookie, Degradation, ProcessKey, Socket, TcpState};
use rustc_hash::{FxHashMap, FxHasher};
use sensor::SocketObservation;

use crate::held;

/// How long the kernel keeps a TIME_WAIT mini-socket (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT_NS: u64 = 60_000_000_000;

/// The most TIME_WAIT connections that are kept, the newest. Under a storm the
/// kernel holds a hundred thousand of them, and each new set would begin with
/// more lines about what is over than it then has about what happens.
const MOST_TIME_WAIT: usize = 16_384;

/// What a socket is found by: its cookie; a digest of its addresses in engines
/// that cannot learn the cookie; or, for one that nothing tells from its like,
/// a digest of what told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SocketKey(u64);

impl SocketKey {
    /// The key of the socket with this cookie.
    pub(crate) fn of_cookie(cookie: Cookie) -> Self {
        Self(cookie.0)
    }

    /// The key of a socket.
    pub(crate) fn of(socket: &Socket) -> Self {
        if let Some(cookie) = socket.cookie {
            return Self::of_cookie(cookie);
        }
        Self::digest(&(socket.netns, socket.protocol, socket.local, socket.remote))
    }

    /// The key of the socket that this is about. Packet sockets that are about
    /// to be made have no cookie yet, and no address by which two could be told
    /// apart, but only this one thing is ever told of them.
    pub(crate) fn of_observation(seen: &SocketObservation) -> Self {
        if held::needs_number(seen) {
            return Self::digest(&(seen.stream, seen.sequence));
        }
        Self::of(&seen.socket)
    }

    fn digest(of: &impl Hash) -> Self {
        let mut digest = FxHasher::default();
        of.hash(&mut digest);
        // Cookies are small numbers; the top bit keeps the two apart.
        Self(digest.finish() | 1 << 63)
    }
}

/// A socket in use.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// The socket as it is now.
    pub(crate) socket: Socket,
    /// How the owner is known.
    pub(crate) attribution: Attribution,
    /// Who owns it.
    pub(crate) owner: Option<ProcessKey>,
    /// When its port came into use, if that was seen.
    pub(crate) since: Option<BootTime>,
    /// What was seen of a connection that came in and that nobody has accepted
    /// yet: its lines wait to learn who does.
    pub(crate) held: Option<Vec<SocketObservation>>,
    /// The owner is the process that was seen to accept it.
    pub(crate) is_accepted: bool,
}

impl Live {
    /// Adds what the kernel side tells only once, when the port comes into use.
    pub(crate) fn complete(&self, seen: &mut SocketObservation) {
        if seen.action.opens_port() {
            return;
        }
        if seen.owner.is_none() {
            // Addresses stay; a socket that closes may have forgotten them.
            if self.socket.local.port != 0 {
                seen.socket.local = self.socket.local;
            }
            seen.socket.remote = self.socket.remote.or(seen.socket.remote);
        }
        let elapsed = self.since.map(|since| seen.at.micros_since(since));
        match &mut seen.action {
            Action::Established { connect_us: part }
            | Action::Close {
                duration_us: part, ..
            } => {
                *part = part.or(elapsed);
            }
            _ => {}
        }
    }
}

/// Every socket in use.
#[derive(Debug, Default)]
pub(crate) struct Table {
    live: FxHashMap<SocketKey, Live>,
    /// The listeners among them, by network namespace and port.
    listeners: FxHashMap<(Option<u32>, u16), Vec<SocketKey>>,
    /// With the time at which each ends; the earliest first.
    time_wait: VecDeque<(BootTime, Live)>,
    /// How many had to go before their time, by the second in which they end.
    left_out: VecDeque<(u64, u64)>,
}

impl Table {
    /// How many ports are in use.
    pub(crate) fn len(&self) -> usize {
        self.live.len() + self.time_wait.len()
    }

    pub(crate) fn get_mut(&mut self, key: SocketKey) -> Option<&mut Live> {
        self.live.get_mut(&key)
    }

    pub(crate) fn insert(&mut self, key: SocketKey, live: Live) {
        self.remove(key);
        self.index(key, &live.socket);
        self.live.insert(key, live);
    }

    pub(crate) fn remove(&mut self, key: SocketKey) -> Option<Live> {
        let live = self.live.remove(&key)?;
        self.forget_listener(key, &live.socket);
        Some(live)
    }

    /// Takes over a state of which nothing was heard.
    pub(crate) fn set_state(&mut self, key: SocketKey, state: Option<TcpState>) {
        if let Some(mut live) = self.remove(key) {
            live.socket.state = state;
            self.insert(key, live);
        }
    }

    fn index(&mut self, key: SocketKey, socket: &Socket) {
        if socket.is_listener() {
            let place = (socket.netns, socket.local.port);
            self.listeners.entry(place).or_default().push(key);
        }
    }

    fn forget_listener(&mut self, key: SocketKey, socket: &Socket) {
        let place = (socket.netns, socket.local.port);
        if socket.is_listener()
            && let Some(keys) = self.listeners.get_mut(&place)
        {
            keys.retain(|&other| other != key);
            if keys.is_empty() {
                self.listeners.remove(&place);
            }
        }
    }

    /// The owner of the listener that a connection came in by, if it can be no
    /// other's. One that listens at the very address comes before those that
    /// listen at all.
    pub(crate) fn listener_owner(&self, socket: &Socket) -> Option<ProcessKey> {
        let keys = self.listeners.get(&(socket.netns, socket.local.port))?;
        let listeners = || keys.iter().filter_map(|key| self.live.get(key));
        let exact = |live: &&Live| live.socket.local.ip == socket.local.ip;
        let all = |live: &&Live| live.socket.local.ip.is_unspecified();
        let mut owners: Vec<_> = listeners().filter(exact).map(|live| live.owner).collect();
        if owners.is_empty() {
            owners = listeners().filter(all).map(|live| live.owner).collect();
        }
        let owner = owners.pop()?;
        owner.filter(|_| owners.iter().all(|&other| other == owner))
    }

    /// Keeps a connection that went into TIME_WAIT. Returns one that has to go
    /// for it.
    pub(crate) fn wait(&mut self, mut live: Live, now: BootTime) -> Option<Live> {
        live.socket.state = Some(TcpState::TimeWait);
        self.time_wait
            .push_back((BootTime(now.0.saturating_add(TIME_WAIT_NS)), live));
        if self.time_wait.len() <= MOST_TIME_WAIT {
            return None;
        }
        let (end, oldest) = self.time_wait.pop_front()?;
        let second = second_of(end);
        match self.left_out.back_mut() {
            Some((last, count)) if *last >= second => *count += 1,
            _ => self.left_out.push_back((second, 1)),
        }
        Some(oldest)
    }

    /// What a set that begins now lacks: TIME_WAIT connections that had to go
    /// for newer ones and are not over yet, to the second.
    pub(crate) fn lacks(&mut self, now: BootTime) -> Option<Degradation> {
        while self
            .left_out
            .pop_front_if(|(second, _)| *second < second_of(now))
            .is_some()
        {}
        let left_out: u64 = self.left_out.iter().map(|(_, count)| count).sum();
        (left_out > 0).then(|| Degradation {
            what: "TIME_WAIT".to_owned(),
            why: format!("at most {MOST_TIME_WAIT} such connections are kept, the newest"),
            consequence: format!(
                "about {left_out} others are not listed at the beginning of this set; what \
                 was recorded of them is in the sets before"
            ),
            remedy: None,
        })
    }

    /// Forgets one connection whose TIME_WAIT is over.
    pub(crate) fn expire(&mut self, now: BootTime) -> Option<Live> {
        self.time_wait
            .pop_front_if(|(end, _)| *end <= now)
            .map(|(_, live)| live)
    }

    pub(crate) fn contains(&self, key: SocketKey) -> bool {
        self.live.contains_key(&key)
    }

    /// Every socket that the kernel has a cookie for, TIME_WAIT left out.
    pub(crate) fn live(&self) -> impl Iterator<Item = (SocketKey, &Live)> {
        self.live.iter().map(|(&key, live)| (key, live))
    }

    /// Every socket, in no particular order. Those whose first line waits to be
    /// written are not in use yet, as far as the logs go.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Live> {
        self.live
            .values()
            .filter(|live| live.held.is_none())
            .chain(self.time_wait.iter().map(|(_, live)| live))
    }
}

fn second_of(time: BootTime) -> u64 {
    time.0 / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use event::{Endpoint, Protocol};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn connection() -> Live {
        let end = |port| Endpoint {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port,
        };
        Live {
            socket: Socket {
                cookie: Some(Cookie(1)),
                netns: None,
                protocol: Protocol::Tcp,
                local: end(40_000),
                remote: Some(end(80)),
                state: Some(TcpState::Closed),
            },
            attribution: Attribution::Unknown,
            owner: None,
            since: None,
            held: None,
            is_accepted: false,
        }
    }

    fn listener(ip: [u8; 4], pid: u32) -> Live {
        let mut live = connection();
        live.socket.local = Endpoint {
            ip: IpAddr::V4(ip.into()),
            port: 80,
        };
        live.socket.remote = None;
        live.socket.state = Some(TcpState::Listening);
        live.owner = Some(ProcessKey {
            pid,
            start: BootTime(0),
        });
        live
    }

    #[test]
    fn a_connection_is_inherited_from_the_listener_that_alone_can_have_got_it() {
        let (local, any) = ([127, 0, 0, 1], [0; 4]);
        let mut table = Table::default();
        let mut incoming = listener(local, 0).socket;
        incoming.state = Some(TcpState::Established);
        let owner = |table: &Table| table.listener_owner(&incoming).map(|owner| owner.pid);
        assert_eq!(owner(&table), None);

        table.insert(SocketKey(1), listener(any, 1));
        assert_eq!(owner(&table), Some(1));
        // The kernel prefers the one at the very address.
        table.insert(SocketKey(2), listener(local, 2));
        assert_eq!(owner(&table), Some(2));
        // Two processes may share it; which of the two got it is not known.
        table.insert(SocketKey(3), listener(local, 2));
        assert_eq!(owner(&table), Some(2));
        table.insert(SocketKey(3), listener(local, 3));
        assert_eq!(owner(&table), None);
        table.set_state(SocketKey(3), Some(TcpState::Closed));
        assert_eq!(owner(&table), Some(2));
        table.set_state(SocketKey(3), Some(TcpState::Listening));
        assert_eq!(owner(&table), None);

        for key in 1..=3 {
            table.remove(SocketKey(key));
        }
        assert_eq!(owner(&table), None);
        assert!(table.listeners.is_empty());
    }

    #[test]
    fn what_had_to_go_is_lacking_until_its_time_is_over() {
        let mut table = Table::default();
        let begin = BootTime(100 * SECOND);
        for _ in 0..MOST_TIME_WAIT {
            assert!(table.wait(connection(), begin).is_none());
        }
        assert_eq!(table.lacks(begin), None);

        // Each newer one drives an older one out, whose end is that of `begin`.
        for _ in 0..3 {
            assert!(table.wait(connection(), BootTime(130 * SECOND)).is_some());
        }
        assert_eq!(table.len(), MOST_TIME_WAIT);
        let lacks = table.lacks(BootTime(159 * SECOND)).unwrap();
        assert_eq!(lacks.what, "TIME_WAIT");
        assert!(lacks.to_string().contains("about 3 others"), "{lacks}");
        assert!(lacks.to_string().contains("16384"), "{lacks}");
        assert_eq!(table.lacks(BootTime(161 * SECOND)), None);
    }
}
