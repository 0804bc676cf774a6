//! The log sets that a recorder left, in the order of their chain, and the
//! promises that hold for every one of them ([`Log::verify`]).
//!
//! The promises are checked from the contract, not with the recorder's own
//! reader: a reader and a writer that are wrong in the same way agree.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{overload, ports};

/// The four files of a set.
pub(crate) struct Set {
    pub(crate) stamp: String,
    /// PR-EVENTS, uncompressed.
    pub(crate) bytes: Vec<u8>,
    /// Its lines.
    pub(crate) lines: Vec<Value>,
    /// What is left after the last line that is whole.
    pub(crate) torn: Vec<u8>,
    pub(crate) initial: String,
    pub(crate) ports: String,
    pub(crate) pids: String,
}

/// All sets of a log directory.
pub(crate) struct Log {
    pub(crate) sets: Vec<Set>,
    /// Files that are left over from something that did not end.
    strays: Vec<String>,
    /// What the recorder wrote to standard error.
    pub(crate) stderr: String,
}

/// What is expected beyond what always holds.
pub(crate) struct Checks {
    /// The engine; any if none.
    pub(crate) engine: Option<&'static str>,
    /// Runs before the last one were killed, or could not write their end. The
    /// run after each says so in a gap at its beginning.
    pub(crate) killed: bool,
    /// Events may be lost, if the log says so.
    pub(crate) loses: bool,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            engine: Some("ebpf"),
            killed: false,
            loses: false,
        }
    }
}

impl Log {
    /// Reads a log directory.
    pub(crate) fn read(directory: &Path, stderr: String) -> Self {
        let log = Self::collect(directory, stderr);
        log.lines().for_each(overload::note);
        let sets = log.sets.into_iter().map(|set| (set.stamp.clone(), set));
        Self {
            sets: in_order(sets.collect()),
            ..log
        }
    }

    /// The sets, in no order.
    fn collect(directory: &Path, stderr: String) -> Self {
        let mut sets: HashMap<String, Set> = HashMap::new();
        let mut strays = Vec::new();
        for entry in std::fs::read_dir(directory)
            .expect("the log directory")
            .flatten()
        {
            let name = entry.file_name().into_string().expect("a plain file name");
            let Some(rest) = name.strip_prefix("PR-EVENTS-") else {
                continue;
            };
            let stamp = rest
                .strip_suffix(".zst")
                .unwrap_or(rest)
                .strip_suffix(".jsonl");
            match stamp {
                Some(stamp) if !sets.contains_key(stamp) => {
                    sets.insert(stamp.to_owned(), Set::read(directory, stamp));
                }
                // Compressed and not, or under a name that is for a moment only.
                _ => strays.push(name),
            }
        }
        Self {
            sets: sets.into_values().collect(),
            strays,
            stderr,
        }
    }

    /// Reads a log directory that lacks the sets before its only one.
    pub(crate) fn read_alone(directory: &Path, stderr: String) -> Self {
        let mut log = Self::collect(directory, stderr);
        assert!(log.sets.len() == 1, "one set was expected");
        log.sets[0].lines[0]["previous"] = Value::Null;
        log
    }

    /// Every line of every set.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &Value> {
        self.sets.iter().flat_map(|set| &set.lines)
    }

    /// The first line, which says how the recorder works.
    pub(crate) fn open(&self) -> &Value {
        &self.sets[0].lines[0]
    }

    /// Was this hook in use?
    pub(crate) fn has_hook(&self, name: &str) -> bool {
        self.open()["hooks"]
            .as_array()
            .is_some_and(|hooks| hooks.iter().any(|hook| hook == name))
    }

    /// Fails unless every promise about log sets holds.
    pub(crate) fn verify(&self, checks: &Checks) {
        if checks.loses {
            overload::is_on_purpose();
        }
        assert!(!self.sets.is_empty(), "no log set was left");
        assert!(
            self.strays.is_empty(),
            "nothing else was expected: {:?}",
            self.strays
        );
        let last_run = self.sets[self.sets.len() - 1].lines[0]["run"].clone();
        let mut next_seq: HashMap<String, u64> = HashMap::new();
        for (at, set) in self.sets.iter().enumerate() {
            let stamp = &set.stamp;
            let whole = !checks.killed || set.lines[0]["run"] == last_run;
            set.verify_head(checks.engine);
            let before = at.checked_sub(1).map(|at| &self.sets[at]);
            let unended = before.filter(|before| before.is_unended(set));
            if let Some(before) = unended {
                assert!(checks.killed, "{stamp}: the run before was to end in order");
                set.verify_first_gap(before);
            }
            let run = set.lines[0]["run"].to_string();
            let expected = next_seq.entry(run).or_default();
            for line in &set.lines {
                assert!(
                    line["seq"] == *expected,
                    "{stamp}: seq {expected} was expected in {line}"
                );
                *expected += 1;
                let is_unknown = unended.is_some() && line["lost"].is_null();
                assert!(
                    checks.loses || line["event"] != "gap" || is_unknown,
                    "{stamp}: no event was expected to be lost: {line}\n{}",
                    self.stderr
                );
            }
            self.verify_chain(at);
            if whole {
                assert!(set.torn.is_empty(), "{stamp} ends in a torn line");
                // A run that ends in order knows of no next set.
                let same_run = |next: &&Set| next.lines[0]["run"] == set.lines[0]["run"];
                set.verify_seal(self.sets.get(at + 1).filter(same_run));
            }
            ports::verify(set, whole);
        }
        let counters = self
            .lines()
            .filter(|line| line["event"] == "counters")
            .last();
        let Some(counters) = counters else {
            panic!("no counters were written");
        };
        let count = |key| {
            counters[key]
                .as_u64()
                .unwrap_or_else(|| panic!("no {key}: {counters}"))
        };
        assert!(
            count("kernel") == count("written") + count("lost"),
            "kernel = written + lost was expected: {counters}"
        );
        let gaps: u64 = self
            .lines()
            .filter(|line| line["event"] == "gap")
            .filter_map(|line| line["lost"].as_u64())
            .sum();
        assert!(
            count("lost") == gaps && (checks.loses || gaps == 0),
            "all that is lost was expected inside gaps ({gaps} events), and nothing in a healthy \
             run: {counters}"
        );
    }

    fn verify_chain(&self, at: usize) {
        let open = &self.sets[at].lines[0];
        let Some(before) = at.checked_sub(1).map(|at| &self.sets[at]) else {
            assert!(
                open["previous"].is_null() && open["previous_sha256"].is_null(),
                "nothing stands before the first set: {open}"
            );
            return;
        };
        assert!(
            open["previous"] == before.stamp && open["previous_sha256"] == hash(&before.bytes),
            "previous {} and previous_sha256 {} were expected: {open}",
            before.stamp,
            hash(&before.bytes)
        );
    }
}

impl Set {
    fn read(directory: &Path, stamp: &str) -> Self {
        let bytes = contents(directory, &format!("PR-EVENTS-{stamp}.jsonl"));
        let end = bytes
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<Value> = bytes[..end]
            .split_inclusive(|&byte| byte == b'\n')
            .map(|line| {
                serde_json::from_slice(line).unwrap_or_else(|error| {
                    panic!("{stamp}: {error}: {}", String::from_utf8_lossy(line))
                })
            })
            .collect();
        assert!(!lines.is_empty(), "PR-EVENTS-{stamp} has no line");
        // A recorder that was killed may have torn a letter, too.
        let text = |name| {
            let bytes = contents(directory, &format!("{name}-{stamp}.log"));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self {
            stamp: stamp.to_owned(),
            torn: bytes[end..].to_vec(),
            lines,
            initial: text("PR-INITIAL"),
            ports: text("PR-PORTS"),
            pids: text("PR-PIDS"),
            bytes,
        }
    }

    fn verify_head(&self, engine: Option<&str>) {
        let open = &self.lines[0];
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .expect("the kernel's number for this boot");
        assert!(
            open["event"] == "open"
                && open["format"] == 1
                && open["set"] == self.stamp
                && open["boot_id"] == boot_id.trim()
                && ["version", "host", "os", "run"]
                    .iter()
                    .all(|key| open[key].is_string())
                && open["hooks"].is_array()
                && open["degraded"].is_array(),
            "a complete `open` was expected as the first line of {}: {open}",
            self.stamp
        );
        if let Some(engine) = engine {
            assert!(
                open["engine"] == engine
                    && open["hooks"]
                        .as_array()
                        .is_some_and(|hooks| !hooks.is_empty()),
                "the engine {engine} and its hooks were expected: {open}"
            );
        }
        let snapshots = self
            .lines
            .iter()
            .filter(|line| line["event"] == "snapshot")
            .count();
        let ends: Vec<_> = self
            .lines
            .iter()
            .filter(|line| line["event"] == "snapshot-end")
            .collect();
        assert!(
            ends.len() == 1 && ends[0]["sockets"] == snapshots,
            "{}: one snapshot-end with sockets = {snapshots} was expected: {ends:?}",
            self.stamp
        );
    }

    /// Did the run that wrote this set end here, without an end?
    fn is_unended(&self, next: &Self) -> bool {
        let last = self.lines.last();
        self.lines[0]["run"] != next.lines[0]["run"]
            && last.is_none_or(|last| last["event"] != "seal")
    }

    /// What nobody recorded is a gap of unknown size just after the head.
    fn verify_first_gap(&self, before: &Self) {
        let head = self
            .lines
            .iter()
            .position(|line| line["event"] == "snapshot-end");
        let gap = head.map_or(&Value::Null, |head| &self.lines[head + 1]);
        let last = before.lines.last().map(|last| &last["time"]);
        assert!(
            gap["event"] == "gap"
                && gap["lost"].is_null()
                && Some(&gap["from"]) == last
                && gap["to"] == self.lines[0]["time"]
                && gap["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("did not stop in order")),
            "{}: a gap of unknown size since {last:?} was expected after snapshot-end: {gap}",
            self.stamp
        );
    }

    fn verify_seal(&self, next: Option<&Self>) {
        let seal = &self.lines[self.lines.len() - 1];
        let end = self.bytes.len() - 1;
        let start = self.bytes[..end]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        assert!(
            seal["event"] == "seal"
                && seal["events"] == self.lines.len() - 1
                && seal["sha256"] == hash(&self.bytes[..start])
                && seal["next"].as_str() == next.map(|next| next.stamp.as_str()),
            "{}: a seal was expected with events {}, sha256 {} and next {:?}: {seal}",
            self.stamp,
            self.lines.len() - 1,
            hash(&self.bytes[..start]),
            next.map(|next| &next.stamp)
        );
    }
}

/// The bytes of a file of a set, compressed or not.
fn contents(directory: &Path, name: &str) -> Vec<u8> {
    let plain = directory.join(name);
    if plain.exists() {
        return std::fs::read(&plain).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let compressed = std::fs::File::open(directory.join(format!("{name}.zst")))
        .unwrap_or_else(|error| panic!("{name} and {name}.zst: {error}"));
    zstd::decode_all(compressed).unwrap_or_else(|error| panic!("{name}.zst: {error}"))
}

/// The sets, each after the one that it calls previous.
fn in_order(mut sets: HashMap<String, Set>) -> Vec<Set> {
    let previous = |set: &Set| set.lines[0]["previous"].as_str().map(str::to_owned);
    let mut ordered: Vec<Set> = Vec::new();
    while !sets.is_empty() {
        let last = ordered.last().map(|set| set.stamp.clone());
        let next = sets
            .values()
            .find(|set| previous(set) == last)
            .map(|set| set.stamp.clone());
        let Some(set) = next.and_then(|stamp| sets.remove(&stamp)) else {
            let mut opens = String::new();
            for set in sets.values() {
                let _ = writeln!(opens, "{}", set.lines[0]);
            }
            panic!("the chain of sets ends after {last:?}, but there are:\n{opens}");
        };
        ordered.push(set);
    }
    ordered
}

fn hash(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
