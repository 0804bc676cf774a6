//! `portreporter query`: is a port listening, and what answers there?
//!
//! The arguments are resolved into hosts, ports and settings ([`plan`]), the
//! library `probe` asks, and what it finds is printed: as a table for people
//! ([`table`]), with all that was learnt (`-v`), or as JSON Lines ([`json`]),
//! each line as soon as it is known. For a host that is this machine what the
//! machine knows of it stands beside that ([`Here`]). A scan of many ports keeps in memory, and
//! shows, only what listens; of the others it keeps the count.
//!
//! What comes from the other side is somebody else's text. It is escaped before
//! it is printed.

mod json;
mod plan;
mod progress;
mod results;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use probe::{ScanError, Verdict};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::plan::Plan;
use self::progress::Progress;
use self::results::Results;
use self::table::Look;
use crate::exit;
use crate::local::Here;

/// Is a port listening, and what answers there
///
/// Asks TCP ports by connecting, UDP ports by a datagram, and then puts the
/// question that the port's service understands: which service that is, says
/// the system's services file. No privileges are needed.
///
/// PORTS are separated by commas: 22, 1-1024, tcp:22, udp:53, both:53, a
/// service's name, or the name of a set. HOST is a name (all its addresses are
/// asked), an address ([::1], fe80::1%eth0) or a range (10.0.0.0/24).
#[derive(Clone, Debug, clap::Args)]
#[expect(
    clippy::doc_markdown,
    reason = "the comment is the help, which people read as it stands"
)]
#[command(after_help = "\
Examples:
  portreporter query example.com:443          what answers there
  portreporter query dc1 --set domains-and-trusts
  portreporter query '[::1]:22,udp:53' -v     with all that was learnt
  portreporter query 10.0.0.0/24:22,80 --json
  portreporter query localhost:1-65535        everything that listens
  portreporter query db:1025 --as ldap        LDAP on another port
  portreporter query -n db -e 1025 -p udp     as the original PortQry (portqry -?)

Exit code: 0 if a port is listening, 1 if none is, 2 if it is filtered or not
known, 99 if a name cannot be resolved. With --all, 0 only if every port is
listening; with a set, 0 only if every port that it needs is.")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch on the command line"
)]
pub(crate) struct QueryArgs {
    /// Whom and what to ask
    #[arg(value_name = "HOST[:PORTS]", required = true)]
    hosts: Vec<String>,
    /// Ports of the hosts that are named without
    #[arg(short, long, value_name = "PORTS")]
    ports: Option<String>,
    /// Ask the ports of a service set, and give one verdict: domains-and-trusts,
    /// dns, netbios, ipsec, sql, web, exchange, netmeeting, or one of --sets
    #[arg(long, value_name = "NAME", conflicts_with = "ports")]
    set: Option<String>,
    /// A TOML file with more sets
    #[arg(long, value_name = "FILE")]
    sets: Option<PathBuf>,
    /// TCP, where the port does not say; the default
    #[arg(long)]
    tcp: bool,
    /// UDP, where the port does not say; with --tcp both
    #[arg(long)]
    udp: bool,
    /// Only IPv4 addresses
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6 addresses
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Ask as if this service were on every port, such as ldap
    #[arg(long = "as", value_name = "SERVICE")]
    speak: Option<String>,
    /// Put no question: only find out what listens
    #[arg(long, conflicts_with_all = ["speak", "banner"])]
    no_ask: bool,
    /// Read what a port says of itself also when there are more than 50 ports
    #[arg(long)]
    banner: bool,
    /// SNMP community
    #[arg(long, value_name = "NAME", default_value = "public")]
    community: String,
    /// A file with the secret that a RADIUS server shares with this host, without
    /// which it does not answer (testing123, as FreeRADIUS comes)
    #[arg(long, value_name = "FILE")]
    radius_secret_file: Option<PathBuf>,
    /// The services file
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
    /// Ask from this port, one port after the other
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    source_port: Option<u16>,
    /// How long to wait for one try of a connection (2) and for an answer (3)
    #[arg(long, value_name = "SECONDS", value_parser = plan::seconds)]
    wait: Option<plan::Seconds>,
    /// How often a connection is tried before the port is called filtered
    #[arg(long, value_name = "N", default_value = "3",
          value_parser = clap::value_parser!(u32).range(1..=10))]
    tries: u32,
    /// At most so many tries a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// At most so many ports at once
    #[arg(long, value_name = "N", default_value = "1024",
          value_parser = clap::value_parser!(u32).range(1..=65535))]
    concurrency: u32,
    /// Ask in the order of the ports, not in a scattered one
    #[arg(long)]
    no_shuffle: bool,
    /// Exit with 0 only if every port is listening
    #[arg(long)]
    all: bool,
    /// Show every port, also when there are more than 50
    #[arg(long)]
    every: bool,
    /// Show all that was learnt
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
    /// One JSON object for each port
    #[arg(long)]
    json: bool,
}

/// Why nothing, or not all, was asked. The command line's fault, or its files'.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// An argument is not understood.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("cannot read {what} {}", .path.display())]
    Unreadable {
        /// Which file it was to be.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file of sets is not understood.
    #[error("the file of sets {}", .path.display())]
    Sets {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: probe::BadSets,
    },
}

impl QueryError {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Sets { .. } => exit::DATA,
            Self::Unreadable { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => exit::PERMISSION,
                io::ErrorKind::InvalidData => exit::DATA,
                _ => exit::IO,
            },
        }
    }
}

/// The exit code of a scan that had to end.
pub(crate) fn scan_code(error: &ScanError) -> u8 {
    match error {
        ScanError::SourcePortDenied(_) => exit::PERMISSION,
        ScanError::SourcePortTaken(_) | ScanError::Descriptors(_) | ScanError::PortsUsedUp => {
            exit::UNAVAILABLE
        }
        ScanError::System { .. } => exit::IO,
    }
}

/// Asks and prints.
pub(crate) fn run(args: &QueryArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args)?;
    for unresolved in &plan.unresolved {
        notice(&unresolved.to_string());
    }
    let stop = stop_on_signal()?;
    let progress = Progress::begin(plan.count());
    let mut results = Results::new(&plan, args.every);
    let mut here = Here::default();
    let mut written = Ok(());
    let mut outcome = Ok(());
    for (number, group) in plan.groups.iter().enumerate() {
        let mut tell = |verdict: Verdict| {
            progress.count(&verdict);
            if args.json && written.is_ok() {
                let findings = if results.shows(&verdict) {
                    here.explain(&verdict)
                } else {
                    Vec::new()
                };
                written = json::write(&mut io::stdout().lock(), group, &verdict, &findings);
                if written.is_err() {
                    // Nobody reads any more.
                    stop.store(true, Ordering::Relaxed);
                }
            }
            results.add(number, verdict);
        };
        let (services, settings) = (&plan.services, &plan.settings);
        outcome = probe::scan(group.targets(), services, settings, &stop, &mut tell);
        if outcome.is_err() || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let took = progress.end();
    written
        .and_then(|()| {
            let mut out = io::BufWriter::new(io::stdout().lock());
            if args.json {
                json::write_sets(&mut out, &results)?;
            } else if results.asked() > 0 {
                let look = Look {
                    verbose: args.verbose,
                    width: terminal_width(),
                };
                table::write(&mut out, &plan, &results, &mut here, look, took)?;
            }
            out.flush()
        })
        .context("cannot write what was found")?;
    outcome.context("cannot go on")?;
    for unread in here.unread() {
        notice(&format!("on this machine could not be read: {unread}"));
    }
    let left = plan.count() - results.asked();
    if left > 0 {
        notice(&format!(
            "interrupted: {left} of {} ports have no verdict",
            plan.count()
        ));
    }
    if !plan.unresolved.is_empty() {
        return Ok(ExitCode::from(exit::UNRESOLVED));
    }
    Ok(ExitCode::from(results.code(args.all, left == 0)))
}

/// Says what is not an error of the whole.
fn notice(text: &str) {
    // Nothing can be done about a standard error that is closed.
    let _ = writeln!(io::stderr(), "portreporter: {}", event::text::escape(text));
}

/// Becomes true at Ctrl-C; a second one ends the program at once.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot wait for signals")?;
    }
    Ok(stop)
}

/// The width of standard output, if it is a terminal.
fn terminal_width() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
