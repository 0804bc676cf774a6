//! The engine `ebpf` where none of the hooks for UDP can be had.
//!
//! A kernel that is locked down (`lockdown=confidentiality`) lets no program
//! read its memory. Those for TCP read the socket by typed pointers and work;
//! those for UDP, for what runs, and the walk through all descriptors do not. To
//! give up what is known of TCP for an engine that sees everything, but late,
//! would lose more than it gains. So `sock-diag` goes along, for UDP and for
//! sockets without ports alone: it looks for those that are there, is told of
//! the end of each, and is told by the proc connector what runs.
//!
//! Both flows become one. What `sock-diag` says has a stream of its own
//! ([`STREAM`]), so that its numbers and its losses stay apart from those of the
//! CPUs.

use std::collections::BTreeMap;
use std::time::Duration;

use event::Degradation;

use super::{Options, polling};
use crate::{Error, Inspector, Observation, Sensor, Snapshot, Stream};

/// The stream of what is found by looking; no CPU has that number.
const STREAM: u16 = u16::MAX;

/// How long at most one flow is waited for before the other is looked at.
const TURN: Duration = Duration::from_millis(50);

/// Adds what polling sees of UDP, if nothing else sees it.
pub(super) fn with_udp(sensor: Sensor, options: &Options) -> Sensor {
    let is_lacking = |lack: &Degradation| lack.what == "UDP";
    let Some(at) = sensor.degradations.iter().position(is_lacking) else {
        return sensor;
    };
    // It stays as it is, and says so.
    let Ok(polled) = polling::without_tcp(options) else {
        return sensor;
    };
    join(sensor, polled, at, options.interval)
}

/// One sensor of two. `at` is where the first says that it does not see UDP.
fn join(mut sensor: Sensor, polled: Sensor, at: usize, interval: Duration) -> Sensor {
    if let Some(lack) = sensor.degradations.get_mut(at) {
        lack.consequence = format!(
            "UDP ports are looked for every {} ms; one that is used for less than that has no \
             owner, as the kernel tells only of its end",
            interval.as_millis()
        );
    }
    sensor.hooks.extend(polled.hooks);
    sensor.stream = Box::new(Both {
        told: sensor.stream,
        looked: polled.stream,
    });
    sensor.inspector = Box::new(BothInspectors {
        told: sensor.inspector,
        looked: polled.inspector,
    });
    sensor
}

struct Both {
    told: Box<dyn Stream>,
    looked: Box<dyn Stream>,
}

impl Stream for Both {
    fn read(&mut self, batch: &mut Vec<Observation>, timeout: Duration) -> Result<(), Error> {
        let before = batch.len();
        self.looked.read(batch, Duration::ZERO)?;
        for observation in batch.iter_mut().skip(before) {
            if let Observation::Socket(seen) = observation {
                seen.stream = STREAM;
            }
        }
        let timeout = if batch.len() > before {
            Duration::ZERO
        } else {
            timeout.min(TURN)
        };
        self.told.read(batch, timeout)
    }
}

struct BothInspectors {
    told: Box<dyn Inspector>,
    looked: Box<dyn Inspector>,
}

impl Inspector for BothInspectors {
    /// The first has no walk of its own here, and would look at less.
    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.looked.snapshot()
    }

    fn produced(&mut self) -> Result<BTreeMap<u16, u64>, Error> {
        let mut produced = self.told.produced()?;
        let looked = self.looked.produced()?.into_values();
        produced.extend(looked.map(|count| (STREAM, count)));
        Ok(produced)
    }

    fn unnumbered(&mut self) -> Result<u64, Error> {
        self.told.unnumbered()
    }

    fn loss_reason(&self) -> &'static str {
        "ring or netlink buffer full"
    }

    fn processes_lost(&mut self) -> Result<u64, Error> {
        Ok(self.told.processes_lost()? + self.looked.processes_lost()?)
    }

    fn detach(&mut self) {
        self.told.detach();
        self.looked.detach();
    }
}

#[cfg(test)]
mod tests {
    use event::{Action, Attribution, BootTime, Endpoint, Engine, Protocol, Socket};

    use super::*;
    use crate::SocketObservation;

    struct Canned(Vec<Observation>, u64);

    impl Stream for Canned {
        fn read(&mut self, batch: &mut Vec<Observation>, _: Duration) -> Result<(), Error> {
            batch.append(&mut self.0);
            Ok(())
        }
    }

    impl Inspector for Canned {
        fn snapshot(&mut self) -> Result<Snapshot, Error> {
            Ok(Snapshot::default())
        }

        fn produced(&mut self) -> Result<BTreeMap<u16, u64>, Error> {
            Ok(BTreeMap::from([(0, self.1)]))
        }

        fn unnumbered(&mut self) -> Result<u64, Error> {
            Ok(0)
        }

        fn detach(&mut self) {}
    }

    fn seen(protocol: Protocol) -> Observation {
        Observation::Socket(SocketObservation {
            at: BootTime(1),
            stream: 0,
            sequence: 0,
            action: Action::Bind,
            socket: Socket {
                cookie: None,
                netns: None,
                protocol,
                local: Endpoint::new([127, 0, 0, 1].into(), 9),
                remote: None,
                state: None,
            },
            attribution: Attribution::Unknown,
            owner: None,
            uid: None,
            error: None,
        })
    }

    fn sensor(protocol: Protocol, made: u64) -> Sensor {
        Sensor {
            engine: Engine::Ebpf,
            hooks: vec![protocol.name().to_owned()],
            degradations: vec![Degradation {
                what: "UDP".to_owned(),
                why: "none of the hooks that report it can be attached".to_owned(),
                consequence: String::new(),
                remedy: None,
            }],
            stream: Box::new(Canned(vec![seen(protocol)], 0)),
            inspector: Box::new(Canned(Vec::new(), made)),
            mappings: None,
        }
    }

    #[test]
    fn two_flows_keep_their_numbers_apart() {
        let (told, looked) = (sensor(Protocol::Tcp, 5), sensor(Protocol::Udp, 7));
        let mut both = join(told, looked, 0, Duration::from_millis(250));
        assert_eq!(both.hooks, ["tcp", "udp"]);
        assert!(both.degradations[0].consequence.contains("every 250 ms"));

        let mut batch = Vec::new();
        both.stream.read(&mut batch, Duration::ZERO).unwrap();
        let streams: Vec<_> = batch
            .iter()
            .map(|observation| match observation {
                Observation::Socket(seen) => (seen.socket.protocol, seen.stream),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(streams, [(Protocol::Udp, STREAM), (Protocol::Tcp, 0)]);
        assert_eq!(
            both.inspector.produced().unwrap(),
            BTreeMap::from([(0, 5), (STREAM, 7)])
        );
    }
}
