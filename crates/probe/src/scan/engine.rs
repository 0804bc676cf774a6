//! The thread that holds all sockets.

mod begin;
mod conclude;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use event::Protocol;

use begin::Hindrance;
use conclude::why;

use super::doubt::Doubts;
use super::interview::Interviewers;
use super::order::Order;
use super::pace::Pace;
use super::{ScanError, Settings, Targets};
use crate::system::{self, Poller, ProbeSocket};
use crate::verdict::Reason;
use crate::{Host, Port, Services, Verdict};

/// How many ports are asked between two looks at those under way.
const BURST: usize = 64;
/// How often the threads with questions, and `stop`, are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long free source ports are waited for: TIME_WAIT lasts a minute.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long nothing is begun after a want of descriptors or ports.
const PAUSE: Duration = Duration::from_millis(5);

/// A port that is being asked.
struct Flight {
    task: Task,
    socket: ProbeSocket,
    /// When the last try went out.
    sent: Instant,
    tried: u32,
    /// Tells this flight from an earlier one in the same slot.
    number: u32,
}

/// A port to be asked.
#[derive(Clone, Copy)]
struct Task {
    host: usize,
    port: Port,
}

pub(super) struct Engine<'a> {
    targets: Targets<'a>,
    services: &'a Services,
    settings: &'a Settings,
    stop: &'a AtomicBool,
    verdict: &'a mut dyn FnMut(Verdict),
    community: Arc<str>,
    secret: Arc<str>,

    order: Order,
    next: u64,
    /// Could not be asked for want of a descriptor or a port.
    put_back: Vec<Task>,
    room: usize,
    pace: Pace,
    poller: Poller,
    slots: Vec<Option<Flight>>,
    free: Vec<usize>,
    flying: usize,
    flights: u32,
    /// When which slot's try is over.
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    interviewers: Interviewers,
    doubts: Doubts,
    /// The earliest time of the next try: there is a rate, or a want of something.
    not_before: Instant,
    /// Since when not a single socket could be opened.
    stuck: Option<Instant>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        targets: Targets<'a>,
        services: &'a Services,
        settings: &'a Settings,
        stop: &'a AtomicBool,
        verdict: &'a mut dyn FnMut(Verdict),
    ) -> Result<Self, ScanError> {
        let order = if settings.shuffle {
            Order::shuffled(targets.count())
        } else {
            Order::straight(targets.count())
        };
        Ok(Self {
            targets,
            services,
            settings,
            stop,
            verdict,
            community: settings.community.as_str().into(),
            secret: settings.secret.as_str().into(),
            order,
            next: 0,
            put_back: Vec::new(),
            room: room(settings),
            pace: Pace::default(),
            poller: Poller::new().map_err(ScanError::Descriptors)?,
            slots: Vec::new(),
            free: Vec::new(),
            flying: 0,
            flights: 0,
            deadlines: BinaryHeap::new(),
            interviewers: Interviewers::new(),
            doubts: Doubts::default(),
            not_before: Instant::now(),
            stuck: None,
        })
    }

    pub(super) fn run(mut self) -> Result<(), ScanError> {
        while !self.stop.load(Ordering::Relaxed) {
            self.launch()?;
            while let Some(verdict) = self.interviewers.done() {
                self.tell(verdict);
            }
            if self.flying == 0 {
                if self.interviewers.open > 0 {
                    if let Some(verdict) = self.interviewers.wait(TICK) {
                        self.tell(verdict);
                    }
                } else if !self.has_more() {
                    break;
                } else {
                    self.rest()?;
                }
                continue;
            }
            let timeout = self.timeout();
            for token in self.wait(timeout)? {
                self.look(token)?;
            }
            self.expire()?;
        }
        for verdict in self.interviewers.unfinished() {
            (self.verdict)(verdict);
        }
        let settled = self.doubts.settle(self.settings, self.stop, self.verdict);
        settled.map_err(ScanError::Descriptors)
    }

    fn tell(&mut self, verdict: Verdict) {
        if let Some(verdict) = self.doubts.sift(verdict) {
            (self.verdict)(verdict);
        }
    }

    fn has_more(&self) -> bool {
        self.next < self.targets.count() || !self.put_back.is_empty()
    }

    /// How many more sockets may be opened now. A conversation holds one as well.
    fn vacant(&self) -> usize {
        self.room
            .saturating_sub(self.flying + self.interviewers.open)
    }

    /// Asks as many ports as there is room for, but no more than [`BURST`]: on
    /// loopback each is answered at once, and those that are not must not wait
    /// until all others have been asked.
    fn launch(&mut self) -> Result<(), ScanError> {
        for _ in 0..self.vacant().min(BURST) {
            if Instant::now() < self.not_before {
                return Ok(());
            }
            let Some(task) = self.take() else {
                return Ok(());
            };
            match self.begin(task, 0) {
                Ok(()) => self.stuck = None,
                Err(Hindrance::Fatal(error)) => return Err(error),
                Err(Hindrance::Later(error)) => {
                    self.put_back.push(task);
                    return self.hold_back(error);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Task> {
        if let Some(task) = self.put_back.pop() {
            return Some(task);
        }
        if self.next == self.targets.count() {
            return None;
        }
        let number = self.order.at(self.next);
        self.next += 1;
        // Port by port over all hosts, so that no host gets all of its at once.
        let hosts = self.targets.hosts.len() as u64;
        let index = |number: u64| usize::try_from(number).unwrap_or(0);
        Some(Task {
            host: index(number % hosts),
            port: *self.targets.ports.get(index(number / hosts))?,
        })
    }

    /// Less at once, if that can help; otherwise there is no use in going on.
    fn hold_back(&mut self, error: io::Error) -> Result<(), ScanError> {
        let open = self.flying + self.interviewers.open;
        let no_ports = error.kind() == io::ErrorKind::AddrNotAvailable;
        self.not_before = self.not_before.max(Instant::now() + PAUSE);
        if open > 0 {
            if !no_ports {
                self.room = open;
            }
            return Ok(());
        }
        let since = *self.stuck.get_or_insert_with(Instant::now);
        match no_ports {
            true if since.elapsed() < PATIENCE => Ok(()),
            true => Err(ScanError::PortsUsedUp),
            false => Err(ScanError::Descriptors(error)),
        }
    }

    /// Nothing is under way: waits for the rate, or for free ports.
    fn rest(&mut self) -> Result<(), ScanError> {
        let pause = self.not_before.saturating_duration_since(Instant::now());
        self.wait(pause.min(TICK)).map(drop)
    }

    fn wait(&mut self, timeout: Duration) -> Result<Vec<u64>, ScanError> {
        self.poller.wait(timeout).map_err(ScanError::Descriptors)
    }

    fn host(&self, task: Task) -> &'a Host {
        &self.targets.hosts[task.host]
    }

    fn address(&self, task: Task) -> SocketAddr {
        let mut address = self.host(task).address;
        address.set_port(task.port.number);
        address
    }

    /// Puts the socket among those that are waited for.
    fn fly(
        &mut self,
        task: Task,
        socket: ProbeSocket,
        tried: u32,
        sent: Instant,
    ) -> Result<(), Hindrance> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.flights = self.flights.wrapping_add(1);
        let number = self.flights;
        let token = u64::from(number) << 32 | slot as u64;
        let connects = task.port.protocol == Protocol::Tcp;
        if let Err(error) = self.poller.add(&socket, token, connects) {
            self.free.push(slot);
            return Err(Hindrance::Later(error));
        }
        self.deadlines
            .push(Reverse((sent + self.patience(task, tried), token)));
        self.slots[slot] = Some(Flight {
            task,
            socket,
            sent,
            tried,
            number,
        });
        self.flying += 1;
        Ok(())
    }

    /// How long the try may take.
    fn patience(&self, task: Task, tried: u32) -> Duration {
        match task.port.protocol {
            Protocol::Tcp => {
                let host = self.address(task).ip();
                self.pace.wait(host, tried, self.settings.wait)
            }
            _ => self.settings.reply_wait / self.settings.tries.max(1),
        }
    }

    /// A host answered. If it is its first answer, its other ports are no longer
    /// waited for as long as those of a stranger.
    fn learn(&mut self, host: IpAddr, took: Duration) {
        if !self.pace.learn(host, took) {
            return;
        }
        for (slot, flight) in self.slots.iter().enumerate() {
            let Some(flight) = flight else { continue };
            let is_tcp = flight.task.port.protocol == Protocol::Tcp;
            if is_tcp && self.address(flight.task).ip() == host {
                let deadline = flight.sent + self.patience(flight.task, flight.tried);
                let token = u64::from(flight.number) << 32 | slot as u64;
                self.deadlines.push(Reverse((deadline, token)));
            }
        }
    }

    /// The flight that the token means, if it is still there.
    fn flight(&mut self, token: u64) -> Option<&mut Flight> {
        let slot = usize::try_from(token & 0xffff_ffff).ok()?;
        let flight = self.slots.get_mut(slot)?.as_mut()?;
        (u64::from(flight.number) == token >> 32).then_some(flight)
    }

    fn land(&mut self, token: u64) -> Option<Flight> {
        self.flight(token)?;
        let slot = usize::try_from(token & 0xffff_ffff).ok()?;
        let flight = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.flying -= 1;
        Some(flight)
    }

    /// Something happened to a socket.
    fn look(&mut self, token: u64) -> Result<(), ScanError> {
        let Some(flight) = self.flight(token) else {
            return Ok(());
        };
        let outcome = match flight.task.port.protocol {
            Protocol::Tcp => match flight.socket.outcome() {
                Ok(()) if !flight.socket.is_connected() => return Ok(()),
                Ok(()) => Ok(()),
                Err(error) => Err(error),
            },
            _ => match flight.socket.receive() {
                Ok(true) => Ok(()),
                Ok(false) => match system::last_message(&flight.socket) {
                    None => return Ok(()),
                    Some(icmp) => {
                        if let Some(flight) = self.land(token) {
                            let reason = Reason::Icmp(icmp);
                            self.conclude(flight.task, reason, flight.tried + 1, Some(flight.sent));
                        }
                        return Ok(());
                    }
                },
                Err(error) => Err(error),
            },
        };
        let Some(flight) = self.land(token) else {
            return Ok(());
        };
        let Flight {
            task,
            socket,
            sent,
            tried,
            ..
        } = flight;
        match outcome {
            Ok(()) if task.port.protocol == Protocol::Udp => {
                self.conclude(task, Reason::Reply, tried + 1, Some(sent));
                Ok(())
            }
            Ok(()) if socket.is_own_peer() => {
                drop(socket);
                self.again(task, tried)
            }
            Ok(()) => self.connected(task, socket, tried, sent),
            Err(error) => {
                let reason = why(self.address(task), &socket, error)?;
                self.conclude(task, reason, tried + 1, Some(sent));
                Ok(())
            }
        }
    }

    /// Ends the tries whose time is over.
    fn expire(&mut self) -> Result<(), ScanError> {
        let now = Instant::now();
        while let Some(Reverse((deadline, token))) = self.deadlines.peek().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            let tries = self.settings.tries.max(1);
            let Some(flight) = self.flight(token) else {
                continue;
            };
            let tried = flight.tried + 1;
            if tried < tries && flight.task.port.protocol == Protocol::Udp {
                self.send_again(token)?;
            } else if let Some(Flight { task, socket, .. }) = self.land(token) {
                drop(socket);
                if tried < tries {
                    self.again(task, tried)?;
                } else {
                    self.conclude(task, Reason::Silence, tried, None);
                }
            }
        }
        Ok(())
    }

    fn again(&mut self, task: Task, tried: u32) -> Result<(), ScanError> {
        match self.begin(task, tried) {
            Ok(()) => Ok(()),
            Err(Hindrance::Fatal(error)) => Err(error),
            // It begins anew when there is room.
            Err(Hindrance::Later(error)) => {
                self.put_back.push(task);
                self.hold_back(error)
            }
        }
    }

    /// Sends the datagram of a flight once more.
    fn send_again(&mut self, token: u64) -> Result<(), ScanError> {
        let Some(flight) = self.flight(token) else {
            return Ok(());
        };
        flight.tried += 1;
        flight.sent = Instant::now();
        let (task, tried, sent) = (flight.task, flight.tried, flight.sent);
        let Err(error) = flight.socket.send(b"") else {
            let deadline = sent + self.patience(task, tried);
            self.deadlines.push(Reverse((deadline, token)));
            return Ok(());
        };
        if let Some(flight) = self.land(token) {
            let reason = why(self.address(task), &flight.socket, error)?;
            self.conclude(task, reason, tried + 1, None);
        }
        Ok(())
    }

    fn timeout(&self) -> Duration {
        let now = Instant::now();
        let first = self.deadlines.peek();
        let mut timeout = first.map_or(TICK, |Reverse((deadline, _))| {
            deadline.saturating_duration_since(now)
        });
        if self.has_more() && self.vacant() > 0 {
            timeout = timeout.min(self.not_before.saturating_duration_since(now));
        }
        // `stop` and the threads with questions have no descriptor to wait for.
        timeout.min(TICK)
    }
}

/// How many sockets may be open at once. From one port only one can.
pub(super) fn room(settings: &Settings) -> usize {
    if settings.source_port.is_some() {
        return 1;
    }
    settings.concurrency.clamp(1, system::sockets_at_once())
}
