//! `soak`: ten million events without a pause, and what they leave in memory.
//!
//! A recorder that keeps something of every connection is found out by its
//! memory long before it fails, if one looks often enough: it is read at even
//! distances while a paced storm goes on, sets are rolled and compressed, and
//! processes come and go with the machine. The growth from the first look to the
//! last is what counts; the first comes when tables and buffers have their size.
//! What the events lack is asked as for a storm.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::events::Tally;
use super::recorder::Recorder;
use super::report::{Figure, Target, Unit, as_f64};
use super::{Sizes, machine, progress};
use crate::load::storm::Outcome;

const BENCH: &str = "soak";

/// How long the recorder may be busy afterwards.
const SETTLE_LIMIT: Duration = Duration::from_mins(2);

/// How often it is asked whether the storm is over.
const LOOK: Duration = Duration::from_millis(100);

/// How long it is.
#[derive(Clone, Copy)]
pub(super) struct Length {
    /// Connections in all; each is some nine events.
    pub(super) connections: u32,
    /// Connections a second.
    pub(super) rate: u32,
    /// From one look at the memory to the next.
    pub(super) every: Duration,
}

impl Length {
    pub(super) const SMOKE: Self = Self {
        connections: 20_000,
        rate: 5_000,
        every: Duration::from_secs(1),
    };
    pub(super) const FULL: Self = Self {
        connections: 1_130_000,
        rate: 5_000,
        every: Duration::from_secs(30),
    };
}

/// One look.
struct Sample {
    after: Duration,
    rss: u64,
}

/// Records all the while.
pub(super) fn run(binary: &Path, sizes: &Sizes) -> anyhow::Result<Vec<Figure>> {
    let length = sizes.soak;
    machine::wait_for_calm(sizes.leftovers)?;
    progress(&format!(
        "soak: {} connections, {} a second",
        length.connections, length.rate
    ));
    // All of it has to be there to be counted.
    let mut recorder = Recorder::start_with(binary, &["--max-total-size", "20G"])?;
    let before = recorder.subject.cpu()?;
    let mut storm = start(length)?;
    let samples = watch(&mut recorder, &mut storm.0, length.every)?;
    let outcome = storm.outcome()?;
    recorder.subject.settle(SETTLE_LIMIT)?;
    let last = recorder.subject.memory()?.rss;
    let recorded = recorder.stop()?;
    let tally = Tally::read(&recorded.logs(), &outcome)?;

    let connections = outcome.connections;
    let zero = |what: &str, count: u64| Figure::count(BENCH, what, count).target(Target::Zero);
    let mut figures = vec![
        Figure::count(BENCH, "events", tally.events),
        Figure::count(BENCH, "lost, all inside gaps", tally.lost),
        zero("ends unexplained", tally.unexplained(connections)),
        zero("wrong owners", tally.wrong_owner),
        zero("holes in the numbering", tally.holes),
        zero("kernel − written − lost", tally.unbalanced),
    ];
    figures.extend(samples.iter().map(|sample| {
        let after = sample.after.as_secs();
        memory(format!("resident memory after {after} s"), sample.rss)
    }));
    let first = samples.first().map(|first| as_f64(first.rss) / 1e6);
    figures.push(
        memory("resident memory when it is over", last)
            .beside("the first look", first)
            .target(Target::RatioAtMost(1.25)),
    );
    figures.push(Figure::new(
        BENCH,
        "CPU for each event",
        Unit::Micros,
        (recorded.life.cpu.saturating_sub(before)).as_secs_f64() * 1e6
            / as_f64(tally.events.max(1)),
    ));
    Ok(figures)
}

fn memory(what: impl Into<String>, bytes: u64) -> Figure {
    Figure::new(BENCH, what, Unit::Megabytes, as_f64(bytes) / 1e6)
}

/// Looks at the memory until the storm is over.
fn watch(
    recorder: &mut Recorder,
    storm: &mut Child,
    every: Duration,
) -> anyhow::Result<Vec<Sample>> {
    let start = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    while storm.try_wait()?.is_none() {
        std::thread::sleep(LOOK);
        recorder.subject.must_run()?;
        let after = start.elapsed();
        let looks = u32::try_from(samples.len())?;
        if after >= every * (looks + 1) {
            let rss = recorder.subject.memory()?.rss;
            progress(&format!(
                "soak: {} s, {} MB",
                after.as_secs(),
                rss / 1_000_000
            ));
            samples.push(Sample { after, rss });
        }
    }
    Ok(samples)
}

/// A storm that goes on by itself, and ends with this.
struct Storm(Child);

fn start(length: Length) -> anyhow::Result<Storm> {
    let child = Command::new(std::env::current_exe()?)
        .args(["storm", "--connections", &length.connections.to_string()])
        .args(["--rate", &length.rate.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("storm")?;
    Ok(Storm(child))
}

impl Storm {
    /// What it says when it is over; it is short, and waits in the pipe.
    fn outcome(&mut self) -> anyhow::Result<Outcome> {
        let status = self.0.wait()?;
        if !status.success() {
            bail!("storm: {status}");
        }
        let said = self.0.stdout.take().context("storm: no output")?;
        serde_json::from_reader(said).context("storm: no outcome")
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // It has ended, unless something went wrong.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
