//! The exit codes, and which error means which.

use std::io;
use std::process::ExitCode;

use logs::ErrorKind;

use crate::query::{self, QueryError};

use crate::portqry::ArgumentError;
use crate::tee::LogError;

/// The command line is wrong.
pub(crate) const USAGE: u8 = 64;
/// Input data is wrong.
pub(crate) const DATA: u8 = 65;
/// A facility that is needed is not there.
pub(crate) const UNAVAILABLE: u8 = 69;
/// Our own fault.
pub(crate) const INTERNAL: u8 = 70;
/// Output cannot be created.
pub(crate) const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
pub(crate) const IO: u8 = 74;
/// It is not permitted.
pub(crate) const PERMISSION: u8 = 77;

/// A name cannot be resolved.
pub(crate) const UNRESOLVED: u8 = 99;
/// Ctrl-C ended it before there was an answer, as a shell would put it.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error that the command line, the configuration file or the shell's limits
/// bring about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// An option is out of range or contradicts another.
    #[error("{0}")]
    Usage(String),
    /// The configuration file says something that is not understood.
    #[error("{0}")]
    Configuration(String),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: std::path::PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Too few files may be open at a time: the administrator's limit.
    #[error(
        "cannot record: only {limit} files may be open at a time and {needed} are needed; \
         raise the limit (`ulimit -n 1024` in root's shell, or LimitNOFILE=1024 in the unit)"
    )]
    Descriptors {
        /// The limit.
        limit: u64,
        /// What is needed.
        needed: u64,
    },
}

/// The code for an error, by the first of its causes that has one.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    let code = error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<UserError>() {
            return Some(match error {
                UserError::Usage(_) => USAGE,
                UserError::Configuration(_) => DATA,
                UserError::Unreadable { source, .. } => match source.kind() {
                    io::ErrorKind::PermissionDenied => PERMISSION,
                    io::ErrorKind::InvalidData => DATA,
                    _ => IO,
                },
                UserError::Descriptors { .. } => UNAVAILABLE,
            });
        }
        if let Some(error) = cause.downcast_ref::<recorder::Error>() {
            return Some(match error {
                recorder::Error::Logs(error) => of_logs(error),
                recorder::Error::Sensor(error) => of_sensor(error),
                _ => INTERNAL,
            });
        }
        if let Some(error) = cause.downcast_ref::<logs::Error>() {
            return Some(of_logs(error));
        }
        if let Some(error) = cause.downcast_ref::<sensor::Error>() {
            return Some(of_sensor(error));
        }
        if cause.downcast_ref::<ArgumentError>().is_some() {
            return Some(USAGE);
        }
        if let Some(error) = cause.downcast_ref::<LogError>() {
            return Some(match error {
                LogError::Create { source, .. }
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    PERMISSION
                }
                LogError::Kept(_) | LogError::Create { .. } => CANNOT_CREATE,
                LogError::Write { .. } => IO,
            });
        }
        if let Some(error) = cause.downcast_ref::<QueryError>() {
            return Some(error.code());
        }
        if let Some(error) = cause.downcast_ref::<probe::ScanError>() {
            return Some(query::scan_code(error));
        }
        cause.downcast_ref::<io::Error>().map(|_| IO)
    });
    ExitCode::from(code.unwrap_or(INTERNAL))
}

/// Did the reader of our output go away?
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn of_logs(error: &logs::Error) -> u8 {
    match error.kind() {
        ErrorKind::CannotCreate => CANNOT_CREATE,
        ErrorKind::Io => IO,
        ErrorKind::Permission => PERMISSION,
    }
}

fn of_sensor(error: &sensor::Error) -> u8 {
    match error {
        sensor::Error::Unavailable { .. } => UNAVAILABLE,
        sensor::Error::System { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            PERMISSION
        }
        sensor::Error::System { .. } => IO,
        _ => INTERNAL,
    }
}
