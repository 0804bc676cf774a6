//! PortQry: the program under its original name, with its own command line.
//!
//! `portqry` (a link to the same binary) takes what the original took and
//! prints what it printed, line for line where that is documented, so that
//! scripts written for it go on working; `portreporter query` with the
//! original's options (`-n` and its company) comes here, too. What is asked and
//! how is the business of the library `probe`, which `portreporter query` in
//! its own form uses as well; here is only the manner.
//!
//! Messages go to standard output, as the original's did, except those that it
//! cannot have had: a command line that makes no sense, and faults of files.

mod answers;
mod arguments;
mod help;
mod interactive;
mod local;
mod query;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use probe::Services;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub(crate) use self::arguments::ArgumentError;
use self::arguments::{Job, LogFile};
use self::query::Desk;
use self::watch::Classic;
use crate::tee::Tee;
use crate::{exit, host};

/// The name under which the original's command line is taken.
pub(crate) const NAME: &str = "portqry";

/// Is this the original's command line, given to `portreporter query`?
pub(crate) fn is_meant(arguments: &[OsString]) -> bool {
    arguments::is_original(arguments)
}

/// Does what the command line says. `program` is how the user called it.
pub(crate) fn run(program: &[OsString], arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let job = arguments::parse(arguments)?;
    let command = || host::command(&[program, arguments].concat());
    let code = match job {
        Job::Help => {
            let mut out = Tee::screen();
            out.bytes(help::HELP.as_bytes());
            out.finish()?;
            0
        }
        Job::Version => {
            let mut out = Tee::screen();
            out.line(&format!(
                "PortQry version 2.0 (portreporter {})",
                env!("CARGO_PKG_VERSION")
            ));
            out.finish()?;
            0
        }
        Job::Local { verbose, log } => {
            let mut out = open(Tee::screen(), log.as_ref(), &command())?;
            let shown = local::run(&mut out, verbose);
            out.finish()?;
            shown?;
            0
        }
        Job::Watch {
            what,
            interval,
            verbose,
            log,
        } => {
            let out = open(Tee::screen(), log.as_ref(), &command())?;
            let printer = Classic::new(what, interval, verbose);
            crate::watch::watch(printer.watched(), Box::new(printer), out, None)?;
            0
        }
        Job::Query {
            node,
            options,
            quiet,
            log,
        } => {
            let services = services(options.services.as_deref())?;
            let screen = if quiet { Tee::quiet() } else { Tee::screen() };
            let mut out = open(screen, log.as_ref(), &command())?;
            let stop = stop(&[SIGINT, SIGTERM, SIGHUP])?;
            let desk = Desk {
                services: &services,
                stop: &stop,
                interactive: false,
                status_only: quiet && log.is_none(),
            };
            let code = desk.ask(&mut out, &node, &options);
            out.finish()?;
            code
        }
        Job::Interactive { node, options, log } => {
            let services = services(options.services.as_deref())?;
            let mut out = open(Tee::screen(), log.as_ref(), &command())?;
            let stop = stop(&[SIGINT])?;
            let desk = Desk {
                services: &services,
                stop: &stop,
                interactive: true,
                status_only: false,
            };
            let ended = interactive::run(&desk, &mut out, node, options);
            out.finish()?;
            ended?;
            0
        }
    };
    Ok(ExitCode::from(code))
}

fn open(mut out: Tee, log: Option<&LogFile>, command: &str) -> anyhow::Result<Tee> {
    if let Some(log) = log {
        out.log_to(&log.path, log.overwrite, command)?;
    }
    Ok(out)
}

/// Which service has which port. A machine without the file has the services
/// that we know.
fn services(path: Option<&Path>) -> anyhow::Result<Services> {
    match path {
        Some(path) => Services::read(path)
            .with_context(|| format!("cannot read the services file {}", path.display())),
        None => {
            Ok(Services::read(&probe::default_services()).unwrap_or_else(|_| Services::known()))
        }
    }
}

/// Becomes true with one of these signals; the second time ends the program at
/// once.
fn stop(signals: &[i32]) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        let code = i32::from(exit::INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot watch for signals")?;
    }
    Ok(stop)
}
