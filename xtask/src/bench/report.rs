//! Figures and the table that they make.
//!
//! The table is Markdown, ready to be pasted into `docs/benchmarks.md`. Each
//! row has our figure, the figure beside it, their ratio and the target.

use std::fmt;

use serde::Serialize;

/// All figures of one run.
#[derive(Serialize)]
pub(super) struct Report {
    machine: String,
    figures: Vec<Figure>,
}

/// One row.
#[derive(Serialize)]
pub(super) struct Figure {
    bench: &'static str,
    what: String,
    unit: Unit,
    ours: f64,
    beside: Option<Beside>,
    ratio: Option<f64>,
    target: Option<Target>,
    met: Option<bool>,
}

/// What our figure is compared with.
#[derive(Serialize)]
struct Beside {
    name: &'static str,
    value: f64,
}

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    /// Things.
    Count,
    /// Things for each other thing.
    Each,
    /// Millions of bytes.
    Megabytes,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Percent of one core.
    Percent,
    /// Things a second.
    PerSecond,
    /// Seconds.
    Seconds,
}

/// What a figure should be.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// A goal: not more than this.
    AtMost(f64),
    /// A goal: the ratio to the figure beside it is at least this.
    RatioAtLeast(f64),
    /// A goal: the ratio to the figure beside it is not more than this.
    RatioAtMost(f64),
    /// A promise: nothing at all.
    Zero,
}

impl Report {
    /// An empty report from the machine so described.
    pub(super) fn new(machine: String) -> Self {
        Self {
            machine,
            figures: Vec::new(),
        }
    }

    /// Adds figures.
    pub(super) fn extend(&mut self, figures: Vec<Figure>) {
        self.figures.extend(figures);
    }

    /// How many promises are broken.
    pub(super) fn broken_promises(&self) -> usize {
        self.unmet(true)
    }

    /// How many goals are missed.
    pub(super) fn missed_goals(&self) -> usize {
        self.unmet(false)
    }

    fn unmet(&self, promises: bool) -> usize {
        self.figures
            .iter()
            .filter(|figure| figure.met == Some(false))
            .filter(|figure| matches!(figure.target, Some(Target::Zero)) == promises)
            .count()
    }
}

impl Figure {
    /// A figure of that bench.
    pub(super) fn new(bench: &'static str, what: impl Into<String>, unit: Unit, ours: f64) -> Self {
        Self {
            bench,
            what: what.into(),
            unit,
            ours,
            beside: None,
            ratio: None,
            target: None,
            met: None,
        }
    }

    /// A number of things of that bench.
    pub(super) fn count(bench: &'static str, what: impl Into<String>, ours: u64) -> Self {
        Self::new(bench, what, Unit::Count, as_f64(ours))
    }

    /// Puts the figure of `name` beside it, if there is one.
    #[must_use]
    pub(super) fn beside(mut self, name: &'static str, value: Option<f64>) -> Self {
        self.beside = value.map(|value| Beside { name, value });
        self.ratio = value
            .filter(|value| *value > 0.0)
            .map(|value| self.ours / value);
        self
    }

    /// Holds it against a target.
    #[must_use]
    pub(super) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self.met = match target {
            Target::AtMost(limit) => Some(self.ours <= limit),
            Target::RatioAtLeast(limit) => self.ratio.map(|ratio| ratio >= limit),
            Target::RatioAtMost(limit) => self.ratio.map(|ratio| ratio <= limit),
            Target::Zero => Some(self.ours == 0.0),
        };
        self
    }
}

/// A count as a number that can be divided; exact below 2⁵³.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of things seen in minutes stay far below 2^53"
)]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// The value in the middle (the upper one of two); none of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "| bench | figure | Port Reporter | beside | ratio | target | met |"
        )?;
        writeln!(f, "| --- | --- | ---: | ---: | ---: | ---: | --- |")?;
        for figure in &self.figures {
            writeln!(f, "{figure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} | ", self.bench, self.what)?;
        f.write_str(&self.unit.show(self.ours))?;
        f.write_str(" | ")?;
        if let Some(beside) = &self.beside {
            write!(f, "{} ({})", self.unit.show(beside.value), beside.name)?;
        }
        f.write_str(" | ")?;
        if let Some(ratio) = self.ratio {
            write!(f, "{ratio:.2}")?;
        }
        f.write_str(" | ")?;
        match self.target {
            None => {}
            Some(Target::AtMost(limit)) => write!(f, "≤ {}", self.unit.show(limit))?,
            Some(Target::RatioAtLeast(limit)) => write!(f, "ratio ≥ {limit}")?,
            Some(Target::RatioAtMost(limit)) => write!(f, "ratio ≤ {limit}")?,
            Some(Target::Zero) => f.write_str("0")?,
        }
        f.write_str(match self.met {
            None => " | |",
            Some(true) => " | yes |",
            Some(false) => " | **no** |",
        })
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Count => grouped(value),
            Self::Each => format!("{value:.1}"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::Micros => format!("{value:.2} µs"),
            Self::Millis => format!("{value:.1} ms"),
            Self::Percent => format!("{value:.2} %"),
            Self::PerSecond => format!("{}/s", grouped(value)),
            Self::Seconds => format!("{value:.1} s"),
        }
    }
}

/// A whole number with commas between the thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_both_figures_their_ratio_and_the_target() {
        let row = Figure::new("storm", "throughput", Unit::PerSecond, 45_000.4)
            .beside("not recorded", Some(50_000.0))
            .target(Target::RatioAtLeast(0.85));
        assert_eq!(
            row.to_string(),
            "| storm | throughput | 45,000/s | 50,000/s (not recorded) | 0.90 | ratio ≥ 0.85 | yes |"
        );
    }

    #[test]
    fn without_a_peer_a_ratio_is_neither_met_nor_missed() {
        let row = Figure::new("list", "time", Unit::Millis, 12.0)
            .beside("ss", None)
            .target(Target::RatioAtMost(0.2));
        assert_eq!(
            row.to_string(),
            "| list | time | 12.0 ms |  |  | ratio ≤ 0.2 | |"
        );
    }

    #[test]
    fn promises_and_goals_are_counted_apart() {
        let mut report = Report::new(String::new());
        report.extend(vec![
            Figure::count("storm", "unexplained", 3).target(Target::Zero),
            Figure::count("storm", "wrong owner", 0).target(Target::Zero),
            Figure::new("idle", "memory", Unit::Megabytes, 21.0).target(Target::AtMost(20.0)),
        ]);
        assert_eq!((report.broken_promises(), report.missed_goals()), (1, 1));
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_234_567.2), "1,234,567");
        assert_eq!(grouped(-123.0), "-123");
    }

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
