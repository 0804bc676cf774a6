//! `portreporter record`: the main job.
//!
//! Arguments and configuration file become [`Settings`]; these open the log
//! directory (so that a second recorder is refused before it costs anything),
//! the sensor, and the recorder, which then runs until a signal ends it.

mod settings;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use event::Engine;
use identity::{Identifier, Roots};
use jiff::tz::TimeZone;
use logs::Logs;
use recorder::{Control, Reconciled, Recorder, Setup, Summary};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::settings::Settings;
pub(crate) use self::settings::{Choice, RecordArgs, parse_engine};
use crate::terminal::Terminal;
use crate::{allocator, exit, host};

/// Turns the original's options with one dash into ours with two: `-ld`, `-ls`.
pub(crate) fn with_original_options(arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_none_or(|command| command != "record") {
        return arguments;
    }
    let ours = |argument: OsString| match argument.to_str() {
        Some("-ld") => "--log-dir".into(),
        Some("-ls") => "--log-size".into(),
        _ => argument,
    };
    arguments.into_iter().map(ours).collect()
}

/// Records until it is stopped.
pub(crate) fn run(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::resolve(args)?;
    allocator::give_large_blocks_back();
    let zone = TimeZone::system();
    let (host, os) = (host::name(), host::system());
    let run = logs::Run {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host.clone(),
        os: os.clone(),
        boot_id: host::boot_id(),
        run: host::run_id(),
        names_processes: true,
        ..logs::Run::default()
    };
    // Before anything that takes long, so that a signal is never lost.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    let mut terminal = Terminal::new();
    let opened = Logs::open(settings.logs, run, zone.clone(), recorder::wall_now());
    let (mut logs, notices) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(not_started(&mut terminal, error)),
    };
    let sensor = match sensor::open(&settings.sensor) {
        Ok(sensor) => sensor,
        Err(error) => return Ok(not_started(&mut terminal, error)),
    };
    let identifier = Identifier::new(Roots::system());

    terminal.started(sensor.engine.name());
    let degradations: Vec<_> = sensor
        .degradations
        .iter()
        .cloned()
        .chain(identifier.degradations())
        .collect();
    for degradation in &degradations {
        if sensor.engine != Engine::Ebpf && degradation.what.starts_with("engine") {
            terminal.lesser_engine(degradation);
        } else {
            recorder::Events::degraded(&mut terminal, degradation);
        }
    }
    for notice in &notices {
        recorder::Events::notice(&mut terminal, notice);
    }
    let head = logs.run_mut();
    sensor.engine.name().clone_into(&mut head.engine);
    head.hooks.clone_from(&sensor.hooks);
    head.degraded = recorder::describe(&degradations);

    let setup = Setup {
        sensor,
        sink: logs,
        identifier,
        zone,
        host,
        os,
        reconcile: settings.reconcile,
    };
    let recorder = match Recorder::start(setup, &mut terminal) {
        Ok(recorder) => recorder,
        Err(error) => {
            let code = not_started(&mut terminal, error);
            terminal.stopped();
            return Ok(code);
        }
    };
    watch(signals, recorder.control())?;
    let ended = recorder.run();
    if let Err(error) = &ended {
        terminal.failed(error);
    }
    terminal.stopped();
    let summary = ended?;
    print(&summary).context("cannot write the summary")?;
    match summary.end.unfinished {
        None => Ok(ExitCode::SUCCESS),
        Some(unfinished) => Err(unfinished.into()),
    }
}

/// Says why there is no recording, once: as an application event.
fn not_started(terminal: &mut Terminal, error: impl Into<anyhow::Error>) -> ExitCode {
    let error = error.into();
    terminal.not_started(error.as_ref());
    exit::code(&error)
}

/// Hands signals to the recorder.
fn watch(mut signals: Signals, control: Control) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => control.roll(),
                    _ => control.stop(),
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

fn print(summary: &Summary) -> std::io::Result<()> {
    let counters = &summary.counters;
    let files = &summary.end.written;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} of {} of {}, {} lost\n{}, {}, {} before compression, in {}",
        plural(counters.written, "event"),
        plural(summary.sockets, "socket"),
        plural(summary.processes, "process"),
        counters.lost,
        plural(files.sets, "log set"),
        plural(files.lines, "line"),
        plural(files.bytes, "byte"),
        event::text::escape(&summary.end.directory.to_string_lossy()),
    )?;
    if files.gone > 0 {
        writeln!(
            out,
            "{} more deleted or moved away meanwhile",
            plural(files.gone, "log set")
        )?;
    }
    let found = &summary.reconciled;
    if *found != Reconciled::default() {
        writeln!(
            out,
            "{} found that no event had told of, {} gone unnoticed (discover and vanish in PR-EVENTS)",
            plural(found.discovered, "socket"),
            found.vanished
        )?;
    }
    if counters.lost > 0 {
        writeln!(
            out,
            "the kernel made {} = {} written + {} lost; each gap in PR-EVENTS says when and why",
            plural(counters.kernel, "event"),
            counters.written,
            counters.lost
        )?;
    }
    Ok(())
}

fn plural(count: u64, noun: &str) -> String {
    let ending = match (count, noun.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(arguments: &[&str]) -> Vec<OsString> {
        with_original_options(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn one_process_and_two_processes() {
        assert_eq!(plural(1, "process"), "1 process");
        assert_eq!(plural(2, "process"), "2 processes");
        assert_eq!(plural(0, "event"), "0 events");
    }

    #[test]
    fn the_original_options_are_understood() {
        assert_eq!(
            translated(&["portreporter", "record", "-ld", "'c:\\x'", "-ls", "2000"]),
            [
                "portreporter",
                "record",
                "--log-dir",
                "'c:\\x'",
                "--log-size",
                "2000"
            ]
        );
        assert_eq!(
            translated(&["portreporter", "list", "-ls"]),
            ["portreporter", "list", "-ls"]
        );
    }
}
