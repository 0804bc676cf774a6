//! The table: a line for each port that is shown, then what was only counted,
//! then the verdict about each set.
//!
//! Columns are as wide as what stands in them; the last, in which others have
//! their say, is cut where a terminal ends.

use std::io::{self, Write};
use std::time::Duration;

use event::text::escape;
use probe::{Answer, Fact, Fault, Status, Value, Verdict, Works};

use super::json::address;
use super::plan::Plan;
use super::results::{Judged, Results, Row, port};
use crate::local::Here;

/// Stands for what is not known or not there.
const NOTHING: &str = "-";
/// Marks a text that was cut.
const CUT: char = '\u{2026}';
/// Blanks between columns.
const GAP: &str = "  ";
/// The columns. The first is there only where a host has a name, the last two
/// are not made wider than they are.
const COLUMNS: [&str; 7] = [
    "HOST", "ADDRESS", "PORT", "STATUS", "TIME", "SERVICE", "ANSWER",
];

/// How the table is shown.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// With everything that was learnt.
    pub(super) verbose: bool,
    /// How wide the terminal is, if it is one.
    pub(super) width: Option<usize>,
}

/// Prints what was found.
pub(super) fn write(
    out: &mut impl Write,
    plan: &Plan,
    results: &Results<'_>,
    here: &mut Here,
    look: Look,
    took: Duration,
) -> io::Result<()> {
    let rows = results.rows();
    let lines: Vec<_> = rows.iter().map(cells).collect();
    let has_names = rows
        .iter()
        .any(|row| row.host != address(row.verdict.address));
    let first = usize::from(!has_names);
    let mut widths = COLUMNS.map(str::len);
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    if !lines.is_empty() {
        let heading = COLUMNS.map(str::to_owned);
        write_line(out, &heading[first..], &widths[first..], look.width)?;
    }
    for (line, row) in lines.iter().zip(&rows) {
        write_line(out, &line[first..], &widths[first..], look.width)?;
        for finding in here.explain(row.verdict) {
            writeln!(out, "    here: {finding}")?;
        }
        if look.verbose {
            write_details(out, row.verdict)?;
        }
    }
    if plan.count() > 1 {
        write_counts(out, plan, results, took)?;
    }
    for judged in results.judged() {
        write_judged(out, &judged)?;
    }
    Ok(())
}

fn cells(row: &Row<'_>) -> [String; COLUMNS.len()] {
    let verdict = row.verdict;
    [
        escape(row.host).into_owned(),
        address(verdict.address),
        port(verdict).to_string(),
        verdict.status.to_string(),
        verdict.round_trip.map_or(NOTHING.to_owned(), time),
        escape(verdict.service.as_deref().unwrap_or(NOTHING)).into_owned(),
        escape(&said(verdict)).into_owned(),
    ]
}

/// What the service said, or else why the port is what it is.
fn said(verdict: &Verdict) -> String {
    match &verdict.answer {
        Some(Ok(answer)) => answer.summary.clone(),
        Some(Err(fault)) if verdict.status == Status::Listening => {
            let asked = verdict.asked.unwrap_or(NOTHING);
            format!("{asked}: {fault}")
        }
        Some(Err(fault @ Fault::Withheld(_))) => {
            let asked = verdict.asked.unwrap_or(NOTHING);
            format!("{asked} {fault}; --as {asked} asks all the same")
        }
        _ => verdict.reason.to_string(),
    }
}

fn write_line(
    out: &mut impl Write,
    cells: &[String],
    widths: &[usize],
    terminal: Option<usize>,
) -> io::Result<()> {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        if !line.is_empty() {
            line.push_str(GAP);
        }
        line.push_str(cell);
        let missing = width.saturating_sub(cell.chars().count());
        line.extend(std::iter::repeat_n(' ', missing));
    }
    let line = line.trim_end();
    match terminal {
        Some(width) if line.chars().count() > width => {
            let short: String = line.chars().take(width.saturating_sub(1)).collect();
            writeln!(out, "{short}{CUT}")
        }
        _ => writeln!(out, "{line}"),
    }
}

/// Three digits of it.
fn time(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match seconds * 1e3 {
        millis if millis < 1.0 => format!("{millis:.2} ms"),
        millis if millis < 100.0 => format!("{millis:.1} ms"),
        millis if millis < 1000.0 => format!("{millis:.0} ms"),
        _ => format!("{seconds:.2} s"),
    }
}

/// Everything that is known of a port beyond its row.
fn write_details(out: &mut impl Write, verdict: &Verdict) -> io::Result<()> {
    let tries = match verdict.attempts {
        1 => "1 try".to_owned(),
        tries => format!("{tries} tries"),
    };
    writeln!(out, "    {}, {tries}", escape(&verdict.reason.to_string()))?;
    if verdict.first != verdict.status {
        writeln!(out, "    before the question: {}", verdict.first)?;
    }
    match (&verdict.answer, verdict.asked) {
        (Some(Ok(answer)), _) => write_answer(out, answer),
        (Some(Err(fault)), Some(asked)) => {
            writeln!(out, "    {asked}: {}", escape(&fault.to_string()))
        }
        _ => Ok(()),
    }
}

fn write_answer(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    write_facts(out, &answer.facts, 4)?;
    let text = answer.text.as_deref().unwrap_or_default();
    for line in text.lines() {
        writeln!(out, "    | {}", escape(line))?;
    }
    Ok(())
}

fn write_facts(out: &mut impl Write, facts: &[Fact], indent: usize) -> io::Result<()> {
    for fact in facts {
        write_value(out, &fact.name, &fact.value, indent)?;
    }
    Ok(())
}

fn write_value(out: &mut impl Write, name: &str, value: &Value, indent: usize) -> io::Result<()> {
    let label = escape(name);
    match value {
        Value::List(values) => {
            for value in values {
                write_value(out, name, value, indent)?;
            }
            Ok(())
        }
        Value::Facts(facts) => {
            writeln!(out, "{:indent$}{label}:", "")?;
            write_facts(out, facts, indent + 4)
        }
        Value::Text(text) => writeln!(out, "{:indent$}{label}: {}", "", escape(text)),
        Value::Number(number) => writeln!(out, "{:indent$}{label}: {number}", ""),
        Value::Truth(truth) => {
            let word = if *truth { "yes" } else { "no" };
            writeln!(out, "{:indent$}{label}: {word}", "")
        }
    }
}

/// What there was in all, and of what is not in the table.
fn write_counts(
    out: &mut impl Write,
    plan: &Plan,
    results: &Results<'_>,
    took: Duration,
) -> io::Result<()> {
    let statuses = [
        Status::Listening,
        Status::NotListening,
        Status::Filtered,
        Status::ListeningOrFiltered,
    ];
    let counts: Vec<_> = statuses
        .into_iter()
        .map(|status| (status, results.number(status)))
        .filter(|(_, number)| *number > 0)
        .map(|(status, number)| format!("{number} {status}"))
        .collect();
    let (asked, all) = (results.asked(), plan.count());
    let of = if asked < all {
        format!(" of {all}")
    } else {
        String::new()
    };
    if results.has_rows() {
        writeln!(out)?;
    }
    writeln!(
        out,
        "{asked}{of} ports in {}: {}",
        time(took),
        list(&counts)
    )?;
    let hidden: Vec<_> = results
        .hidden()
        .map(|(why, number)| format!("{number} {}", escape(why)))
        .collect();
    if !hidden.is_empty() {
        writeln!(out, "not shown (--every does): {}", hidden.join(", "))?;
    }
    Ok(())
}

fn list(parts: &[String]) -> String {
    if parts.is_empty() {
        NOTHING.to_owned()
    } else {
        parts.join(", ")
    }
}

fn write_judged(out: &mut impl Write, judged: &Judged<'_>) -> io::Result<()> {
    let verdict = &judged.verdict;
    let missing: Vec<_> = verdict
        .missing
        .iter()
        .map(|(port, status)| match status {
            Some(status) => format!("{port} is {status}"),
            None => format!("{port} was not asked"),
        })
        .collect();
    let extras: Vec<_> = verdict.extras.iter().map(ToString::to_string).collect();
    let words = match verdict.works {
        Works::Yes => "can be used: every port that it needs is LISTENING".to_owned(),
        Works::No => format!("cannot be used: {}", missing.join(", ")),
        Works::Unknown => format!("may be usable: {}", missing.join(", ")),
    };
    let also = if extras.is_empty() {
        String::new()
    } else {
        format!("; also LISTENING: {}", extras.join(", "))
    };
    let address = address(judged.address);
    let whom = if judged.host == address {
        address
    } else {
        format!("{} ({address})", escape(judged.host))
    };
    writeln!(out, "{} on {whom} {words}{also}", escape(&judged.set.title))
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{plan, verdict};
    use super::*;

    fn shown(results: &Results<'_>, plan: &Plan, verbose: bool, width: Option<usize>) -> String {
        let mut out = Vec::new();
        let look = Look { verbose, width };
        write(
            &mut out,
            plan,
            results,
            &mut Here::default(),
            look,
            Duration::from_millis(1500),
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_addresses_and_words_stand_in_columns() {
        let plan = plan(None);
        let mut results = Results::new(&plan, false);
        let mut listening = verdict("127.0.0.1:80", Status::Listening);
        listening.round_trip = Some(Duration::from_micros(1234));
        listening.service = Some("http".to_owned());
        let mut answer = Answer::of("http");
        answer.summary = "a server\u{1b}[2J".to_owned();
        answer.add("server", "one\ntwo");
        answer.add("inner", vec![Value::from("a"), Value::from(7_u32)]);
        listening.answer = Some(Ok(answer));
        results.add(0, listening);
        results.add(0, verdict("[::1]:80", Status::Filtered));
        let text = shown(&results, &plan, true, None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "HOST  ADDRESS    PORT    STATUS     TIME    SERVICE  ANSWER"
        );
        assert_eq!(
            lines[1],
            "box   127.0.0.1  80/tcp  LISTENING  1.2 ms  http     a server\\x1b[2J"
        );
        assert!(
            text.contains("    server: one\\ntwo\n    inner: a\n    inner: 7\n"),
            "{text}"
        );
        assert!(text.contains("no answer, 3 tries"), "{text}");
        assert!(
            text.contains("2 of 4 ports in 1.50 s: 1 LISTENING, 1 FILTERED"),
            "{text}"
        );
        let narrow = shown(&results, &plan, false, Some(20));
        assert!(narrow.lines().next().unwrap().ends_with(CUT));
    }

    #[test]
    fn a_question_that_failed_is_told_beside_what_listens() {
        let mut listening = verdict("127.0.0.1:80", Status::Listening);
        listening.asked = Some("ldap");
        listening.answer = Some(Err(Fault::Closed));
        assert!(said(&listening).starts_with("ldap: the connection was closed"));
        assert_eq!(
            said(&verdict("127.0.0.1:80", Status::Filtered)),
            "no answer"
        );
        let mut withheld = verdict("127.0.0.1:500", Status::ListeningOrFiltered);
        withheld.asked = Some("ike");
        withheld.answer = Some(Err(Fault::Withheld("it would break")));
        assert_eq!(
            said(&withheld),
            "ike not asked: it would break; --as ike asks all the same"
        );
    }

    #[test]
    fn a_set_has_one_verdict() {
        let plan = plan(Some("web"));
        let mut results = Results::new(&plan, false);
        results.add(0, verdict("127.0.0.1:80", Status::Listening));
        results.add(0, verdict("127.0.0.1:443", Status::NotListening));
        let text = shown(&results, &plan, false, None);
        assert!(
            text.contains(
                "WEB Service on box (127.0.0.1) cannot be used: 443/tcp is NOT LISTENING"
            ),
            "{text}"
        );
        assert!(
            text.contains("on box (::1) may be usable: 80/tcp was not asked"),
            "{text}"
        );
    }

    #[test]
    fn times_have_three_digits() {
        let shown = |micros| time(Duration::from_micros(micros));
        assert_eq!(shown(50), "0.05 ms");
        assert_eq!(shown(12_340), "12.3 ms");
        assert_eq!(shown(345_600), "346 ms");
        assert_eq!(shown(2_004_000), "2.00 s");
    }
}
