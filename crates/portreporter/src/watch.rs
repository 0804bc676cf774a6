//! `portreporter watch`: changes of a port or of a process, as they happen.
//!
//! The stream is the recorder's: the sensor tells of each change, the owner is
//! looked up, lines come in order, and what was lost is declared. Only it ends
//! in a printer and not in log sets ([`watcher`]). So nothing that happened
//! between two looks is missed, as it was in the original, where the engine is
//! told of events; where it has to look again and again, standard error says so.
//!
//! It ends with Ctrl-C, with Escape on a terminal, or with SIGTERM; each way the
//! log file gets its end mark and the terminal is as it was ([`keys`]).

mod json;
mod keys;
mod lines;
mod notes;
mod watcher;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use identity::{Identifier, Roots};
use jiff::tz::TimeZone;
use recorder::{Recorder, Setup};

pub(crate) use self::watcher::{Head, Printer, Seen, Watched, select};
use self::{json::Json, keys::Keys, lines::Lines, notes::Notes, watcher::Watcher};
use crate::list::PortRange;
use crate::tee::Tee;
use crate::{descriptors, host, quotes};

/// Print changes of ports as they happen
///
/// Each listen, bind, connect, accept, change of state and close, with the
/// process that made it, also of sockets that live for a moment only. Several
/// ports or processes widen what is watched; a port together with a process
/// narrows it. Ctrl-C ends it, on a terminal Escape too.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  portreporter watch --port 443          who listens, connects, comes in, and when
  portreporter watch --pid 812 --json    one JSON object for each change

Lines of --json are those of PR-EVENTS. In the layout of the original:
  portqry -wport 135 -wt 30 -v -l changes.log")]
pub(crate) struct WatchArgs {
    /// Only sockets with this local or remote port, or one in this range
    #[arg(long, value_name = "N[,N|A-B]", value_delimiter = ',', value_parser = PortRange::parse)]
    port: Vec<PortRange>,
    /// Only sockets of this process
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pid: Vec<u32>,
    /// One JSON object for each change
    #[arg(long)]
    json: bool,
    /// Write everything to this file as well
    #[arg(short, long, value_name = "FILE")]
    log: Option<String>,
    /// Overwrite the file without asking
    #[arg(short = 'y', long = "yes")]
    overwrite: bool,
    /// How to capture: auto, ebpf, sock-diag or proc [default: auto]
    #[arg(long, value_parser = crate::record::parse_engine)]
    engine: Option<crate::record::Choice>,
}

/// Prints changes until it is stopped.
pub(crate) fn run(args: WatchArgs) -> anyhow::Result<ExitCode> {
    let mut tee = Tee::screen();
    if let Some(path) = &args.log {
        let path = PathBuf::from(quotes::strip(path));
        if args.json {
            tee.copy_to(&path, args.overwrite)?;
        } else {
            let words: Vec<_> = std::env::args_os().collect();
            let command = host::command(&words);
            tee.log_to(&path, args.overwrite, &command)?;
        }
    }
    let watched = Watched {
        ports: args.port,
        pids: args.pid,
        local_only: false,
    };
    let printer: Box<dyn Printer> = if args.json {
        Box::new(Json::new())
    } else {
        Box::new(Lines::new(&watched))
    };
    let engine = args.engine.and_then(|choice| choice.0);
    watch(watched, printer, tee, engine)?;
    Ok(ExitCode::SUCCESS)
}

/// Watches, with any printer, until a key, a signal or a closed pipe ends it.
pub(crate) fn watch(
    watched: Watched,
    printer: Box<dyn Printer>,
    tee: Tee,
    engine: Option<event::Engine>,
) -> anyhow::Result<()> {
    descriptors::suffice_to_record()?;
    // Before anything that takes long, so that a signal is never lost.
    let keys = Keys::listen().context("cannot watch for signals")?;
    let options = sensor::Options {
        engine,
        ..sensor::Options::default()
    };
    let sensor = sensor::open(&options)?;
    let identifier = Identifier::new(Roots::system());
    let degradations: Vec<_> = sensor
        .degradations
        .iter()
        .cloned()
        .chain(identifier.degradations())
        .collect();
    let mut notes = Notes::default();
    for degradation in &degradations {
        recorder::Events::degraded(&mut notes, degradation);
    }
    let stop = Arc::clone(&keys.stop);
    let head = Head {
        engine: sensor.engine.name(),
        hooks: sensor.hooks.clone(),
        degraded: recorder::describe(&degradations),
    };
    let setup = Setup {
        sensor,
        sink: Watcher::new(watched, printer, tee, stop, head),
        identifier,
        zone: TimeZone::system(),
        host: host::name(),
        os: host::system(),
        reconcile: Duration::from_mins(1),
    };
    let recorder = Recorder::start(setup, &mut notes)?;
    keys.stop.governs(recorder.control());
    let ended = recorder.run();
    drop(keys);
    ended?.end
}
