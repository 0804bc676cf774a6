//! The original's command line, as plain values.
//!
//! An option is a dash (or a slash, as in version 1) and its name in either
//! case; each has a long form with two dashes too. Everything the original
//! checks is checked here; nothing else is done.
//!
//! Where the sources differ: a range is written `1:9` (the help of 2.0) or
//! `1;9` (its article); both are taken. `/i` meant "no reverse look-up" in
//! version 1, and `-i` is the interactive mode of version 2; the sign in front
//! tells which is meant. `-s` was version 1's slow link.

mod given;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use given::{Given, Name, scan};

/// The port that is asked if none is named.
pub(super) const DEFAULT_PORT: u16 = 80;
/// The community that is named if none is given.
pub(super) const DEFAULT_COMMUNITY: &str = "public";
/// How often the watched port or process is shown, if nothing else is said.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(1);
const LONGEST_INTERVAL: u64 = 1200;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    Help,
    Version,
    /// Ask a host, and be done.
    Query {
        node: String,
        options: Options,
        quiet: bool,
        log: Option<LogFile>,
    },
    /// Ask what is typed.
    Interactive {
        node: Option<String>,
        options: Options,
        log: Option<LogFile>,
    },
    /// Show the ports of this machine.
    Local {
        verbose: bool,
        log: Option<LogFile>,
    },
    /// Show the ports of this machine whenever one of these changes.
    Watch {
        what: Watched,
        interval: Duration,
        verbose: bool,
        log: Option<LogFile>,
    },
}

/// What is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) ports: Ports,
    pub(super) protocol: Protocols,
    /// 0: one that the system chooses.
    pub(super) source_port: u16,
    pub(super) slow: bool,
    pub(super) no_reverse: bool,
    pub(super) community: String,
    /// Another services file than the system's.
    pub(super) services: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports: Ports::One(DEFAULT_PORT),
            protocol: Protocols::Tcp,
            source_port: 0,
            slow: false,
            no_reverse: false,
            community: DEFAULT_COMMUNITY.to_owned(),
            services: None,
        }
    }
}

/// Which ports are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    One(u16),
    /// From the first to the last.
    Range(u16, u16),
    /// In this order.
    List(Vec<u16>),
}

/// Over which protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocols {
    Tcp,
    Udp,
    Both,
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Port(u16),
    Process(u32),
}

/// The log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    /// Without asking.
    pub(super) overwrite: bool,
}

/// What is wrong with the command line: the user's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// No such option.
    #[error("there is no option {0}")]
    Unknown(String),
    /// Something that is no option, where one was expected.
    #[error("{0} does not belong to any option")]
    Stray(String),
    /// An option without what it needs.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// A switch with a value.
    #[error("{0} takes no value")]
    NeedlessValue(&'static str),
    /// An option that is there already.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Options that exclude each other.
    #[error("{0} and {1} cannot be used together")]
    Conflict(&'static str, &'static str),
    /// An option that goes with others only.
    #[error("{option} can only be used with {with}")]
    Alone {
        /// The option.
        option: &'static str,
        /// What it goes with.
        with: &'static str,
    },
    /// No name to ask.
    #[error("nobody to ask: -n NAME is missing")]
    NoNode,
    /// A name that cannot be one.
    #[error("{0} is not a name: it is empty or has spaces")]
    Node(String),
    /// Not a port.
    #[error("{0} is not a port: ports go from 1 to 65535")]
    Port(String),
    /// Not a range.
    #[error("{0} is not a range of ports: write START:END, the smaller number first")]
    Range(String),
    /// Not a list.
    #[error("{0} is not a list of ports: write them with commas between and without spaces")]
    List(String),
    /// Not a protocol.
    #[error("{0} is not a protocol: there are TCP, UDP and BOTH")]
    Protocol(String),
    /// A community without its marks.
    #[error(
        "{0} is not a community name between exclamation marks, such as !public! \
         (in a shell, between single quotes: '!public!')"
    )]
    Community(String),
    /// Not a process number.
    #[error("{0} is not a process number")]
    Pid(String),
    /// Not an interval.
    #[error("{0} is not an interval: 1 to 1200 seconds")]
    Interval(String),
}

/// Is this the original's command line? Each has one of these.
pub(super) fn is_original(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| {
        let Some(text) = argument.to_str() else {
            return false;
        };
        !text.starts_with("--")
            && matches!(
                Name::find(text),
                Some(
                    Name::Node
                        | Name::Interactive
                        | Name::Local
                        | Name::WatchPort
                        | Name::WatchPid
                        | Name::Endpoint
                        | Name::Order
                )
            )
    })
}

/// Makes sense of what follows the program's name.
pub(super) fn parse(arguments: &[OsString]) -> Result<Job, ArgumentError> {
    let given = scan(arguments)?;
    if given.has(Name::Help) || given.0.is_empty() {
        return Ok(Job::Help);
    }
    if given.has(Name::Version) {
        return Ok(Job::Version);
    }
    given.only_one(&[Name::Local, Name::WatchPort, Name::WatchPid])?;
    match [Name::Local, Name::WatchPort, Name::WatchPid]
        .into_iter()
        .find(|&name| given.has(name))
    {
        Some(mode) => local(&given, mode),
        None => remote(&given),
    }
}

/// `-local`, `-wport`, `-wpid`.
fn local(given: &Given, mode: Name) -> Result<Job, ArgumentError> {
    for (name, _) in &given.0 {
        match name {
            Name::Interval if mode == Name::Local => {
                return Err(ArgumentError::Alone {
                    option: Name::Interval.short(),
                    with: "-wport or -wpid",
                });
            }
            // Quiet has no effect here, as in the original.
            Name::Interval | Name::Log | Name::Overwrite | Name::Verbose | Name::Quiet => {}
            name if *name == mode => {}
            name => return Err(ArgumentError::Conflict(mode.short(), name.short())),
        }
    }
    let (log, verbose) = (log_file(given, false), given.has(Name::Verbose));
    let what = match mode {
        Name::WatchPort => Watched::Port(port(&given.text(mode).unwrap_or_default())?),
        Name::WatchPid => {
            let text = given.text(mode).unwrap_or_default();
            Watched::Process(text.parse().map_err(|_| ArgumentError::Pid(text))?)
        }
        _ => return Ok(Job::Local { verbose, log }),
    };
    let interval = match given.text(Name::Interval) {
        None => DEFAULT_INTERVAL,
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=LONGEST_INTERVAL) => Duration::from_secs(seconds),
            _ => return Err(ArgumentError::Interval(text)),
        },
    };
    Ok(Job::Watch {
        what,
        interval,
        verbose,
        log,
    })
}

/// `-n` and `-i`.
fn remote(given: &Given) -> Result<Job, ArgumentError> {
    for option in [Name::Interval, Name::Verbose] {
        if given.has(option) {
            let with = match option {
                Name::Interval => "-wport or -wpid",
                _ => "-local, -wport or -wpid",
            };
            let option = option.short();
            return Err(ArgumentError::Alone { option, with });
        }
    }
    given.only_one(&[Name::Endpoint, Name::Range, Name::Order])?;
    let node = given.text(Name::Node).map(|text| node(&text)).transpose()?;
    let ports = [Name::Endpoint, Name::Range, Name::Order]
        .into_iter()
        .find_map(|name| Some((name, given.text(name)?)));
    let ports = match ports {
        None => Ports::One(DEFAULT_PORT),
        Some((Name::Range, text)) => range(&text)?,
        Some((Name::Order, text)) => list(&text)?,
        Some((_, text)) => Ports::One(port(&text)?),
    };
    let protocol = match given.text(Name::Protocol) {
        Some(text) => protocols(&text)?,
        None => Protocols::Tcp,
    };
    let source_port = match given.text(Name::SourcePort) {
        Some(text) => source_port(&text)?,
        None => 0,
    };
    let community = match given.text(Name::Community) {
        Some(text) => community(&text)?,
        None => DEFAULT_COMMUNITY.to_owned(),
    };
    let options = Options {
        ports,
        protocol,
        source_port,
        slow: given.has(Name::SlowLink),
        no_reverse: given.has(Name::NoReverse),
        community,
        services: given.path(Name::Services),
    };
    let quiet = given.has(Name::Quiet);
    let log = log_file(given, quiet);
    if given.has(Name::Interactive) {
        given.only_one(&[Name::Interactive, Name::Quiet])?;
        return Ok(Job::Interactive { node, options, log });
    }
    if quiet && !matches!(options.ports, Ports::One(_)) {
        given.only_one(&[Name::Quiet, Name::Range])?;
        given.only_one(&[Name::Quiet, Name::Order])?;
    }
    if quiet && options.protocol == Protocols::Both {
        return Err(ArgumentError::Conflict("-q", "-p both"));
    }
    Ok(Job::Query {
        node: node.ok_or(ArgumentError::NoNode)?,
        options,
        quiet,
        log,
    })
}

fn log_file(given: &Given, quiet: bool) -> Option<LogFile> {
    Some(LogFile {
        path: given.path(Name::Log)?,
        overwrite: quiet || given.has(Name::Overwrite),
    })
}

/// A host's name or address.
pub(super) fn node(text: &str) -> Result<String, ArgumentError> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(ArgumentError::Node(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// One port.
pub(super) fn port(text: &str) -> Result<u16, ArgumentError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => Err(ArgumentError::Port(text.to_owned())),
    }
}

/// A source port; 0 is one that the system chooses.
pub(super) fn source_port(text: &str) -> Result<u16, ArgumentError> {
    if text == "0" { Ok(0) } else { port(text) }
}

/// TCP, UDP or both.
pub(super) fn protocols(text: &str) -> Result<Protocols, ArgumentError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocols::Tcp),
        "udp" => Ok(Protocols::Udp),
        "both" => Ok(Protocols::Both),
        _ => Err(ArgumentError::Protocol(text.to_owned())),
    }
}

/// A community between its marks.
pub(super) fn community(text: &str) -> Result<String, ArgumentError> {
    text.strip_prefix('!')
        .and_then(|text| text.strip_suffix('!'))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| ArgumentError::Community(text.to_owned()))
}

/// One port, a range or a list.
pub(super) fn ports(text: &str) -> Result<Ports, ArgumentError> {
    if text.contains([':', ';']) {
        range(text)
    } else if text.contains(',') {
        list(text)
    } else {
        port(text).map(Ports::One)
    }
}

fn range(text: &str) -> Result<Ports, ArgumentError> {
    let wrong = || ArgumentError::Range(text.to_owned());
    let (first, last) = text.split_once([':', ';']).ok_or_else(wrong)?;
    let (first, last) = (port(first)?, port(last)?);
    if first < last {
        Ok(Ports::Range(first, last))
    } else {
        Err(wrong())
    }
}

fn list(text: &str) -> Result<Ports, ArgumentError> {
    if text.split(',').any(str::is_empty) || text.contains(char::is_whitespace) {
        return Err(ArgumentError::List(text.to_owned()));
    }
    let ports: Result<_, _> = text.split(',').map(port).collect();
    Ok(Ports::List(ports?))
}
