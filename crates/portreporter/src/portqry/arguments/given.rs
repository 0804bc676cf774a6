//! The options' names, and which of them were given with which values.
//!
//! What the values mean, and which options go together, is not known here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::ArgumentError;
use crate::quotes;

/// One of the original's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Node,
    Protocol,
    Endpoint,
    Range,
    Order,
    Log,
    Overwrite,
    SlowLink,
    NoReverse,
    SourcePort,
    Community,
    Quiet,
    Interactive,
    Local,
    WatchPort,
    WatchPid,
    Interval,
    Verbose,
    Services,
    Help,
    Version,
}

impl Name {
    /// Each with its short and its long form, and whether it takes a value.
    const ALL: [(Self, &'static str, &'static str, bool); 21] = [
        (Self::Node, "-n", "--name", true),
        (Self::Protocol, "-p", "--protocol", true),
        (Self::Endpoint, "-e", "--endpoint", true),
        (Self::Range, "-r", "--range", true),
        (Self::Order, "-o", "--order", true),
        (Self::Log, "-l", "--log", true),
        (Self::Overwrite, "-y", "--yes", false),
        (Self::SlowLink, "-sl", "--slow-link", false),
        (Self::NoReverse, "-nr", "--no-reverse", false),
        (Self::SourcePort, "-sp", "--source-port", true),
        (Self::Community, "-cn", "--community", true),
        (Self::Quiet, "-q", "--quiet", false),
        (Self::Interactive, "-i", "--interactive", false),
        (Self::Local, "-local", "--local", false),
        (Self::WatchPort, "-wport", "--watch-port", true),
        (Self::WatchPid, "-wpid", "--watch-pid", true),
        (Self::Interval, "-wt", "--watch-time", true),
        (Self::Verbose, "-v", "--verbose", false),
        (Self::Services, "--services", "--services", true),
        (Self::Help, "-h", "--help", false),
        (Self::Version, "-version", "--version", false),
    ];

    pub(super) fn short(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(name, ..)| *name == self)
            .map_or("", |(_, short, ..)| short)
    }

    fn takes_value(self) -> bool {
        Self::ALL
            .iter()
            .any(|&(name, _, _, takes)| name == self && takes)
    }

    /// The option that is written so.
    pub(super) fn find(text: &str) -> Option<Self> {
        let lower = text.to_lowercase();
        if lower.starts_with("--") {
            let long = Self::ALL.iter().find(|(_, _, long, _)| *long == lower)?;
            return Some(long.0);
        }
        let is_slash = lower.starts_with('/');
        let name = lower.strip_prefix(['-', '/', '–', '—'])?;
        match name {
            "?" => return Some(Self::Help),
            "s" => return Some(Self::SlowLink),
            "i" if is_slash => return Some(Self::NoReverse),
            _ => {}
        }
        let short = |short: &str| short.strip_prefix('-') == Some(name);
        let found = Self::ALL.iter().find(|(_, text, ..)| short(text))?;
        Some(found.0)
    }
}

/// What was found on the command line, before it is made sense of.
#[derive(Debug, Default)]
pub(super) struct Given(pub(super) Vec<(Name, OsString)>);

impl Given {
    pub(super) fn has(&self, name: Name) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    pub(super) fn text(&self, name: Name) -> Option<String> {
        let (_, value) = self.0.iter().find(|(given, _)| *given == name)?;
        Some(event::text::from_bytes(value.as_bytes()))
    }

    pub(super) fn path(&self, name: Name) -> Option<PathBuf> {
        let (_, value) = self.0.iter().find(|(given, _)| *given == name)?;
        Some(PathBuf::from(value))
    }

    /// Refuses two of these at once.
    pub(super) fn only_one(&self, names: &[Name]) -> Result<(), ArgumentError> {
        let mut given = names.iter().filter(|&&name| self.has(name));
        match (given.next(), given.next()) {
            (Some(one), Some(other)) => Err(ArgumentError::Conflict(one.short(), other.short())),
            _ => Ok(()),
        }
    }
}

/// Splits the line into options and their values.
pub(super) fn scan(arguments: &[OsString]) -> Result<Given, ArgumentError> {
    let mut given = Given::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = event::text::from_bytes(argument.as_bytes());
        let (option, attached) = match text.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (text.as_str(), None),
        };
        let Some(name) = Name::find(option) else {
            return Err(if text.starts_with(['-', '/']) {
                ArgumentError::Unknown(text)
            } else {
                ArgumentError::Stray(text)
            });
        };
        let value = match (name.takes_value(), attached) {
            (true, Some(value)) => OsString::from(value),
            (true, None) => rest
                .next()
                .filter(|next| !is_option(next))
                .cloned()
                .ok_or(ArgumentError::NoValue(name.short()))?,
            (false, Some(_)) => return Err(ArgumentError::NeedlessValue(name.short())),
            (false, None) => OsString::new(),
        };
        if given.has(name) {
            return Err(ArgumentError::Twice(name.short()));
        }
        let value = match value.to_str() {
            Some(text) => quotes::strip(text).into(),
            None => value,
        };
        given.0.push((name, value));
    }
    Ok(given)
}

/// A value may begin with a slash, as a path does; an option stands alone.
fn is_option(argument: &OsStr) -> bool {
    argument
        .to_str()
        .is_some_and(|text| text.starts_with('-') && Name::find(text).is_some())
}
