//! JSON Lines: an object for each socket, with the names that PR-EVENTS uses,
//! and `holders`, all processes that hold it.
//!
//! Characters that a terminal may act on are written as `\u` escapes, which
//! every reader of JSON takes for the same text.

use std::io::{self, Write};
use std::net::IpAddr;

use event::{Attribution, Process, TcpState, text};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::Row;
use super::people::People;

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    socket: Option<String>,
    netns: Option<u32>,
    protocol: &'static str,
    family: &'static str,
    local_ip: IpAddr,
    local_port: u16,
    remote_ip: Option<IpAddr>,
    remote_port: Option<u16>,
    state: Option<&'static str>,
    owner: &'static str,
    pid: Option<u32>,
    ppid: Option<u32>,
    start_time: Option<String>,
    process: Option<&'a str>,
    exe: Option<&'a str>,
    cmdline: Option<&'a str>,
    uid: Option<u32>,
    user: Option<&'a str>,
    service: Option<&'a str>,
    container: Option<&'a str>,
    holders: &'a [u32],
}

/// Prints the rows.
pub(super) fn write(out: &mut impl Write, rows: &[Row], people: &People) -> io::Result<()> {
    let boot = Boot::now();
    for row in rows {
        let person = row.owner.and_then(|pid| people.get(pid));
        let process = person.and_then(|person| person.process.as_deref());
        let line = line(row, process, &boot);
        line.serialize(&mut Serializer::with_formatter(&mut *out, Safe))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// An object as text that is safe for a terminal.
pub(crate) fn to_vec(line: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    line.serialize(&mut Serializer::with_formatter(&mut text, Safe))?;
    Ok(text)
}

fn line<'a>(row: &Row<'a>, process: Option<&'a Process>, boot: &Boot) -> Line<'a> {
    let socket = &row.found.socket;
    let attribution = match row.owner {
        Some(_) => Attribution::Snapshot,
        None => Attribution::Unknown,
    };
    Line {
        socket: socket.cookie.map(|cookie| cookie.to_string()),
        netns: socket.netns,
        protocol: socket.protocol.name(),
        family: socket.family().name(),
        local_ip: socket.local.ip,
        local_port: socket.local.port,
        remote_ip: socket.remote.map(|remote| remote.ip),
        remote_port: socket.remote.map(|remote| remote.port),
        state: socket.state.map(TcpState::name),
        owner: attribution.name(),
        pid: row.owner,
        ppid: process.and_then(|process| process.ppid),
        start_time: process.and_then(|process| boot.wall_time(process)),
        process: process.and_then(|process| process.name.as_deref()),
        exe: process.and_then(|process| process.exe.as_deref()),
        cmdline: process.and_then(|process| process.cmdline.as_deref()),
        uid: process.and_then(|process| process.uid),
        user: process.and_then(|process| process.user.as_deref()),
        service: process.and_then(|process| Some(process.service.as_ref()?.name.as_str())),
        container: process.and_then(|process| process.container.as_deref()),
        holders: &row.found.holders,
    }
}

/// When the machine was started, by today's wall clock.
pub(super) struct Boot {
    at: Zoned,
}

impl Boot {
    /// Asks both clocks.
    pub(super) fn now() -> Self {
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanoseconds = i32::try_from(since.tv_nsec).unwrap_or(0);
        let now = Zoned::now();
        let at = now
            .checked_sub(SignedDuration::new(since.tv_sec, nanoseconds))
            .unwrap_or_else(|_| Timestamp::UNIX_EPOCH.to_zoned(now.time_zone().clone()));
        Self { at }
    }

    /// When the process started: RFC 3339, local offset, microseconds.
    pub(super) fn wall_time(&self, process: &Process) -> Option<String> {
        let since = i64::try_from(process.start?.0).ok()?;
        let start = self
            .at
            .checked_add(SignedDuration::from_nanos(since))
            .ok()?;
        Some(start.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string())
    }
}

/// Escapes what a terminal may act on, beyond what JSON demands.
struct Safe;

impl Formatter for Safe {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let mut plain = CompactFormatter;
        let escaped = text::escape(fragment);
        if escaped == fragment {
            return plain.write_string_fragment(writer, fragment);
        }
        for c in fragment.chars() {
            let mut buffer = [0; 4];
            let one: &str = c.encode_utf8(&mut buffer);
            if text::escape(one) == one {
                plain.write_string_fragment(writer, one)?;
            } else {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use event::BootTime;
    use proptest::prelude::*;

    use super::super::tests::{connection, datagram};
    use super::*;

    fn shown(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.serialize(&mut Serializer::with_formatter(&mut out, Safe))
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_fields_of_the_events() {
        let process = Process {
            pid: 7,
            ppid: Some(1),
            name: Some("ng\"inx".to_owned()),
            uid: Some(33),
            ..Process::default()
        };
        let found = connection(
            "[::ffff:10.0.0.1]:80",
            "10.0.0.2:999",
            TcpState::TimeWait,
            &[7, 8],
        );
        let boot = Boot::now();
        assert_eq!(
            shown(&line(&Row::new(&found), Some(&process), &boot)),
            "{\"socket\":\"1f\",\"netns\":4026531833,\"protocol\":\"tcp\",\"family\":\"ipv4\",\
             \"local_ip\":\"10.0.0.1\",\"local_port\":80,\"remote_ip\":\"10.0.0.2\",\
             \"remote_port\":999,\"state\":\"TIME_WAIT\",\"owner\":\"snapshot\",\"pid\":7,\
             \"ppid\":1,\"start_time\":null,\"process\":\"ng\\\"inx\",\"exe\":null,\
             \"cmdline\":null,\"uid\":33,\"user\":null,\"service\":null,\"container\":null,\
             \"holders\":[7,8]}"
        );
    }

    #[test]
    fn a_start_is_a_moment_before_now() {
        let boot = Boot::now();
        let process = Process {
            start: Some(BootTime(0)),
            ..Process::default()
        };
        let text = boot.wall_time(&process).unwrap();
        assert_eq!(text.len(), "2026-11-22T03:12:05.123456+01:00".len());
        let start: Timestamp = text.parse().unwrap();
        assert!(start < Timestamp::now());
    }

    proptest! {
        #[test]
        fn any_name_is_read_back_as_it_was(name: String) {
            let process = Process { name: Some(name.clone()), ..Process::default() };
            let found = datagram("0.0.0.0:1", None, &[1]);
            let text = shown(&line(&Row::new(&found), Some(&process), &Boot::now()));
            prop_assert_eq!(&*text::escape(&text), text.as_str());
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["process"].as_str(), Some(name.as_str()));
        }
    }
}
