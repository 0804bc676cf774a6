//! What must have happened between two looks at the sockets.
//!
//! [`Known`] holds the sockets of the last look; [`Known::update`] takes those
//! of the next and says what changed, in the words of events. It touches
//! neither clock nor system: owners come from an [`Owners`] that is asked only
//! for sockets that are new.
//!
//! What two looks cannot tell is not made up: a connection that is already
//! established is an accepted one if there is a listener that it can have come
//! from, else one that was made; a socket that is gone was closed, nobody
//! knows how.
//!
//! A socket is known by its cookie. Where there is none, a connection is known
//! by its addresses (its inode goes when its process closes it, the connection
//! may live on) and every other socket by address and inode.

use std::collections::{HashMap, hash_map};
use std::net::IpAddr;

use event::{
    Action, Attribution, BootTime, CloseReason, Cookie, Endpoint, ProcessKey, Protocol, Socket,
    TcpState,
};

use super::sock_diag::TableSocket;
use crate::{Observation, OwnerObservation, SocketObservation};

/// A process and its effective user.
pub(crate) type Holder = (ProcessKey, Option<u32>);

/// Tells who holds a socket.
pub(crate) trait Owners {
    /// The likely owner of the socket.
    fn owner(&mut self, found: &TableSocket) -> Option<Holder>;
}

/// The sockets of the last look.
#[derive(Debug, Default)]
pub(crate) struct Known {
    sockets: HashMap<Key, Entry>,
    round: u64,
    /// The number of the next observation.
    sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Cookie(Cookie),
    /// Namespace, protocol, addresses, and the inode unless it is a connection.
    Name(Option<u32>, Protocol, Endpoint, Option<Endpoint>, u32),
}

impl Key {
    fn of(found: &TableSocket) -> Self {
        let socket = &found.socket;
        match socket.cookie {
            Some(cookie) => Self::Cookie(cookie),
            None => Self::Name(
                socket.netns,
                socket.protocol,
                socket.local,
                socket.remote,
                if socket.remote.is_some() && socket.protocol == Protocol::Tcp {
                    0
                } else {
                    found.inode
                },
            ),
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    socket: Socket,
    inode: u32,
    attribution: Attribution,
    owner: Option<ProcessKey>,
    uid: Option<u32>,
    /// The last look that found it.
    round: u64,
}

/// A listener that may have accepted connections.
#[derive(Clone, Copy, Debug)]
struct Listener {
    ip: IpAddr,
    owner: Option<Holder>,
}

/// The listeners of a look and of the one before, by namespace and port.
type Listeners = HashMap<(Option<u32>, u16), Vec<Listener>>;

impl Known {
    /// So many observations were made.
    pub(crate) fn produced(&self) -> u64 {
        self.sequence
    }

    /// Takes the sockets that are there to begin with: nothing happened yet.
    pub(crate) fn start(&mut self, sockets: Vec<TableSocket>, owners: &mut impl Owners) {
        let mut ignored = Vec::new();
        self.update(sockets, BootTime(0), owners, &mut ignored);
        self.sequence = 0;
    }

    /// Takes the sockets that are there at `at` and appends what happened to
    /// `batch`: first what is gone, then what is new and changed, listeners
    /// before the connections that may have come from them.
    pub(crate) fn update(
        &mut self,
        mut sockets: Vec<TableSocket>,
        at: BootTime,
        owners: &mut impl Owners,
        batch: &mut Vec<Observation>,
    ) {
        self.round += 1;
        let round = self.round;
        let mut keys = Vec::with_capacity(sockets.len());
        sockets.sort_by_key(|found| !found.socket.is_listener());
        for found in &sockets {
            let key = Key::of(found);
            if let Some(entry) = self.sockets.get_mut(&key) {
                entry.round = round;
            }
            keys.push(key);
        }
        let mut listeners = self.listeners();
        let mut report = Report {
            at,
            sequence: &mut self.sequence,
            batch,
        };
        self.sockets.retain(|_, entry| {
            if entry.round != round {
                report.close(entry);
            }
            entry.round == round
        });
        for (key, found) in keys.into_iter().zip(sockets) {
            match self.sockets.entry(key) {
                // The same socket, listening before or after, was used anew.
                hash_map::Entry::Occupied(mut slot)
                    if slot.get().socket.is_listener() != found.socket.is_listener() =>
                {
                    report.close(slot.get_mut());
                    match report.open(found, round, owners, &mut listeners) {
                        Some(entry) => _ = slot.insert(entry),
                        None => _ = slot.remove(),
                    }
                }
                hash_map::Entry::Occupied(mut slot) => {
                    report.follow(slot.get_mut(), &found, owners);
                }
                hash_map::Entry::Vacant(slot) => {
                    if let Some(entry) = report.open(found, round, owners, &mut listeners) {
                        slot.insert(entry);
                    }
                }
            }
        }
    }

    fn listeners(&self) -> Listeners {
        let mut listeners = Listeners::new();
        for entry in self
            .sockets
            .values()
            .filter(|entry| entry.socket.is_listener())
        {
            remember(&mut listeners, entry);
        }
        listeners
    }
}

fn remember(listeners: &mut Listeners, entry: &Entry) {
    listeners
        .entry((entry.socket.netns, entry.socket.local.port))
        .or_default()
        .push(Listener {
            ip: entry.socket.local.ip,
            owner: entry.owner.map(|owner| (owner, entry.uid)),
        });
}

/// The listener from which a connection may have come.
fn listener_of(listeners: &Listeners, socket: &Socket) -> Option<Listener> {
    let candidates = listeners.get(&(socket.netns, socket.local.port))?;
    let ip = socket.local.ip;
    let exact = |listener: &&Listener| listener.ip == ip;
    let any = |listener: &&Listener| {
        listener.ip.is_unspecified() && (listener.ip.is_ipv6() || ip.is_ipv4())
    };
    candidates
        .iter()
        .find(exact)
        .or_else(|| candidates.iter().find(any))
        .copied()
}

/// Writes observations of one moment.
struct Report<'a> {
    at: BootTime,
    sequence: &'a mut u64,
    batch: &'a mut Vec<Observation>,
}

impl Report<'_> {
    fn push(&mut self, entry: &Entry, action: Action) {
        self.batch.push(Observation::Socket(SocketObservation {
            at: self.at,
            stream: 0,
            sequence: *self.sequence,
            action,
            socket: entry.socket.clone(),
            attribution: entry.attribution,
            owner: entry.owner,
            uid: entry.uid,
            error: None,
        }));
        *self.sequence += 1;
    }

    fn close(&mut self, entry: &mut Entry) {
        if entry.socket.protocol == Protocol::Tcp {
            entry.socket.state = Some(TcpState::Closed);
        }
        self.push(
            entry,
            Action::Close {
                reason: CloseReason::Unknown,
                bytes_sent: None,
                bytes_received: None,
                duration_us: None,
            },
        );
    }

    /// A socket that was not there before. A request that is not yet a
    /// connection is not one yet.
    fn open(
        &mut self,
        found: TableSocket,
        round: u64,
        owners: &mut impl Owners,
        listeners: &mut Listeners,
    ) -> Option<Entry> {
        let state = found.socket.state;
        if state == Some(TcpState::SynReceived) {
            return None;
        }
        let came_from = listener_of(listeners, &found.socket).filter(|_| {
            found.socket.remote.is_some() && state.is_some_and(|state| state != TcpState::SynSent)
        });
        let holder = Some(&found)
            .filter(|found| found.inode != 0)
            .and_then(|found| owners.owner(found));
        let (attribution, owner) = match (holder, came_from.and_then(|listener| listener.owner)) {
            (Some(holder), _) => (Attribution::Snapshot, Some(holder)),
            (None, Some(listener)) => (Attribution::Inherited, Some(listener)),
            (None, None) => (Attribution::Unknown, None),
        };
        let mut entry = Entry {
            socket: found.socket,
            inode: found.inode,
            attribution,
            owner: owner.map(|(key, _)| key),
            uid: owner.and_then(|(_, uid)| uid),
            round,
        };
        match state {
            None => self.push(&entry, Action::Bind),
            Some(TcpState::Listening) => {
                self.push(&entry, Action::Listen);
                remember(listeners, &entry);
            }
            Some(TcpState::SynSent) => self.push(&entry, Action::Connect),
            Some(state) if came_from.is_some() => {
                entry.socket.state = Some(TcpState::Established);
                self.push(&entry, Action::Accept);
                self.change_state(&mut entry, state);
            }
            Some(state) => {
                entry.socket.state = Some(TcpState::SynSent);
                self.push(&entry, Action::Connect);
                self.change_state(&mut entry, state);
            }
        }
        Some(entry)
    }

    /// A socket that was there before.
    fn follow(&mut self, entry: &mut Entry, found: &TableSocket, owners: &mut impl Owners) {
        if entry.inode != found.inode {
            entry.inode = found.inode;
            self.find_owner(entry, found, owners);
        }
        let state = found.socket.state;
        let local = found.socket.local;
        let remote = found.socket.remote;
        // A UDP socket may be connected or lose its peer; it keeps its port,
        // and no event tells of this.
        entry.socket.local = local;
        entry.socket.remote = remote;
        if let Some(state) = state {
            self.change_state(entry, state);
        }
    }

    /// Takes the steps from the state of `entry` to `state`.
    fn change_state(&mut self, entry: &mut Entry, state: TcpState) {
        if entry.socket.state == Some(TcpState::SynSent)
            && !matches!(
                state,
                TcpState::SynSent | TcpState::SynReceived | TcpState::Closed
            )
        {
            entry.socket.state = Some(TcpState::Established);
            self.push(entry, Action::Established { connect_us: None });
        }
        if let Some(old) = entry.socket.state.filter(|&old| old != state) {
            entry.socket.state = Some(state);
            self.push(entry, Action::State { old });
        }
    }

    /// A connection was accepted, or its process closed it.
    fn find_owner(&mut self, entry: &mut Entry, found: &TableSocket, owners: &mut impl Owners) {
        if entry.inode == 0 {
            // Whoever had it before is still the one to name.
            return;
        }
        let Some((owner, uid)) = owners.owner(found) else {
            return;
        };
        if entry.owner == Some(owner) {
            return;
        }
        entry.owner = Some(owner);
        entry.uid = uid;
        entry.attribution = Attribution::Snapshot;
        if let (Some(cookie), Some(uid)) = (entry.socket.cookie, uid) {
            self.batch
                .push(Observation::Owner(OwnerObservation { cookie, owner, uid }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// Inode and process number are the same; inode 99 is nobody's.
    #[derive(Default)]
    struct Same {
        asked: usize,
    }

    impl Owners for Same {
        fn owner(&mut self, found: &TableSocket) -> Option<Holder> {
            let inode = found.inode;
            self.asked += 1;
            (inode != 99).then_some((key(inode), Some(1000)))
        }
    }

    fn key(pid: u32) -> ProcessKey {
        ProcessKey {
            pid,
            start: BootTime(1),
        }
    }

    fn tcp(cookie: u64, local: &str, remote: &str, state: TcpState, inode: u32) -> TableSocket {
        let endpoint = |text: &str| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            Endpoint::new(address.ip(), address.port())
        };
        TableSocket {
            socket: Socket {
                cookie: (cookie != 0).then_some(Cookie(cookie)),
                netns: Some(1),
                protocol: Protocol::Tcp,
                local: endpoint(local),
                remote: (!remote.is_empty()).then(|| endpoint(remote)),
                state: Some(state),
            },
            inode,
            uid: None,
        }
    }

    fn udp(cookie: u64, local: &str, inode: u32) -> TableSocket {
        let mut found = tcp(cookie, local, "", TcpState::Closed, inode);
        found.socket.protocol = Protocol::Udp;
        found.socket.state = None;
        found
    }

    /// What an update says, in short.
    fn update(known: &mut Known, sockets: &[TableSocket]) -> Vec<String> {
        let mut batch = Vec::new();
        known.update(
            sockets.to_vec(),
            BootTime(5),
            &mut Same::default(),
            &mut batch,
        );
        batch
            .iter()
            .map(|observation| match observation {
                Observation::Socket(seen) => format!(
                    "{} {} {} {} {:?}",
                    seen.sequence,
                    seen.action.name(),
                    seen.socket.local,
                    seen.socket.state.map_or("-", TcpState::name),
                    seen.owner.map(|owner| owner.pid)
                ),
                Observation::Owner(seen) => format!("owner {} {}", seen.cookie, seen.owner.pid),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_is_there_at_the_start_did_not_happen() {
        let mut known = Known::default();
        let sockets = [tcp(1, "0.0.0.0:80", "", TcpState::Listening, 7)];
        known.start(sockets.to_vec(), &mut Same::default());
        assert_eq!(update(&mut known, &sockets), [""; 0]);
        assert_eq!(known.produced(), 0);
        assert_eq!(
            update(&mut known, &[]),
            ["0 close 0.0.0.0:80 CLOSED Some(7)"]
        );
        assert_eq!(known.produced(), 1);
    }

    #[test]
    fn a_connection_from_its_first_look_to_its_last() {
        let mut known = Known::default();
        let at = |state, inode| [tcp(1, "10.0.0.1:5000", "10.0.0.2:80", state, inode)];
        assert_eq!(
            update(&mut known, &at(TcpState::SynSent, 7)),
            ["0 connect 10.0.0.1:5000 SYN_SENT Some(7)"]
        );
        assert_eq!(
            update(&mut known, &at(TcpState::CloseWait, 7)),
            [
                "1 established 10.0.0.1:5000 ESTABLISHED Some(7)",
                "2 state 10.0.0.1:5000 CLOSE_WAIT Some(7)"
            ]
        );
        assert_eq!(
            update(&mut known, &at(TcpState::TimeWait, 0)),
            ["3 state 10.0.0.1:5000 TIME_WAIT Some(7)"]
        );
        assert_eq!(
            update(&mut known, &[]),
            ["4 close 10.0.0.1:5000 CLOSED Some(7)"]
        );
    }

    #[test]
    fn without_cookies_a_remnant_is_still_the_connection() {
        let mut known = Known::default();
        let at = |state, inode| [tcp(0, "10.0.0.1:5000", "10.0.0.2:80", state, inode)];
        assert_eq!(update(&mut known, &at(TcpState::Established, 7)).len(), 2);
        assert_eq!(
            update(&mut known, &at(TcpState::TimeWait, 0)),
            ["2 state 10.0.0.1:5000 TIME_WAIT Some(7)"]
        );
    }

    #[test]
    fn a_connection_to_a_listener_was_accepted() {
        let mut known = Known::default();
        let listener = tcp(1, "[::]:80", "", TcpState::Listening, 7);
        // Not yet accepted: no inode, but the listener has an owner.
        let waiting = tcp(2, "10.0.0.1:80", "10.0.0.2:999", TcpState::Established, 0);
        let request = tcp(3, "10.0.0.1:80", "10.0.0.2:998", TcpState::SynReceived, 0);
        assert_eq!(
            update(&mut known, &[waiting.clone(), request, listener.clone()]),
            [
                "0 listen [::]:80 LISTENING Some(7)",
                "1 accept 10.0.0.1:80 ESTABLISHED Some(7)"
            ]
        );
        let accepted = TableSocket {
            inode: 8,
            ..waiting
        };
        assert_eq!(
            update(&mut known, &[accepted, listener]),
            ["owner 2 8"],
            "another process took it"
        );
    }

    #[test]
    fn a_listener_that_just_went_still_explains_a_connection() {
        let mut known = Known::default();
        update(
            &mut known,
            &[tcp(1, "10.0.0.1:80", "", TcpState::Listening, 7)],
        );
        let made = tcp(2, "10.0.0.1:80", "10.0.0.2:9", TcpState::Established, 8);
        assert_eq!(
            update(&mut known, &[made]),
            [
                "1 close 10.0.0.1:80 CLOSED Some(7)",
                "2 accept 10.0.0.1:80 ESTABLISHED Some(8)"
            ]
        );
    }

    #[test]
    fn a_listener_of_ipv4_explains_no_connection_of_ipv6() {
        let mut known = Known::default();
        let sockets = [
            tcp(1, "0.0.0.0:80", "", TcpState::Listening, 7),
            tcp(2, "[fe80::1]:80", "[fe80::2]:9", TcpState::Established, 8),
        ];
        assert_eq!(
            update(&mut known, &sockets)[1..],
            [
                "1 connect [fe80::1]:80 SYN_SENT Some(8)",
                "2 established [fe80::1]:80 ESTABLISHED Some(8)"
            ]
        );
    }

    #[test]
    fn sockets_that_share_a_port_are_told_apart() {
        let mut known = Known::default();
        let all = [udp(0, "0.0.0.0:53", 5), udp(0, "0.0.0.0:53", 6)];
        assert_eq!(update(&mut known, &all).len(), 2);
        assert_eq!(
            update(&mut known, &all[1..]),
            ["2 close 0.0.0.0:53 - Some(5)"]
        );
    }

    #[test]
    fn owners_are_asked_for_new_sockets_only() {
        let mut known = Known::default();
        let mut owners = Same::default();
        let sockets = vec![udp(1, "0.0.0.0:53", 99), udp(2, "0.0.0.0:54", 5)];
        known.start(sockets.clone(), &mut owners);
        known.update(sockets, BootTime(9), &mut owners, &mut Vec::new());
        assert_eq!(owners.asked, 2);
    }

    proptest! {
        #[test]
        fn every_opening_has_one_close_and_no_number_is_missing(
            looks in proptest::collection::vec(
                proptest::collection::btree_map(1_u64..8, 1_u8..12, 0..8), 1..12)
        ) {
            let mut known = Known::default();
            let mut batch = Vec::new();
            for look in looks.into_iter().chain([BTreeMap::new()]) {
                let sockets = look.into_iter().map(|(cookie, number)| {
                    let state = TcpState::from_linux(number).unwrap();
                    let peer = if state == TcpState::Listening { "" } else { "10.0.0.2:9" };
                    tcp(cookie, &format!("10.0.0.1:{cookie}"), peer, state, 5)
                }).collect();
                known.update(sockets, BootTime(0), &mut Same::default(), &mut batch);
            }
            let mut open = BTreeSet::new();
            for (expected, observation) in (0..).zip(&batch) {
                let Observation::Socket(seen) = observation else {
                    panic!("{observation:?}");
                };
                prop_assert_eq!(seen.sequence, expected);
                if seen.action.opens_port() {
                    prop_assert!(open.insert(seen.socket.cookie));
                } else if seen.action.ends_socket() {
                    prop_assert!(open.remove(&seen.socket.cookie));
                } else {
                    prop_assert!(open.contains(&seen.socket.cookie));
                }
            }
            prop_assert!(open.is_empty());
            prop_assert!(known.sockets.is_empty());
        }
    }
}
