//! The command line of Port Reporter: parses arguments, calls a library,
//! prints. One file for each subcommand; nothing is decided here.

mod allocator;
mod descriptors;
mod exit;
mod host;
mod list;
mod local;
mod portqry;
mod query;
mod quotes;
mod record;
mod tee;
mod terminal;
mod watch;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// The name of the program.
const NAME: &str = "portreporter";

/// The flight recorder for ports: which TCP and UDP ports this machine uses,
/// when, and by whom
#[derive(Parser)]
#[command(
    name = "portreporter",
    version,
    after_help = "\
Examples:
  portreporter record                    write down port activity until stopped
  portreporter list --listening          what listens now, and who
  portreporter query example.com:443     is it listening, and what answers
  portreporter watch --port 443          what happens on a port, as it happens"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Record(Box<record::RecordArgs>),
    List(list::ListArgs),
    Query(Box<query::QueryArgs>),
    Watch(watch::WatchArgs),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some((program, rest)) = as_portqry(&arguments) {
        return end(portqry::NAME, portqry::run(program, rest));
    }
    let arguments = record::with_original_options(arguments);
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    descriptors::raise();
    let result = match arguments.command {
        Command::Record(args) => descriptors::suffice_to_record()
            .map_err(anyhow::Error::from)
            .and_then(|()| record::run(&args)),
        Command::List(args) => list::run(args),
        Command::Query(args) => query::run(&args),
        Command::Watch(args) => watch::run(args),
    };
    end(NAME, result)
}

/// How the program was called and what follows, if that is the original
/// PortQry's command line: by the name of the program, or by its options after
/// `query`.
fn as_portqry(arguments: &[OsString]) -> Option<(&[OsString], &[OsString])> {
    let name = Path::new(arguments.first()?).file_stem()?;
    if name.eq_ignore_ascii_case(portqry::NAME) {
        return Some(arguments.split_at(1));
    }
    let is_query = arguments.get(1).is_some_and(|command| command == "query");
    let (program, rest) = arguments.split_at_checked(2)?;
    (is_query && portqry::is_meant(rest)).then_some((program, rest))
}

fn end(program: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        if exit::is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        complain(program, &format!("{error:#}"));
        exit::code(&error)
    })
}

/// Help and version go to standard output; a usage error is said as all others
/// are.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is no error.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            let text = error.render().to_string();
            complain(
                NAME,
                text.trim_end().strip_prefix("error: ").unwrap_or(&text),
            );
            ExitCode::from(exit::USAGE)
        }
    }
}

fn complain(program: &str, message: &str) {
    // Line breaks are ours; everything else could come from outside.
    let lines: Vec<_> = message.lines().map(event::text::escape).collect();
    // There is nowhere left to say that this failed.
    let _ = writeln!(std::io::stderr(), "{program}: {}", lines.join("\n"));
}
