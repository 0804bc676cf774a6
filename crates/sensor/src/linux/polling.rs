//! The engines that look again and again: `sock-diag` and `proc`.
//!
//! Where no program can be put into the kernel, the tables are taken every
//! interval and compared with those of the look before ([`changes`]). That
//! needs no privilege, and misses whatever begins and ends between two looks;
//! the [`Degradation`] that comes with these engines says so.
//!
//! The stream looks when it is read, in the thread of its reader; there is no
//! thread and no queue of its own. If the reader is late, the next look covers
//! more time, and nothing piles up. The first look is taken before the sensor
//! is handed over, so that what happens after that is either in a later
//! snapshot or in the stream, and mostly in both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event::{BootTime, Degradation, Engine};

use super::changes::{Holder, Known, Owners};
use super::holders::Holders;
use super::procfs;
use super::snapshot::View;
use super::sock_diag::TableSocket;
use crate::{Error, Inspector, Observation, Sensor, Snapshot, Stream};

/// The one stream of these engines.
const STREAM: u16 = 0;

/// Starts the engine `sock-diag` or `proc`.
pub(crate) fn polling(engine: Engine, interval: Duration) -> Result<Sensor, Error> {
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
    // Each look that finds something new would load the walk anew.
    let view = View {
        kernel_walk: false,
        ..View::system(engine)
    };
    let (sensor, degradations) = start(view, interval).map_err(|error| Error::Unavailable {
        engine,
        reason: match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    })?;
    let mut all = vec![what_polling_misses(interval)];
    all.extend(degradations);
    let inspector = PollingInspector {
        view: sensor.view.clone(),
        shared: Arc::clone(&sensor.shared),
    };
    Ok(Sensor {
        engine,
        hooks: vec![hook.to_owned()],
        degradations: all,
        stream: Box::new(sensor),
        inspector: Box::new(inspector),
    })
}

/// What no interval can mend.
fn what_polling_misses(interval: Duration) -> Degradation {
    Degradation {
        what: "capture".to_owned(),
        why: format!(
            "the socket tables are looked at every {} ms, the kernel does not report",
            interval.as_millis()
        ),
        consequence: "sockets that live shorter than that are not seen, times are that exact, \
                      and reason, bytes and duration of a close are not known"
            .to_owned(),
        remedy: Some("run as root, or with CAP_BPF and CAP_PERFMON".to_owned()),
    }
}

/// Takes the first look.
fn start(view: View, interval: Duration) -> Result<(PollingStream, Vec<Degradation>), Error> {
    let tables = view.tables()?;
    let (holders, hidden) = view.holders_now()?;
    let mut degradations = tables.degradations;
    degradations.extend(hidden);
    let ticks = procfs::ticks_per_second();
    let mut known = Known::default();
    let mut owners = FromHolders {
        view: &view,
        ticks,
        holders: Some(holders),
        processes: BTreeMap::new(),
    };
    known.start(tables.sockets, &mut owners);
    let stream = PollingStream {
        known,
        ticks,
        interval,
        next: Instant::now() + interval,
        shared: Arc::default(),
        view,
    };
    Ok((stream, degradations))
}

/// What both halves know.
#[derive(Debug, Default)]
struct Shared {
    produced: AtomicU64,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Shared {
    /// Waits until `deadline` or until the sensor is stopped; is it?
    fn wait_until(&self, deadline: Instant) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = deadline.saturating_duration_since(Instant::now());
        let (stopped, _) = self
            .stop
            .wait_timeout_while(stopped, timeout, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        *stopped
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.notify_all();
    }
}

struct PollingStream {
    view: View,
    known: Known,
    ticks: u64,
    interval: Duration,
    /// When to look next.
    next: Instant,
    shared: Arc<Shared>,
}

impl Stream for PollingStream {
    fn read(&mut self, batch: &mut Vec<Observation>, timeout: Duration) -> Result<(), Error> {
        let now = Instant::now();
        let patience = now.checked_add(timeout).unwrap_or(self.next);
        if self.shared.wait_until(self.next.min(patience)) || patience < self.next {
            return Ok(());
        }
        self.next = Instant::now() + self.interval;
        let at = boot_time();
        let tables = self.view.tables()?;
        let mut owners = FromHolders {
            view: &self.view,
            ticks: self.ticks,
            holders: None,
            processes: BTreeMap::new(),
        };
        self.known.update(tables.sockets, at, &mut owners, batch);
        self.shared
            .produced
            .store(self.known.produced(), Ordering::Release);
        Ok(())
    }
}

struct PollingInspector {
    view: View,
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

    fn detach(&mut self) {
        self.shared.stop();
    }
}

/// Walks the descriptors of all processes when first asked, and not at all if
/// it never is.
struct FromHolders<'a> {
    view: &'a View,
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
        *self
            .processes
            .entry(pid)
            .or_insert_with(|| procfs::process(&self.view.proc, pid, self.ticks))
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
            let mut sensor = polling(engine, Duration::from_millis(1)).unwrap();
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
    fn a_stopped_stream_does_not_wait() {
        let mut sensor = polling(Engine::SockDiag, Duration::from_hours(1)).unwrap();
        sensor.inspector.detach();
        let mut batch = Vec::new();
        // Would take an hour.
        sensor
            .stream
            .read(&mut batch, Duration::from_hours(2))
            .unwrap();
        assert_eq!(batch, []);
        assert_eq!(
            sensor.inspector.produced().unwrap(),
            BTreeMap::from([(0, 0)])
        );
    }

    #[test]
    fn the_engine_of_the_kernel_does_not_poll() {
        assert!(matches!(
            polling(Engine::Ebpf, Duration::ZERO),
            Err(Error::Unavailable { .. })
        ));
    }
}
