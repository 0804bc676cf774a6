//! The table: a line for each socket.
//!
//! On a terminal the columns share its width: names are cut where there is not
//! room for all, and the cut is marked. Anywhere else nothing is cut, so that
//! what a program reads does not depend on a window. Columns are as wide as
//! their content can be; a container column is there only if there are
//! containers.
//!
//! Every name was made by somebody else: control characters are escaped before
//! they are measured.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;

use event::{Endpoint, TcpState, text};

use super::people::{Person, Register};
use super::{ROWS_PER_THREAD, Row};

/// Stands for what is not known or not there.
const NOTHING: &str = "-";
/// Marks a text that was cut.
const CUT: char = '\u{2026}';
/// Blanks between columns.
const GAP: usize = 2;
/// More threads than this only wait for each other.
const THREADS: usize = 4;
/// So many rows are made before they are written. The next ones find the
/// buffer in the cache, where one for all would be new memory.
const ROWS_AT_ONCE: usize = 500;

/// The columns, and how far each may be cut.
const COLUMNS: [(&str, usize); 9] = [
    ("PROTO", 5),
    ("LOCAL", 13),
    ("REMOTE", 13),
    ("STATE", 9),
    ("PID", 7),
    ("PROCESS", 7),
    ("USER", 4),
    ("UNIT", 7),
    ("CONTAINER", 9),
];
const CONTAINER: usize = 8;
/// From this column on there are names, which are cut before all else.
const NAMES: usize = 5;
/// `255.255.255.255:65535`.
const IPV4_WIDTH: usize = 21;
/// `SYN_RECEIVED`.
const STATE_WIDTH: usize = 12;

/// The width of the terminal; none if standard output is not one.
pub(super) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !rustix::termios::isatty(&stdout) {
        return None;
    }
    let asked = std::env::var("COLUMNS").ok();
    asked
        .and_then(|columns| columns.parse().ok())
        .filter(|&columns| columns > 0)
        .or_else(|| {
            let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
            Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
        })
        .or(Some(80))
}

/// Prints the rows; to a terminal `width` columns wide, if it is one.
pub(super) fn write(
    out: &mut impl Write,
    rows: &[Row<'_>],
    people: &Register,
    width: Option<usize>,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let labels: HashMap<u32, Labels> = people
        .iter()
        .map(|(pid, person)| (pid, Labels::new(person)))
        .collect();
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS)
        .min(rows.len() / ROWS_PER_THREAD + 1);
    // A terminal's columns are dear, and nobody reads that fast.
    let widths = match width {
        Some(_) => measure(rows, &labels),
        None => estimate(rows, &labels),
    };
    let any_container = labels.values().any(|labels| labels.container.is_some());
    let shown = if any_container {
        COLUMNS.len()
    } else {
        CONTAINER
    };
    let mut widths = widths.get(..shown).unwrap_or_default().to_vec();
    if let Some(width) = width {
        fit(&mut widths, width);
    }

    let mut heading = String::new();
    push_line(
        &mut heading,
        COLUMNS.map(|(title, _)| Cell::new(title)),
        &widths,
    );
    out.write_all(heading.as_bytes())?;

    // The first part is written as it is made, and meanwhile the others are made.
    let (own, others) = rows.split_at(rows.len().div_ceil(threads));
    std::thread::scope(|scope| {
        let (labels, widths) = (&labels, widths.as_slice());
        let others: Vec<_> = others
            .chunks(own.len())
            .map(|rows| {
                scope.spawn(move || {
                    let mut lines = String::new();
                    push_lines(&mut lines, rows, labels, widths);
                    lines
                })
            })
            .collect();
        let mut lines = String::new();
        for rows in own.chunks(ROWS_AT_ONCE) {
            lines.clear();
            push_lines(&mut lines, rows, labels, widths);
            out.write_all(lines.as_bytes())?;
        }
        for other in others {
            match other.join() {
                Ok(lines) => out.write_all(lines.as_bytes())?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

/// A text that is safe to print, and how many characters it has.
#[derive(Clone, Copy)]
struct Cell<'a> {
    text: &'a str,
    width: usize,
}

impl<'a> Cell<'a> {
    fn new(text: &'a str) -> Self {
        let width = if text.is_ascii() {
            text.len()
        } else {
            text.chars().count()
        };
        Self { text, width }
    }
}

/// How a process is shown in all its rows.
#[derive(Default)]
struct Labels {
    process: Option<String>,
    user: Option<String>,
    unit: Option<String>,
    container: Option<String>,
}

impl Labels {
    fn new(person: &Person) -> Self {
        let safe = |name: Option<&str>| {
            name.filter(|name| !name.is_empty())
                .map(|name| text::escape(name).into_owned())
        };
        Self {
            process: safe(person.name.as_deref()),
            // A user without a name is still known by the number.
            user: safe(person.user.as_deref()).or(person.uid.map(|uid| uid.to_string())),
            unit: safe(person.unit.as_deref()),
            container: safe(person.container.as_deref()),
        }
    }
}

/// The cells of a row; `text` holds what has to be made for it.
fn cells<'a>(
    row: &Row<'_>,
    labels: &'a HashMap<u32, Labels>,
    text: &'a mut Vec<u8>,
) -> [Cell<'a>; COLUMNS.len()] {
    let socket = &row.found.socket;
    text.clear();
    push_endpoint(text, Some(socket.local));
    let local = text.len();
    push_endpoint(text, socket.remote);
    let remote = text.len();
    match row.owner {
        Some(pid) => push_pid(text, pid, row.others),
        None => text.extend_from_slice(NOTHING.as_bytes()),
    }
    let text = str::from_utf8(text).unwrap_or_default();
    let made = |from, to| Cell::new(text.get(from..to).unwrap_or_default());
    let labels = row.owner.and_then(|pid| labels.get(&pid));
    let label = |label: fn(&Labels) -> &Option<String>| {
        let label = labels.and_then(|labels| label(labels).as_deref());
        Cell::new(label.unwrap_or(NOTHING))
    };
    [
        Cell::new(socket.protocol.name()),
        made(0, local),
        made(local, remote),
        Cell::new(socket.state.map_or(NOTHING, TcpState::name)),
        made(remote, text.len()),
        label(|labels| &labels.process),
        label(|labels| &labels.user),
        label(|labels| &labels.unit),
        label(|labels| &labels.container),
    ]
}

/// The widest cell of each column.
fn measure(rows: &[Row<'_>], labels: &HashMap<u32, Labels>) -> [usize; COLUMNS.len()] {
    let mut widths = COLUMNS.map(|(title, _)| title.len());
    let mut text = Vec::new();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(cells(row, labels, &mut text)) {
            *width = cell.width.max(*width);
        }
    }
    widths
}

/// The width that each column needs at most, found without making the cells: what has a greatest
/// width is given that, and only addresses of IPv6 are tried.
fn estimate(rows: &[Row<'_>], labels: &HashMap<u32, Labels>) -> [usize; COLUMNS.len()] {
    let mut address = IPV4_WIDTH;
    let mut pid = 0;
    // Of those that hold a socket alone the highest number is the longest.
    let mut highest = 0;
    let mut text = Vec::new();
    for row in rows {
        if row.is_ipv6() {
            let socket = &row.found.socket;
            for endpoint in [Some(socket.local), socket.remote] {
                text.clear();
                push_endpoint(&mut text, endpoint);
                address = text.len().max(address);
            }
        }
        match row.owner {
            Some(owner) if row.others == 0 => highest = owner.max(highest),
            Some(owner) => {
                text.clear();
                push_pid(&mut text, owner, row.others);
                pid = text.len().max(pid);
            }
            None => {}
        }
    }
    text.clear();
    push_number(&mut text, highest);
    pid = text.len().max(pid);
    let label = |label: fn(&Labels) -> &Option<String>| {
        let widths = labels
            .values()
            .filter_map(|labels| label(labels).as_deref());
        widths.map(|text| Cell::new(text).width).max().unwrap_or(0)
    };
    let mut widths = [
        0,
        address,
        address,
        STATE_WIDTH,
        pid,
        label(|labels| &labels.process),
        label(|labels| &labels.user),
        label(|labels| &labels.unit),
        label(|labels| &labels.container),
    ];
    for (width, (title, _)) in widths.iter_mut().zip(COLUMNS) {
        *width = title.len().max(*width);
    }
    widths
}

/// Writes the rows as lines of columns of these widths.
fn push_lines(
    lines: &mut String,
    rows: &[Row<'_>],
    labels: &HashMap<u32, Labels>,
    widths: &[usize],
) {
    let room = widths.iter().sum::<usize>() + GAP * widths.len() + 1;
    lines.reserve(room * rows.len());
    let mut text = Vec::new();
    for row in rows {
        push_line(lines, cells(row, labels, &mut text), widths);
    }
}

/// Writes a line; cells without a width are left out.
fn push_line(lines: &mut String, cells: [Cell<'_>; COLUMNS.len()], widths: &[usize]) {
    // What is still to be filled before the next cell.
    let mut owing = 0;
    for (cell, &width) in cells.iter().zip(widths) {
        push_blanks(lines, owing);
        if cell.width <= width {
            lines.push_str(cell.text);
            owing = width - cell.width + GAP;
        } else {
            lines.extend(cell.text.chars().take(width.saturating_sub(1)));
            lines.push(CUT);
            owing = GAP;
        }
    }
    lines.push('\n');
}

/// A process, and how many others there are.
fn push_pid(text: &mut Vec<u8>, pid: u32, others: u32) {
    push_number(text, pid);
    if others > 0 {
        text.push(b'+');
        push_number(text, others);
    }
}

fn push_endpoint(text: &mut Vec<u8>, endpoint: Option<Endpoint>) {
    match endpoint {
        Some(Endpoint {
            ip: IpAddr::V4(ip),
            port,
        }) => {
            // The same as by its `Display`, in a fraction of the time.
            let [a, b, c, d] = ip.octets();
            for (octet, end) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
                push_number(text, octet.into());
                text.push(end);
            }
            push_number(text, port.into());
        }
        // Writing to memory cannot fail.
        Some(endpoint) => _ = write!(text, "{endpoint}"),
        None => text.extend_from_slice(NOTHING.as_bytes()),
    }
}

fn push_blanks(text: &mut String, mut count: usize) {
    const BLANKS: &str = "                                ";
    while let Some(rest) = count.checked_sub(BLANKS.len()) {
        text.push_str(BLANKS);
        count = rest;
    }
    text.push_str(BLANKS.get(..count).unwrap_or_default());
}

fn push_number(text: &mut Vec<u8>, mut number: u32) {
    // As many digits as the greatest has.
    let mut digits = [b'0'; 10];
    let mut first = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        first = place;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// Makes columns narrower until they fit: names first, then addresses, always
/// the widest one. If even the least widths do not fit, the last columns go.
fn fit(widths: &mut Vec<usize>, width: usize) {
    for first in [NAMES, 0] {
        while total(widths) > width {
            let widest = widths
                .iter_mut()
                .zip(COLUMNS)
                .skip(first)
                .filter(|(width, (_, least))| **width > *least)
                .max_by_key(|(width, _)| **width);
            match widest {
                Some((widest, _)) => *widest -= 1,
                None => break,
            }
        }
    }
    while total(widths) > width && widths.len() > 1 {
        widths.pop();
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use sensor::FoundSocket;

    use super::super::tests::{connection, datagram, listener};
    use super::*;

    fn table(sockets: &[FoundSocket], width: Option<usize>) -> String {
        let rows: Vec<Row<'_>> = sockets.iter().map(Row::new).collect();
        let mut out = Vec::new();
        write(&mut out, &rows, &Register::default(), width).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn sockets() -> Vec<FoundSocket> {
        vec![
            listener("0.0.0.0:22", &[]),
            connection(
                "[2001:db8:1111:2222:3333:4444:5555:6666]:50000",
                "[2001:db8::1]:443",
                TcpState::FinWait1,
                &[u32::MAX, 7],
            ),
            datagram("[::]:5353", None, &[]),
        ]
    }

    #[test]
    fn nothing_is_cut_where_there_is_no_terminal() {
        assert_eq!(
            table(&sockets(), None),
            "\
PROTO  LOCAL                                           REMOTE                                          STATE         PID           PROCESS  USER  UNIT
tcp    0.0.0.0:22                                      -                                               LISTENING     -             -        -     -
tcp    [2001:db8:1111:2222:3333:4444:5555:6666]:50000  [2001:db8::1]:443                               FIN_WAIT_1    4294967295+1  -        -     -
udp    [::]:5353                                       -                                               -             -             -        -     -
"
        );
    }

    #[test]
    fn a_terminal_is_not_exceeded() {
        for width in [20, 80, 100] {
            let table = table(&sockets(), Some(width));
            let longest = table.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{table}");
            assert!(table.contains(CUT));
        }
    }

    #[test]
    fn a_name_cannot_act_on_the_terminal() {
        let labels = Labels::new(&Person {
            name: Some("a\x1b[2J\nb".to_owned()),
            user: Some(String::new()),
            uid: Some(1000),
            ..Person::default()
        });
        assert_eq!(labels.process.as_deref(), Some("a\\x1b[2J\\nb"));
        assert_eq!(labels.user.as_deref(), Some("1000"));
    }

    #[test]
    fn many_rows_keep_their_order() {
        let sockets: Vec<FoundSocket> = (1..=5000_u16)
            .map(|port| {
                let local = format!("0.0.0.0:{port}");
                datagram(&local, None, &[port.into()])
            })
            .collect();
        let table = table(&sockets, None);
        let ports: Vec<&str> = table
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(1))
            .collect();
        let wanted = sockets.iter().map(|found| found.socket.local.to_string());
        assert!(ports.into_iter().skip(1).eq(wanted), "{table}");
    }

    #[test]
    fn no_rows_no_heading() {
        assert_eq!(table(&[], None), "");
    }

    proptest! {
        #[test]
        fn an_endpoint_is_written_as_everywhere(ip: IpAddr, port: u16) {
            let endpoint = Endpoint::new(ip, port);
            let mut text = Vec::new();
            push_endpoint(&mut text, Some(endpoint));
            prop_assert_eq!(text, endpoint.to_string().into_bytes());
        }

        #[test]
        fn columns_fit_and_only_where_they_must_be_cut_are_they(
            before in proptest::collection::vec(1_usize..200, 8..=9), width in 5_usize..400
        ) {
            let mut widths = before.clone();
            fit(&mut widths, width);
            prop_assert!(total(&widths) <= width || widths.len() == 1);
            prop_assert!(widths.iter().zip(&before).all(|(after, before)| after <= before));
            if total(&before) <= width {
                prop_assert_eq!(widths, before);
            }
        }
    }
}
