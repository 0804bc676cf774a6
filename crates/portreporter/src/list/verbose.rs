//! The long form: a block for each process, with who it is, its ports, how
//! many there are in which state, and the modules that it has loaded. Sockets
//! of which no owner is known come last, then the sum of all.
//!
//! The order of a block is that of the original tool's verbose listing.

use std::collections::BTreeMap;
use std::io::{self, Write};

use event::{BootTime, Module, Process, ProcessKey, Protocol, TcpState, text};

use super::Row;
use super::json::Boot;
use super::people::People;

/// Prints the rows.
pub(super) fn write(out: &mut impl Write, rows: &[Row], people: &mut People) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let boot = Boot::now();
    let mut by_owner: BTreeMap<Option<u32>, Vec<&Row<'_>>> = BTreeMap::new();
    for row in rows {
        by_owner.entry(row.owner).or_default().push(row);
    }
    let nobodys = by_owner.remove(&None);
    let processes = by_owner.len();
    for (owner, rows) in by_owner {
        let Some(pid) = owner else { continue };
        let process = people.get(pid).and_then(|person| person.process.clone());
        write_process(out, pid, process.as_deref(), &boot)?;
        write_ports(out, &rows)?;
        let key = ProcessKey {
            pid,
            start: process
                .and_then(|process| process.start)
                .unwrap_or_default(),
        };
        match people.identifier().modules(key) {
            Ok(modules) => write_modules(out, &modules)?,
            Err(error) => writeln!(out, "  Modules: {}", text::escape(&error.to_string()))?,
        }
        writeln!(out)?;
    }
    if let Some(rows) = nobodys {
        writeln!(out, "No known owner")?;
        write_ports(out, &rows)?;
        writeln!(out)?;
    }
    writeln!(out, "{} sockets, {processes} processes", rows.len())?;
    write_statistics(out, rows.iter())
}

fn write_process(
    out: &mut impl Write,
    pid: u32,
    process: Option<&Process>,
    boot: &Boot,
) -> io::Result<()> {
    let Some(process) = process else {
        return writeln!(out, "Process {pid} (has ended)");
    };
    match &process.name {
        Some(name) => writeln!(out, "Process {pid} ({})", text::escape(name))?,
        None => writeln!(out, "Process {pid}")?,
    }
    let mut field = |title: &str, value: Option<&str>| match value {
        Some(value) => writeln!(out, "  {title}: {}", text::escape(value)),
        None => Ok(()),
    };
    field("Path", process.exe.as_deref())?;
    field("Command", process.cmdline.as_deref())?;
    let number = process.uid.map(|uid| uid.to_string());
    let user = match (&process.user, number) {
        (Some(user), Some(number)) => Some(format!("{user} ({number})")),
        (Some(user), None) => Some(user.clone()),
        (None, number) => number,
    };
    field("User", user.as_deref())?;
    let unit = process
        .service
        .as_ref()
        .map(|unit| match &unit.description {
            Some(description) => format!("{}, {description}", unit.name),
            None => unit.name.clone(),
        });
    field("Unit", unit.as_deref())?;
    field("Container", process.container.as_deref())?;
    let started = process.start.filter(|&start| start != BootTime(0));
    field(
        "Started",
        started.and_then(|_| boot.wall_time(process)).as_deref(),
    )?;
    field(
        "Parent",
        process.ppid.map(|ppid| ppid.to_string()).as_deref(),
    )
}

fn write_ports(out: &mut impl Write, rows: &[&Row]) -> io::Result<()> {
    let local: Vec<String> = rows
        .iter()
        .map(|row| row.found.socket.local.to_string())
        .collect();
    let width = local.iter().map(String::len).max().unwrap_or(0);
    writeln!(out, "  Ports:")?;
    for (row, local) in rows.iter().zip(local) {
        let socket = &row.found.socket;
        let state = socket.state.map_or("", TcpState::name);
        let remote = socket.remote.map(|remote| remote.to_string());
        let mut line = format!(
            "    {}  {local:width$}  {state:12}  {}",
            socket.protocol.label(),
            remote.unwrap_or_default()
        );
        let others: Vec<String> = row
            .found
            .holders
            .iter()
            .filter(|&&pid| Some(pid) != row.owner)
            .map(ToString::to_string)
            .collect();
        if !others.is_empty() {
            line.push_str("  also held by ");
            line.push_str(&others.join(", "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    write_statistics(out, rows.iter().copied())
}

fn write_statistics<'a>(
    out: &mut impl Write,
    rows: impl Iterator<Item = &'a Row<'a>>,
) -> io::Result<()> {
    let mut counts = [0_u32; TcpState::ALL.len()];
    let (mut tcp, mut udp) = (0_u32, 0_u32);
    for row in rows {
        let socket = &row.found.socket;
        match socket.protocol {
            Protocol::Tcp => tcp += 1,
            Protocol::Udp => udp += 1,
            // Not listed.
            _ => {}
        }
        let states = counts.iter_mut().zip(TcpState::ALL);
        for (count, _) in states.filter(|&(_, state)| socket.state == Some(state)) {
            *count += 1;
        }
    }
    writeln!(out, "  Statistics: {tcp} TCP, {udp} UDP")?;
    for (count, state) in counts.into_iter().zip(TcpState::ALL) {
        if count > 0 {
            let share = f64::from(count) * 100.0 / f64::from(tcp);
            writeln!(out, "    {:12}  {count} = {share:.2}%", state.name())?;
        }
    }
    Ok(())
}

fn write_modules(out: &mut impl Write, modules: &[Module]) -> io::Result<()> {
    writeln!(out, "  Modules: {}", modules.len())?;
    for module in modules {
        writeln!(
            out,
            "    {:#018x}  {}",
            module.base,
            text::escape(&module.path)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{connection, datagram, listener};
    use super::*;

    #[test]
    fn a_block_for_each_owner_and_the_sum() {
        let own = std::process::id();
        let sockets = [
            listener("0.0.0.0:22", &[own, u32::MAX]),
            connection("10.0.0.1:22", "10.0.0.2:9", TcpState::TimeWait, &[]),
            datagram("[::]:53", None, &[u32::MAX - 1]),
        ];
        let rows = sockets.each_ref().map(Row::new);
        let mut people = People::new(true);
        people.meet([own, u32::MAX - 1].into_iter());
        let mut out = Vec::new();
        write(&mut out, &rows, &mut people).unwrap();
        let out = String::from_utf8(out).unwrap();
        let name = people.get(own).unwrap().name.clone().unwrap();
        assert!(
            out.starts_with(&format!("Process {own} ({name})\n  Path: /")),
            "{out}"
        );
        assert!(out.contains("\n    TCP  0.0.0.0:22  LISTENING       also held by 4294967295\n  Statistics: 1 TCP, 0 UDP\n    LISTENING     1 = 100.00%\n  Modules: "), "{out}");
        assert!(
            out.contains("\nProcess 4294967294 (has ended)\n  Ports:\n    UDP  [::]:53\n"),
            "{out}"
        );
        assert!(
            out.contains(
                "\nNo known owner\n  Ports:\n    TCP  10.0.0.1:22  TIME_WAIT     10.0.0.2:9\n"
            ),
            "{out}"
        );
        assert!(out.ends_with("\n3 sockets, 2 processes\n  Statistics: 2 TCP, 1 UDP\n    LISTENING     1 = 50.00%\n    TIME_WAIT     1 = 50.00%\n"), "{out}");
    }
}
