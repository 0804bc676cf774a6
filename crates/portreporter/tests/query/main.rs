//! `portreporter query` end to end: the real binary, the real kernel, verdicts
//! that are known before.
//!
//! Each test has a network namespace of its own, in which it decides which port
//! listens, which is closed, and what nftables and routes do with the others.
//! Nothing leaves it. Nothing here sleeps.
//!
//! The tests need root, for the namespaces, and some of them TUN devices. Where
//! that is not to be had they are reported as ignored.

mod bounds;
mod filters;
mod here;
mod hostile;
mod input;
mod loss;
mod stage;
mod talk;
mod wire;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// A test: its name, and the test itself, which panics if it fails.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let cases = [
        filters::CASES,
        talk::CASES,
        loss::CASES,
        here::CASES,
        hostile::CASES,
        input::CASES,
        bounds::CASES,
    ]
    .concat();
    let trials = cases.into_iter().map(|(name, run)| {
        Trial::ignorable_test(name, move || {
            let needs_wire = loss::CASES.iter().any(|(case, _)| *case == name);
            let lacks_wire = || needs_wire.then(wire::missing)?;
            if let Some(reason) = stage::missing().or_else(lacks_wire) {
                return Ok(Completion::ignored_with(reason));
            }
            stage::alone(run)?;
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
