//! `tracked`: the recorder's memory with 100,000 open sockets.
//!
//! They come into its table in two ways, and both are measured: one by one while
//! it records, and all at once in the snapshot at its start.

use std::path::Path;
use std::time::Duration;

use super::crowd::Crowd;
use super::recorder::Recorder;
use super::report::{Figure, Target, Unit, as_f64};
use super::{Sizes, machine, progress};

const BENCH: &str = "tracked";

/// Connections of one process: both ends stay below the usual limits of open
/// files, also where the hard one is low.
const PAIRS: u32 = 1000;

/// How long the recorder may be busy with that many sockets.
const SETTLE_LIMIT: Duration = Duration::from_mins(2);

/// Measures a recorder with many sockets.
pub(super) fn run(binary: &Path, sizes: &Sizes) -> anyhow::Result<Vec<Figure>> {
    let sockets = sizes.tracked_sockets;
    let processes = sockets.div_ceil(2 * PAIRS);
    progress(&format!("tracked: {sockets} sockets"));

    machine::wait_for_calm(u64::from(sockets / 10))?;
    let mut recorder = Recorder::start(binary)?;
    let crowd = Crowd::gather(processes, 0, PAIRS)?;
    recorder.subject.settle(SETTLE_LIMIT)?;
    let opened = recorder.subject.memory()?;
    recorder.stop()?;

    let mut recorder = Recorder::start(binary)?;
    recorder.subject.settle(SETTLE_LIMIT)?;
    let found = recorder.subject.memory()?;
    let life = recorder.stop()?.life;
    drop(crowd);

    let megabytes = |bytes: u64| as_f64(bytes) / 1e6;
    Ok(vec![
        Figure::new(
            BENCH,
            format!("resident memory, {sockets} sockets seen opening"),
            Unit::Megabytes,
            megabytes(opened.rss),
        )
        .target(Target::AtMost(120.0)),
        Figure::new(
            BENCH,
            format!("resident memory, {sockets} sockets found at the start"),
            Unit::Megabytes,
            megabytes(found.rss),
        )
        .target(Target::AtMost(120.0)),
        Figure::new(
            BENCH,
            "the same, at its peak",
            Unit::Megabytes,
            megabytes(life.peak_rss),
        ),
    ])
}
