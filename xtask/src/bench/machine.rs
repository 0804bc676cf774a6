//! The machine: one line about it for the head of a table, and its calm.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::progress;

/// Longer than `TIME_WAIT` lasts on Linux, which is one minute.
const TIME_WAIT_LIMIT: Duration = Duration::from_secs(75);

/// Processor, cores, memory, kernel, and how busy it was before.
pub(crate) fn describe() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = field(&cpuinfo, "model name").unwrap_or("unknown processor");
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
        .map_or_else(String::new, |kib| format!("{} GB, ", kib / 1_000_000));
    let cores = available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{model}, {cores} cores, {memory}Linux {}, load before the run {}",
        kernel.trim(),
        load.split_whitespace().next().unwrap_or("unknown"),
    )
}

/// Waits until not more than so many connections are in `TIME_WAIT`.
///
/// A load leaves one for each of its connections. They are sockets in use, so a
/// recorder that starts among them has them all in its first snapshot, and
/// whoever is measured next pays for the load before.
pub(crate) fn wait_for_calm(allowed: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut told = false;
    while time_waits(&std::fs::read_to_string("/proc/net/sockstat")?) > allowed {
        if !told {
            progress("waiting for connections in TIME_WAIT to go");
            told = true;
        }
        if start.elapsed() > TIME_WAIT_LIMIT {
            progress("they do not; going on among them");
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}

/// The connections in `TIME_WAIT` by `/proc/net/sockstat`.
fn time_waits(sockstat: &str) -> u64 {
    sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .and_then(|line| line.split_once(" tw "))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_in_time_wait_are_counted() {
        let text = "sockets: used 33\nTCP: inuse 5 orphan 0 tw 1636 alloc 9 mem 1\n";
        assert_eq!(time_waits(text), 1636);
        assert_eq!(time_waits("sockets: used 33\n"), 0);
    }

    #[test]
    fn the_first_value_of_a_name_counts() {
        let text = "processor\t: 0\nmodel name\t: A: 1\nmodel name\t: B\n";
        assert_eq!(field(text, "model name"), Some("A: 1"));
        assert_eq!(field(text, "flags"), None);
    }
}
