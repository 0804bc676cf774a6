//! `idle`: what the recorder costs while nothing happens.

use std::path::Path;
use std::time::{Duration, Instant};

use super::recorder::Recorder;
use super::report::{Figure, Target, Unit, as_f64};
use super::{Sizes, machine, progress};

const BENCH: &str = "idle";

/// How long the recorder may be busy with its start.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Measures an idle recorder.
pub(super) fn run(binary: &Path, sizes: &Sizes) -> anyhow::Result<Vec<Figure>> {
    let seconds = sizes.idle_seconds;
    machine::wait_for_calm(100)?;
    progress(&format!("idle: {seconds} s"));
    let mut recorder = Recorder::start(binary)?;
    recorder.subject.settle(SETTLE_LIMIT)?;
    let before = recorder.subject.cpu()?;
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let elapsed = start.elapsed();
    recorder.subject.must_run()?;
    let used = recorder.subject.cpu()?.saturating_sub(before);
    let memory = recorder.subject.memory()?;
    recorder.stop()?;

    Ok(vec![
        Figure::new(
            BENCH,
            format!("CPU of a core over {seconds} s"),
            Unit::Percent,
            used.as_secs_f64() / elapsed.as_secs_f64() * 100.0,
        )
        .target(Target::AtMost(0.3)),
        Figure::new(
            BENCH,
            "resident memory",
            Unit::Megabytes,
            as_f64(memory.rss) / 1e6,
        )
        .target(Target::AtMost(20.0)),
        Figure::new(
            BENCH,
            "proportional memory",
            Unit::Megabytes,
            as_f64(memory.pss) / 1e6,
        ),
    ])
}
