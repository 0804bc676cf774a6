//! PR-PORTS, derived a second time: each row is put together from its line of
//! PR-EVENTS by what the contract says, and the file is compared byte for byte.
//!
//! So a test that finds a `listen`, `bind`, `connect` or `accept` line has found
//! its row, too, as has one that finds a port of which was learnt late
//! (`discover`), and a `gap` has its line, which is no row.

use serde_json::Value;

use super::log::Set;

/// How a line begins that says that something is missing.
const NOTE: &str = "Not recorded: ";

const COLUMNS: &str = "date,time,protocol,local port,local IP address,remote port,\
                       remote IP address,PID,module,user context";

/// Fails unless the file holds exactly the rows that PR-EVENTS tells. Of a set
/// that is not `whole`, since its recorder was killed, one may hold more than
/// the other.
pub(crate) fn verify(set: &Set, whole: bool) {
    let derived: Vec<String> = set.lines.iter().filter_map(row).collect();
    let written = rows(set);
    let common = if whole {
        assert!(
            written.len() == derived.len(),
            "PR-PORTS-{}: {} rows were expected from PR-EVENTS, not {}; the first that differ: {:?}",
            set.stamp,
            derived.len(),
            written.len(),
            derived
                .iter()
                .zip(&written)
                .find(|(derived, written)| derived != *written)
        );
        derived.len()
    } else {
        derived.len().min(written.len().saturating_sub(1))
    };
    for (derived, written) in derived.iter().zip(&written).take(common) {
        assert!(
            derived == written,
            "PR-PORTS-{}: the row\n{derived}\nwas expected from PR-EVENTS, not\n{written}",
            set.stamp
        );
        let fields = fields(written);
        if written.starts_with(NOTE) {
            assert!(fields.len() == 1, "no comma was expected in {written:?}");
            continue;
        }
        assert!(
            fields.len() == 10 && !written.chars().any(char::is_control),
            "ten fields without control characters were expected in {written:?}: {fields:?}"
        );
    }
}

/// The rows of the file.
pub(crate) fn rows(set: &Set) -> Vec<&str> {
    let head = format!("{COLUMNS}\n\n");
    let Some((_, rows)) = set.ports.split_once(&head) else {
        panic!("PR-PORTS-{} has no header:\n{}", set.stamp, set.ports);
    };
    rows.split_terminator('\n').collect()
}

/// The fields of a row, by RFC 4180.
pub(crate) fn fields(row: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut rest = row.chars().peekable();
    while let Some(c) = rest.next() {
        let field = fields.last_mut().expect("one field at least");
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

/// The line about a gap.
fn note(gap: &Value) -> String {
    let lost = match gap["lost"].as_u64() {
        None => "an unknown number of events".to_owned(),
        Some(1) => "1 event".to_owned(),
        Some(lost) => format!("{lost} events"),
    };
    let time = |key: &str| {
        let time = gap[key].as_str().expect("a time");
        date_and_time(time).replace(',', " ")
    };
    let (from, to) = (time("from"), time("to"));
    format!("{NOTE}{lost} from {from} to {to} (see the gap in PR-EVENTS)")
}

/// The row of a line, if a port comes into use with it.
fn row(line: &Value) -> Option<String> {
    if line["event"] == "gap" {
        return Some(note(line));
    }
    if !["listen", "bind", "connect", "accept", "discover"].contains(&line["event"].as_str()?) {
        return None;
    }
    // The other kinds are in PR-EVENTS alone.
    if line["protocol"] != "tcp" && line["protocol"] != "udp" {
        return None;
    }
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    let number = |key: &str| line[key].as_u64().unwrap_or_default().to_string();
    let remote = match (text("protocol"), text("family"), line["remote_ip"].as_str()) {
        ("udp", ..) => "*,*".to_owned(),
        (_, _, Some(remote)) => format!("{},{remote}", number("remote_port")),
        (_, "ipv6", None) => ",::".to_owned(),
        (_, _, None) => ",0.0.0.0".to_owned(),
    };
    let owner = if line["pid"].is_null() {
        "0,System Idle,".to_owned()
    } else {
        let user = line["user"].as_str().map(|user| format!("<{user}>"));
        format!(
            "{},{},{}",
            number("pid"),
            quoted(text("process")),
            quoted(&user.unwrap_or_default())
        )
    };
    Some(format!(
        "{},{},{},{},{remote},{owner}",
        date_and_time(text("time")),
        text("protocol").to_uppercase(),
        number("local_port"),
        text("local_ip"),
    ))
}

/// `2026-11-03T09:05:07.000001+01:00` as `26/11/3,9:05:7`.
fn date_and_time(time: &str) -> String {
    let unpadded = |range: std::ops::Range<usize>| {
        let digits = time.get(range).unwrap_or_default();
        digits
            .parse::<u8>()
            .map_or_else(|_| digits.to_owned(), |number| number.to_string())
    };
    format!(
        "{}/{}/{},{}:{}:{}",
        time.get(2..4).unwrap_or_default(),
        unpadded(5..7),
        unpadded(8..10),
        unpadded(11..13),
        time.get(14..16).unwrap_or_default(),
        unpadded(17..19)
    )
}

fn quoted(field: &str) -> String {
    let safe = event::text::escape(field);
    if safe == field && !field.contains([',', '"']) {
        return field.to_owned();
    }
    format!("\"{}\"", safe.replace('"', "\"\""))
}
