//! The tests, by subject.

use crate::Case;
use crate::harness::{Facts, Log, Recorder, Traffic};

pub(crate) mod cgroup;
mod engines;
mod faults;
mod handed;
mod hardship;
mod loss;
mod modules;
mod names;
mod other;
mod places;
mod portqry;
mod process;
mod refusals;
mod rolls;
mod tcp;
mod udp;
mod watch;

/// Every test.
pub(crate) fn all() -> Vec<Case> {
    [
        tcp::CASES,
        udp::CASES,
        other::CASES,
        process::CASES,
        modules::CASES,
        handed::CASES,
        names::CASES,
        places::CASES,
        cgroup::CASES,
        rolls::CASES,
        hardship::CASES,
        faults::CASES,
        loss::CASES,
        engines::CASES,
        refusals::CASES,
        portqry::CASES,
        watch::CASES,
    ]
    .concat()
}

/// Records one scenario from before its beginning to after its end.
fn record(scenario: &[&str]) -> (Facts, Log) {
    let mut recorder = Recorder::start();
    let facts = Traffic::play(scenario);
    recorder.wait_for_closes(&facts.cookies());
    (facts, recorder.stop())
}
