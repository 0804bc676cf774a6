//! What must have happened between two looks at the sockets.
//!
//! [`Known`] holds the sockets of the last look; [`Known::update`] takes those
//! of the next, and the sockets that the kernel says have died meanwhile, and
//! says what changed, in the words of events. It touches neither clock nor
//! system: owners come from an [`Owners`] that is asked only for sockets that
//! are new.
//!
//! What cannot be told is not made up: a connection that is already
//! established is an accepted one if there is a listener that it can have come
//! from, else one that was made; since the tables are not read at one instant,
//! this is decided only when the next look has found no listener either. A
//! socket that is gone was closed; how, and
//! after how many bytes, is known only if the kernel told its end, and even
//! then not always ([`ends`]). The kernel tells it from a queue of its own, which
//! on a busy machine runs later than the next look: a socket that is gone
//! without a word is waited for ([`PATIENCE`]) before it is written off.
//!
//! A socket is known by its cookie. Where there is none, a connection is known
//! by its addresses (its inode goes when its process closes it, the connection
//! may live on) and every other socket by address and inode.
//!
//! A connection ends when its process has no socket any more. What the kernel
//! keeps of it for a minute (TIME_WAIT) is a remnant with neither process nor
//! bytes; it is reported as the state in which the connection ended.

mod ends;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, hash_map};
use std::net::IpAddr;

use event::{
    Action, Attribution, BootTime, Cookie, Endpoint, ProcessKey, Protocol, Socket, TcpState,
};

use self::ends::{Dead, End, Remnants};
use super::destroy::Death;
use super::sock_diag::TableSocket;
use crate::{Observation, OwnerObservation, SocketObservation};

/// A process and its effective user.
pub(crate) type Holder = (ProcessKey, Option<u32>);

/// The news of an end may come so much later than the look that no longer found
/// the socket, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;
/// For so many looks it may come later still, and is then of no use.
const LATE: u64 = 64;

/// Tells who holds a socket.
pub(crate) trait Owners {
    /// The likely owner of the socket.
    fn owner(&mut self, found: &TableSocket) -> Option<Holder>;
}

/// One look at the sockets.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// When.
    pub(crate) at: BootTime,
    /// Those that are there.
    pub(crate) sockets: Vec<TableSocket>,
    /// Those that the kernel says have died since the look before.
    pub(crate) deaths: Vec<Death>,
    /// The namespaces in which the kernel tells of each death.
    pub(crate) told: HashSet<Option<u32>>,
    /// So many deaths were told but not heard.
    pub(crate) lost: u64,
    /// There is no other for which something could wait.
    pub(crate) is_final: bool,
}

/// The sockets of the last look.
#[derive(Debug, Default)]
pub(crate) struct Known {
    sockets: HashMap<Key, Entry>,
    /// Sockets that were found gone before their death was heard of, and when.
    late: HashMap<Cookie, u64>,
    /// Deaths that the news of others may explain.
    unsettled: Vec<Dead>,
    /// So many sockets of the last look wait to be reported.
    waiting: usize,
    round: u64,
    /// The last look at which deaths were lost.
    lossy: Option<u64>,
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
    /// It came in by a listener.
    accepted: bool,
    /// When something was last said of it.
    at: BootTime,
    /// The last look that found it.
    round: u64,
    told: Told,
    /// The first look that did not find it any more, if its death was not heard
    /// of either.
    missed: Option<BootTime>,
}

/// What was reported of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing yet: it waits for the next look.
    Nothing,
    /// Its beginning.
    Beginning,
    /// Its end; it is a remnant.
    End,
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
    /// Does something wait for the next look?
    pub(crate) fn waits(&self) -> bool {
        !self.unsettled.is_empty() || self.waiting > 0
    }

    /// Is there a socket in this namespace of which the end is to come?
    pub(crate) fn has_open(&self, netns: Option<u32>) -> bool {
        self.sockets
            .values()
            .any(|entry| entry.socket.netns == netns && entry.told != Told::End)
    }

    /// So many observations were made, those included that were lost.
    pub(crate) fn produced(&self) -> u64 {
        self.sequence
    }

    /// Takes the sockets that are there to begin with: nothing happened yet.
    pub(crate) fn start(
        &mut self,
        sockets: Vec<TableSocket>,
        told: HashSet<Option<u32>>,
        owners: &mut impl Owners,
    ) {
        let look = Look {
            sockets,
            told,
            is_final: true,
            ..Look::default()
        };
        self.update(look, owners, &mut Vec::new());
        self.sequence = 0;
    }

    /// Takes a look and appends what happened to `batch`: first what is found
    /// gone, then what is new and changed, listeners before the connections
    /// that may have come from them, and then what died. Before all that come
    /// listeners that no look has seen, if a connection that waits explains them.
    pub(crate) fn update(
        &mut self,
        look: Look,
        owners: &mut impl Owners,
        batch: &mut Vec<Observation>,
    ) {
        let Look {
            at,
            mut sockets,
            mut deaths,
            told,
            lost,
            is_final,
        } = look;
        self.round += 1;
        let round = self.round;
        // A hole in the numbers: the recorder declares it.
        self.sequence += lost;
        if lost > 0 {
            self.lossy = Some(round);
        }
        sockets.sort_by_key(|found| !found.socket.is_listener());
        let remnants = Remnants::of(&sockets, &told);
        let keys = self.mark(&sockets, &remnants);
        let mut listeners = self.listeners();
        let mut report = Report {
            at,
            is_final,
            sequence: &mut self.sequence,
            batch,
        };
        // What comes this late is of a socket that is known to be gone.
        deaths.retain(|death| self.late.remove(&death.cookie).is_none());
        let mut unseen = std::mem::take(&mut self.unsettled);
        let ended = report.find_listeners_of_waiting(
            &self.sockets,
            &sockets,
            &mut deaths,
            &mut unseen,
            &mut listeners,
        );
        let died: HashSet<Cookie> = deaths.iter().map(|death| death.cookie).collect();
        let late = &mut self.late;
        let lossy = self.lossy;
        self.sockets.retain(|key, entry| {
            let cookie = match key {
                Key::Cookie(cookie) if told.contains(&entry.socket.netns) => Some(*cookie),
                _ => None,
            };
            if entry.round == round || cookie.is_some_and(|cookie| died.contains(&cookie)) {
                return true;
            }
            if let Some(cookie) = cookie {
                if entry.is_waited_for(at, is_final, lossy) {
                    return true;
                }
                late.insert(cookie, round);
            }
            report.begin_if_waiting(entry, &listeners);
            report.close(entry, at, &End::unknown(TcpState::Closed));
            false
        });
        let mut waiting = 0;
        for (key, found) in keys.into_iter().zip(sockets) {
            if remnants.hold(&found) {
                continue;
            }
            match self.sockets.entry(key) {
                // The same socket, listening before or after, or the same
                // addresses, were used anew.
                hash_map::Entry::Occupied(mut slot) if slot.get().is_another_than(&found) => {
                    report.begin_if_waiting(slot.get_mut(), &listeners);
                    report.close(slot.get_mut(), at, &End::unknown(TcpState::Closed));
                    match report.open(found, round, owners, &mut listeners) {
                        Some(entry) => _ = slot.insert(entry),
                        None => _ = slot.remove(),
                    }
                }
                hash_map::Entry::Occupied(mut slot) => {
                    report.begin_if_waiting(slot.get_mut(), &listeners);
                    report.follow(slot.get_mut(), &found, owners);
                }
                hash_map::Entry::Vacant(slot) => {
                    if let Some(entry) = report.open(found, round, owners, &mut listeners) {
                        waiting += usize::from(entry.told == Told::Nothing);
                        slot.insert(entry);
                    }
                }
            }
        }
        report.die(
            &mut self.sockets,
            deaths,
            &mut unseen,
            &remnants,
            &listeners,
        );
        self.unsettled = report.live_and_die(unseen, &remnants, &mut listeners);
        report.close_listeners(ended, &remnants);
        self.waiting = waiting;
        self.late.retain(|_, since| round - *since < LATE);
    }

    /// Marks those that are still there, and gives the key of each.
    fn mark(&mut self, sockets: &[TableSocket], remnants: &Remnants) -> Vec<Key> {
        let round = self.round;
        // The death of a socket that left a remnant is told when its process
        // lets go of it, which may take a while; unless it was lost.
        let will_be_told = self.lossy.is_none_or(|lossy| round - lossy > 1);
        let mut keys = Vec::with_capacity(sockets.len());
        for found in sockets {
            let key = Key::of(found);
            if let Some(entry) = self.sockets.get_mut(&key)
                && (will_be_told || !remnants.hold(found))
            {
                entry.round = round;
                entry.missed = None;
            }
            keys.push(key);
        }
        keys
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

impl Entry {
    /// A look has not found it, and its death was not heard of. A look may miss
    /// one that moves in the kernel's table, and its death may be on the way,
    /// unless it is among those that were lost (last at the look `lossy`).
    fn is_waited_for(&mut self, at: BootTime, is_final: bool, lossy: Option<u64>) -> bool {
        let Some(since) = self.missed else {
            self.missed = Some(at);
            return true;
        };
        let may_be_lost = lossy.is_some_and(|lossy| lossy >= self.round);
        !is_final && !may_be_lost && at.0.saturating_sub(since.0) < PATIENCE
    }

    /// Is what was found another socket than this one?
    fn is_another_than(&self, found: &TableSocket) -> bool {
        self.socket.is_listener() != found.socket.is_listener()
            || self.told == Told::End && found.socket.state != Some(TcpState::TimeWait)
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

/// Writes observations.
struct Report<'a> {
    /// When the sockets were looked at.
    at: BootTime,
    /// Nothing is to wait for the next look.
    is_final: bool,
    sequence: &'a mut u64,
    batch: &'a mut Vec<Observation>,
}

impl Report<'_> {
    fn push(&mut self, entry: &Entry, action: Action) {
        self.batch.push(Observation::Socket(SocketObservation {
            at: entry.at,
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

    /// Its end, unless that was reported.
    fn close(&mut self, entry: &mut Entry, at: BootTime, end: &End) {
        if std::mem::replace(&mut entry.told, Told::End) == Told::End {
            return;
        }
        if entry.socket.protocol == Protocol::Tcp {
            entry.socket.state = Some(end.state);
        }
        entry.at = entry.at.max(at);
        self.push(
            entry,
            Action::Close {
                reason: end.reason,
                bytes_sent: end.bytes_sent,
                bytes_received: end.bytes_received,
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
            accepted: came_from.is_some(),
            at: self.at,
            round,
            told: Told::Beginning,
            missed: None,
        };
        let may_have_come_in = entry.socket.remote.is_some()
            && state.is_some_and(|state| state != TcpState::SynSent)
            && !entry.accepted;
        if may_have_come_in && !self.is_final {
            entry.told = Told::Nothing;
            return Some(entry);
        }
        self.begin(&mut entry);
        if entry.socket.is_listener() {
            remember(listeners, &entry);
        }
        Some(entry)
    }

    /// What was not clear when it was first seen is clear now, or never will be.
    fn begin_if_waiting(&mut self, entry: &mut Entry, listeners: &Listeners) {
        if entry.told != Told::Nothing {
            return;
        }
        entry.told = Told::Beginning;
        if let Some(listener) = listener_of(listeners, &entry.socket) {
            entry.accepted = true;
            if let (None, Some((owner, uid))) = (entry.owner, listener.owner) {
                entry.attribution = Attribution::Inherited;
                entry.owner = Some(owner);
                entry.uid = uid;
            }
        }
        self.begin(entry);
    }

    /// The steps that lead to the state in which a socket was first seen.
    fn begin(&mut self, entry: &mut Entry) {
        let Some(state) = entry.socket.state else {
            return self.push(entry, Action::Bind);
        };
        if state == TcpState::Listening {
            return self.push(entry, Action::Listen);
        }
        if entry.accepted {
            entry.socket.state = Some(TcpState::Established);
            self.push(entry, Action::Accept);
        } else {
            entry.socket.state = Some(TcpState::SynSent);
            self.push(entry, Action::Connect);
        }
        self.change_state(entry, state);
    }

    /// A socket that was there before.
    fn follow(&mut self, entry: &mut Entry, found: &TableSocket, owners: &mut impl Owners) {
        if entry.told == Told::End {
            return;
        }
        entry.at = self.at;
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
        if state == TcpState::TimeWait {
            self.close(entry, entry.at, &End::unknown(state));
        } else if let Some(old) = entry.socket.state.filter(|&old| old != state) {
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
