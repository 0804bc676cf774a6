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
//!   look.
//! * An owner is known only to sockets that a look has seen, and to connections
//!   that came from a listener that one has seen.

use std::collections::{HashMap, HashSet};

use event::{Attribution, BootTime, CloseReason, Endpoint, Protocol, Socket, TcpState};

use super::super::destroy::{Counted, Death};
use super::super::sock_diag::TableSocket;
use super::{Entry, Listener, Listeners, Report, Told, listener_of};

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

/// A socket that no look has seen: what is known of it is its death.
#[derive(Debug)]
pub(super) struct Dead {
    death: Death,
    socket: Socket,
    /// It has waited for the news of others that could tell more about it.
    pub(super) has_waited: bool,
}

impl Dead {
    /// None if it used no port.
    pub(super) fn unseen(death: Death) -> Option<Self> {
        let socket = death.socket.clone()?;
        Some(Self {
            death,
            socket,
            has_waited: false,
        })
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

impl Report<'_> {
    /// Sockets that came and went between two looks: an opening and an end.
    /// Gives back those that may have to do with a listener whose news is still
    /// to come, or with connections whose news are.
    pub(super) fn live_and_die(
        &mut self,
        unseen: Vec<Dead>,
        remnants: &Remnants,
        listeners: &mut Listeners,
    ) -> Vec<Dead> {
        let mut unsettled = Vec::new();
        let (ports, others): (Vec<_>, Vec<_>) =
            unseen.into_iter().partition(Dead::may_have_listened);
        // Where connections came in whose listener is not known.
        let mut came_in: HashMap<(Option<u32>, u16), Vec<&Dead>> = HashMap::new();
        for dead in others.iter().filter(|dead| dead.may_have_come_in()) {
            if listener_of(listeners, &dead.socket).is_none() {
                let port = (dead.socket.netns, dead.socket.local.port);
                came_in.entry(port).or_default().push(dead);
            }
        }
        let mut ended = Vec::new();
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
                .filter(|other| listener_of(&own, &other.socket).is_some())
                .map(|other| other.death.at)
                .min();
            if let Some(first) = first {
                let at = first.min(dead.death.at);
                let mut entry = dead.entry(Some(TcpState::Listening), None, at);
                self.begin(&mut entry);
                ended.push((entry, dead, listener));
            } else if !dead.has_waited {
                unsettled.push(dead);
            }
        }
        for (_, dead, listener) in &ended {
            listeners
                .entry((dead.socket.netns, dead.socket.local.port))
                .or_default()
                .push(*listener);
        }
        for dead in others {
            let came_from =
                listener_of(listeners, &dead.socket).filter(|_| dead.may_have_come_in());
            if dead.may_have_come_in() && came_from.is_none() && !dead.has_waited {
                unsettled.push(dead);
                continue;
            }
            let state = match dead.socket.protocol {
                Protocol::Udp => None,
                Protocol::Tcp => Some(dead.first_state(came_from.is_some())),
            };
            let mut entry = dead.entry(state, came_from, dead.death.at);
            self.begin(&mut entry);
            let end = End::of(&dead.death, &entry, remnants);
            self.close(&mut entry, dead.death.at, &end);
        }
        for (mut entry, dead, _) in ended {
            let end = End::of(&dead.death, &entry, remnants);
            self.close(&mut entry, dead.death.at, &end);
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
