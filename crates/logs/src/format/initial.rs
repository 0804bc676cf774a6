//! PR-INITIAL: every mapping when the set was opened, then each process.
//!
//! A header, the table of all mappings, a rule of 77 `=`, and a block for each
//! process ([`super::listing`]), the blocks apart by a rule of 54 `=`. The
//! header has the original's blank lines and, since its version 1.01, the
//! operating system after the computer's name.

use event::{Socket, WallTime};

use super::clock::LocalClock;
use super::listing::{self, ProcessPorts, RULE};
use super::quote::push_plain;
use super::{CLASSIC_VERSION, NO_MAPPINGS};

/// The line between the table and the first block.
const WIDE_RULE: &[u8; 78] =
    b"=============================================================================\n";

/// Appends the whole file. `t` is the moment of the `open` line of PR-EVENTS, so
/// that the one file can be derived from the other.
pub fn write(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    t: WallTime,
    host: &str,
    os: &str,
    processes: &[ProcessPorts<'_>],
) {
    head(out, clock, t, host, os);
    listing::mappings(out, processes);
    let mut blocks: Vec<_> = processes.iter().collect();
    blocks.sort_by_key(|ports| {
        let start = ports.process.and_then(|process| process.start);
        (listing::owner_order(ports.process), start)
    });
    for (at, ports) in blocks.into_iter().enumerate() {
        out.extend_from_slice(if at == 0 { WIDE_RULE } else { RULE });
        listing::process_block(out, ports, None);
    }
}

/// Appends the whole file where no process can be named.
pub fn write_without_processes(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    t: WallTime,
    host: &str,
    os: &str,
    sockets: &[&Socket],
) {
    head(out, clock, t, host, os);
    out.extend_from_slice(NO_MAPPINGS.as_bytes());
    out.extend_from_slice(b"\n\n");
    listing::ports_without_process(out, sockets);
}

/// Everything above the number of mappings.
pub(crate) fn head(out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime, host: &str, os: &str) {
    preamble(out, clock, t, "Service initialization log", host, os);
    out.extend_from_slice(b"TCP/UDP Port to Process Mappings at service start-up\n\n");
}

/// The lines with which PR-INITIAL and PR-PIDS begin.
pub(super) fn preamble(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    t: WallTime,
    title: &str,
    host: &str,
    os: &str,
) {
    out.extend_from_slice(
        format!(
            "Port Reporter Version {CLASSIC_VERSION} Log File\n\
             \n\
             {title}\n\
             \n\
             System Date: "
        )
        .as_bytes(),
    );
    clock.push_ctime(out, t);
    out.extend_from_slice(b"\n\nLocal computer name:\n");
    push_plain(out, host);
    out.extend_from_slice(b"\nOperating System: ");
    push_plain(out, os);
    out.extend_from_slice(b"\n\n");
}
