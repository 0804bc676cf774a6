//! `list`: one look at 20,000 sockets of 500 processes, beside `ss -tunap`.
//!
//! Both name the owner of every socket and write to `/dev/null`. Before that,
//! both are counted once: a program that shows fewer sockets is not faster.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use super::crowd::Crowd;
use super::report::{Figure, Target, Unit, median};
use super::{Sizes, machine, peer, progress};

const BENCH: &str = "list";

/// What each process holds: one listener, one UDP socket and 19 connections.
const UDP: u32 = 1;
const PAIRS: u32 = 19;
const SOCKETS: u32 = 1 + UDP + 2 * PAIRS;

/// Measures both programs.
pub(super) fn run(binary: &Path, sizes: &Sizes) -> anyhow::Result<Vec<Figure>> {
    let processes = sizes.list_processes;
    let sockets = processes * SOCKETS;
    progress(&format!("list: {sockets} sockets of {processes} processes"));
    machine::wait_for_calm(u64::from(sockets / 20))?;
    let crowd = Crowd::gather(processes, UDP, PAIRS)?;

    let mut list = Command::new(binary);
    list.arg("list");
    let mut ss = peer::find("ss").map(Command::new);
    if let Some(ss) = &mut ss {
        ss.arg("-tunap");
    }
    let shown = lines(&mut list)?;
    let missing = u64::from(sockets).saturating_sub(shown);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..sizes.list_calls {
        ours.push(millis(&mut list)?);
        if let Some(ss) = &mut ss {
            theirs.push(millis(ss)?);
        }
    }
    drop(crowd);

    Ok(vec![
        Figure::new(
            BENCH,
            format!("{sockets} sockets of {processes} processes"),
            Unit::Millis,
            median(&ours).unwrap_or(f64::NAN),
        )
        .beside("ss -tunap", median(&theirs))
        .target(Target::RatioAtMost(0.2)),
        Figure::count(BENCH, "sockets not shown", missing).target(Target::Zero),
    ])
}

/// How many lines a program prints.
fn lines(command: &mut Command) -> anyhow::Result<u64> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    let lines = output.stdout.split(|byte| *byte == b'\n').count() - 1;
    Ok(u64::try_from(lines)?)
}

/// How long a program takes, from start to end.
fn millis(command: &mut Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("{command:?}"))?;
    let elapsed = start.elapsed();
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}
