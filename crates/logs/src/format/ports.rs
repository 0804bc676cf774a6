//! PR-PORTS: one CSV row for each port that comes into use.
//!
//! ```text
//! date,time,protocol,local port,local IP address,remote port,remote IP address,PID,module,user context
//! 04/1/24,8:52:21,TCP,3389,0.0.0.0,,0.0.0.0,1096,svchost.exe,<NT AUTHORITY\SYSTEM>
//! 04/1/24,8:52:22,UDP,55441,169.254.66.8,*,*,3764,msmsgs.exe,<MYDOMAIN\user>
//! 04/1/24,22:04:9,TCP,2690,169.254.66.8,389,169.254.133.55,0,System Idle,
//! ```
//!
//! This is the original's layout (that of its version 1.01, in which a listener
//! has an empty remote port). The user stands in `<` `>` and is empty when it
//! is not known. A field that holds a comma, a quote or a control character is
//! quoted by RFC 4180, and its control characters are escaped: a row is always
//! one line and ten fields. The original never quoted; names that need it did
//! not occur to it.
//!
//! Where rows are missing a line says so ([`gap`], [`missing`]):
//!
//! ```text
//! Not recorded: 17 events from 26/11/22 9:05:5 to 26/11/22 9:05:7 (see the gap in PR-EVENTS)
//! ```
//!
//! It has no comma, as the lines of the header, so that a reader of rows passes
//! over it.
//!
//! Where a machine does not let us name any process the rows end after seven
//! fields ([`row_without_process`]), as the original's did on Windows 2000.

use event::{Protocol, Socket, WallTime};

use super::CLASSIC_VERSION;
use super::clock::LocalClock;
use super::decimal::{push_count, push_ip, push_u64};
use super::events::Gap;
use super::owner::{OwnerText, UNKNOWN_IN_PORTS};

/// Appends what stands above the rows. `stamp` is that of the set.
pub fn header(out: &mut Vec<u8>, stamp: &str) {
    out.extend_from_slice(
        format!(
            "Port Reporter Version {CLASSIC_VERSION} Log File - Port usage log\n\
             \n\
             Check PR-PIDS-{stamp}.log for corresponding process data\n\
             \n\
             Log format:\n\
             date,time,protocol,local port,local IP address,remote port,remote IP address,PID,module,user context\n\
             \n"
        )
        .as_bytes(),
    );
}

/// Appends a row; without an owner it is `0,System Idle`.
pub fn row(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    t: WallTime,
    socket: &Socket,
    owner: Option<&OwnerText>,
) {
    push_socket(out, clock, t, socket);
    out.push(b',');
    out.extend_from_slice(owner.map_or(UNKNOWN_IN_PORTS, OwnerText::ports));
    out.push(b'\n');
}

/// Appends a row of seven fields, for a machine on which no process can be named.
pub fn row_without_process(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    t: WallTime,
    socket: &Socket,
) {
    push_socket(out, clock, t, socket);
    out.push(b'\n');
}

/// Appends a line that says what a `gap` in PR-EVENTS says.
pub fn gap(out: &mut Vec<u8>, clock: &mut LocalClock, gap: &Gap<'_>) {
    gap_begin(out, clock, gap.lost, gap.from);
    gap_end(out, clock, gap.to);
}

/// The first half of that line; the second one may be in another local time.
pub(crate) fn gap_begin(
    out: &mut Vec<u8>,
    clock: &mut LocalClock,
    lost: Option<u64>,
    from: WallTime,
) {
    out.extend_from_slice(b"Not recorded: ");
    match lost {
        Some(lost) => push_count(out, lost, ["event", "events"]),
        None => out.extend_from_slice(b"an unknown number of events"),
    }
    out.extend_from_slice(b" from ");
    push_moment(out, clock, from);
}

/// The second half.
pub(crate) fn gap_end(out: &mut Vec<u8>, clock: &mut LocalClock, to: WallTime) {
    out.extend_from_slice(b" to ");
    push_moment(out, clock, to);
    out.extend_from_slice(b" (see the gap in PR-EVENTS)\n");
}

/// Appends a line that says that rows are missing here, and only here.
pub fn missing(out: &mut Vec<u8>, rows: u64) {
    out.extend_from_slice(b"Not recorded: ");
    push_count(out, rows, ["row", "rows"]);
    out.extend_from_slice(b" (see PR-EVENTS)\n");
}

/// Date and time as in a row, but without the comma.
fn push_moment(out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime) {
    let start = out.len();
    clock.push_ports_stamp(out, t);
    for byte in &mut out[start..] {
        if *byte == b',' {
            *byte = b' ';
        }
    }
}

/// The first seven fields.
fn push_socket(out: &mut Vec<u8>, clock: &mut LocalClock, t: WallTime, socket: &Socket) {
    clock.push_ports_stamp(out, t);
    out.push(b',');
    out.extend_from_slice(socket.protocol.label().as_bytes());
    out.push(b',');
    push_u64(out, socket.local.port.into());
    out.push(b',');
    push_ip(out, socket.local.ip);
    out.push(b',');
    match (socket.protocol, socket.remote) {
        (Protocol::Tcp, Some(remote)) => {
            push_u64(out, remote.port.into());
            out.push(b',');
            push_ip(out, remote.ip);
        }
        (Protocol::Tcp, None) => {
            out.push(b',');
            push_ip(out, socket.unspecified());
        }
        _ => out.extend_from_slice(b"*,*"),
    }
}

#[cfg(test)]
mod tests {
    use event::{Endpoint, Process, TcpState};
    use jiff::tz::TimeZone;

    use super::*;

    const T: WallTime = WallTime(1_074_934_341_000_000); // 2004-01-24T08:52:21Z

    fn socket(protocol: Protocol, local: &str, remote: Option<&str>) -> Socket {
        let endpoint = |text: &str| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            Endpoint::new(address.ip(), address.port())
        };
        Socket {
            cookie: None,
            netns: None,
            protocol,
            local: endpoint(local),
            remote: remote.map(endpoint),
            state: match (protocol, remote) {
                (Protocol::Tcp, None) => Some(TcpState::Listening),
                (Protocol::Tcp, Some(_)) => Some(TcpState::Established),
                _ => None,
            },
        }
    }

    fn row_of(socket: &Socket, process: Option<&Process>) -> String {
        let mut clock = LocalClock::new(TimeZone::UTC);
        let owner = process.map(|process| OwnerText::new(process, None, &mut clock));
        let mut out = Vec::new();
        row(&mut out, &mut clock, T, socket, owner.as_ref());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_as_the_original_wrote_them() {
        let process = Process {
            pid: 1096,
            name: Some("svchost.exe".into()),
            user: Some("NT AUTHORITY\\SYSTEM".into()),
            ..Process::default()
        };
        assert_eq!(
            row_of(&socket(Protocol::Tcp, "0.0.0.0:3389", None), Some(&process)),
            "04/1/24,8:52:21,TCP,3389,0.0.0.0,,0.0.0.0,1096,svchost.exe,<NT AUTHORITY\\SYSTEM>\n"
        );
        assert_eq!(
            row_of(
                &socket(Protocol::Udp, "127.0.0.1:2692", None),
                Some(&process)
            ),
            "04/1/24,8:52:21,UDP,2692,127.0.0.1,*,*,1096,svchost.exe,<NT AUTHORITY\\SYSTEM>\n"
        );
        assert_eq!(
            row_of(
                &socket(
                    Protocol::Tcp,
                    "169.254.66.8:2690",
                    Some("169.254.133.55:389")
                ),
                None
            ),
            "04/1/24,8:52:21,TCP,2690,169.254.66.8,389,169.254.133.55,0,System Idle,\n"
        );
    }

    #[test]
    fn an_ipv6_listener_and_no_user() {
        let process = Process {
            pid: 4,
            name: Some("System".into()),
            ..Process::default()
        };
        assert_eq!(
            row_of(&socket(Protocol::Tcp, "[::]:445", None), Some(&process)),
            "04/1/24,8:52:21,TCP,445,::,,::,4,System,\n"
        );
    }

    #[test]
    fn nobody_known_is_one_text() {
        let listener = socket(Protocol::Tcp, "[::1]:80", None);
        let mut clock = LocalClock::new(TimeZone::UTC);
        let mut out = Vec::new();
        row(
            &mut out,
            &mut clock,
            T,
            &listener,
            Some(&OwnerText::unknown()),
        );
        assert_eq!(String::from_utf8(out).unwrap(), row_of(&listener, None));
    }

    #[test]
    fn seven_fields_where_no_process_can_be_named() {
        let mut clock = LocalClock::new(TimeZone::UTC);
        let mut out = Vec::new();
        let udp = socket(Protocol::Udp, "127.0.0.1:53", None);
        row_without_process(&mut out, &mut clock, T, &udp);
        assert_eq!(out, b"04/1/24,8:52:21,UDP,53,127.0.0.1,*,*\n");
    }
}
