//! The tables, as Markdown ready for `docs/completeness.md`.

use std::fmt;

use serde::Serialize;

use super::bill::Cost;
use super::judge::Score;
use super::play::Outcome;
use super::watcher::{Claims, Who};

/// All that came of a run.
#[derive(Serialize)]
pub(super) struct Report {
    /// The machine.
    pub(super) machine: String,
    /// Those who watched.
    pub(super) watchers: Vec<Column>,
    /// Those who could not, and why.
    pub(super) absent: Vec<(&'static str, String)>,
}

/// What a watcher saw.
#[derive(Serialize)]
pub(super) struct Column {
    #[serde(skip)]
    pub(super) who: Option<Who>,
    /// Its name.
    pub(super) name: &'static str,
    /// Each scenario.
    pub(super) rows: Vec<Row>,
    /// All scenarios together.
    pub(super) total: Score,
    /// Scenarios in which nothing is wrong.
    pub(super) whole: u64,
    /// Scenarios that were played.
    pub(super) played: u64,
    /// What it says that it lost.
    pub(super) lost: Option<u64>,
    /// Its processor time.
    pub(super) cpu_seconds: f64,
    /// What it uses when nothing is played; not measured in a small run.
    pub(super) idle: Option<Cost>,
    /// The most memory that it had.
    pub(super) peak_megabytes: Option<f64>,
    /// What in its record contradicts itself.
    pub(super) contradictions: Vec<String>,
}

/// A scenario as a watcher saw it.
#[derive(Serialize)]
pub(super) struct Row {
    /// The scenario.
    pub(super) scenario: &'static str,
    /// How it went.
    pub(super) outcome: Outcome,
    /// What was seen.
    pub(super) score: Score,
    /// What that cost the watcher.
    #[serde(flatten)]
    pub(super) cost: Cost,
}

/// What the engine `ebpf` is known not to do. It is counted and shown like
/// everything else, but a run does not fail of it.
const LIMITS: [(&str, &str); 1] = [(
    "handed-to-grandchild",
    "without a trace of accept, who first uses a connection passes for its acceptor",
)];

fn limit(scenario: &str) -> Option<&'static str> {
    LIMITS
        .iter()
        .find(|(name, _)| *name == scenario)
        .map(|&(_, limit)| limit)
}

impl Row {
    /// A row.
    pub(super) fn new(scenario: &'static str, outcome: Outcome, score: Score, cost: Cost) -> Self {
        Self {
            scenario,
            outcome,
            score,
            cost,
        }
    }
}

impl Column {
    /// Sums the rows up.
    pub(super) fn sum(&mut self) {
        for row in &self.rows {
            if row.outcome == Outcome::Done {
                self.total.add(&row.score);
                self.played += 1;
                self.whole += u64::from(row.score.findings.is_empty());
            }
        }
    }

    /// What was promised and is not so. Only the best engine promises.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for row in &self.rows {
            if let Outcome::Failed(why) = &row.outcome {
                broken.push(format!("{}: the scenario failed: {why}", row.scenario));
            }
        }
        if self.who != Some(Who::Ebpf) {
            return broken;
        }
        let mut total = Score::default();
        for row in &self.rows {
            if row.outcome == Outcome::Done && limit(row.scenario).is_none() {
                total.add(&row.score);
            }
        }
        for (count, what) in [
            (total.sockets - total.seen, "sockets were not seen"),
            (total.ended - total.closes_seen, "ends were not seen"),
            (total.ends_wrong, "sockets were seen with other ends"),
            (total.bytes_wrong, "payloads were counted wrongly"),
            (total.twice, "sockets were told of more than once"),
            (self.lost.unwrap_or(0), "events were lost"),
        ] {
            if count > 0 {
                broken.push(format!("{count} {what}"));
            }
        }
        if total.owner_right * 1000 < total.sockets * 999 {
            broken.push(format!(
                "{} of {} sockets have their owner: less than 99.9 %",
                total.owner_right, total.sockets
            ));
        }
        broken.extend(self.contradictions.iter().cloned());
        broken
    }

    fn row(&self, scenario: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.scenario == scenario)
    }

    /// What all scenarios together cost.
    fn cost(&self) -> Cost {
        let mut all = Cost::default();
        for row in &self.rows {
            if row.outcome == Outcome::Done {
                all.add(&row.cost);
            }
        }
        all
    }

    fn claims(&self) -> Option<Claims> {
        self.who.map(Who::claims)
    }
}

impl Report {
    /// What was promised and is not so.
    pub(super) fn broken(&self) -> Vec<String> {
        self.watchers
            .iter()
            .flat_map(|watcher| {
                let name = watcher.name;
                let broken = watcher.broken().into_iter();
                broken.map(move |what| format!("{name}: {what}"))
            })
            .collect()
    }

    /// What the watchers of ours got wrong, scenario by scenario.
    pub(super) fn findings(&self, f: &mut impl fmt::Write, all: bool) -> fmt::Result {
        for watcher in &self.watchers {
            if !(all || watcher.who == Some(Who::Ebpf)) {
                continue;
            }
            for row in &watcher.rows {
                for finding in &row.score.findings {
                    write!(f, "* {}, {}: {finding}", watcher.name, row.scenario)?;
                    match limit(row.scenario) {
                        Some(limit) => writeln!(f, " (known: {limit})")?,
                        None => writeln!(f)?,
                    }
                }
            }
        }
        Ok(())
    }

    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| watcher | scenarios without a fault | sockets seen | owner right | owner wrong | \
             ends seen | bytes right | bytes wrong | lost | CPU | peak memory |"
        )?;
        writeln!(
            f,
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        )?;
        for watcher in &self.watchers {
            let total = &watcher.total;
            let Some(claims) = watcher.claims() else {
                continue;
            };
            let asked = |yes: bool, text: String| if yes { text } else { "–".to_owned() };
            writeln!(
                f,
                "| {} | {} of {} | {} | {} | {} | {} | {} | {} | {} | {:.2} s | {} |",
                watcher.name,
                watcher.whole,
                watcher.played,
                share(total.seen, total.sockets),
                asked(claims.owners, share(total.owner_right, total.sockets)),
                asked(claims.owners, total.owner_wrong.to_string()),
                asked(claims.closes, share(total.closes_seen, total.ended)),
                asked(claims.bytes, share(total.bytes_right, total.counted)),
                asked(claims.bytes, total.bytes_wrong.to_string()),
                watcher
                    .lost
                    .map_or_else(|| "–".to_owned(), |lost| lost.to_string()),
                watcher.cpu_seconds,
                watcher
                    .peak_megabytes
                    .map_or_else(|| "–".to_owned(), |peak| format!("{peak:.1} MB")),
            )?;
        }
        Ok(())
    }

    fn scenarios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.watchers.first() else {
            return Ok(());
        };
        write!(f, "| scenario | sockets |")?;
        for watcher in &self.watchers {
            write!(f, " {} |", watcher.name)?;
        }
        write!(f, "\n| --- | ---: |")?;
        for _ in &self.watchers {
            write!(f, " ---: |")?;
        }
        writeln!(f)?;
        for row in &first.rows {
            if let Outcome::Ignored(why) = &row.outcome {
                write!(f, "| {} | ignored: {why} |", row.scenario)?;
            } else {
                let score = &row.score;
                write!(
                    f,
                    "| {} | {} / {} |",
                    row.scenario, score.sockets, score.counted
                )?;
            }
            for watcher in &self.watchers {
                match watcher.row(row.scenario) {
                    Some(row) => write!(f, " {} |", cell(row, watcher.claims()))?,
                    None => write!(f, " |")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }

    /// What each scenario cost each watcher; then all together, and a second in
    /// which nothing is played.
    fn costs(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let Some(first) = self.watchers.first() else {
            return Ok(());
        };
        write!(f, "| scenario | sockets | lasted |")?;
        for watcher in &self.watchers {
            write!(f, " {} |", watcher.name)?;
        }
        write!(f, "\n| --- | ---: | ---: |")?;
        for _ in &self.watchers {
            write!(f, " ---: |")?;
        }
        writeln!(f)?;
        for row in &first.rows {
            if row.outcome != Outcome::Done {
                continue;
            }
            let (sockets, lasted) = (row.score.sockets, row.cost.of_millis);
            write!(f, "| {} | {sockets} | {lasted:.0} |", row.scenario)?;
            for watcher in &self.watchers {
                match watcher.row(row.scenario) {
                    Some(row) => write!(f, " {:.2} |", row.cost.cpu_millis)?,
                    None => write!(f, " |")?,
                }
            }
            writeln!(f)?;
        }
        let all: Vec<Cost> = self.watchers.iter().map(Column::cost).collect();
        let lasted = all.first().map_or(0.0, |cost| cost.of_millis);
        write!(f, "| **all** | {} | {lasted:.0} |", first.total.sockets)?;
        for cost in &all {
            write!(f, " {:.1} |", cost.cpu_millis)?;
        }
        write!(f, "\n| **a second of these** | | 1000 |")?;
        for cost in &all {
            write!(f, " {} |", price(cost.a_second()))?;
        }
        write!(f, "\n| **a second of nothing** | | 1000 |")?;
        for watcher in &self.watchers {
            let idle = watcher.idle.and_then(|idle| idle.a_second());
            write!(f, " {} |", price(idle))?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        self.totals(f)?;
        if !self.absent.is_empty() {
            writeln!(f, "\nNot measured:\n")?;
            for (name, why) in &self.absent {
                writeln!(f, "* {name}: {why}")?;
            }
        }
        writeln!(f, "\nSeen / owner right / bytes right:\n")?;
        self.scenarios(f)?;
        writeln!(
            f,
            "\nCost of each scenario, in milliseconds of the watcher's processor time:\n"
        )?;
        self.costs(f)?;
        let mut findings = String::new();
        self.findings(&mut findings, false)?;
        if !findings.is_empty() {
            write!(f, "\nWhat ebpf got wrong:\n\n{findings}")?;
        }
        Ok(())
    }
}

/// `seen / owner right / bytes right`, bold where anything is missing.
fn cell(row: &Row, claims: Option<Claims>) -> String {
    let Some(claims) = claims else {
        return String::new();
    };
    if row.outcome != Outcome::Done {
        return "–".to_owned();
    }
    let score = &row.score;
    let asked = |yes: bool, count: u64| {
        if yes {
            count.to_string()
        } else {
            "–".to_owned()
        }
    };
    let text = format!(
        "{} / {} / {}",
        score.seen,
        asked(claims.owners, score.owner_right),
        asked(claims.bytes, score.bytes_right),
    );
    if score.findings.is_empty() {
        text
    } else {
        format!("**{text}**")
    }
}

fn price(millis: Option<f64>) -> String {
    millis.map_or_else(|| "–".to_owned(), |millis| format!("{millis:.2}"))
}

/// A part of a whole, in percent, rounded down so that 100 is all.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(score: Score) -> Column {
        let mut column = Column {
            who: Some(Who::Ebpf),
            name: "ebpf",
            rows: vec![Row::new("one", Outcome::Done, score, Cost::default())],
            total: Score::default(),
            whole: 0,
            played: 0,
            lost: Some(0),
            cpu_seconds: 0.0,
            idle: None,
            peak_megabytes: None,
            contradictions: Vec::new(),
        };
        column.sum();
        column
    }

    #[test]
    fn a_missed_socket_breaks_a_promise() {
        let mut score = Score {
            sockets: 2,
            seen: 2,
            owner_right: 2,
            ..Score::default()
        };
        assert_eq!(column(score.clone()).broken(), Vec::<String>::new());
        (score.seen, score.owner_right) = (1, 1);
        score.findings.push(super::super::judge::Finding {
            example: "client: not seen".to_owned(),
            count: 1,
        });
        let column = column(score);
        assert_eq!(column.broken().len(), 2);
        assert_eq!((column.whole, column.played), (0, 1));
        assert_eq!(cell(&column.rows[0], column.claims()), "**1 / 1 / 0**");
    }

    #[test]
    fn a_share_is_a_hundred_only_if_it_is_all() {
        assert_eq!(share(99_999, 100_000), "99.99 %");
        assert_eq!(share(3, 3), "100.00 %");
        assert_eq!(share(0, 0), "–");
    }

    #[test]
    fn what_each_scenario_costs_is_told_and_summed_up() {
        let mut column = column(Score {
            sockets: 3,
            ..Score::default()
        });
        column.rows[0].cost = Cost {
            cpu_millis: 1.25,
            of_millis: 500.0,
        };
        let report = Report {
            machine: String::new(),
            watchers: vec![column],
            absent: Vec::new(),
        };
        let mut text = String::new();
        report.costs(&mut text).unwrap();
        assert_eq!(
            text,
            "| scenario | sockets | lasted | ebpf |\n\
             | --- | ---: | ---: | ---: |\n\
             | one | 3 | 500 | 1.25 |\n\
             | **all** | 3 | 500 | 1.2 |\n\
             | **a second of these** | | 1000 | 2.50 |\n\
             | **a second of nothing** | | 1000 | – |\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["watchers"][0]["rows"][0]["cpu_millis"], 1.25);
    }
}
