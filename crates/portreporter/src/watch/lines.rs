//! Changes for people: a line each.

use std::fmt::Write as _;

use event::{Action, Endpoint, Process, Protocol, Socket, WallTime, text};
use jiff::tz::TimeZone;
use logs::format::clock::LocalClock;
use logs::format::events::Gap;
use recorder::Change;

use super::watcher::{Head, Printer, Seen, Watched};
use crate::tee::Tee;

/// Stands for what is not known or not there.
const NOTHING: &str = "-";

pub(super) struct Lines {
    clock: LocalClock,
    /// What is watched, in words.
    title: String,
}

impl Lines {
    pub(super) fn new(watched: &Watched) -> Self {
        let join = |words: Vec<String>| words.join(", ");
        let ports = join(watched.ports.iter().map(ToString::to_string).collect());
        let pids = join(watched.pids.iter().map(ToString::to_string).collect());
        let title = match (ports.is_empty(), pids.is_empty()) {
            (true, true) => "every port".to_owned(),
            (false, true) => format!("port {ports}"),
            (true, false) => format!("process {pids}"),
            (false, false) => format!("port {ports} of process {pids}"),
        };
        Self {
            clock: LocalClock::new(TimeZone::system()),
            title,
        }
    }

    #[cfg(test)]
    pub(super) fn utc(watched: &Watched) -> Self {
        let mut lines = Self::new(watched);
        lines.clock.set_zone(TimeZone::UTC);
        lines
    }

    /// `14:03:05.123456`.
    fn time(&mut self, time: WallTime) -> String {
        let mut stamp = Vec::new();
        self.clock.push_rfc3339(&mut stamp, time);
        let stamp = text::from_bytes(&stamp);
        // `2026-11-22T14:03:05.123456+00:00`.
        stamp.get(11..26).unwrap_or(&stamp).to_owned()
    }

    fn line(
        &mut self,
        out: &mut Tee,
        time: WallTime,
        what: &str,
        (socket, owner): (&Socket, Option<&Process>),
        more: &str,
    ) {
        let state = match socket.protocol {
            Protocol::Tcp => socket.state.map_or(NOTHING, event::TcpState::name),
            _ => NOTHING,
        };
        let line = format!(
            "{}  {what:11}  {:5}  {:21}  {:21}  {state:12}  {}{more}",
            self.time(time),
            socket.protocol.label(),
            end(Some(socket.local)),
            end(socket.remote),
            name(owner),
        );
        out.line(line.trim_end());
    }
}

impl Printer for Lines {
    fn begin(&mut self, out: &mut Tee, now: WallTime, head: &Head, seen: &[Seen<'_>]) {
        let title = format!("Watching {} (engine {})", self.title, head.engine);
        out.line(&title);
        out.blank();
        let heading = format!(
            "{:15}  {:11}  {:5}  {:21}  {:21}  {:12}  PID PROCESS (USER)",
            "TIME", "EVENT", "PROTO", "LOCAL", "REMOTE", "STATE"
        );
        out.line(&heading);
        for seen in seen {
            let socket = (seen.socket, seen.owner.process);
            self.line(out, now, "in use", socket, "");
        }
    }

    fn change(&mut self, out: &mut Tee, change: &Change<'_>) {
        let socket = (change.socket, change.owner.process);
        let more = more(change);
        self.line(out, change.time, change.action.name(), socket, &more);
    }

    fn gap(&mut self, out: &mut Tee, now: WallTime, gap: &Gap<'_>) {
        let lost = match gap.lost {
            Some(lost) => lost.to_string(),
            None => "an unknown number of".to_owned(),
        };
        let (from, to) = (self.time(gap.from), self.time(gap.to));
        let now = self.time(now);
        let reason = gap.reason;
        out.line(&format!(
            "{now}  gap          {lost} events of any port were lost between {from} and {to}: {reason}"
        ));
    }

    fn end(&mut self, out: &mut Tee, now: WallTime, how: &str) {
        let line = format!("{}  end          {how}", self.time(now));
        out.line(&line);
    }
}

fn end(end: Option<Endpoint>) -> String {
    match end {
        None => NOTHING.to_owned(),
        Some(Endpoint { ip, port: 0 }) => format!("{ip}:?"),
        Some(end) => end.to_string(),
    }
}

fn name(owner: Option<&Process>) -> String {
    let Some(owner) = owner else {
        return "(no known owner)".to_owned();
    };
    let mut name = owner.pid.to_string();
    if let Some(image) = &owner.name {
        // Writing to a string cannot fail.
        let _ = write!(name, " {image}");
    }
    if let Some(user) = &owner.user {
        let _ = write!(name, " ({user})");
    }
    name
}

/// What the columns do not tell.
fn more(change: &Change<'_>) -> String {
    let mut parts = Vec::new();
    match change.action {
        Action::Established {
            connect_us: Some(us),
        } => parts.push(format!("in {}", duration(us))),
        Action::State { old } => parts.push(format!("was {}", old.name())),
        Action::Close {
            reason,
            bytes_sent,
            bytes_received,
            duration_us,
        } => {
            parts.push(reason.name().to_owned());
            if let Some(error) = change.error {
                parts.push(error.to_owned());
            }
            if let (Some(sent), Some(received)) = (bytes_sent, bytes_received) {
                parts.push(format!("{sent} bytes sent, {received} received"));
            }
            if let Some(us) = duration_us {
                parts.push(format!("after {}", duration(us)));
            }
        }
        _ => {}
    }
    if parts.is_empty() {
        return String::new();
    }
    format!("  {}", parts.join(", "))
}

/// `250 us`, `3.120 ms`, `12.003 s`.
fn duration(us: u64) -> String {
    let parts = |unit: u64| (us / unit, us % unit * 1000 / unit);
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => {
            let (whole, part) = parts(1000);
            format!("{whole}.{part:03} ms")
        }
        _ => {
            let (whole, part) = parts(1_000_000);
            format!("{whole}.{part:03} s")
        }
    }
}

#[cfg(test)]
mod tests {
    use event::{Attribution, CloseReason, TcpState};
    use logs::format::events::OwnerText;
    use logs::format::listing::Modules;
    use recorder::Owner;

    use super::*;
    use crate::list::PortRange;
    use crate::tee::Memory;

    /// 2026-11-22T14:03:05.000001 UTC.
    const THEN: WallTime = WallTime(1_795_356_185_000_001);

    fn connection() -> Socket {
        let end = |text: &str| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            Endpoint::new(address.ip(), address.port())
        };
        Socket {
            cookie: None,
            netns: None,
            protocol: Protocol::Tcp,
            local: end("127.0.0.1:40000"),
            remote: Some(end("[2001:db8::1]:443")),
            state: Some(TcpState::Closed),
        }
    }

    #[test]
    fn a_line_for_each_change() {
        let process = Process {
            pid: 812,
            name: Some("curl\n".to_owned()),
            user: Some("alice".to_owned()),
            ..Process::default()
        };
        let text = OwnerText::unknown();
        let owner = Owner {
            process: Some(&process),
            modules: Modules::Unavailable(""),
            text: &text,
        };
        let nobody = Owner {
            process: None,
            ..owner
        };
        let socket = connection();
        let change = Change {
            time: THEN,
            action: Action::Close {
                reason: CloseReason::Reset,
                bytes_sent: Some(5),
                bytes_received: Some(0),
                duration_us: Some(1_234_567),
            },
            socket: &socket,
            attribution: Attribution::Creator,
            owner,
            error: Some("ECONNRESET"),
        };
        let watched = Watched {
            ports: vec![PortRange::one(443), PortRange::parse("8000-8099").unwrap()],
            pids: vec![812],
            local_only: false,
        };
        let memory = Memory::default();
        let mut out = Tee::into_memory(&memory);
        let mut lines = Lines::utc(&watched);
        let head = Head {
            engine: "ebpf",
            ..Head::default()
        };
        lines.begin(&mut out, THEN, &head, &[]);
        lines.change(&mut out, &change);
        let change = Change {
            action: Action::Established {
                connect_us: Some(91),
            },
            owner: nobody,
            error: None,
            ..change
        };
        lines.change(&mut out, &change);
        let gap = Gap {
            lost: Some(7),
            from: THEN,
            to: THEN,
            reason: "ring buffer full",
        };
        lines.gap(&mut out, THEN, &gap);
        lines.end(&mut out, THEN, "Ctrl-C pressed");
        assert_eq!(
            memory.text(),
            "\
Watching port 443, 8000-8099 of process 812 (engine ebpf)

TIME             EVENT        PROTO  LOCAL                  REMOTE                 STATE         PID PROCESS (USER)
14:03:05.000001  close        TCP    127.0.0.1:40000        [2001:db8::1]:443      CLOSED        812 curl\\n (alice)  reset, ECONNRESET, 5 bytes sent, 0 received, after 1.234 s
14:03:05.000001  established  TCP    127.0.0.1:40000        [2001:db8::1]:443      CLOSED        (no known owner)  in 91 us
14:03:05.000001  gap          7 events of any port were lost between 14:03:05.000001 and 14:03:05.000001: ring buffer full
14:03:05.000001  end          Ctrl-C pressed
"
        );
    }

    #[test]
    fn a_duration_in_its_unit() {
        for (us, shown) in [
            (0, "0 us"),
            (999, "999 us"),
            (1000, "1.000 ms"),
            (999_999, "999.999 ms"),
            (61_000_001, "61.000 s"),
        ] {
            assert_eq!(duration(us), shown);
        }
    }
}
