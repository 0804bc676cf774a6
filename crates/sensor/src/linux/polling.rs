//! The engines without a program in the kernel: `sock-diag` and `proc`.
//!
//! The tables are taken again and again and compared with those of the look
//! before ([`changes`](super::changes)). That needs no privilege, and misses
//! whatever begins and ends between two looks. With `sock-diag` the kernel is
//! also asked to tell two things of its own accord: the end of every socket
//! ([`destroy`](super::destroy)), by which even those that no look has seen are
//! known to have been there, with the bytes that they carried; and what happens
//! to processes ([`programs`](super::programs)), so that one that is gone still
//! has a name. What cannot be had, and what cannot be known this way, is a
//! [`Degradation`].
//!
//! The stream looks when it is read, in the thread of its reader. If the reader
//! is late, the next look covers more time; what the kernel tells meanwhile
//! waits in the buffers of the sockets, and what finds no room there is counted
//! and becomes a hole in the numbers of the observations, which the recorder
//! declares as a gap. The first look is taken before the sensor is handed over,
//! so that what happens after that is either in a later snapshot or in the
//! stream, and mostly in both.
//!
//! How often to look ([`Pace`]): at the interval when nothing happens, sooner
//! when sockets die or processes begin, and later where looking would take more
//! than a tenth of the time, up to eight intervals.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use event::{BootTime, Degradation, Engine, Protocol};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Options;
use super::changes::{Holder, Known, Look, Owners};
use super::destroy::{Death, Deaths};
use super::ebpf::explain;
use super::holders::Holders;
use super::misses::{
    not_entered, what_polling_misses, what_the_end_does_not_tell, without_deaths, without_programs,
};
use super::procfs;
use super::programs::{Programs, raise, signal};
use super::snapshot::View;
use super::sock_diag::{BOTH, TableSocket};
use crate::{Error, Inspector, Observation, Sensor, Snapshot, Stream};

/// The one stream of these engines.
const STREAM: u16 = 0;
/// A look that is called for comes after this part of the interval.
const SOONER: u32 = 16;
/// A look is followed by so many times its own duration without one,
const REST: u32 = 9;
/// but not by more than so many intervals.
const LATER: u32 = 8;
/// While deaths wait for the next look, more are taken from the kernel's buffer
/// this often.
const DRAIN: Duration = Duration::from_millis(20);
/// So many deaths do not wait for the next look.
const MOST_DEATHS: usize = 100_000;

/// Starts the engine `sock-diag` or `proc`.
pub(crate) fn polling(engine: Engine, options: &Options) -> Result<Sensor, Error> {
    let hook = match engine {
        Engine::SockDiag => "sock_diag dump",
        Engine::Proc => "/proc/net",
        Engine::Ebpf => {
            return Err(Error::Unavailable {
                engine,
                reason: "it does not poll".to_owned(),
            });
        }
    };
    poll_for(BOTH, engine, hook, options)
}

/// The part of `sock-diag` that stands in for hooks that are not there: it looks
/// for UDP, and for what has no port.
pub(crate) fn without_tcp(options: &Options) -> Result<Sensor, Error> {
    poll_for(
        &[Protocol::Udp],
        Engine::SockDiag,
        "sock_diag dump (udp)",
        options,
    )
}

fn poll_for(
    protocols: &'static [Protocol],
    engine: Engine,
    hook: &str,
    options: &Options,
) -> Result<Sensor, Error> {
    // Each look that finds something new would load the walk anew.
    let view = View {
        protocols,
        kernel_walk: false,
        has_others: true,
        ..View::system(engine)
    };
    let (stream, degradations) = start(view, options).map_err(|error| Error::Unavailable {
        engine,
        reason: explain(&error),
    })?;
    let told = [
        stream.deaths.is_some().then_some("sock_diag destroy"),
        stream.programs.is_some().then_some("proc connector"),
    ];
    let inspector = PollingInspector {
        view: View {
            protocols: BOTH,
            ..stream.view.clone()
        },
        programs: stream.programs.clone(),
        shared: Arc::clone(&stream.shared),
    };
    Ok(Sensor {
        engine,
        hooks: std::iter::once(hook)
            .chain(told.into_iter().flatten())
            .map(str::to_owned)
            .collect(),
        degradations,
        stream: Box::new(stream),
        inspector: Box::new(inspector),
        mappings: None,
    })
}

/// Takes the first look, and says what will not be seen.
fn start(view: View, options: &Options) -> Result<(PollingStream, Vec<Degradation>), Error> {
    let interval = options.interval;
    let ticks = procfs::ticks_per_second();
    let mut degradations = Vec::new();
    let (mut deaths, mut programs) = (None, None);
    // Subscribe first: what happens during the first look is told.
    if view.engine == Engine::SockDiag {
        let own = super::netns::own(&view.proc);
        // A message takes ten times the room there that a record takes in a ring.
        let room = usize::try_from(options.ring_bytes)
            .unwrap_or(usize::MAX)
            .saturating_mul(4);
        match Deaths::open(own, view.protocols, room) {
            Ok(opened) => deaths = Some(opened),
            Err(error) => degradations.push(without_deaths(&error, interval)),
        }
        match Programs::start(view.proc.clone(), ticks) {
            Ok(started) => programs = Some(Arc::new(started)),
            Err(error) => degradations.push(without_programs(&error)),
        }
    }
    if deaths.is_some() {
        degradations.insert(0, what_the_end_does_not_tell(interval));
    } else if view.engine != Engine::SockDiag {
        degradations.push(what_polling_misses(interval));
    }
    let tables = view.tables()?;
    if let Some(deaths) = &mut deaths {
        deaths.follow(&tables.namespaces, boot_time(), |_| false);
        degradations.extend(not_entered(deaths));
    }
    let (holders, hidden) = view.holders_now()?;
    degradations.extend(tables.degradations);
    degradations.extend(hidden);
    let mut stream = PollingStream {
        known: Known::default(),
        ticks,
        pace: Pace::new(interval),
        deaths,
        dead: Vec::new(),
        programs,
        soon: false,
        shared: Arc::new(Shared {
            produced: AtomicU64::new(0),
            stop: signal()?,
        }),
        is_over: false,
        view,
    };
    let told = stream.told();
    let mut owners = FromHolders {
        view: &stream.view,
        programs: stream.programs.as_deref(),
        ticks,
        holders: Some(holders),
        processes: BTreeMap::new(),
    };
    stream.known.start(tables.sockets, told, &mut owners);
    Ok((stream, degradations))
}

/// What both halves know.
struct Shared {
    produced: AtomicU64,
    stop: OwnedFd,
}

/// When to look next.
struct Pace {
    interval: Duration,
    /// The end of the last look, and how long it took.
    last: Instant,
    cost: Duration,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Instant::now(),
            cost: Duration::ZERO,
        }
    }

    /// When the next look is due; `soon` if something calls for it.
    fn next(&self, soon: bool) -> Instant {
        let wait = if soon {
            self.interval / SOONER
        } else {
            self.interval
        };
        let rest = self.cost.saturating_mul(REST);
        let wait = wait.max(rest.min(self.interval.saturating_mul(LATER)));
        self.last.checked_add(wait).unwrap_or(self.last)
    }

    fn looked(&mut self, since: Instant) {
        self.last = Instant::now();
        self.cost = self.last.duration_since(since);
    }
}

struct PollingStream {
    view: View,
    known: Known,
    ticks: u64,
    pace: Pace,
    deaths: Option<Deaths>,
    /// The deaths since the last look.
    dead: Vec<Death>,
    programs: Option<Arc<Programs>>,
    /// Something has happened since the last look that calls for the next.
    soon: bool,
    shared: Arc<Shared>,
    /// It was stopped, and has taken its last look.
    is_over: bool,
}

impl Stream for PollingStream {
    fn read(&mut self, batch: &mut Vec<Observation>, timeout: Duration) -> Result<(), Error> {
        if self.is_over {
            return Ok(());
        }
        let patience = Instant::now().checked_add(timeout);
        loop {
            let due = self.pace.next(self.soon);
            let mut until = patience.map_or(due, |patience| due.min(patience));
            if !self.dead.is_empty() {
                until = until.min(Instant::now() + DRAIN);
            }
            let stopped = self.wait(until)?;
            if let Some(programs) = &self.programs {
                programs.take(batch);
            }
            self.hear()?;
            self.soon |= !self.dead.is_empty() || !batch.is_empty();
            let now = Instant::now();
            if stopped || now >= self.pace.next(self.soon) || self.dead.len() > MOST_DEATHS {
                self.is_over = stopped;
                return self.look(batch);
            }
            // Names are wanted before sockets; a look can wait.
            if !batch.is_empty() || patience.is_some_and(|patience| now >= patience) {
                return Ok(());
            }
        }
    }
}

impl PollingStream {
    /// Waits until `deadline`, until the kernel tells something, or until the
    /// sensor is stopped; is it?
    fn wait(&self, deadline: Instant) -> Result<bool, Error> {
        let mut fds = vec![PollFd::new(&self.shared.stop, PollFlags::IN)];
        if let Some(programs) = &self.programs {
            fds.push(PollFd::new(programs.ready(), PollFlags::IN));
        }
        // Where deaths wait already, the next are not worth a wake-up each.
        if self.dead.is_empty()
            && let Some(deaths) = &self.deaths
        {
            fds.extend(
                deaths
                    .descriptors()
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            );
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::System {
                    what: "cannot wait for the kernel".to_owned(),
                    source: errno.into(),
                });
            }
        }
        Ok(fds.first().is_some_and(|stop| !stop.revents().is_empty()))
    }

    /// Takes in the deaths that were told.
    fn hear(&mut self) -> Result<(), Error> {
        match &mut self.deaths {
            Some(deaths) => deaths.receive(boot_time(), &mut self.dead),
            None => Ok(()),
        }
    }

    /// Looks at the sockets, and says what happened since the last time.
    fn look(&mut self, batch: &mut Vec<Observation>) -> Result<(), Error> {
        let begin = Instant::now();
        let at = boot_time();
        let tables = self.view.tables()?;
        // Those that died while the tables were read.
        self.hear()?;
        let told = self.told();
        let mut lost = 0;
        if let Some(deaths) = &mut self.deaths {
            lost = deaths.lost();
            deaths.follow(&tables.namespaces, at, |netns| self.known.has_open(netns));
        }
        let look = Look {
            at,
            sockets: tables.sockets,
            deaths: std::mem::take(&mut self.dead),
            told,
            lost,
            is_final: self.is_over,
        };
        let mut owners = FromHolders {
            view: &self.view,
            programs: self.programs.as_deref(),
            ticks: self.ticks,
            holders: None,
            processes: BTreeMap::new(),
        };
        let mut changes = Vec::new();
        self.known.update(look, &mut owners, &mut changes);
        // Who was found to hold a socket may have begun to run another program
        // while it was looked for; that comes first.
        if let Some(programs) = &self.programs {
            programs.take(batch);
        }
        batch.append(&mut changes);
        self.shared
            .produced
            .store(self.known.produced(), Ordering::Release);
        self.soon = self.known.waits();
        self.pace.looked(begin);
        Ok(())
    }

    /// The namespaces in which the kernel tells of deaths.
    fn told(&self) -> HashSet<Option<u32>> {
        self.deaths.iter().flat_map(Deaths::covered).collect()
    }
}

struct PollingInspector {
    view: View,
    programs: Option<Arc<Programs>>,
    shared: Arc<Shared>,
}

impl Inspector for PollingInspector {
    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.view.snapshot()
    }

    fn produced(&mut self) -> Result<BTreeMap<u16, u64>, Error> {
        let produced = self.shared.produced.load(Ordering::Acquire);
        Ok(BTreeMap::from([(STREAM, produced)]))
    }

    fn unnumbered(&mut self) -> Result<u64, Error> {
        Ok(0)
    }

    fn processes_lost(&mut self) -> Result<u64, Error> {
        Ok(self.programs.as_ref().map_or(0, |programs| programs.lost()))
    }

    fn loss_reason(&self) -> &'static str {
        "netlink buffer full"
    }

    fn detach(&mut self) {
        raise(self.shared.stop.as_fd());
    }
}

/// Walks the descriptors of all processes when first asked, and not at all if
/// it never is.
struct FromHolders<'a> {
    view: &'a View,
    programs: Option<&'a Programs>,
    ticks: u64,
    holders: Option<Holders>,
    processes: BTreeMap<u32, Option<Holder>>,
}

impl Owners for FromHolders<'_> {
    fn owner(&mut self, found: &TableSocket) -> Option<Holder> {
        if self.holders.is_none() {
            // Without owners there are still sockets.
            let holders = self.view.holders_now().map(|(holders, _)| holders);
            self.holders = Some(holders.unwrap_or_default());
        }
        let pid = self.holders.as_ref()?.first(found.inode)?;
        *self.processes.entry(pid).or_insert_with(|| {
            let live = procfs::process(&self.view.proc, pid, self.ticks);
            match (live, self.programs) {
                (Some(holder), Some(programs)) => {
                    programs.note(holder);
                    live
                }
                // It held the socket a moment ago.
                (None, Some(programs)) => programs.find(pid),
                (_, None) => live,
            }
        })
    }
}

fn boot_time() -> BootTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    BootTime(
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(nanoseconds),
    )
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use event::{Action, Attribution};

    use super::*;
    use crate::SocketObservation;

    fn every(interval: Duration) -> Options {
        Options {
            interval,
            ..Options::default()
        }
    }

    /// Reads until something is said about the local port.
    fn until(stream: &mut dyn Stream, port: u16, wanted: fn(Action) -> bool) -> SocketObservation {
        let mut batch = Vec::new();
        loop {
            stream.read(&mut batch, Duration::from_secs(1)).unwrap();
            for observation in batch.drain(..) {
                if let Observation::Socket(seen) = observation
                    && seen.socket.local.port == port
                    && wanted(seen.action)
                {
                    return seen;
                }
            }
        }
    }

    #[test]
    fn both_engines_see_a_connection_come_and_go() {
        for engine in [Engine::SockDiag, Engine::Proc] {
            let before = boot_time();
            let mut sensor = polling(engine, &every(Duration::from_millis(1))).unwrap();
            let stream = sensor.stream.as_mut();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let seen = until(stream, port, |action| action == Action::Listen);
            assert_eq!(seen.owner.map(|owner| owner.pid), Some(std::process::id()));
            assert_eq!(seen.attribution, Attribution::Snapshot);
            assert_eq!(seen.uid, Some(rustix::process::geteuid().as_raw()));
            assert!(seen.at > before && seen.owner.unwrap().start < before);

            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let server = listener.accept().unwrap();
            let local = client.local_addr().unwrap().port();
            until(stream, local, |action| action == Action::Connect);
            drop(client);
            drop(server);
            drop(listener);
            until(stream, port, Action::ends_socket);

            let snapshot = sensor.inspector.snapshot().unwrap();
            assert!(
                snapshot.sockets.iter().all(|found| {
                    found.socket.local.port != port || !found.socket.is_listener()
                })
            );
        }
    }

    #[test]
    fn looking_has_its_pace() {
        let interval = Duration::from_millis(160);
        let mut pace = Pace::new(interval);
        let wait = |pace: &Pace, soon| pace.next(soon).duration_since(pace.last);
        assert_eq!(wait(&pace, false), interval);
        assert_eq!(wait(&pace, true), Duration::from_millis(10));
        pace.cost = Duration::from_millis(4);
        assert_eq!(wait(&pace, true), Duration::from_millis(36));
        assert_eq!(wait(&pace, false), interval);
        pace.cost = Duration::from_secs(4);
        assert_eq!(wait(&pace, false), interval * LATER);
    }

    #[test]
    fn a_stopped_stream_does_not_wait() {
        let mut sensor = polling(Engine::SockDiag, &every(Duration::from_hours(1))).unwrap();
        sensor.inspector.detach();
        let mut batch = Vec::new();
        // The first takes a last look; either would take an hour otherwise.
        for _ in 0..2 {
            batch.clear();
            sensor
                .stream
                .read(&mut batch, Duration::from_hours(2))
                .unwrap();
        }
        assert_eq!(batch, []);
    }

    #[test]
    fn the_engine_of_the_kernel_does_not_poll() {
        assert!(matches!(
            polling(Engine::Ebpf, &Options::default()),
            Err(Error::Unavailable { .. })
        ));
    }
}
