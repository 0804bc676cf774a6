//! `portreporter query` end to end: the real binary, the real kernel, verdicts
//! that are known before.
//!
//! Each test has a network namespace of its own, in which it decides which port
//! listens, which is closed, and what nftables and routes do with the others.
//! Nothing leaves it. Nothing here sleeps.
//!
//! The tests need root, for the namespaces. Without it they are reported as
//! ignored.

mod bounds;
mod filters;
mod input;
mod stage;
mod talk;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// A test: its name, and the test itself, which panics if it fails.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let cases = [filters::CASES, talk::CASES, input::CASES, bounds::CASES].concat();
    let trials = cases.into_iter().map(|(name, run)| {
        Trial::ignorable_test(name, move || {
            if let Some(reason) = stage::missing() {
                return Ok(Completion::ignored_with(reason));
            }
            stage::alone(run)?;
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
