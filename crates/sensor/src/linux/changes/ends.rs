//! What the news of a socket's death tells of its life.
//!
//! The kernel tells addresses and, for TCP, what it counted; never who owned
//! the socket, which side opened the connection, or how it ended. This is what
//! follows:
//!
//! * *Acknowledged* bytes are the payload, one for our SYN if we sent it first,
//!   and one for our FIN. Two more than the payload: this side made the
//!   connection. All of them there: the process closed it and the peer knows.
//! * *Received* bytes are the payload and one for the peer's FIN. That this FIN
//!   came is known if a look saw a state behind it, if it lies there unread, or
//!   if the connection was closed on both sides without leaving a remnant: only
//!   the side that closed last leaves none. If there is a remnant and nothing
//!   is unread, the FIN came to the remnant, unless the process had closed only
//!   its sending half and then waited for the end; if no look saw it do that,
//!   the number may be one too high. Where none of this applies it is not
//!   known, unless no data came at all.
//! * A TCP socket with a port and no peer may have been a listener, one that
//!   was only bound, or one whose connection was refused. It is taken for a
//!   listener if a connection came in by its port, else it is not reported.
//!   Deaths are not told in order, so both wait for each other until the next
//!   look. A look may have seen the connection and not the listener, which then
//!   is as unknown as if the connection had not been seen either.
//! * An owner is known only to sockets that a look has seen, and to connections
//!   that came from a listener that one has seen.

use std::collections::{HashMap, HashSet};

use event::{Attribution, BootTime, CloseReason, Endpoint, Protocol, Socket, TcpState};

use super::super::destroy::{Counted, Death};
use super::super::sock_diag::TableSocket;
use super::{Entry, Key, Listener, Listeners, Report, Told, listener_of, remember};

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Its last state, for TCP.
    pub(super) state: TcpState,
    pub(super) reason: CloseReason,
    pub(super) bytes_sent: Option<u64>,
    pub(super) bytes_received: Option<u64>,
}

impl End {
    /// It is gone, and that is all.
    pub(super) fn unknown(state: TcpState) -> Self {
        Self {
            state,
            reason: CloseReason::Unknown,
            bytes_sent: None,
            bytes_received: None,
        }
    }

    /// What the death of a socket tells, together with what was known of it.
    pub(super) fn of(death: &Death, entry: &Entry, remnants: &Remnants) -> Self {
        let mut end = Self::unknown(TcpState::Closed);
        let Some(remote) = entry
            .socket
            .remote
            .filter(|_| entry.socket.protocol == Protocol::Tcp)
        else {
            // Only its process can close it.
            end.reason = CloseReason::Closed;
            return end;
        };
        let remnant = remnants.state(entry.socket.netns, entry.socket.local, remote);
        if remnant == Some(TcpState::TimeWait) {
            end.state = TcpState::TimeWait;
        }
        let still_connected = death
            .socket
            .as_ref()
            .is_some_and(|socket| socket.remote.is_some());
        // A process that breaks off a connection also resets the counters.
        let Some(counted) = death.counted.filter(|_| still_connected) else {
            return end;
        };
        let is_closed = counted.fin_acknowledged(entry.accepted);
        if is_closed {
            end.reason = CloseReason::Closed;
        }
        end.bytes_sent = Some(counted.sent);
        end.bytes_received = match entry.socket.state {
            _ if counted.data_segments == 0 => Some(0),
            Some(TcpState::CloseWait | TcpState::LastAck | TcpState::Closing) => {
                counted.received.checked_sub(1)
            }
            _ if is_closed && death.unread == 1 => counted.received.checked_sub(1),
            // It may have waited for the peer's end or not.
            Some(TcpState::FinWait1 | TcpState::FinWait2) if entry.inode != 0 => None,
            _ if is_closed && remnant.is_some() => Some(counted.received),
            _ if is_closed => counted.received.checked_sub(1),
            _ => None,
        };
        end
    }
}

impl Counted {
    /// Can only the side that sent the SYN have this acknowledged?
    fn is_active(&self) -> bool {
        self.acknowledged.saturating_sub(self.sent) >= 2
    }

    /// Was our FIN acknowledged?
    fn fin_acknowledged(&self, accepted: bool) -> bool {
        self.acknowledged.saturating_sub(self.sent) > u64::from(!accepted)
    }
}

/// What is left of connections in namespaces where the kernel tells of deaths:
/// entries of its table without a socket.
#[derive(Debug, Default)]
pub(super) struct Remnants {
    told: HashSet<Option<u32>>,
    states: HashMap<(Option<u32>, Endpoint, Endpoint), TcpState>,
}

impl Remnants {
    /// Those among the sockets of a look.
    pub(super) fn of(sockets: &[TableSocket], told: &HashSet<Option<u32>>) -> Self {
        let mut remnants = Self {
            told: told.clone(),
            states: HashMap::new(),
        };
        for found in sockets {
            if remnants.hold(found)
                && let (Some(remote), Some(state)) = (found.socket.remote, found.socket.state)
            {
                remnants
                    .states
                    .insert((found.socket.netns, found.socket.local, remote), state);
            }
        }
        remnants
    }

    /// Is it one? Its connection's end is told, not seen.
    pub(super) fn hold(&self, found: &TableSocket) -> bool {
        let states = [Some(TcpState::TimeWait), Some(TcpState::FinWait2)];
        found.inode == 0
            && states.contains(&found.socket.state)
            && self.told.contains(&found.socket.netns)
    }

    fn state(&self, netns: Option<u32>, local: Endpoint, remote: Endpoint) -> Option<TcpState> {
        self.states.get(&(netns, local, remote)).copied()
    }
}

/// A socket that no look has seen, so that what is known of it is its death; or
/// a connection that one look has seen and of which nothing was said yet.
#[derive(Debug)]
pub(super) struct Dead {
    death: Death,
    socket: Socket,
    seen: Option<Box<Entry>>,
    /// It has waited for the news of others that could tell more about it.
    has_waited: bool,
}

impl Dead {
    /// None if it used no port.
    fn unseen(death: Death) -> Option<Self> {
        let socket = death.socket.clone()?;
        Some(Self {
            death,
            socket,
            seen: None,
            has_waited: false,
        })
    }

    /// What a look has seen waits to be reported.
    fn seen(death: Death, entry: Entry) -> Self {
        Self {
            death,
            socket: entry.socket.clone(),
            seen: Some(Box::new(entry)),
            has_waited: false,
        }
    }

    /// When it was first known to be there.
    fn since(&self) -> BootTime {
        self.seen.as_ref().map_or(self.death.at, |entry| entry.at)
    }

    /// A TCP socket that has a port and no peer.
    fn may_have_listened(&self) -> bool {
        self.socket.protocol == Protocol::Tcp && self.socket.remote.is_none()
    }

    /// A connection that this side need not have made.
    fn may_have_come_in(&self) -> bool {
        self.socket.protocol == Protocol::Tcp
            && self.socket.remote.is_some()
            && !self
                .death
                .counted
                .is_some_and(|counted| counted.is_active())
    }

    /// Its life in one moment, as far as it is known.
    fn entry(&self, state: Option<TcpState>, came_from: Option<Listener>, at: BootTime) -> Entry {
        let owner = came_from.and_then(|listener| listener.owner);
        Entry {
            socket: Socket {
                state,
                ..self.socket.clone()
            },
            inode: 0,
            attribution: match owner {
                Some(_) => Attribution::Inherited,
                None => Attribution::Unknown,
            },
            owner: owner.map(|(key, _)| key),
            uid: owner.and_then(|(_, uid)| uid),
            accepted: came_from.is_some(),
            at,
            round: 0,
            told: Told::Beginning,
            missed: None,
        }
    }
}

/// A listener that no look has seen: what was reported of it, and its death.
pub(super) struct Ended(Entry, Dead);

impl Report<'_> {
    /// Which of these dead ports were listeners? Those by which one of the
    /// connections came in, of which no listener is known, each with the time
    /// when it was first known to be there. Reports the beginning of these, adds
    /// them to the listeners, and gives back the others.
    pub(super) fn find_listeners<'a>(
        &mut self,
        ports: Vec<Dead>,
        connections: impl Iterator<Item = (&'a Socket, BootTime)>,
        listeners: &mut Listeners,
    ) -> (Vec<Ended>, Vec<Dead>) {
        let mut came_in: HashMap<_, Vec<(&Socket, BootTime)>> = HashMap::new();
        for (socket, since) in connections {
            if listener_of(listeners, socket).is_none() {
                let port = (socket.netns, socket.local.port);
                came_in.entry(port).or_default().push((socket, since));
            }
        }
        let (mut ended, mut others) = (Vec::new(), Vec::new());
        for dead in ports {
            let port = (dead.socket.netns, dead.socket.local.port);
            let listener = Listener {
                ip: dead.socket.local.ip,
                owner: None,
            };
            let own = Listeners::from([(port, vec![listener])]);
            let first = came_in
                .get(&port)
                .into_iter()
                .flatten()
                .filter(|(socket, _)| listener_of(&own, socket).is_some())
                .map(|(_, since)| *since)
                .min();
            let Some(first) = first else {
                others.push(dead);
                continue;
            };
            let at = first.min(dead.death.at);
            let mut entry = dead.entry(Some(TcpState::Listening), None, at);
            self.begin(&mut entry);
            remember(listeners, &entry);
            ended.push(Ended(entry, dead));
        }
        (ended, others)
    }

    /// Before anything is said of the connections that wait: the listeners that
    /// they came from may have lived between two looks, and be among those that
    /// died. The dead that are not are left in `unseen`.
    pub(super) fn find_listeners_of_waiting(
        &mut self,
        known: &HashMap<Key, Entry>,
        sockets: &[TableSocket],
        deaths: &mut Vec<Death>,
        unseen: &mut Vec<Dead>,
        listeners: &mut Listeners,
    ) -> Vec<Ended> {
        if known.values().all(|entry| entry.told != Told::Nothing) {
            return Vec::new();
        }
        let mut found = Listeners::new();
        let mut of_this_look = HashSet::new();
        for TableSocket { socket, .. } in sockets.iter().filter(|found| found.socket.is_listener())
        {
            of_this_look.extend(socket.cookie);
            let port = (socket.netns, socket.local.port);
            found.entry(port).or_default().push(Listener {
                ip: socket.local.ip,
                owner: None,
            });
        }
        let connections = known
            .values()
            .filter(|entry| entry.told == Told::Nothing)
            .map(|entry| (&entry.socket, entry.at))
            .filter(|(socket, _)| listener_of(&found, socket).is_none());
        let mut ports = Vec::new();
        for death in std::mem::take(deaths) {
            let cookie = death.cookie;
            let is_known =
                known.contains_key(&Key::Cookie(cookie)) || of_this_look.contains(&cookie);
            let is_port = death
                .socket
                .as_ref()
                .is_some_and(|socket| socket.protocol == Protocol::Tcp && socket.remote.is_none());
            if is_port && !is_known {
                ports.extend(Dead::unseen(death));
            } else {
                deaths.push(death);
            }
        }
        let (waiting, others): (Vec<_>, Vec<_>) = std::mem::take(unseen)
            .into_iter()
            .partition(Dead::may_have_listened);
        ports.extend(waiting);
        let (ended, rest) = self.find_listeners(ports, connections, listeners);
        *unseen = others;
        unseen.extend(rest);
        ended
    }

    /// The end of sockets that a look has seen; the others go to `unseen`, with
    /// connections whose listener is not known yet.
    pub(super) fn die(
        &mut self,
        known: &mut HashMap<Key, Entry>,
        deaths: Vec<Death>,
        unseen: &mut Vec<Dead>,
        remnants: &Remnants,
        listeners: &Listeners,
    ) {
        for death in deaths {
            let Some(mut entry) = known.remove(&Key::Cookie(death.cookie)) else {
                unseen.extend(Dead::unseen(death));
                continue;
            };
            if entry.told == Told::Nothing && listener_of(listeners, &entry.socket).is_none() {
                unseen.push(Dead::seen(death, entry));
                continue;
            }
            self.begin_if_waiting(&mut entry, listeners);
            let end = End::of(&death, &entry, remnants);
            self.close(&mut entry, death.at, &end);
        }
    }

    /// The end of listeners, after that of the connections that came in.
    pub(super) fn close_listeners(&mut self, ended: Vec<Ended>, remnants: &Remnants) {
        for Ended(mut entry, dead) in ended {
            let end = End::of(&dead.death, &entry, remnants);
            self.close(&mut entry, dead.death.at, &end);
        }
    }

    /// Sockets that came and went between two looks: an opening and an end.
    /// Gives back those that may have to do with a listener whose news is still
    /// to come, or with connections whose news are.
    pub(super) fn live_and_die(
        &mut self,
        mut unseen: Vec<Dead>,
        remnants: &Remnants,
        listeners: &mut Listeners,
    ) -> Vec<Dead> {
        for dead in &mut unseen {
            dead.has_waited |= self.is_final;
        }
        let (ports, others): (Vec<_>, Vec<_>) =
            unseen.into_iter().partition(Dead::may_have_listened);
        let came_in = others
            .iter()
            .filter(|dead| dead.may_have_come_in())
            .map(|dead| (&dead.socket, dead.since()));
        let (ended, mut unsettled) = self.find_listeners(ports, came_in, listeners);
        unsettled.retain(|dead| !dead.has_waited);
        for mut dead in others {
            let came_from =
                listener_of(listeners, &dead.socket).filter(|_| dead.may_have_come_in());
            if dead.may_have_come_in() && came_from.is_none() && !dead.has_waited {
                unsettled.push(dead);
                continue;
            }
            let mut entry = if let Some(mut entry) = dead.seen.take() {
                self.begin_if_waiting(&mut entry, listeners);
                *entry
            } else {
                let state = match dead.socket.protocol {
                    Protocol::Tcp => Some(dead.first_state(came_from.is_some())),
                    _ => None,
                };
                let mut entry = dead.entry(state, came_from, dead.death.at);
                self.begin(&mut entry);
                entry
            };
            let end = End::of(&dead.death, &entry, remnants);
            self.close(&mut entry, dead.death.at, &end);
        }
        self.close_listeners(ended, remnants);
        for dead in &mut unsettled {
            dead.has_waited = true;
        }
        unsettled
    }
}

impl Dead {
    /// The furthest state that it is known to have reached on its way up.
    fn first_state(&self, accepted: bool) -> TcpState {
        let up = accepted
            || self
                .death
                .counted
                .is_some_and(|counted| counted.acknowledged > 0 || counted.received > 0);
        if up {
            TcpState::Established
        } else {
            TcpState::SynSent
        }
    }
}
