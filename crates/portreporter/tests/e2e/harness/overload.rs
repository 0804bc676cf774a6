//! Losses that a busy machine causes.
//!
//! A recorder that other programs keep from running cannot empty the kernel's
//! buffer, and a debug build needs more time for that than a real one. It then
//! says in a gap how many events it lost. That is right, but leaves a scenario
//! little to look at. So one that failed is played again if its recorder had
//! declared such a loss, when the machine is calmer: [`ATTEMPTS`] times in all,
//! and each time this is said.
//!
//! Everything else fails at once: a loss that no gap declares, above all, and
//! whatever goes wrong in a scenario that is about loss.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tail::PATIENCE;

/// A machine that is too busy for a scenario so many times is not fit for it.
const ATTEMPTS: u32 = 3;

/// A debug build keeps up with so many connections a second.
const CALM: u64 = 1000;

/// The reasons of gaps that come of a recorder that is too slow.
const OVERFLOWS: [&str; 2] = ["ring buffer full", "netlink buffer full"];

thread_local! {
    /// The gap that was declared in the scenario that this thread plays.
    static DECLARED: RefCell<Option<String>> = const { RefCell::new(None) };
    static ABOUT_LOSS: Cell<bool> = const { Cell::new(false) };
}

/// The scenario loses events on purpose.
pub(crate) fn is_on_purpose() {
    ABOUT_LOSS.set(true);
}

/// Looks at a line of PR-EVENTS.
pub(crate) fn note(line: &Value) {
    let overflow = OVERFLOWS.iter().any(|reason| line["reason"] == *reason);
    if line["event"] == "gap" && overflow && line["lost"].as_u64() > Some(0) {
        DECLARED.set(Some(line.to_string()));
    }
}

/// Was a loss declared for which the scenario is to be played again? Then what
/// it waits for may be among what was lost.
pub(crate) fn is_spoiled() -> bool {
    !ABOUT_LOSS.get() && DECLARED.with_borrow(Option::is_some)
}

/// Plays a scenario, which panics if it fails.
pub(crate) fn play(name: &str, scenario: fn()) {
    for attempt in 1.. {
        DECLARED.set(None);
        ABOUT_LOSS.set(false);
        let Err(panic) = catch_unwind(scenario) else {
            return;
        };
        match DECLARED.take() {
            Some(gap) if attempt < ATTEMPTS && !ABOUT_LOSS.get() => {
                eprintln!(
                    "{name}: the machine was too busy for the recorder, which said so; playing \
                     it again ({} of {ATTEMPTS}): {gap}",
                    attempt + 1
                );
                wait_for_calm();
            }
            _ => resume_unwind(panic),
        }
    }
}

/// Waits until nobody makes many connections, but not for ever. Nothing tells of
/// that moment, so this looks every second.
fn wait_for_calm() {
    let deadline = Instant::now() + PATIENCE;
    let mut before = connections();
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_secs(1));
        let now = connections();
        if now.saturating_sub(before) < CALM {
            return;
        }
        before = now;
    }
}

/// How many connections were begun here since the machine was started.
fn connections() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next(), rows.next());
    names
        .unwrap_or_default()
        .split(' ')
        .zip(values.unwrap_or_default().split(' '))
        .filter(|(name, _)| ["ActiveOpens", "PassiveOpens"].contains(name))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}
