//! What watching costs, from one scenario to the next.
//!
//! Processor time alone says little: a program that looks once a second pays by
//! the second, whether anything happens or not, and one that is told of events
//! pays by the event, and later. So each part of the bill has the time that it
//! is for, the watcher is given a moment to take in what happened before the
//! next part begins, and what it uses when nothing happens is measured too.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::watcher::Watcher;

/// How long after a scenario its events may still be taken in. The recorder
/// fetches them every few milliseconds and lets some lines wait for a quarter of
/// a second.
const LINGER: Duration = Duration::from_millis(300);

/// How long it is watched while nothing is played.
const IDLE: Duration = Duration::from_secs(5);

/// What a watcher used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Cost {
    /// Its processor time, in milliseconds.
    pub(super) cpu_millis: f64,
    /// For how long, in milliseconds.
    pub(super) of_millis: f64,
}

/// The account of a watcher.
pub(super) struct Bill {
    since: Reading,
    linger: Duration,
}

/// How far it had come at a moment.
struct Reading {
    cpu: Duration,
    at: Instant,
}

impl Bill {
    /// Opens it: what was used until now is not in it. In a hurry, what is used
    /// after a scenario is billed to the next.
    pub(super) fn open(watcher: &dyn Watcher, hurries: bool) -> anyhow::Result<Self> {
        Ok(Self {
            since: Reading::take(watcher)?,
            linger: if hurries { Duration::ZERO } else { LINGER },
        })
    }

    /// What is used while nothing is played.
    pub(super) fn idle(&mut self, watcher: &dyn Watcher) -> anyhow::Result<Cost> {
        self.since = Reading::take(watcher)?;
        std::thread::sleep(IDLE);
        self.part(watcher)
    }

    /// What was used since the last part, a scenario that is just over included.
    pub(super) fn scenario(&mut self, watcher: &dyn Watcher) -> anyhow::Result<Cost> {
        std::thread::sleep(self.linger);
        self.part(watcher)
    }

    fn part(&mut self, watcher: &dyn Watcher) -> anyhow::Result<Cost> {
        let now = Reading::take(watcher)?;
        let before = std::mem::replace(&mut self.since, now);
        let Reading { cpu, at } = &self.since;
        Ok(Cost {
            cpu_millis: cpu.saturating_sub(before.cpu).as_secs_f64() * 1e3,
            of_millis: at.duration_since(before.at).as_secs_f64() * 1e3,
        })
    }
}

impl Reading {
    fn take(watcher: &dyn Watcher) -> anyhow::Result<Self> {
        Ok(Self {
            cpu: watcher.cpu()?,
            at: Instant::now(),
        })
    }
}

impl Cost {
    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        self.cpu_millis += other.cpu_millis;
        self.of_millis += other.of_millis;
    }

    /// Milliseconds of processor time for a second of watching.
    pub(super) fn a_second(&self) -> Option<f64> {
        (self.of_millis > 0.0).then(|| self.cpu_millis / self.of_millis * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::sighting::Watched;
    use super::*;

    /// Uses ten milliseconds between one look at it and the next.
    struct Steady(Cell<u64>);

    impl Watcher for Steady {
        fn cpu(&self) -> anyhow::Result<Duration> {
            self.0.set(self.0.get() + 10);
            Ok(Duration::from_millis(self.0.get()))
        }

        fn settle(&mut self) -> anyhow::Result<()> {
            Ok(())
        }

        fn stop(self: Box<Self>) -> anyhow::Result<Watched> {
            anyhow::bail!("it is only looked at")
        }
    }

    #[test]
    fn each_part_is_billed_once() {
        let watcher = Steady(Cell::new(500));
        let mut bill = Bill::open(&watcher, true).unwrap();
        let mut total = Cost::default();
        for _ in 0..2 {
            total.add(&bill.part(&watcher).unwrap());
        }
        assert!((total.cpu_millis - 20.0).abs() < 1e-6, "{total:?}");
    }

    #[test]
    fn a_second_of_nothing_has_no_price() {
        assert_eq!(Cost::default().a_second(), None);
        let cost = Cost {
            cpu_millis: 5.0,
            of_millis: 500.0,
        };
        assert!((cost.a_second().unwrap() - 10.0).abs() < 1e-6);
    }
}
