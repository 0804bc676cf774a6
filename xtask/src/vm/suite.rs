//! The end-to-end tests on other kernels, and on machines that lack something.
//!
//! Each run is a machine of its own. First a recorder is started there and the
//! first line of its log is read, which says what it uses and what it misses:
//! that has to be what the run is about. Then those tests run that make sense
//! there. A test that cannot fail proves nothing, so a run in which none passed
//! has failed.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::archive::Archive;
use super::kernel::Kernel;
use super::machine::{self, Ended, Job};
use super::{Options, progress};

/// The tests of what a kernel does. What is left out is about our own files,
/// or a load that an emulated processor cannot bear.
const CORE: &[&str] = &[
    "tcp_",
    "udp_",
    "handed_",
    "process_",
    "place_",
    "cgroup_",
    "hardship_",
];

/// The tests of what is seen at other places if functions cannot be traced.
const TRACED: &[&str] = &["tcp_zero_bytes", "udp_", "handed_", "process_forks"];

/// The tests that do not ask for the best engine.
const FALLBACK: &[&str] = &["hardship_no_btf", "hardship_no_cgroup2"];

/// These wait for something to happen within microseconds or milliseconds,
/// which an emulated processor never does.
const TOO_FAST: &[&str] = &[
    "cgroup_container_short_process",
    "process_short",
    "tcp_closed_within_50_us",
];

/// One machine.
struct Run {
    name: &'static str,
    /// More words for the kernel's command line.
    append: &'static str,
    /// What is taken away before anything starts, in a shell.
    setup: &'static str,
    /// Who starts the recorder that is looked at.
    user: &'static str,
    /// The tests.
    filters: &'static [&'static str],
    /// The engine that has to be in use.
    engine: &'static str,
    /// Hooks whose names begin so must not be in use.
    without: &'static [&'static str],
    /// Does the recorder have to miss something?
    degraded: bool,
}

const RUNS: [Run; 5] = [
    Run {
        name: "plain",
        append: "",
        setup: "",
        user: "root",
        filters: CORE,
        engine: "ebpf",
        without: &[],
        degraded: false,
    },
    // Functions can be traced no more; tracepoints can.
    Run {
        name: "no-ftrace",
        append: "",
        setup: "echo 0 >/proc/sys/kernel/ftrace_enabled",
        user: "root",
        filters: TRACED,
        engine: "ebpf",
        without: &["fentry/", "fexit/"],
        degraded: false,
    },
    Run {
        name: "no-btf",
        append: "",
        setup: "mount -t tmpfs none /sys/kernel/btf",
        user: "root",
        filters: FALLBACK,
        engine: "sock-diag",
        without: &["tp_btf/", "fentry/", "fexit/", "cgroup/"],
        degraded: true,
    },
    // Nobody may read the kernel's memory, root's programs included. TCP is
    // seen all the same, and UDP by looking.
    Run {
        name: "lockdown",
        append: "lockdown=confidentiality",
        setup: "",
        user: "root",
        filters: &[
            "tcp_listen",
            "tcp_refused",
            "tcp_zero_bytes",
            "hardship_no_",
            "engine_udp_held",
        ],
        engine: "ebpf",
        without: &["cgroup/post_bind"],
        degraded: true,
    },
    Run {
        name: "hidepid",
        append: "",
        setup: "mount -o remount,hidepid=2 /proc",
        user: "nobody",
        filters: &["hardship_unprivileged"],
        engine: "sock-diag",
        without: &["tp_btf/", "fentry/", "fexit/", "cgroup/"],
        degraded: true,
    },
];

/// Runs everything and prints a table of it.
pub(super) fn run(
    options: &Options,
    kernels: &[Kernel],
    furniture: &Archive,
    directory: &Path,
) -> anyhow::Result<ExitCode> {
    let runs: Vec<&Run> = RUNS
        .iter()
        .filter(|run| options.only.is_empty() || options.only.iter().any(|name| name == run.name))
        .collect();
    let mut results = Vec::new();
    for kernel in kernels {
        for run in &runs {
            let result = play(options, kernel, run, furniture, directory)?;
            progress(&format!(
                "{} {}: {}",
                kernel.release,
                run.name,
                result.sum()
            ));
            for failure in &result.failures {
                eprintln!("{failure}");
            }
            results.push(result);
        }
    }
    print!("{}", table(&results));
    let (passed, failed) = results.iter().fold((0, 0), |(passed, failed), result| {
        (passed + result.tests.passed, failed + result.broken())
    });
    println!("{passed} passed, {failed} failed");
    let is_good = failed == 0 && passed > 0;
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What came of a run.
struct Result {
    kernel: String,
    run: &'static str,
    open: Option<Open>,
    tests: Tests,
    /// What is wrong, for people.
    failures: Vec<String>,
    took: Duration,
}

impl Result {
    /// How much is wrong; more than the tests know of, it may be.
    fn broken(&self) -> u32 {
        match self.failures.len() {
            0 => self.tests.failed,
            _ => self.tests.failed.max(1),
        }
    }

    fn sum(&self) -> String {
        let Tests {
            passed,
            failed,
            ignored,
        } = self.tests;
        let seconds = self.took.as_secs();
        format!("{passed} passed, {failed} failed, {ignored} ignored in {seconds} s")
    }
}

/// The first line of a log, as far as it counts here.
#[derive(Deserialize)]
struct Open {
    engine: String,
    hooks: Vec<String>,
    degraded: Vec<serde_json::Value>,
}

/// How the tests went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: u32,
    failed: u32,
    ignored: u32,
}

fn play(
    options: &Options,
    kernel: &Kernel,
    run: &'static Run,
    furniture: &Archive,
    directory: &Path,
) -> anyhow::Result<Result> {
    let filters: Vec<&str> = if options.filter.is_empty() {
        run.filters.to_vec()
    } else {
        options.filter.iter().map(String::as_str).collect()
    };
    let place = directory.join(format!("{}-{}", kernel.series, run.name));
    fs::create_dir_all(&place)?;
    let output = place.join("output");
    let job = Job {
        script: &script(run, &filters),
        append: &format!("{} {}", run.append, options.append),
        limit: Duration::from_secs(options.limit),
    };
    let mut file = File::create(&output)?;
    let ended = machine::boot(kernel, furniture, &job, &place, &mut file);
    let printed = fs::read(&output).with_context(|| output.display().to_string())?;
    let printed = String::from_utf8_lossy(&printed);
    let mut result = Result {
        kernel: kernel.release.clone(),
        run: run.name,
        open: None,
        tests: count(&printed),
        failures: Vec::new(),
        took: job.limit,
    };
    match ended {
        Ok(ended) => {
            result.took = ended.took;
            result.open = opened(&ended);
            judge(run, &ended, &mut result);
        }
        Err(error) => result.failures.push(format!("{error:#}")),
    }
    if !result.failures.is_empty() {
        result.failures.push(format!(
            "the end of what it printed:\n{}\nall of it: {}",
            end_of(&printed),
            output.display()
        ));
    }
    Ok(result)
}

/// What the machine does.
fn script(run: &Run, filters: &[&str]) -> String {
    let mut script = format!(
        "set -e\n{}\nuser={}\nfilters='{}'\nskipped='{}'\n",
        run.setup,
        run.user,
        filters.join(" "),
        TOO_FAST.join(" "),
    );
    script.push_str(include_str!("suite.sh"));
    script
}

/// The line that the recorder in the machine began its log with.
fn opened(ended: &Ended) -> Option<Open> {
    let line = ended
        .report
        .iter()
        .find_map(|line| line.strip_prefix("open "))?;
    serde_json::from_str(line).ok()
}

/// Is it what the run is about?
fn judge(run: &Run, ended: &Ended, result: &mut Result) {
    let failures = &mut result.failures;
    match &result.open {
        None => failures.push("the recorder opened no log".to_owned()),
        Some(open) => {
            if open.engine != run.engine {
                failures.push(format!(
                    "engine {} was expected, not {}",
                    run.engine, open.engine
                ));
            }
            let forbidden =
                |hook: &&String| run.without.iter().any(|start| hook.starts_with(start));
            if let Some(hook) = open.hooks.iter().find(forbidden) {
                failures.push(format!("hook {hook} cannot be in use here"));
            }
            if run.degraded && open.degraded.is_empty() {
                failures.push("the recorder does not say what it misses".to_owned());
            }
        }
    }
    if ended.status != 0 {
        failures.push(format!("exit status {}", ended.status));
    }
    if result.tests.passed == 0 {
        failures.push("no test passed".to_owned());
    }
}

/// Adds up the lines `test result: ok. 2 passed; 0 failed; 1 ignored; …`.
fn count(printed: &str) -> Tests {
    let mut sum = Tests::default();
    for line in printed
        .lines()
        .filter(|line| line.starts_with("test result:"))
    {
        let number = |what: &str| -> u32 {
            let before = line.split_once(what).map_or("", |(before, _)| before);
            let number = before.split_whitespace().next_back();
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        sum.passed += number(" passed");
        sum.failed += number(" failed");
        sum.ignored += number(" ignored");
    }
    sum
}

fn end_of(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// What each machine could do, in Markdown, and below it what is missing.
fn table(results: &[Result]) -> String {
    let mut text = String::from(
        "| kernel | run | engine | hooks | passed | failed | ignored | seconds |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for result in results {
        let engine = result.open.as_ref().map_or("", |open| &open.engine);
        let hooks = result.open.as_ref().map_or(0, |open| open.hooks.len());
        let _ = writeln!(
            text,
            "| {} | {} | {engine} | {hooks} | {} | {} | {} | {} |",
            result.kernel,
            result.run,
            result.tests.passed,
            result.tests.failed,
            result.tests.ignored,
            result.took.as_secs(),
        );
    }
    for result in results {
        let Some(open) = &result.open else { continue };
        let _ = writeln!(text, "\n{} {}:", result.kernel, result.run);
        if !open.hooks.is_empty() {
            let _ = writeln!(text, "  hooks: {}", open.hooks.join(", "));
        }
        for degraded in &open.degraded {
            let _ = writeln!(text, "  {}", sentence(degraded));
        }
    }
    text.push('\n');
    text
}

/// A degradation as it stands in a log, for people.
fn sentence(degraded: &serde_json::Value) -> String {
    let part = |key: &str| degraded[key].as_str().unwrap_or_default().to_owned();
    match degraded.as_str() {
        Some(text) => text.to_owned(),
        None => format!("{}: {}", part("what"), part("why")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_calls_add_up() {
        let printed = "\
test tcp_listen ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.05s
test result: FAILED. 0 passed; 3 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.05s
";
        let expected = Tests {
            passed: 2,
            failed: 3,
            ignored: 1,
        };
        assert_eq!(count(printed), expected);
    }
}
