//! The figures of `docs/benchmarks.md`: the whole program beside its peers.
//!
//! A bench here runs the real binary against the real kernel and measures it
//! from outside, as an administrator would: time on the processor, memory,
//! what is in the log files, and what all that costs the one who is watched.
//! It looks at no code of ours; what a function costs is the matter of the
//! criterion benches beside that function.
//!
//! Machines differ and so do their moods. So every figure that can have a peer
//! is measured side by side with it in the same run, in alternation, and the
//! median is what counts. Two kinds of target come out of that:
//!
//! * **promises** (no event unexplained, no wrong owner) hold on any machine; a
//!   broken one fails the run;
//! * **goals** (time, memory) are judged on a quiet machine; a missed one shows
//!   in the table, and fails the run with `--check`.
//!
//! That nothing is lost at 10,000 connections a second is a promise, but not of
//! every machine at every moment: with `--smoke` it is a goal.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;

pub(crate) mod build;
mod crowd;
pub(crate) mod events;
mod idle;
mod list;
pub(crate) mod machine;
pub(crate) mod measure;
pub(crate) mod peer;
mod query;
pub(crate) mod recorder;
pub(crate) mod report;
mod soak;
mod storm;
mod tracked;

use self::report::{Report, Target};

/// What to measure and how.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run small sizes and leave out `build`: a test of the benches, not a measurement.
    #[arg(long)]
    smoke: bool,
    /// Run only this bench; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<Bench>,
    /// The portreporter binary; without it, cargo builds the release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Print JSON in place of the table.
    #[arg(long)]
    json: bool,
    /// Fail if a goal is missed, not only if a promise is broken.
    #[arg(long)]
    check: bool,
    /// Connections of each storm.
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Repetitions of what is alternated.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Seconds of `idle`.
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<u64>,
}

/// The benches, in the order in which they run: the quiet ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// The recorder with nothing to do.
    Idle,
    /// `list` beside `ss -tunap`.
    List,
    /// `query` beside `nmap`.
    Query,
    /// The recorder with 100,000 open sockets.
    Tracked,
    /// 200,000 loopback connections, recorded and not, beside tcpstates.
    Storm,
    /// Ten million events, and the memory that they leave. Only if it is asked
    /// for, or as a part of `--smoke`.
    Soak,
    /// A clean release build.
    Build,
}

/// How large everything is.
struct Sizes {
    /// Connections of a storm.
    connections: u32,
    /// Storms of each kind, in turn.
    rounds: u32,
    /// Seconds of the paced storm.
    paced_seconds: u32,
    /// How often the recorder of a storm compares its table with the kernel's,
    /// in seconds; `record` does so each minute unless it is told otherwise.
    reconcile: u32,
    /// Connections in `TIME_WAIT` among which `soak` may begin.
    leftovers: u64,
    /// Processes that `list` has to name.
    list_processes: u32,
    /// Calls of each program in `list`.
    list_calls: u32,
    /// Seconds of `idle`.
    idle_seconds: u64,
    /// Sockets of `tracked`.
    tracked_sockets: u32,
    /// Ports of the one host that `query` asks.
    query_ports: u16,
    /// Hosts that `query` asks.
    query_hosts: u32,
    /// Ports of every kind.
    query_mixed: u16,
    /// Calls of each program in `query`.
    query_rounds: u32,
    /// What is wanted of the events that the paced storm loses.
    paced_loss: Target,
    /// How long `soak` is.
    soak: soak::Length,
}

impl Sizes {
    fn of(options: &Options) -> Self {
        let (smoke, full) = (
            Self {
                connections: 20_000,
                rounds: 1,
                paced_seconds: 1,
                reconcile: 5,
                leftovers: u64::MAX,
                list_processes: 50,
                list_calls: 3,
                idle_seconds: 10,
                tracked_sockets: 10_000,
                query_ports: 5000,
                query_hosts: 64,
                query_mixed: 100,
                query_rounds: 1,
                // A busy machine may be too slow, and the recorder says so.
                paced_loss: Target::AtMost(0.0),
                soak: soak::Length::SMOKE,
            },
            Self {
                connections: 200_000,
                rounds: 7,
                paced_seconds: 10,
                reconcile: 60,
                leftovers: 1000,
                list_processes: 500,
                list_calls: 7,
                idle_seconds: 60,
                tracked_sockets: 100_000,
                query_ports: 65_535,
                query_hosts: 1000,
                query_mixed: 500,
                query_rounds: 5,
                paced_loss: Target::Zero,
                soak: soak::Length::FULL,
            },
        );
        let mut sizes = if options.smoke { smoke } else { full };
        if let Some(connections) = options.connections {
            sizes.connections = connections;
        }
        if let Some(rounds) = options.rounds {
            sizes.rounds = rounds;
            sizes.list_calls = rounds;
            sizes.query_rounds = rounds;
        }
        if let Some(seconds) = options.idle_seconds {
            sizes.idle_seconds = seconds;
        }
        sizes
    }
}

/// Runs the benches and prints their figures.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let sizes = Sizes::of(options);
    let chosen: Vec<Bench> = Bench::value_variants()
        .iter()
        .copied()
        .filter(|bench| {
            if options.only.is_empty() {
                match bench {
                    Bench::Build => !options.smoke,
                    Bench::Soak => options.smoke,
                    _ => true,
                }
            } else {
                options.only.contains(bench)
            }
        })
        .collect();
    let binary = match &options.binary {
        Some(binary) if !binary.is_file() => bail!("{}: no such file", binary.display()),
        Some(binary) => std::path::absolute(binary)?,
        None => build::release()?,
    };

    let mut report = Report::new(machine::describe());
    for bench in chosen {
        let figures = match bench {
            Bench::Idle => idle::run(&binary, &sizes)?,
            Bench::List => list::run(&binary, &sizes)?,
            Bench::Query => query::run(&binary, &sizes)?,
            Bench::Tracked => tracked::run(&binary, &sizes)?,
            Bench::Storm => storm::run(&binary, &sizes)?,
            Bench::Soak => soak::run(&binary, &sizes)?,
            Bench::Build => build::run()?,
        };
        report.extend(figures);
    }

    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    let failed = report.broken_promises()
        + if options.check {
            report.missed_goals()
        } else {
            0
        };
    if failed > 0 {
        eprintln!("bench: {failed} targets not met");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the one who waits what is going on.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
