//! What `record` is to do: the command line first, then the configuration
//! file, then the defaults.

mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use event::Engine;

use self::file::File;
use crate::exit::UserError;
use crate::quotes;

const DEFAULT_CONFIG: &str = "/etc/portreporter/portreporter.toml";
const SYSTEM_LOG_DIR: &str = "/var/log/portreporter";

/// Record which ports are used, when and by whom, until stopped
///
/// Writes log sets of four files: PR-INITIAL, PR-PORTS, PR-PIDS and PR-EVENTS.
/// SIGINT and SIGTERM end the recording in order; SIGHUP opens a new set.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  portreporter record
  portreporter record -ld /data/ports -ls 20000 --keep-days 90

The original's options -ld and -ls are --log-dir and --log-size.")]
pub(crate) struct RecordArgs {
    /// Where the log sets go; created if it is not there [default:
    /// /var/log/portreporter for root, else ~/.local/state/portreporter]
    #[arg(long, value_name = "DIR")]
    log_dir: Option<String>,
    /// Size at which a new set is opened, 1000 to 102400 [default: 5120]
    #[arg(long, value_name = "KB", allow_negative_numbers = true,
          value_parser = |text: &str| LOG_SIZE.parse(text))]
    log_size: Option<u64>,
    /// The same for PR-EVENTS, 1000 to 1048576 [default: 65536]
    #[arg(long, value_name = "KB", allow_negative_numbers = true,
          value_parser = |text: &str| EVENTS_SIZE.parse(text))]
    events_size: Option<u64>,
    /// Remove the oldest sets when all take more, such as 500M or 4G [default:
    /// 10 % of the file system, at most 4G]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse_size)]
    max_total_size: Option<u64>,
    /// Remove sets that are older [default: no limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
          value_parser = |text: &str| KEEP_DAYS.parse(text))]
    keep_days: Option<u64>,
    /// Compress closed PR-EVENTS and PR-PIDS files [default: on]
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on",
          value_parser = parse_switch)]
    compress: Option<bool>,
    /// How to capture: auto, ebpf, sock-diag or proc [default: auto]
    #[arg(long, value_parser = parse_engine)]
    engine: Option<Choice>,
    /// How often the table of sockets is compared with the kernel's, 1 to
    /// 86400; 0: never [default: 60]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true,
          value_parser = |text: &str| RECONCILE.parse(text))]
    reconcile: Option<u64>,
    /// Read options from this file [default: /etc/portreporter/portreporter.toml
    /// if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Size of the buffer between the kernel and the recorder, for tests of loss
    #[arg(long, value_name = "KB", hide = true,
          value_parser = clap::value_parser!(u32).range(4..=1_048_576))]
    ring_size: Option<u32>,
}

/// An engine, or the best that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice(pub(crate) Option<Engine>);

/// What is to be done, all defaults filled in.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) logs: logs::Options,
    pub(crate) sensor: sensor::Options,
    pub(crate) reconcile: Duration,
}

impl Settings {
    pub(crate) fn resolve(args: &RecordArgs) -> Result<Self, UserError> {
        let file = match &args.config {
            Some(path) => File::read(path)?,
            None if Path::new(DEFAULT_CONFIG).exists() => File::read(Path::new(DEFAULT_CONFIG))?,
            None => File::default(),
        };
        let dir = match args.log_dir.as_ref().or(file.log_dir.as_ref()) {
            Some(dir) => PathBuf::from(quotes::strip(dir)),
            None => default_log_dir()?,
        };
        if dir.as_os_str().is_empty() {
            return Err(UserError::Usage("--log-dir: the name is empty".to_owned()));
        }
        let mut sensor = sensor::Options::default();
        if let Some(Choice(engine)) = args.engine.or(file.engine) {
            sensor.engine = engine;
        }
        if let Some(kilobytes) = args.ring_size {
            sensor.ring_bytes = kilobytes.next_power_of_two().saturating_mul(1024);
        }
        sensor.interval = Duration::from_millis(250);
        let days = args.keep_days.or(file.keep_days);
        Ok(Self {
            logs: logs::Options {
                dir,
                set_size: args.log_size.or(file.log_size).unwrap_or(5120) * 1024,
                events_size: args.events_size.or(file.events_size).unwrap_or(65_536) * 1024,
                max_total: args.max_total_size.or(file.max_total_size),
                // Within its limits it is a small number.
                keep_days: days.and_then(|days| u32::try_from(days).ok()),
                compress: args.compress.or(file.compress).unwrap_or(true),
            },
            sensor,
            reconcile: Duration::from_secs(args.reconcile.or(file.reconcile).unwrap_or(60)),
        })
    }
}

fn default_log_dir() -> Result<PathBuf, UserError> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(SYSTEM_LOG_DIR));
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|state| state.join("portreporter"))
        .ok_or_else(|| {
            UserError::Usage(
                "there is no home directory to keep logs in; name a directory with --log-dir"
                    .to_owned(),
            )
        })
}

/// A whole number between two limits, both included.
struct Whole {
    least: u64,
    most: u64,
    /// What is counted, and a value that is usual.
    unit: &'static str,
    example: u64,
}

const LOG_SIZE: Whole = Whole {
    least: 1000,
    most: 102_400,
    unit: "KB",
    example: 5120,
};
const EVENTS_SIZE: Whole = Whole {
    least: 1000,
    most: 1_048_576,
    unit: "KB",
    example: 65_536,
};
const KEEP_DAYS: Whole = Whole {
    least: 1,
    most: 36_500,
    unit: "days",
    example: 90,
};

const RECONCILE: Whole = Whole {
    least: 0,
    most: 86_400,
    unit: "seconds",
    example: 60,
};

impl Whole {
    fn parse(&self, text: &str) -> Result<u64, String> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.but("not a whole number"));
        }
        let number = match text.parse::<i128>() {
            Ok(number) => number,
            Err(_) if text.starts_with('-') => i128::MIN,
            Err(_) => i128::MAX,
        };
        self.check(number)
    }

    fn check(&self, number: i128) -> Result<u64, String> {
        match u64::try_from(number) {
            Ok(number) if (self.least..=self.most).contains(&number) => Ok(number),
            _ if number < i128::from(self.least) => Err(self.but("too small")),
            _ => Err(self.but("too large")),
        }
    }

    fn but(&self, what: &str) -> String {
        let Self {
            least,
            most,
            unit,
            example,
        } = self;
        format!("it is {what}; give {unit} from {least} to {most}, such as {example}")
    }
}

pub(crate) fn parse_engine(text: &str) -> Result<Choice, String> {
    match text {
        "auto" => Ok(Choice(None)),
        "ebpf" => Ok(Choice(Some(Engine::Ebpf))),
        "sock-diag" => Ok(Choice(Some(Engine::SockDiag))),
        "proc" => Ok(Choice(Some(Engine::Proc))),
        _ => Err("there are auto, ebpf, sock-diag and proc".to_owned()),
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".to_owned()),
    }
}

/// A number of bytes, with K, M, G or T for powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 500M or 4G");
    let text = text.trim();
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let shift = match unit.to_ascii_uppercase() {
                'K' => 10,
                'M' => 20,
                'G' => 30,
                'T' => 40,
                _ => return Err(wrong()),
            };
            (&text[..at], shift)
        }
        _ => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < 1_000_000 {
        Err("less than 1M would not hold one set".to_owned())
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        assert_eq!(parse_size("5000000"), Ok(5_000_000));
        for wrong in ["", "G", "4X", "-1", "99999999999T", "10K"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_file_gives_way_to_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        std::fs::write(
            &path,
            "log-dir = '/a'\nlog-size = 2000\nmax-total-size = '2G'\n",
        )
        .unwrap();
        let args = RecordArgs {
            config: Some(path),
            log_size: Some(3000),
            ..RecordArgs::default()
        };
        let settings = Settings::resolve(&args).unwrap();
        assert_eq!(settings.logs.dir, Path::new("/a"));
        assert_eq!(settings.logs.set_size, 3000 * 1024);
        assert_eq!(settings.logs.max_total, Some(2 << 30));
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: RecordArgs,
    }

    fn parsed(arguments: &[&str]) -> Result<RecordArgs, String> {
        let line = std::iter::once(&"record").chain(arguments);
        <Line as clap::Parser>::try_parse_from(line)
            .map(|line| line.args)
            .map_err(|error| error.render().to_string())
    }

    #[test]
    fn a_switch_has_its_value_in_any_form() {
        for (arguments, expected) in [
            (&["--compress"][..], Some(true)),
            (&["--compress", "on"], Some(true)),
            (&["--compress", "off"], Some(false)),
            (&["--compress=off"], Some(false)),
            (&["--compress", "--keep-days", "9"], Some(true)),
            (&[], None),
        ] {
            let args = parsed(arguments).unwrap();
            assert_eq!(args.compress, expected, "{arguments:?}");
        }
        let error = parsed(&["--compress", "maybe"]).unwrap_err();
        assert!(error.contains("it is on or off"), "{error}");
    }

    #[test]
    fn a_wrong_number_is_told_with_its_limits_and_an_example() {
        for (arguments, why) in [
            (["--log-size", "abc"], "not a whole number"),
            (["--log-size", "5M"], "not a whole number"),
            (["--log-size", ""], "not a whole number"),
            (["--log-size", "-5"], "too small"),
            (["--log-size", "999"], "too small"),
            (["--log-size", "102401"], "too large"),
            (["--log-size", "18446744073709551617"], "too large"),
            (["--log-size", &"9".repeat(50)], "too large"),
        ] {
            let error = parsed(&arguments).unwrap_err();
            let expected = format!("it is {why}; give KB from 1000 to 102400, such as 5120");
            assert!(error.contains(&expected), "{arguments:?}: {error}");
        }
        let error = parsed(&["--keep-days", "-1"]).unwrap_err();
        assert!(error.contains("give days from 1 to 36500"), "{error}");
        let error = parsed(&["--max-total-size", "-1"]).unwrap_err();
        assert!(error.contains("not a size such as 500M"), "{error}");
    }
}
