//! Reconciliation: the table of sockets beside the kernel's own.
//!
//! The first look makes the table. Later ones compare: a socket that the kernel
//! has and the table lacks was missed (`discover`), one that the table has and
//! the kernel lacks ended unseen (`vanish`), and a state or an owner that
//! differs is put right. In a healthy run there is nothing to find.
//!
//! A look takes some milliseconds and is not of one instant, and events go on
//! meanwhile. So it is taken by a thread of its own, and nothing is concluded
//! about a socket of which anything was heard between the beginning of the look
//! and the moment when all events from before its end have been handed over.
//! What then still differs has to differ in a second look too.
//!
//! A connection of which only a TIME_WAIT mini-socket is left, with the cookie
//! that it had, is gone from its process: if its end was missed it vanishes, too.
//!
//! Not compared: connections whose handshake is not over, and, among the
//! missing, sockets of network namespaces that could not be looked into as a
//! whole. Of those vanish, all the same, the sockets of a namespace that the
//! kernel no longer has, and those that only a process can keep alive and whose
//! process is gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use event::{Action, Attribution, BootTime, ProcessKey, Protocol, TcpState};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use sensor::{FoundSocket, Inspector, Snapshot};

use crate::Reconciled;
use crate::recorder::Recorder;
use crate::sink::Sink;
use crate::table::{Live, SocketKey};

/// How much younger than a look an event has to be to show that all from before
/// have been handed over: CPUs hand theirs over with some delay.
const SETTLED: Duration = Duration::from_millis(250);

/// When looks are taken, and the one that is under way.
pub(crate) struct Reconciliation {
    /// Zero: never.
    every: Duration,
    next: Instant,
    look: Option<Look>,
    /// Events lost before the look that last found the table right.
    lost_before: u64,
    /// Process records lost when it was last looked for processes that are gone.
    processes_lost_before: u64,
    pub(crate) total: Reconciled,
}

/// A look at the kernel's sockets.
struct Look {
    begun: Instant,
    /// Events lost until then.
    lost: u64,
    /// Sockets whose lines wait for it.
    asked: Vec<SocketKey>,
    /// Is the table to be compared with it?
    compares: bool,
    /// Sockets of which something was heard since it began.
    touched: FxHashSet<SocketKey>,
    /// What differed in a look just before; none if this is the first.
    suspects: Option<FxHashSet<SocketKey>>,
    taken: Option<Taken>,
}

struct Taken {
    snapshot: Snapshot,
    at: BootTime,
    /// The kernel's buffer was empty since.
    is_settled: bool,
}

impl Reconciliation {
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now() + every,
            look: None,
            lost_before: 0,
            processes_lost_before: 0,
            total: Reconciled::default(),
        }
    }

    /// Something was heard of a socket.
    pub(crate) fn touch(&mut self, key: SocketKey) {
        if let Some(look) = &mut self.look {
            look.touched.insert(key);
        }
    }

    /// The kernel's buffer was empty after it was asked for.
    pub(crate) fn handed_over(&mut self) {
        if let Some(Look {
            taken: Some(taken), ..
        }) = &mut self.look
        {
            taken.is_settled = true;
        }
    }
}

impl<S: Sink> Recorder<'_, S> {
    /// The sockets that were there before us.
    pub(crate) fn adopt(&mut self, snapshot: Snapshot) {
        for degradation in &snapshot.degradations {
            // The sensor may have said it when it was opened.
            if self.sink.lacks(degradation) {
                self.events.degraded(degradation);
            }
        }
        let now = self.anchor.boot_now();
        self.sockets = snapshot.sockets.len() as u64;
        for found in snapshot.sockets {
            let waits = found.socket.state == Some(TcpState::TimeWait);
            let key = SocketKey::of(&found.socket);
            let live = self.find_owner(found);
            if waits {
                self.state.table.wait(live, now);
            } else {
                self.recount(None, live.owner);
                self.state.table.insert(key, live);
            }
        }
    }

    /// A socket that was found, with its owner.
    fn find_owner(&mut self, found: FoundSocket) -> Live {
        let owner = found.owner.or_else(|| {
            let first = found.holders.first();
            first.and_then(|&pid| self.state.processes.key_of(pid))
        });
        if let Some(owner) = owner {
            self.state
                .processes
                .known(owner, None, &mut self.clock, &self.anchor);
        }
        Live {
            socket: found.socket,
            attribution: match owner {
                Some(_) => Attribution::Snapshot,
                None => Attribution::Unknown,
            },
            owner,
            since: None,
            held: None,
            is_accepted: false,
        }
    }

    /// What is to be done for it each second.
    pub(crate) fn reconcile(&mut self, now: Instant) {
        let reconciliation = &self.reconciliation;
        if let Some(look) = &reconciliation.look {
            let patience = u64::try_from(SETTLED.as_nanos()).unwrap_or(u64::MAX);
            let youngest = self.ledger.youngest();
            let is_settled = look.taken.as_ref().is_some_and(|taken| {
                taken.is_settled || youngest.0 > taken.at.0.saturating_add(patience)
            });
            if is_settled {
                self.conclude(now);
            }
        } else if !reconciliation.every.is_zero() && now >= reconciliation.next {
            self.begin_look(now, true, None);
        }
    }

    /// Begins a look, if none is under way.
    pub(crate) fn begin_look(
        &mut self,
        now: Instant,
        compares: bool,
        suspects: Option<FxHashSet<SocketKey>>,
    ) {
        let Some(inspector) = self.inspector.take() else {
            return;
        };
        if compares {
            self.reconciliation.next = now + self.reconciliation.every;
        }
        self.reconciliation.look = Some(Look {
            begun: now,
            lost: self.ledger.lost() + self.dropped,
            asked: std::mem::take(&mut self.asking),
            compares,
            touched: FxHashSet::default(),
            suspects,
            taken: None,
        });
        if let Some(inspector) = self.lookout.look(inspector) {
            self.inspector = Some(inspector);
            let look = self.reconciliation.look.take();
            let asked = look.map(|look| look.asked).unwrap_or_default();
            self.answer(asked, &Snapshot::default(), Duration::ZERO);
        }
    }

    /// The look was taken.
    pub(crate) fn looked(
        &mut self,
        inspector: Box<dyn Inspector>,
        snapshot: Result<Snapshot, sensor::Error>,
    ) {
        self.inspector = Some(inspector);
        let Some(mut look) = self.reconciliation.look.take() else {
            return;
        };
        let is_taken = snapshot.is_ok();
        let snapshot = snapshot.unwrap_or_default();
        let asked = std::mem::take(&mut look.asked);
        self.answer(asked, &snapshot, look.begun.elapsed());
        // One that failed is tried again when it is due.
        if is_taken && look.compares {
            // What was lost until now has to be known when it is concluded.
            self.compare(Instant::now());
            look.taken = Some(Taken {
                snapshot,
                at: self.anchor.boot_now(),
                is_settled: false,
            });
            self.reconciliation.look = Some(look);
            self.capture.ask();
        }
    }

    /// All events from before the end of the look were handed over.
    fn conclude(&mut self, now: Instant) {
        let Some(Look {
            lost,
            touched,
            suspects,
            taken: Some(taken),
            ..
        }) = self.reconciliation.look.take()
        else {
            return;
        };
        let Taken { snapshot, .. } = taken;
        self.compare(now);
        let mut found: FxHashMap<SocketKey, FoundSocket> =
            HashMap::with_capacity_and_hasher(snapshot.sockets.len(), FxBuildHasher);
        found.extend(
            snapshot
                .sockets
                .into_iter()
                .map(|found| (SocketKey::of(&found.socket), found)),
        );
        found.retain(|key, _| !touched.contains(key));
        let waiting: FxHashSet<SocketKey> = found
            .extract_if(|_, found| found.socket.state == Some(TcpState::TimeWait))
            .map(|(key, _)| key)
            .collect();

        let missed = found
            .iter()
            .filter(|&(&key, found)| is_in_use(found) && !self.state.table.contains(key))
            .map(|(&key, _)| key);
        let existing = snapshot.existing_namespaces.as_ref();
        let gone = self.state.table.live().filter(|&(key, live)| {
            let netns = live.socket.netns;
            live.held.is_none()
                && !touched.contains(&key)
                && !found.contains_key(&key)
                && (live.socket.protocol.is_classic() || snapshot.has_others)
                && (netns.is_some_and(|netns| {
                    snapshot.namespaces.contains(&netns)
                        || existing.is_some_and(|existing| !existing.contains(&netns))
                }) || snapshot.has_others && self.has_died_out(live))
        });
        let differing: FxHashSet<SocketKey> = missed.chain(gone.map(|(key, _)| key)).collect();
        match suspects {
            None if differing.is_empty() => {
                self.reconciliation.lost_before = lost;
            }
            None => {
                self.mend(&found);
                self.begin_look(now, true, Some(differing));
                return;
            }
            Some(suspects) => {
                let confirmed = differing.intersection(&suspects).copied().collect();
                self.put_right(confirmed, &mut found, &waiting);
            }
        }
        self.mend(&found);
        self.sweep_processes(now);
    }

    /// A socket in a network namespace into which nobody could look, and which
    /// no process holds: is it gone? One that lives
    /// on without a descriptor (TCP, closed by its process) may not be.
    fn has_died_out(&self, live: &Live) -> bool {
        let died = |owner| self.state.processes.is_gone(owner);
        live.socket.protocol != Protocol::Tcp && live.owner.is_some_and(died)
    }

    /// Writes what was missed and what is gone.
    fn put_right(
        &mut self,
        keys: Vec<SocketKey>,
        found: &mut FxHashMap<SocketKey, FoundSocket>,
        waiting: &FxHashSet<SocketKey>,
    ) {
        let now = self.anchor.boot_now();
        let mut reconciled = Reconciled::default();
        for key in keys {
            let (action, live) = if let Some(found) = found.remove(&key) {
                let live = self.find_owner(found);
                self.sockets += 1;
                reconciled.discovered += u64::from(!is_idle(&live));
                self.recount(None, live.owner);
                self.state.table.insert(key, live.clone());
                (Action::Discover, live)
            } else if let Some(mut live) = self.state.table.remove(key) {
                reconciled.vanished += u64::from(!is_packet(&live));
                if waiting.contains(&key) {
                    live.socket.state = Some(TcpState::TimeWait);
                    if let Some(oldest) = self.state.table.wait(live.clone(), now) {
                        self.recount(oldest.owner, None);
                    }
                } else {
                    self.recount(live.owner, None);
                }
                (Action::Vanish, live)
            } else {
                continue;
            };
            self.write_found(now, action, &live);
            if live.socket.protocol.is_classic() {
                self.changes.note(live.owner);
            }
        }
        self.reconciliation.total.discovered += reconciled.discovered;
        self.reconciliation.total.vanished += reconciled.vanished;
        if reconciled != Reconciled::default() {
            let lost = self.ledger.lost() + self.dropped;
            let explained = lost > self.reconciliation.lost_before;
            self.events.reconciled(&reconciled, explained);
        }
    }

    /// Takes over states of which the news was lost, and gives sockets that
    /// their owner no longer holds to the process that does.
    fn mend(&mut self, found: &FxHashMap<SocketKey, FoundSocket>) {
        for (&key, found) in found {
            let Some(live) = self.state.table.get_mut(key) else {
                continue;
            };
            if live.held.is_some() || live.socket.protocol != found.socket.protocol {
                continue;
            }
            let before = live.owner;
            if live.socket.state != found.socket.state {
                self.state.table.set_state(key, found.socket.state);
            }
            let holds = |owner: ProcessKey| found.holders.contains(&owner.pid);
            if found.holders.is_empty() || before.is_some_and(holds) {
                continue;
            }
            let Live {
                owner, attribution, ..
            } = self.find_owner(found.clone());
            if owner.is_none() {
                // Who holds it now is gone already; the old owner is not wrong.
                continue;
            }
            if let Some(live) = self.state.table.get_mut(key) {
                live.owner = owner;
                live.attribution = attribution;
            }
            self.recount(before, owner);
            self.changes.note(before);
            self.changes.note(owner);
        }
    }

    /// Where news of the end of processes may be among what was lost, looks for
    /// those that are no longer there.
    fn sweep_processes(&mut self, now: Instant) {
        if self.processes_lost > self.reconciliation.processes_lost_before {
            self.reconciliation.processes_lost_before = self.processes_lost;
            self.state.processes.sweep(now);
        }
    }
}

/// A UDP socket that got its port from `connect` and has not sent yet: the
/// kernel side tells of it with the first datagram or the close. It is written
/// down, but nothing is amiss.
fn is_idle(live: &Live) -> bool {
    is_packet(live) || live.socket.protocol == Protocol::Udp && live.socket.remote.is_some()
}

/// A packet socket, whose end no event tells where functions cannot be traced,
/// and whose beginning may have been that of another kind of call. That is
/// written down, but nothing is amiss either.
fn is_packet(live: &Live) -> bool {
    matches!(live.socket.protocol, Protocol::Packet(_))
}

/// Would an event have told of it?
fn is_in_use(found: &FoundSocket) -> bool {
    match found.socket.state {
        Some(TcpState::SynReceived | TcpState::Closed) => false,
        // Most of those that nobody holds are mini-sockets, like TIME_WAIT.
        Some(TcpState::FinWait2) => !found.holders.is_empty(),
        _ => true,
    }
}
