//! The blocks that PR-INITIAL and PR-PIDS share: the table of mappings, and
//! what is known of one process and its ports.
//!
//! The layout is the original's, TABs included, so that a program that reads
//! its logs reads these:
//!
//! * one TAB after `pid:name` when the image name has ten characters or more,
//!   else two (`System Idle`, which is not an image, has two);
//! * two spaces and a TAB after the port, one space and a TAB after the local
//!   address, one space before the remote one;
//! * UDP has no state, hence three TABs, and the remote `*:*`;
//! * the counts of the statistics stand in column 40.
//!
//! The original gave a listener a remote port that meant nothing; here it is 0.
//! An IPv6 address stands in brackets where a port follows.
//!
//! New lines, which a reader of the original layout passes over because they
//! stand between the service lines and the table: `Image Path:`,
//! `Command Line:`, `Container:` and, in PR-PIDS, `Changes covered:`. After
//! `Could not access module information for this process` a line `Reason:` may
//! follow. A line about something that is not known is left out; a process
//! without a name shows as its number alone.
//!
//! Rows and blocks are in a fixed order whatever the order of what is handed
//! over, so that equal states make equal files: by process number, then TCP
//! before UDP, then by local and remote address.

use event::{Module, Process, Protocol, ServiceKind, Socket, TcpState};

use super::decimal::{pair, push_ip, push_u64};
use super::owner::{MAX_COMMAND_LINE, MAX_TEXT};
use super::quote::{clip, push_plain};

/// The line between two blocks.
pub const RULE: &[u8; 55] = b"======================================================\n";

const COLUMNS: &[u8] = b"Port\t\tLocal IP\tState\t\t Remote IP:Port\n";

/// The owner of ports whose owner was never known, as the original named it.
const NOBODY: &str = "System Idle";

/// A process and the ports that it uses.
#[derive(Clone, Copy, Debug)]
pub struct ProcessPorts<'a> {
    /// The process; none for the ports whose owner was never known.
    pub process: Option<&'a Process>,
    /// Its ports, in any order.
    pub sockets: &'a [&'a Socket],
    /// The files that it has mapped for execution.
    pub modules: Modules<'a>,
}

/// The modules of a process.
#[derive(Clone, Copy, Debug)]
pub enum Modules<'a> {
    /// These.
    Known(&'a [Module]),
    /// They cannot be read; why, or an empty text.
    Unavailable(&'a str),
}

/// How many changes an entry of PR-PIDS stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) changes: u64,
    pub(super) seconds: u64,
}

/// Appends `N mappings found` and the table of all mappings.
pub fn mappings(out: &mut Vec<u8>, processes: &[ProcessPorts<'_>]) {
    let mut rows: Vec<_> = processes
        .iter()
        .flat_map(|ports| {
            ports
                .sockets
                .iter()
                .map(move |&socket| (ports.process, socket))
        })
        .collect();
    rows.sort_by(|(left_process, left), (right_process, right)| {
        owner_order(*left_process)
            .cmp(&owner_order(*right_process))
            .then_with(|| socket_order(left).cmp(&socket_order(right)))
    });
    push_u64(out, rows.len() as u64);
    out.extend_from_slice(b" mappings found\n\nPID:Process\t\t");
    out.extend_from_slice(COLUMNS);
    for (process, socket) in rows {
        mapping(out, process, socket);
    }
}

/// Appends `N active ports found` and the table of all ports where no process
/// can be named.
pub fn active_ports(out: &mut Vec<u8>, sockets: &[&Socket]) {
    let sockets = sorted(sockets);
    push_u64(out, sockets.len() as u64);
    out.extend_from_slice(b" active ports found\n\n");
    out.extend_from_slice(COLUMNS);
    for socket in &sockets {
        push_row(out, socket);
    }
}

/// Appends one line of the table of all mappings.
pub fn mapping(out: &mut Vec<u8>, process: Option<&Process>, socket: &Socket) {
    push_owner(out, process);
    push_row(out, socket);
}

/// Appends the table of the ports of one process.
pub fn ports(out: &mut Vec<u8>, process: Option<&Process>, sockets: &[&Socket]) {
    let pid = process.map_or(0, |process| process.pid);
    out.extend_from_slice(b"PID\t");
    out.extend_from_slice(COLUMNS);
    for socket in sorted(sockets) {
        push_u64(out, pid.into());
        out.push(b'\t');
        push_row(out, socket);
    }
}

/// Appends the table of all ports where no process can be named, with their
/// statistics.
pub(super) fn ports_without_process(out: &mut Vec<u8>, sockets: &[&Socket]) {
    active_ports(out, sockets);
    push_statistics(out, sockets);
}

/// Appends the block of one process: what it is, its ports, their statistics
/// and its modules.
pub(super) fn process_block(
    out: &mut Vec<u8>,
    ports_of: &ProcessPorts<'_>,
    covered: Option<Covered>,
) {
    heading(out, ports_of.process);
    if let Some(process) = ports_of.process {
        push_line(out, "User context: ", process.user.as_deref());
        service(out, process);
        push_line(out, "Image Path: ", process.exe.as_deref());
        let command = process.cmdline.as_deref();
        push_clipped_line(out, "Command Line: ", command, MAX_COMMAND_LINE);
        push_line(out, "Container: ", process.container.as_deref());
    }
    if let Some(Covered { changes, seconds }) = covered {
        out.extend_from_slice(
            format!("Changes covered: {changes} in {seconds} seconds\n").as_bytes(),
        );
    }
    ports(out, ports_of.process, ports_of.sockets);
    push_statistics(out, ports_of.sockets);
    modules(out, ports_of.modules);
}

/// The order of processes: those never known first, as number 0.
pub(super) fn owner_order(process: Option<&Process>) -> Option<(u32, Option<&str>)> {
    process.map(|process| (process.pid, process.name.as_deref()))
}

/// `pid:name` and its TABs.
fn push_owner(out: &mut Vec<u8>, process: Option<&Process>) {
    let Some(process) = process else {
        out.extend_from_slice(b"0:");
        out.extend_from_slice(NOBODY.as_bytes());
        out.extend_from_slice(b"\t\t");
        return;
    };
    push_u64(out, process.pid.into());
    let Some(name) = &process.name else {
        out.extend_from_slice(b"\t\t");
        return;
    };
    out.push(b':');
    let name = clip(name, MAX_TEXT);
    let name = event::text::escape(&name);
    out.extend_from_slice(name.as_bytes());
    let tabs: &[u8] = if name.chars().count() >= 10 {
        b"\t"
    } else {
        b"\t\t"
    };
    out.extend_from_slice(tabs);
}

/// One port: protocol, port, local address, state, remote address.
fn push_row(out: &mut Vec<u8>, socket: &Socket) {
    out.extend_from_slice(socket.protocol.label().as_bytes());
    out.push(b' ');
    push_u64(out, socket.local.port.into());
    out.extend_from_slice(b"  \t");
    push_ip(out, socket.local.ip);
    out.extend_from_slice(b" \t");
    match socket.protocol {
        Protocol::Tcp => {
            if let Some(state) = socket.state {
                out.extend_from_slice(state.label().as_bytes());
            }
            out.extend_from_slice(b"\t ");
            let (ip, port) = socket
                .remote
                .map_or((socket.unspecified(), 0), |remote| (remote.ip, remote.port));
            if ip.is_ipv6() {
                out.push(b'[');
                push_ip(out, ip);
                out.push(b']');
            } else {
                push_ip(out, ip);
            }
            out.push(b':');
            push_u64(out, port.into());
        }
        _ => out.extend_from_slice(b"\t\t *:*"),
    }
    out.push(b'\n');
}

/// Appends the line that names a process; none is the owner of ports whose
/// owner was never known.
pub fn heading(out: &mut Vec<u8>, process: Option<&Process>) {
    out.extend_from_slice(b"Process ID: ");
    push_u64(out, process.map_or(0, |process| process.pid).into());
    let name = process.map_or(Some(NOBODY), |process| process.name.as_deref());
    if let Some(name) = name {
        out.extend_from_slice(b" (");
        push_plain(out, &clip(name, MAX_TEXT));
        out.push(b')');
    }
    out.push(b'\n');
}

/// Appends the lines about the service that a process is.
pub fn service(out: &mut Vec<u8>, process: &Process) {
    match &process.service {
        Some(service) => {
            push_line(out, "Service Name: ", Some(&service.name));
            push_line(out, "Display Name: ", service.description.as_deref());
            let kind = service.kind.map(|kind| match kind {
                ServiceKind::Own => "runs in its own process",
                ServiceKind::Shared => "shares a process with other services",
            });
            push_line(out, "Service Type: ", kind);
        }
        None => out.extend_from_slice(b"Process doesn't appear to be a service\n"),
    }
}

fn push_line(out: &mut Vec<u8>, label: &str, text: Option<&str>) {
    push_clipped_line(out, label, text, MAX_TEXT);
}

fn push_clipped_line(out: &mut Vec<u8>, label: &str, text: Option<&str>, limit: usize) {
    if let Some(text) = text {
        out.extend_from_slice(label.as_bytes());
        push_plain(out, &clip(text, limit));
        out.push(b'\n');
    }
}

fn push_statistics(out: &mut Vec<u8>, sockets: &[&Socket]) {
    out.extend_from_slice(b"Port Statistics\n");
    counts(out, sockets);
    states(out, sockets);
}

/// Appends how many ports there are of each protocol.
pub fn counts(out: &mut Vec<u8>, sockets: &[&Socket]) {
    let tcp = count_tcp(sockets);
    out.extend_from_slice(b"TCP mappings: ");
    push_u64(out, tcp as u64);
    out.extend_from_slice(b"\nUDP mappings: ");
    push_u64(out, (sockets.len() - tcp) as u64);
    out.push(b'\n');
}

/// Appends how many ports are in each state, and what share of those of TCP
/// that is.
pub fn states(out: &mut Vec<u8>, sockets: &[&Socket]) {
    let tcp = count_tcp(sockets);
    for state in TcpState::ALL {
        let count = sockets
            .iter()
            .filter(|socket| socket.state == Some(state))
            .count();
        if count > 0 {
            push_count(out, state, count as u64, tcp as u64);
        }
    }
}

fn count_tcp(sockets: &[&Socket]) -> usize {
    sockets
        .iter()
        .filter(|socket| socket.protocol == Protocol::Tcp)
        .count()
}

/// `TCP ports in a SYN SENT state: ` TABs to column 40, `1 = 25.00%`.
fn push_count(out: &mut Vec<u8>, state: TcpState, count: u64, tcp: u64) {
    let label = format!("TCP ports in a {} state: ", state.label());
    out.extend_from_slice(label.as_bytes());
    // Every label ends between columns 29 and 35.
    out.extend_from_slice(if label.len() < 32 { b"\t\t" } else { b"\t" });
    push_u64(out, count);
    out.extend_from_slice(b" = ");
    // Hundredths of a percent, rounded half up. `tcp` is not 0: `count` is not.
    let share = (count * 20_000 + tcp) / (2 * tcp).max(1);
    push_u64(out, share / 100);
    out.push(b'.');
    out.extend_from_slice(&pair(share));
    out.extend_from_slice(b"%\n");
}

/// Appends the modules of a process, or that they cannot be read.
pub fn modules(out: &mut Vec<u8>, modules: Modules<'_>) {
    match modules {
        Modules::Known(modules) => {
            out.extend_from_slice(b"Loaded modules:\n");
            for Module { path, base } in modules {
                push_plain(out, path);
                out.extend_from_slice(format!(" (0x{base:08X})\n").as_bytes());
            }
        }
        Modules::Unavailable(reason) => {
            out.extend_from_slice(b"Could not access module information for this process\n");
            push_line(
                out,
                "Reason: ",
                Some(reason).filter(|reason| !reason.is_empty()),
            );
        }
    }
}

fn sorted<'a>(sockets: &[&'a Socket]) -> Vec<&'a Socket> {
    let mut sockets = sockets.to_vec();
    sockets.sort_unstable_by_key(|socket| socket_order(socket));
    sockets
}

/// Everything of a socket that a row shows, so that equal keys are equal rows.
fn socket_order(socket: &Socket) -> impl Ord + use<> {
    (
        socket.protocol,
        socket.local.ip,
        socket.local.port,
        socket.remote,
        socket.state,
    )
}
