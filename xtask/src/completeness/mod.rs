//! Is anything missed? The scenarios of [`crate::load::scenarios`] and of the
//! end-to-end tests, against Port Reporter and its peers.
//!
//! Each scenario knows the truth about its sockets. Each watcher (an engine of
//! ours, or another program) watches all scenarios, one after the other, and is
//! then asked about every socket: was it seen, with the right process, was its
//! end told, and how many bytes went through it. A watcher is alone with the
//! scenarios while it watches; what else happens on the machine is nobody's
//! business and is told apart by the sockets' own numbers, or by ends and time.
//!
//! The engine `ebpf` promises to see everything. If it does not, the run fails,
//! and says what was wrong. The others promise nothing: their columns say what
//! one has without it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum as _;

mod bill;
mod document;
mod judge;
mod peers;
mod play;
mod recorder;
mod report;
mod sighting;
mod traffic;
mod watcher;

use self::bill::Bill;
use self::judge::Judge;
use self::play::{Outcome, Played, Programs, Running, Scenario};
use self::report::{Column, Report, Row};
use self::watcher::{NotHere, Who};
use crate::bench::report::as_f64;
use crate::bench::{build, machine};
use crate::load::scenarios::When;

/// Connections in `TIME_WAIT` among which a watcher may begin.
const LEFTOVERS: u64 = 20_000;

/// How often to watch, at most, until nothing is lost.
const ATTEMPTS: u32 = 3;

/// What to hold against what.
#[derive(clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Options {
    /// Small sizes and the engine ebpf alone: for continuous integration.
    #[arg(long)]
    smoke: bool,
    /// Play only this scenario; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only this watcher; may be given more than once.
    #[arg(long, value_name = "WATCHER", visible_alias = "engine")]
    watcher: Vec<Who>,
    /// The portreporter binary; without it, cargo builds the release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Print JSON in place of the tables.
    #[arg(long)]
    json: bool,
    /// Put the tables into `docs/completeness.md` too.
    #[arg(long)]
    write: bool,
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
}

/// Runs the suite and prints its tables.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let scenarios = chosen(&options.only)?;
    if options.list {
        for scenario in &scenarios {
            println!("{}", scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let binary = match &options.binary {
        Some(binary) if !binary.is_file() => bail!("{}: no such file", binary.display()),
        Some(binary) => std::path::absolute(binary)?,
        None => build::release()?,
    };
    let programs = play::programs(&build::example("traffic")?)?;
    let watchers = if !options.watcher.is_empty() {
        options.watcher.clone()
    } else if options.smoke {
        vec![Who::Ebpf]
    } else {
        Who::value_variants().to_vec()
    };

    let mut report = Report {
        machine: machine::describe(),
        watchers: Vec::new(),
        absent: Vec::new(),
    };
    for who in watchers {
        match watch_without_loss(who, &binary, &scenarios, &programs, options.smoke) {
            Ok(column) => report.watchers.push(column),
            Err(error) => match error.downcast_ref() {
                Some(NotHere(why)) => report.absent.push((who.name(), why.clone())),
                None => return Err(error.context(who.name())),
            },
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    if options.write {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("cargo xtask {}", arguments.join(" "));
        document::write(&command, &report.to_string())?;
    }
    let broken = report.broken();
    for what in &broken {
        eprintln!("completeness: {what}");
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The scenarios of these names, or all.
fn chosen(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let mut all = play::all();
    for name in names {
        if !all.iter().any(|scenario| scenario.name == name) {
            bail!("{name}: no such scenario (see --list)");
        }
    }
    if !names.is_empty() {
        all.retain(|scenario| names.iter().any(|name| name == scenario.name));
    }
    Ok(all)
}

/// Lets one watcher watch all scenarios. When the engine that promises to see
/// everything says that it lost events, the machine may have been too busy for
/// it: it watches again, a few times at most, and nothing else is forgiven.
fn watch_without_loss(
    who: Who,
    binary: &std::path::Path,
    scenarios: &[Scenario],
    programs: &Programs,
    smoke: bool,
) -> anyhow::Result<Column> {
    let mut attempt = 1;
    loop {
        let column = watch(who, binary, scenarios, programs, smoke)?;
        let lost = column.lost.unwrap_or(0);
        let is_forgiven = who == Who::Ebpf && lost > 0 && column.contradictions.is_empty();
        if !is_forgiven || attempt == ATTEMPTS {
            return Ok(column);
        }
        attempt += 1;
        eprintln!(
            "completeness: {}: {lost} events were lost, and declared; watching again ({attempt} \
             of {ATTEMPTS}), in case the machine was too busy",
            who.name()
        );
    }
}

/// Lets one watcher watch all scenarios.
fn watch(
    who: Who,
    binary: &std::path::Path,
    scenarios: &[Scenario],
    programs: &Programs,
    smoke: bool,
) -> anyhow::Result<Column> {
    if !smoke {
        machine::wait_for_calm(LEFTOVERS)?;
    }
    eprintln!("completeness: {}", who.name());
    let start = |scenario| Running::start(scenario, programs, smoke);

    let mut early = Vec::new();
    for scenario in scenarios
        .iter()
        .filter(|scenario| scenario.when == When::Before)
    {
        let mut running = start(scenario)?;
        running.until_ready(true)?;
        early.push(running);
    }
    let mut watcher = who.start(binary)?;
    let mut lasting = Vec::new();
    for scenario in scenarios
        .iter()
        .filter(|scenario| scenario.when == When::Throughout)
    {
        let mut running = start(scenario)?;
        running.until_ready(false)?;
        lasting.push(running);
    }

    let mut all: Vec<Played> = Vec::new();
    let mut bill = Bill::open(watcher.as_ref(), smoke)?;
    let idle = if smoke {
        None
    } else {
        watcher.settle()?;
        Some(bill.idle(watcher.as_ref())?)
    };
    let mut finish = |running: Running| -> anyhow::Result<()> {
        let mut played = running.finish()?;
        played.cost = bill.scenario(watcher.as_ref())?;
        if let Outcome::Failed(why) = &played.outcome {
            eprintln!("completeness: {}: {why}", played.name);
        }
        all.push(played);
        Ok(())
    };
    early.into_iter().try_for_each(&mut finish)?;
    for scenario in scenarios
        .iter()
        .filter(|scenario| scenario.when == When::Alone)
    {
        finish(start(scenario)?)?;
    }
    lasting.into_iter().try_for_each(&mut finish)?;

    watcher.settle().context("settling")?;
    let watched = watcher.stop()?;
    let mut judge = Judge::new(&watched.sightings, who.claims());
    let rows = all
        .into_iter()
        .map(|played| {
            let score = judge.score(&played);
            Row::new(played.name, played.outcome, score, played.cost)
        })
        .collect();
    let mut column = Column {
        who: Some(who),
        name: who.name(),
        rows,
        total: judge::Score::default(),
        whole: 0,
        played: 0,
        lost: watched.lost,
        cpu_seconds: watched.cpu.as_secs_f64(),
        idle,
        peak_megabytes: watched.peak.map(|bytes| as_f64(bytes) / 1e6),
        contradictions: watched.contradictions,
    };
    column.sum();
    Ok(column)
}
