//! PR-PIDS: a process and all its ports, each time anything about them changed.
//!
//! A header, then entries. An entry is a rule of 54 `=`, the line
//! `Log entry below recorded at: ` with the moment as C's `ctime` writes it,
//! another rule, and the block of the process ([`super::listing`]).
//!
//! A process has at most one entry a second. Where one entry stands for more
//! than one change, or for more than a second, the block says so after its
//! service lines: `Changes covered: 12 in 4 seconds`. Where entries are missing
//! an entry without a process says how many ([`missing`]).

use event::WallTime;

use super::NO_MAPPINGS;
use super::clock::LocalClock;
use super::decimal::push_count;
use super::initial::preamble;
use super::listing::{self, Covered, ProcessPorts, RULE};

const HEADING: &[u8] = b"Log entry below recorded at: ";

/// Appends what stands above the entries.
pub fn header(out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime, host: &str, os: &str) {
    preamble(out, clock, t, "Process detail log", host, os);
}

/// Appends the whole file where no process can be named.
pub fn header_without_processes(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    t: WallTime,
    host: &str,
    os: &str,
) {
    header(out, clock, t, host, os);
    out.extend_from_slice(NO_MAPPINGS.as_bytes());
    out.push(b'\n');
}

/// Appends an entry that covers so many changes in so many seconds.
pub fn entry(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    t: WallTime,
    ports: &ProcessPorts<'_>,
    changes: u64,
    interval_secs: u64,
) {
    heading(out, clock, t);
    let covered = (changes > 1 || interval_secs > 1).then_some(Covered {
        changes,
        seconds: interval_secs,
    });
    listing::process_block(out, ports, covered);
}

/// Appends an entry that says that entries before it are missing.
pub fn missing(out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime, entries: u64) {
    heading(out, clock, t);
    out.extend_from_slice(b"Not recorded: ");
    push_count(out, entries, ["log entry", "log entries"]);
    out.extend_from_slice(b" (see PR-EVENTS)\n");
}

/// Does an entry begin with this line?
pub(crate) fn begins_entry(line: &[u8]) -> bool {
    line.starts_with(HEADING)
}

fn heading(out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime) {
    out.extend_from_slice(RULE);
    out.extend_from_slice(HEADING);
    clock.push_ctime(out, t);
    out.push(b'\n');
    out.extend_from_slice(RULE);
}
