//! The configuration file: TOML with the same keys as the options.
//!
//! Every complaint names the file, the line and the key, and what would be
//! right there. What the values mean is not decided here: they go through the
//! same functions as those of the command line.

use std::ops::Range;
use std::path::Path;

use toml::{Spanned, Value};

use super::{Choice, EVENTS_SIZE, KEEP_DAYS, LOG_SIZE, RECONCILE, Whole};
use crate::exit::UserError;

/// What the file says; what it does not mention is `None`.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) log_dir: Option<String>,
    pub(super) log_size: Option<u64>,
    pub(super) events_size: Option<u64>,
    pub(super) max_total_size: Option<u64>,
    pub(super) keep_days: Option<u64>,
    pub(super) compress: Option<bool>,
    pub(super) engine: Option<Choice>,
    pub(super) reconcile: Option<u64>,
}

/// The file as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    log_dir: Option<Spanned<Value>>,
    log_size: Option<Spanned<Value>>,
    events_size: Option<Spanned<Value>>,
    max_total_size: Option<Spanned<Value>>,
    keep_days: Option<Spanned<Value>>,
    compress: Option<Spanned<Value>>,
    engine: Option<Spanned<Value>>,
    reconcile: Option<Spanned<Value>>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, UserError> {
        let text = std::fs::read_to_string(path).map_err(|source| UserError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let at = Place { path, text: &text };
        let raw: Raw = toml::from_str(&text).map_err(|error| {
            let message = error.message().replace("unknown field", "unknown key");
            at.wrong(error.span(), message.trim())
        })?;
        let whole = |limits: &'static Whole| move |value: &Value| number(limits, value);
        Ok(Self {
            log_dir: at.take("log-dir", raw.log_dir, |value| {
                let dir = value
                    .as_str()
                    .ok_or("it is not a text such as \"/var/log\"")?;
                Ok(dir.to_owned())
            })?,
            log_size: at.take("log-size", raw.log_size, whole(&LOG_SIZE))?,
            events_size: at.take("events-size", raw.events_size, whole(&EVENTS_SIZE))?,
            max_total_size: at.take("max-total-size", raw.max_total_size, size)?,
            keep_days: at.take("keep-days", raw.keep_days, whole(&KEEP_DAYS))?,
            compress: at.take("compress", raw.compress, switch)?,
            engine: at.take("engine", raw.engine, |value| {
                super::parse_engine(value.as_str().unwrap_or_default())
            })?,
            reconcile: at.take("reconcile", raw.reconcile, whole(&RECONCILE))?,
        })
    }
}

/// Where something is written.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    /// Makes a value of the file ours.
    fn take<T>(
        &self,
        key: &str,
        value: Option<Spanned<Value>>,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, UserError> {
        let Some(value) = value else {
            return Ok(None);
        };
        parse(value.get_ref()).map(Some).map_err(|why| {
            let what = format!("{key} = {}: {why}", value.get_ref());
            self.wrong(Some(value.span()), &what)
        })
    }

    fn wrong(&self, span: Option<Range<usize>>, what: &str) -> UserError {
        let path = self.path.display();
        let before = span.and_then(|span| self.text.get(..span.start));
        let place = match before {
            Some(before) => {
                let breaks = before.matches('\n').count();
                format!("{path}, line {}", breaks + 1)
            }
            None => path.to_string(),
        };
        UserError::Configuration(format!("{place}: {what}"))
    }
}

fn number(limits: &Whole, value: &Value) -> Result<u64, String> {
    match value {
        Value::Integer(number) => limits.check((*number).into()),
        _ => Err(limits.but("not a whole number")),
    }
}

/// A size is a number of bytes or has a unit.
fn size(value: &Value) -> Result<u64, String> {
    match value {
        Value::String(text) => super::parse_size(text),
        other => super::parse_size(&other.to_string()),
    }
}

fn switch(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(is_on) => Ok(*is_on),
        Value::String(text) => super::parse_switch(text),
        _ => Err("it is true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<File, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        std::fs::write(&path, text).unwrap();
        File::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_taken() {
        let file = read(
            "log-dir = '/a'\nlog-size = 2000\nevents-size = 3000\nmax-total-size = 2_000_000\n\
             keep-days = 7\ncompress = false\nengine = 'proc'\n",
        )
        .unwrap();
        assert_eq!(file.log_dir.as_deref(), Some("/a"));
        assert_eq!(file.log_size, Some(2000));
        assert_eq!(file.events_size, Some(3000));
        assert_eq!(file.max_total_size, Some(2_000_000));
        assert_eq!(file.keep_days, Some(7));
        assert_eq!(file.compress, Some(false));
        assert_eq!(file.engine, Some(Choice(Some(event::Engine::Proc))));
    }

    #[test]
    fn a_complaint_names_file_line_key_and_what_would_be_right() {
        for (text, expected) in [
            (
                "\n\nengine = 'steam'\n",
                ["line 3: engine", "auto, ebpf, sock-diag and proc"],
            ),
            (
                "engine = 5\n",
                ["line 1: engine = 5", "auto, ebpf, sock-diag and proc"],
            ),
            (
                "# x\nlog-dirr = '/a'\n",
                ["line 2: unknown key `log-dirr`", "`log-dir`"],
            ),
            ("log-size = 5\n", ["line 1: log-size = 5", "1000 to 102400"]),
            ("log-size = -5\n", ["line 1: log-size = -5", "too small"]),
            (
                "log-size = 'x'\n",
                ["line 1: log-size = ", "not a whole number"],
            ),
            ("keep-days = 0\n", ["line 1: keep-days = 0", "1 to 36500"]),
            (
                "max-total-size = -1\n",
                ["line 1: max-total-size", "500M or 4G"],
            ),
            ("\ncompress = 'maybe'\n", ["line 2: compress", "on or off"]),
            ("\ncompress = 1\n", ["line 2: compress", "true or false"]),
            ("log-dir = 7\n", ["line 1: log-dir = 7", "not a text"]),
            ("\nlog-dir = \n", ["line 2: ", ""]),
        ] {
            let error = read(text).unwrap_err();
            for part in expected.into_iter().chain(["p.toml, "]) {
                assert!(error.contains(part), "{text:?}: {part:?} in {error}");
            }
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
