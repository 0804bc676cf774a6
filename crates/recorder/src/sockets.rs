//! What happens to sockets, one observation after the other: the table is kept,
//! the line is written, or waits ([`held`]).

use std::time::{Duration, Instant};

use event::{Action, Attribution, BootTime, ProcessKey, Socket, TcpState};
use logs::Written;
use sensor::{FoundSocket, Observation, OwnerObservation, SocketObservation};

use crate::clock::Anchor;
use crate::errno;
use crate::held;
use crate::recorder::Recorder;
use crate::table::{Live, SocketKey};

/// After so many observations it is asked whether a new set is due.
const ROLL_CHECK: usize = 256;

/// The least time between two looks for ports.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

impl Recorder<'_> {
    pub(crate) fn take(&mut self, mut batch: Vec<Observation>) {
        let now = Instant::now();
        self.anchor = Anchor::now();
        for (at, observation) in batch.drain(..).enumerate() {
            // A batch can hold more than a set may.
            if at % ROLL_CHECK == ROLL_CHECK - 1
                && let Some(reason) = self.logs.roll_due(self.anchor.wall_now())
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
        if let Some(reason) = self.logs.roll_due(wall) {
            self.roll_or_tell(reason);
        }
    }

    /// Something happened to a socket.
    fn socket(&mut self, mut seen: SocketObservation, now: Instant) {
        let key = SocketKey::of(&seen.socket);
        self.reconciliation.touch(key);
        if seen.action == Action::Accept && seen.owner.is_none() {
            // Its listener is older than the recorder, and was not known to
            // the kernel side yet.
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
        let comes_in = seen.action == Action::Accept && seen.attribution == Attribution::Inherited;
        if self.holds && comes_in || held::needs_port(&seen) {
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
    fn apply(&mut self, key: SocketKey, seen: SocketObservation) {
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
        self.changes.note(owner);

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

    /// Writes the lines that have waited long enough.
    pub(crate) fn release(&mut self, now: Instant) {
        let due: Vec<SocketKey> = std::iter::from_fn(|| self.held.due(now)).collect();
        let may_ask = now >= self.next_ask && self.inspector.is_some();
        if may_ask {
            self.look_up(&due);
        }
        for key in due {
            if !may_ask && self.lacks_something(key) {
                self.held.push(key, now);
            } else {
                self.release_one(key);
            }
        }
    }

    fn lacks_something(&mut self, key: SocketKey) -> bool {
        let held = self
            .state
            .table
            .get_mut(key)
            .and_then(|live| live.held.as_ref());
        held.is_some_and(|held| held::lacks_port(held) || held::lacks_process(held))
    }

    /// Asks the kernel for the ports of sockets that told nothing since, and for
    /// the processes that accepted a connection and were not seen to.
    fn look_up(&mut self, keys: &[SocketKey]) {
        if !keys.iter().any(|&key| self.lacks_something(key)) {
            return;
        }
        let begin = Instant::now();
        // One that is away looks already; it is asked at the next chance.
        let Some(Ok(snapshot)) = self.inspector.as_mut().map(|it| it.snapshot()) else {
            return;
        };
        // Connects that nobody answers can come without end, and a look takes
        // the longer the more sockets there are: at most a fiftieth of the time
        // goes into it.
        self.next_ask = Instant::now() + (begin.elapsed() * 50).max(LOOK_PAUSE);
        for found in snapshot.sockets {
            let key = SocketKey::of(&found.socket);
            if let Some(live) = self.state.table.get_mut(key)
                && let Some(held) = &mut live.held
            {
                if held::lacks_port(held) {
                    held::set_port(held, found.socket.local.port);
                } else if held::lacks_process(held) {
                    self.held_by(key, &found);
                }
            }
        }
    }

    /// A connection was accepted by one of its holders. If the listener's owner
    /// is among them that remains the best guess; else it was handed over or
    /// accepted by a process that has the listener too.
    fn held_by(&mut self, key: SocketKey, found: &FoundSocket) {
        let Some(live) = self.state.table.get_mut(key) else {
            return;
        };
        let is_holder = |owner: ProcessKey| found.holders.contains(&owner.pid);
        if found.holders.is_empty() || live.owner.is_some_and(is_holder) {
            return;
        }
        let first = found.holders.first().copied();
        let owner = found
            .owner
            .or_else(|| first.and_then(|pid| self.state.processes.key_of(pid)));
        let (Some(owner), Some(live)) = (owner, self.state.table.get_mut(key)) else {
            return;
        };
        for held in live.held.iter_mut().flatten() {
            held.attribution = Attribution::Snapshot;
            held.owner = Some(owner);
            held.uid = None;
        }
        let before = live.owner.replace(owner);
        live.attribution = Attribution::Snapshot;
        self.state
            .processes
            .known(owner, None, &mut self.clock, &self.anchor);
        self.recount(before, Some(owner));
    }

    /// Writes every line that waits.
    pub(crate) fn release_all(&mut self) {
        let due: Vec<SocketKey> = std::iter::from_fn(|| self.held.any()).collect();
        self.look_up(&due);
        for key in due {
            self.release_one(key);
        }
    }

    fn release_one(&mut self, key: SocketKey) {
        let held = self
            .state
            .table
            .get_mut(key)
            .and_then(|live| live.held.take());
        for seen in held.into_iter().flatten() {
            self.apply(key, seen);
        }
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
        let known = owner.and_then(|owner| self.state.processes.find(owner));
        let text = known.map_or(&self.state.nobody, |known| &known.text);
        let error = error.and_then(errno::name);
        let time = self.anchor.wall(at);
        match self
            .logs
            .socket(time, &action, socket, attribution, text, error)
        {
            Written::Kept => self.written += 1,
            Written::Dropped => self.dropped += 1,
        }
        self.rate += 1;
    }

    /// Writes what reconciliation found. It is no event of the kernel's, and
    /// not in its books.
    pub(crate) fn write_found(&mut self, at: BootTime, action: Action, live: &Live) {
        let known = live
            .owner
            .and_then(|owner| self.state.processes.find(owner));
        let text = known.map_or(&self.state.nobody, |known| &known.text);
        let time = self.anchor.wall(at);
        // A disk that is full has been told of.
        let _ = self
            .logs
            .socket(time, &action, &live.socket, live.attribution, text, None);
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
