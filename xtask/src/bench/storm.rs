//! `storm`: 200,000 connections as fast as they go, with the recorder, with
//! nobody watching and with `tcpstates`, in alternation; then 10,000 a second.
//!
//! Processor time of a watcher counts from the moment when it is attached to
//! its end, so flushing, sealing and compressing are in it, loading is not. It
//! is divided by the lines that were written, not by the events that there
//! were: a line that was lost was not paid for.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::events::Tally;
use super::peer::{self, Tcpstates};
use super::recorder::Recorder;
use super::report::{Figure, Target, Unit, as_f64, median};
use super::{Sizes, progress};
use crate::load::storm::Outcome;

const BENCH: &str = "storm";

/// How long a watcher may be busy after a storm.
const SETTLE_LIMIT: Duration = Duration::from_mins(2);

/// The rate at which nothing may be lost.
const PACE: u32 = 10_000;

/// What is said of one watched storm.
struct Watched {
    per_second: f64,
    load_micros: f64,
    cpu_micros: f64,
    lines: f64,
    connections: f64,
    peak_rss: f64,
    lost: u64,
}

/// Runs the storms.
pub(super) fn run(binary: &Path, sizes: &Sizes) -> anyhow::Result<Vec<Figure>> {
    let tcpstates = peer::find("tcpstates");
    if tcpstates.is_none() {
        progress("storm: tcpstates is not installed; no figures beside ours");
    }
    // The first storm finds tables empty that the later ones find full.
    progress("storm: warming up");
    let arguments = [
        "--own-network".to_owned(),
        "--connections".to_owned(),
        sizes.connections.to_string(),
    ];
    storm(&arguments)?;

    let (mut alone, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let mut tallies = Vec::new();
    for round in 1..=sizes.rounds {
        progress(&format!("storm: round {round} of {}", sizes.rounds));
        // One right after the other: how fast the machine is changes in a minute.
        alone.push(storm(&arguments)?);
        let (watched, tally) = recorded(binary, &arguments, sizes)?;
        ours.push(watched);
        tallies.push(tally);
        if let Some(program) = &tcpstates {
            theirs.push(traced(program, &arguments)?);
        }
    }
    progress(&format!("storm: {PACE} connections a second"));
    let connections = PACE * sizes.paced_seconds;
    let paced = [
        "--own-network".to_owned(),
        "--connections".to_owned(),
        connections.to_string(),
        "--rate".to_owned(),
        PACE.to_string(),
    ];
    let (calm, calm_tally) = recorded(binary, &paced, sizes)?;

    let mut figures = compared(&alone, &ours, &theirs);
    figures.extend(kept(&tallies, sizes.connections, "full speed"));
    figures.extend(kept(&[calm_tally], connections, "10,000/s"));
    figures.push(Figure::count(BENCH, "10,000/s: lost", calm.lost).target(sizes.paced_loss));
    figures.push(Figure::new(
        BENCH,
        "10,000/s: CPU of a core",
        Unit::Percent,
        calm.cpu_micros / (calm.connections / calm.per_second) / 10_000.0,
    ));
    Ok(figures)
}

/// Speed and cost, beside nobody and beside `tcpstates`.
fn compared(alone: &[Outcome], ours: &[Watched], theirs: &[Watched]) -> Vec<Figure> {
    let of = |watched: &[Watched], value: fn(&Watched) -> f64| {
        median(&watched.iter().map(value).collect::<Vec<_>>())
    };
    let of_alone =
        |value: fn(&Outcome) -> f64| median(&alone.iter().map(value).collect::<Vec<_>>());
    let row = |what: &str, unit: Unit, value: fn(&Watched) -> f64| {
        Figure::new(BENCH, what, unit, of(ours, value).unwrap_or(f64::NAN))
            .beside("tcpstates", of(theirs, value))
    };
    let throughput = "throughput while recorded";
    vec![
        Figure::new(
            BENCH,
            throughput,
            Unit::PerSecond,
            of(ours, |storm| storm.per_second).unwrap_or(f64::NAN),
        )
        .beside("not recorded", of_alone(per_second))
        .target(Target::RatioAtLeast(0.85)),
        Figure::new(
            BENCH,
            "CPU of the load for each connection",
            Unit::Micros,
            of(ours, |storm| storm.load_micros).unwrap_or(f64::NAN),
        )
        .beside("not recorded", of_alone(load_micros)),
        row(throughput, Unit::PerSecond, |storm| storm.per_second),
        row("CPU for each line", Unit::Micros, |storm| {
            storm.cpu_micros / storm.lines.max(1.0)
        })
        .target(Target::RatioAtMost(1.0)),
        row("CPU for each connection", Unit::Micros, |storm| {
            storm.cpu_micros / storm.connections
        }),
        row("lines for each connection", Unit::Each, |storm| {
            storm.lines / storm.connections
        }),
        row("lost at full speed", Unit::Count, |storm| {
            as_f64(storm.lost)
        }),
        row("peak memory", Unit::Megabytes, |storm| storm.peak_rss),
    ]
}

/// What the records of storms lack; all rounds together.
fn kept(tallies: &[Tally], connections: u32, when: &str) -> Vec<Figure> {
    let row = |what: &str, value: &dyn Fn(&Tally) -> u64| {
        Figure::count(
            BENCH,
            format!("{when}: {what}"),
            tallies.iter().map(value).sum(),
        )
        .target(Target::Zero)
    };
    vec![
        row("connections' ends unexplained", &|tally| {
            tally.unexplained(connections)
        }),
        row("established and closes unexplained", &|tally| {
            tally.unfinished(connections)
        }),
        Figure::count(
            BENCH,
            format!("{when}: of the closes, told by the comparison alone"),
            tallies.iter().map(|tally| tally.vanished).sum(),
        ),
        row("wrong owners", &|tally| tally.wrong_owner),
        row("recorded twice", &|tally| tally.doubled),
        row("holes in the numbering", &|tally| tally.holes),
        row("kernel − written − lost", &|tally| tally.unbalanced),
    ]
}

/// A storm under the recorder.
fn recorded(
    binary: &Path,
    arguments: &[String],
    sizes: &Sizes,
) -> anyhow::Result<(Watched, Tally)> {
    let every = sizes.reconcile.to_string();
    let mut recorder = Recorder::start_with(binary, &["--reconcile", &every])?;
    let before = recorder.subject.cpu()?;
    let outcome = storm(arguments)?;
    recorder.subject.settle(SETTLE_LIMIT)?;
    // What it does later is not the storm's, and how much it is depends on
    // what else is on the machine.
    let settled = recorder.subject.cpu()?;
    recorder.wait_until_compared(Duration::from_secs(sizes.reconcile.into()))?;
    recorder.subject.settle(SETTLE_LIMIT)?;
    let idle = recorder.subject.cpu()?.saturating_sub(settled);
    let recorded = recorder.stop()?;
    let tally = Tally::read(&recorded.logs(), &outcome)?;
    progress(&format!(
        "storm: engine {}, {} events in {} MB of PR-EVENTS, {} lost, {} vanished",
        tally.engine,
        tally.events,
        tally.bytes / 1_000_000,
        tally.lost,
        tally.vanished,
    ));
    let watched = Watched {
        per_second: per_second(&outcome),
        load_micros: load_micros(&outcome),
        cpu_micros: recorded
            .life
            .cpu
            .saturating_sub(before + idle)
            .as_secs_f64()
            * 1e6,
        lines: as_f64(tally.events),
        connections: f64::from(outcome.connections),
        peak_rss: as_f64(recorded.life.peak_rss) / 1e6,
        lost: tally.lost,
    };
    Ok((watched, tally))
}

/// A storm under `tcpstates`.
fn traced(program: &Path, arguments: &[String]) -> anyhow::Result<Watched> {
    let mut tcpstates = Tcpstates::start(program)?;
    let before = tcpstates.subject.cpu()?;
    let outcome = storm(arguments)?;
    tcpstates.subject.settle(SETTLE_LIMIT)?;
    let traced = tcpstates.stop()?;
    if traced.lines == 0 {
        bail!("tcpstates: wrote nothing");
    }
    progress(&format!(
        "storm: tcpstates wrote {} lines, lost {}",
        traced.lines, traced.lost
    ));
    Ok(Watched {
        per_second: per_second(&outcome),
        load_micros: load_micros(&outcome),
        cpu_micros: (traced.life.cpu.saturating_sub(before)).as_secs_f64() * 1e6,
        lines: as_f64(traced.lines),
        connections: f64::from(outcome.connections),
        peak_rss: as_f64(traced.life.peak_rss) / 1e6,
        lost: traced.lost,
    })
}

fn per_second(outcome: &Outcome) -> f64 {
    f64::from(outcome.connections) / outcome.seconds
}

/// What a connection costs client and server together.
fn load_micros(outcome: &Outcome) -> f64 {
    outcome.cpu_seconds * 1e6 / f64::from(outcome.connections)
}

/// Runs the load in a process of its own.
fn storm(arguments: &[String]) -> anyhow::Result<Outcome> {
    let output = Command::new(std::env::current_exe()?)
        .arg("storm")
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("storm: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("storm: no outcome")
}
