//! What happens to sockets, one observation after the other: the table is kept,
//! the line is written, or waits ([`held`]).

use std::time::Instant;

use event::{Action, Attribution, BootTime, ProcessKey, Socket, TcpState};
use logs::Written;
use sensor::{Observation, OwnerObservation, SocketObservation};

use crate::clock::Anchor;
use crate::errno;
use crate::held;
use crate::recorder::Recorder;
use crate::sink::{Change, Sink};
use crate::table::{Live, SocketKey};

/// After so many observations it is asked whether a new set is due.
const ROLL_CHECK: usize = 256;

impl<S: Sink> Recorder<'_, S> {
    pub(crate) fn take(&mut self, mut batch: Vec<Observation>) {
        let now = Instant::now();
        self.anchor = Anchor::now();
        for (at, observation) in batch.drain(..).enumerate() {
            // A batch can hold more than a set may.
            if at % ROLL_CHECK == ROLL_CHECK - 1
                && let Some(reason) = self.sink.is_due(self.anchor.wall_now())
            {
                self.roll_or_tell(reason);
            }
            match observation {
                Observation::Socket(seen) => {
                    self.ledger
                        .receive(seen.stream, seen.sequence, seen.at, now);
                    self.socket(seen, now);
                }
                Observation::Owner(seen) => self.accepted(&seen),
                Observation::Exec(execution) => {
                    let key = execution.key;
                    let owns = self.state.processes.find(key).is_some();
                    self.state.processes.exec(*execution);
                    if owns {
                        // Its sockets go on; they need its new name.
                        self.state
                            .processes
                            .known(key, None, &mut self.clock, &self.anchor);
                    }
                }
                Observation::Fork { parent, child } => self.state.processes.fork(parent, child),
                Observation::Exit(key) => self.state.processes.exit(key, now),
                Observation::Cgroup { id, path } => self.state.processes.group(id, path),
            }
        }
        self.capture.recycle(batch);
        let wall = self.anchor.wall_now();
        if let Some(reason) = self.sink.is_due(wall) {
            self.roll_or_tell(reason);
        }
    }

    /// Something happened to a socket.
    fn socket(&mut self, mut seen: SocketObservation, now: Instant) {
        let key = SocketKey::of_observation(&seen);
        self.reconciliation.touch(key);
        if seen.action == Action::Accept && seen.owner.is_none() {
            // Whoever accepts it, or has done so already, is told of next.
            seen.owner = self.state.table.listener_owner(&seen.socket);
            if seen.owner.is_some() {
                seen.attribution = Attribution::Inherited;
            }
        }
        if let Some(live) = self.state.table.get_mut(key) {
            live.complete(&mut seen);
        }
        if let Some(live) = self.state.table.get_mut(key)
            && let Some(held) = &mut live.held
        {
            let port = seen.socket.local.port;
            let user = seen
                .owner
                .filter(|_| seen.attribution == Attribution::Creator);
            if held::lacks_port(held) {
                held::set_port(held, port);
                self.release_one(key);
            } else if let (Some(cookie), Some(owner), Some(uid)) =
                (seen.socket.cookie, user, seen.uid)
            {
                // It was not seen to accept the connection, but it closes it.
                self.accepted(&OwnerObservation { cookie, owner, uid });
            } else if seen.action.ends_socket() || seen.action.opens_port() {
                self.release_one(key);
            } else {
                held.push(seen);
                return;
            }
        }
        if self.holds && held::needs_process(&seen)
            || held::needs_port(&seen)
            || held::needs_number(&seen)
        {
            self.hold(key, seen, now);
        } else {
            self.apply(key, seen);
        }
    }

    /// Something is not known yet: its lines wait.
    fn hold(&mut self, key: SocketKey, seen: SocketObservation, now: Instant) {
        self.forget(key);
        if let Some(owner) = seen.owner {
            self.state
                .processes
                .known(owner, None, &mut self.clock, &self.anchor);
        }
        self.recount(None, seen.owner);
        let live = Live {
            socket: seen.socket.clone(),
            attribution: seen.attribution,
            owner: seen.owner,
            since: Some(seen.at),
            held: Some(vec![seen]),
            is_accepted: false,
        };
        self.state.table.insert(key, live);
        self.held.push(key, now);
    }

    /// Writes what happened to a socket and keeps the table.
    pub(crate) fn apply(&mut self, key: SocketKey, seen: SocketObservation) {
        let (mut attribution, mut owner) = (seen.attribution, seen.owner);
        let mut is_accepted = false;
        if seen.action.opens_port() {
            self.sockets += 1;
        }
        if let Some(live) = self.state.table.get_mut(key) {
            // Who accepted it or was known before stays the owner, unless only
            // the listener's owner was known and its user now shows.
            let shows = attribution == Attribution::Creator
                && live.attribution != Attribution::Creator
                && !live.is_accepted;
            is_accepted = live.is_accepted;
            let is_new = seen.action.opens_port() && !is_accepted;
            if live.owner.is_some() && !shows && !is_new {
                (attribution, owner) = (live.attribution, live.owner);
            }
        }
        if let Some(owner) = owner {
            // A record that is only inherited has the listener's user.
            let uid = seen
                .uid
                .filter(|_| seen.owner == Some(owner) && seen.attribution == Attribution::Creator);
            self.state
                .processes
                .known(owner, uid, &mut self.clock, &self.anchor);
        }
        self.write(
            seen.at,
            seen.action,
            &seen.socket,
            attribution,
            owner,
            seen.error,
        );
        if seen.socket.protocol.is_classic() {
            self.changes.note(owner);
        }

        let before = self.state.table.remove(key);
        let since = if seen.action.opens_port() {
            Some(seen.at)
        } else {
            before.as_ref().and_then(|live| live.since)
        };
        let before = before.and_then(|live| live.owner);
        let waits = seen.socket.state == Some(TcpState::TimeWait);
        let ends = seen.action.ends_socket();
        self.recount(before, if ends && !waits { None } else { owner });
        let live = Live {
            socket: seen.socket,
            attribution,
            owner,
            since,
            held: None,
            is_accepted,
        };
        if !ends {
            self.state.table.insert(key, live);
        } else if waits && let Some(oldest) = self.state.table.wait(live, seen.at) {
            self.recount(oldest.owner, None);
        }
    }

    /// A process accepted a connection.
    fn accepted(&mut self, seen: &OwnerObservation) {
        let key = SocketKey::of_cookie(seen.cookie);
        self.reconciliation.touch(key);
        let Some(live) = self.state.table.get_mut(key) else {
            return;
        };
        for held in live.held.iter_mut().flatten() {
            held.attribution = Attribution::Creator;
            held.owner = Some(seen.owner);
            held.uid = Some(seen.uid);
        }
        let before = live.owner.replace(seen.owner);
        live.attribution = Attribution::Creator;
        live.is_accepted = true;
        self.recount(before, Some(seen.owner));
        self.state
            .processes
            .known(seen.owner, Some(seen.uid), &mut self.clock, &self.anchor);
        self.release_one(key);
    }

    fn write(
        &mut self,
        at: BootTime,
        action: Action,
        socket: &Socket,
        attribution: Attribution,
        owner: Option<ProcessKey>,
        error: Option<u16>,
    ) {
        let change = Change {
            time: self.anchor.wall(at),
            action,
            socket,
            attribution,
            owner: self.state.owner(owner),
            error: error.and_then(errno::name),
        };
        match self.sink.socket(&change) {
            Written::Kept => self.written += 1,
            Written::Dropped => self.dropped += 1,
        }
        self.rate += 1;
    }

    /// Writes what reconciliation found. It is no event of the kernel's, and
    /// not in its books.
    pub(crate) fn write_found(&mut self, at: BootTime, action: Action, live: &Live) {
        let change = Change {
            time: self.anchor.wall(at),
            action,
            socket: &live.socket,
            attribution: live.attribution,
            owner: self.state.owner(live.owner),
            error: None,
        };
        // A disk that is full has been told of.
        let _ = self.sink.socket(&change);
    }

    /// A socket moves from one owner to another.
    pub(crate) fn recount(&mut self, from: Option<ProcessKey>, to: Option<ProcessKey>) {
        if from == to {
            return;
        }
        if let Some(owner) = from {
            self.state.processes.count_socket(owner, false);
        }
        if let Some(owner) = to {
            self.state.processes.count_socket(owner, true);
        }
    }

    fn forget(&mut self, key: SocketKey) {
        let owner = self.state.table.remove(key).and_then(|live| live.owner);
        self.recount(owner, None);
    }
}
