//! What a killed run left behind, and where the chain goes on.
//!
//! Runs once, under the lock, before the first set is opened: whatever is in
//! the directory belongs to nobody any more. A kill can have happened at any
//! moment, so for each file that may be found half done there is a rule:
//!
//! * a file that was being compressed: what was made of it goes;
//! * a compressed file beside its original: if both hold the same, the original
//!   goes, else the copy;
//! * a set that was being opened (its PR-EVENTS is a draft): if the set before
//!   it is sealed and names it as the next, it was complete, and gets its name.
//!   Else nothing was recorded in it, and its four files go;
//! * a set that was not closed: the torn last line is cut off; nothing else
//!   changes. No seal is put there: who was not present when a file ended must
//!   not vouch for it. The next `open` carries its hash all the same.
//!
//! The chain goes on from the set that no other set names as its previous one.
//! That is the last one written, also when the clock was set back in between;
//! should there be several (files were copied in from elsewhere), the one with
//! the latest stamp. A set whose PR-EVENTS is missing, empty or does not begin
//! with a whole `open` is passed over and left as it is.
//!
//! A run that ended in order left a seal that names no next set. Where the last
//! set has another end, what happened from its last line on was recorded by
//! nobody, and nobody can know how much that was: [`Unended`] is what the new
//! run's first set says about it.
//!
//! **Invariant:** nothing found in the directory keeps a recorder from starting.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use event::WallTime;
use serde::Deserialize;

use crate::dir::Dir;
use crate::error::Error;
use crate::names::{FileKind, FileName, Form, StoredSet, inventory};
use crate::read::Moment;
use crate::report::Notice;
use crate::seal::{Link, hash_file, read_uncompressed};
use crate::stamp::Stamp;
use crate::unended::Unended;

/// No `open` and no `seal` is longer.
const LINE_LIMIT: u64 = 1 << 20;

/// What is looked for in an `open` and in a `seal`.
#[derive(Debug, Deserialize)]
struct Line {
    event: String,
    time: Option<String>,
    boot_id: Option<String>,
    previous: Option<String>,
    next: Option<String>,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The last set there is, for the chain.
    pub(crate) chain: Option<Link>,
    /// The run before did not end in order.
    pub(crate) unended: Option<Unended>,
    pub(crate) notices: Vec<Notice>,
}

impl Line {
    fn parse(line: &[u8]) -> Option<Self> {
        let whole = line.strip_suffix(b"\n")?;
        serde_json::from_slice(whole).ok()
    }

    fn time(&self) -> Option<WallTime> {
        Some(Moment::parse(self.time.as_deref()?)?.wall)
    }

    fn is_seal(&self) -> bool {
        self.event == "seal"
    }

    /// The set that a seal says comes next; none in a seal that ends a run.
    fn next(&self) -> Option<Stamp> {
        Stamp::parse(self.next.as_deref()?)
    }
}

/// Puts the directory in order.
pub(crate) fn recover(dir: &Dir) -> Result<Recovered, Error> {
    let list = || inventory(dir).map_err(|source| Error::read(dir.path(), source));
    for (stamp, set) in list()? {
        settle_compressed(dir, &set);
        settle_draft(dir, stamp, &set);
    }
    let sets = list()?;
    let mut notices = Vec::new();
    let Some((stamp, name)) = last_written(dir, &sets) else {
        return Ok(Recovered::default());
    };
    let seal = end_of(dir, name)
        .and_then(|end| last_line(&end))
        .filter(Line::is_seal);
    if seal.is_none() {
        let torn_bytes = sets[&stamp]
            .names()
            .filter(|name| name.form == Form::Plain && name.kind != FileKind::Initial)
            .map(|name| (name.kind, cut_torn_line(dir, name).unwrap_or(0)))
            .filter_map(|(kind, cut)| (kind == FileKind::Events).then_some(cut))
            .sum();
        notices.push(Notice::Recovered {
            set: stamp,
            torn_bytes,
        });
    }
    let next = seal.as_ref().and_then(Line::next);
    let missing = next.filter(|next| !sets.contains_key(next));
    let is_ended = seal.is_some() && missing.is_none();
    let link = Link {
        stamp,
        sha256: hash_file(dir, name).ok(),
    };
    Ok(Recovered {
        chain: Some(link),
        unended: (!is_ended).then(|| Unended {
            last: end_of(dir, name).and_then(|end| last_time(&end)),
            boot_id: first_line(dir, name).and_then(|open| open.boot_id),
            missing,
        }),
        notices,
    })
}

/// Ends a compression that was interrupted.
fn settle_compressed(dir: &Dir, set: &StoredSet) {
    for name in set.names() {
        match name.form {
            // What cannot be removed now is tried again at the next start.
            Form::CompressedDraft => drop(dir.remove(&name.to_string())),
            Form::Compressed => {
                let original = name.with_form(Form::Plain);
                if set.names().any(|name| name == original) {
                    settle_twins(dir, original, name);
                }
            }
            Form::Plain | Form::Draft => {}
        }
    }
}

fn settle_twins(dir: &Dir, original: FileName, copy: FileName) {
    let Ok(expected) = hash_file(dir, original) else {
        // The original cannot be read: whatever the copy is, it is no worse.
        return;
    };
    let same = hash_file(dir, copy).is_ok_and(|hash| hash == expected);
    let needless = if same { original } else { copy };
    let _ = dir.remove(&needless.to_string());
}

/// Completes or takes back a set that was being opened.
fn settle_draft(dir: &Dir, stamp: Stamp, set: &StoredSet) {
    let Some(draft) = set.names().find(|name| name.form == Form::Draft) else {
        return;
    };
    let has_record = set
        .names()
        .any(|name| name.kind == FileKind::Events && name.form != Form::Draft);
    if has_record {
        let _ = dir.remove(&draft.to_string());
    } else if is_named_by_its_previous(dir, stamp, draft) {
        let _ = dir.rename(
            &draft.to_string(),
            &draft.with_form(Form::Plain).to_string(),
        );
    } else {
        for name in set.names() {
            let _ = dir.remove(&name.to_string());
        }
    }
}

fn is_named_by_its_previous(dir: &Dir, stamp: Stamp, draft: FileName) -> bool {
    let previous = first_line(dir, draft)
        .and_then(|open| open.previous)
        .and_then(|previous| Stamp::parse(&previous));
    let Some(previous) = previous else {
        return false;
    };
    // It was sealed a moment ago, so it is not compressed yet.
    end_of(dir, FileName::new(FileKind::Events, previous, Form::Plain))
        .and_then(|end| last_line(&end))
        .filter(Line::is_seal)
        .and_then(|seal| seal.next())
        .is_some_and(|next| next == stamp)
}

/// The set that no other names as its previous one, and its PR-EVENTS.
fn last_written(dir: &Dir, sets: &BTreeMap<Stamp, StoredSet>) -> Option<(Stamp, FileName)> {
    let mut found = Vec::new();
    let mut has_next = BTreeSet::new();
    for (&stamp, set) in sets {
        let Some(name) = set
            .find(FileKind::Events, Form::Plain)
            .or_else(|| set.find(FileKind::Events, Form::Compressed))
        else {
            continue;
        };
        if let Some(open) = first_line(dir, name) {
            found.push((stamp, name));
            let previous = open.previous.as_deref().and_then(Stamp::parse);
            has_next.extend(previous.filter(|&previous| previous != stamp));
        }
    }
    let last = found
        .iter()
        .rev()
        .find(|(stamp, _)| !has_next.contains(stamp));
    // Sets that name each other in a circle were not written by us; still the
    // chain has to go on from somewhere.
    last.or(found.last()).copied()
}

/// The first line, if it is an `open`.
fn first_line(dir: &Dir, name: FileName) -> Option<Line> {
    let reader = read_uncompressed(dir, name).ok()?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(LINE_LIMIT));
    reader.read_until(b'\n', &mut line).ok()?;
    Line::parse(&line).filter(|line| line.event == "open")
}

/// The end of what was written to a file, as long as a line may be.
fn end_of(dir: &Dir, name: FileName) -> Option<Vec<u8>> {
    let mut end = Vec::new();
    if matches!(name.form, Form::Plain | Form::Draft) {
        let mut file = dir.read(&name.to_string()).ok()?;
        let length = file.metadata().ok()?.len();
        let start = length.saturating_sub(LINE_LIMIT);
        file.seek(SeekFrom::Start(start)).ok()?;
        file.take(LINE_LIMIT).read_to_end(&mut end).ok()?;
        return Some(end);
    }
    let limit = usize::try_from(LINE_LIMIT).ok()?;
    let mut reader = read_uncompressed(dir, name).ok()?;
    while reader
        .by_ref()
        .take(LINE_LIMIT)
        .read_to_end(&mut end)
        .ok()?
        > 0
    {
        end.drain(..end.len().saturating_sub(limit));
    }
    Some(end)
}

/// The last line, if it is whole.
fn last_line(end: &[u8]) -> Option<Line> {
    Line::parse(end.split_inclusive(|&byte| byte == b'\n').next_back()?)
}

/// The time of the last line that has one.
fn last_time(end: &[u8]) -> Option<WallTime> {
    end.split_inclusive(|&byte| byte == b'\n')
        .rev()
        .find_map(|line| Line::parse(line)?.time())
}

/// Cuts off what stands behind the last line. Returns how many bytes that was.
fn cut_torn_line(dir: &Dir, name: FileName) -> io::Result<u64> {
    let mut file = dir.modify(&name.to_string())?;
    let length = file.metadata()?.len();
    let whole = end_of_last_line(&mut file, length)?;
    if whole < length {
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(length - whole)
}

/// Where the last whole line ends, looking from the end.
fn end_of_last_line(file: &mut File, length: u64) -> io::Result<u64> {
    const CHUNK: u64 = 64 * 1024;
    let mut end = length;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        file.take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for (name, content) in files {
            std::fs::write(dir.path_of(name), content).unwrap();
        }
        (temp, dir)
    }

    fn names(dir: &Dir) -> Vec<String> {
        let mut names: Vec<_> = dir.entries().unwrap().into_iter().map(|e| e.name).collect();
        names.sort_unstable();
        names
    }

    fn open(previous: Option<&str>) -> Vec<u8> {
        let previous = previous.map_or("null".to_owned(), |stamp| format!("\"{stamp}\""));
        format!("{{\"seq\":0,\"event\":\"open\",\"previous\":{previous}}}\n").into_bytes()
    }

    fn last(dir: &Dir) -> Option<String> {
        let chain = recover(dir).unwrap().chain;
        chain.map(|link| link.stamp.to_string())
    }

    #[test]
    fn an_empty_directory_has_no_chain() {
        let (_temp, dir) = directory(&[]);
        assert_eq!(recover(&dir).unwrap(), Recovered::default());
    }

    #[test]
    fn the_chain_tells_the_last_set_not_the_clock() {
        let (_temp, dir) = directory(&[
            ("PR-EVENTS-26-11-3-9-0-0.jsonl", &open(None)),
            (
                "PR-EVENTS-26-11-3-8-0-0.jsonl",
                &open(Some("26-11-3-9-0-0")),
            ),
        ]);
        assert_eq!(last(&dir).as_deref(), Some("26-11-3-8-0-0"));
    }

    #[test]
    fn of_several_ends_the_latest_counts_and_a_circle_does_no_harm() {
        let (_temp, dir) = directory(&[
            ("PR-EVENTS-26-11-3-8-0-0.jsonl", &open(None)),
            ("PR-EVENTS-26-11-3-9-0-0.jsonl", &open(None)),
        ]);
        assert_eq!(last(&dir).as_deref(), Some("26-11-3-9-0-0"));
        let (_temp, dir) = directory(&[
            (
                "PR-EVENTS-26-11-3-8-0-0.jsonl",
                &open(Some("26-11-3-9-0-0")),
            ),
            (
                "PR-EVENTS-26-11-3-9-0-0.jsonl",
                &open(Some("26-11-3-8-0-0")),
            ),
        ]);
        assert_eq!(last(&dir).as_deref(), Some("26-11-3-9-0-0"));
    }

    #[test]
    fn what_is_no_record_is_passed_over_and_left() {
        let (_temp, dir) = directory(&[
            ("PR-EVENTS-26-11-3-8-0-0.jsonl", &open(None)),
            ("PR-EVENTS-26-11-3-9-0-0.jsonl", b""),
            ("PR-EVENTS-26-11-3-9-0-1.jsonl", b"{\"event\":\"open\""),
            ("PR-EVENTS-26-11-3-9-0-2.jsonl", b"\0\0\0\0\n"),
            ("PR-EVENTS-26-11-3-9-0-3.jsonl.zst", b"not zstd"),
            ("PR-INITIAL-26-11-3-9-0-4.log", b"x"),
            ("notes.txt", b"mine"),
        ]);
        let before = names(&dir);
        assert_eq!(last(&dir).as_deref(), Some("26-11-3-8-0-0"));
        assert_eq!(names(&dir), before);
    }

    #[test]
    fn only_a_torn_line_is_cut() {
        let mut events = open(None);
        let whole = events.len();
        events.extend_from_slice(b"{\"seq\":1,\"event\":\"li");
        let (_temp, dir) = directory(&[
            ("PR-EVENTS-26-11-3-8-0-0.jsonl", &events),
            ("PR-PORTS-26-11-3-8-0-0.log", b"a,b\nc,"),
            ("PR-INITIAL-26-11-3-8-0-0.log", b"no end"),
        ]);
        let Recovered { chain, notices, .. } = recover(&dir).unwrap();
        let stamp = Stamp::parse("26-11-3-8-0-0").unwrap();
        let torn_bytes = (events.len() - whole) as u64;
        assert_eq!(
            notices,
            [Notice::Recovered {
                set: stamp,
                torn_bytes
            }]
        );
        let mut digest = crate::seal::Digest::default();
        digest.update(&events[..whole]);
        assert_eq!(chain.unwrap().sha256, Some(digest.hex()));
        let read = |name| std::fs::read(dir.path_of(name)).unwrap();
        assert_eq!(read("PR-EVENTS-26-11-3-8-0-0.jsonl"), events[..whole]);
        assert_eq!(read("PR-PORTS-26-11-3-8-0-0.log"), b"a,b\n");
        assert_eq!(read("PR-INITIAL-26-11-3-8-0-0.log"), b"no end");
    }

    #[test]
    fn a_draft_stays_if_its_previous_set_names_it() {
        let mut previous = open(None);
        previous.extend_from_slice(b"{\"event\":\"seal\",\"next\":\"26-11-3-9-0-0\"}\n");
        let draft = open(Some("26-11-3-8-0-0"));
        let (_temp, dir) = directory(&[
            ("PR-EVENTS-26-11-3-8-0-0.jsonl", &previous),
            ("PR-EVENTS-26-11-3-9-0-0.jsonl.tmp", &draft),
            ("PR-PORTS-26-11-3-9-0-0.log", b"head\n"),
        ]);
        assert_eq!(last(&dir).as_deref(), Some("26-11-3-9-0-0"));
        assert!(names(&dir).contains(&"PR-EVENTS-26-11-3-9-0-0.jsonl".to_owned()));
    }

    #[test]
    fn a_draft_that_nobody_names_goes_with_its_set() {
        let draft = open(Some("26-11-3-8-0-0"));
        let (_temp, dir) = directory(&[
            ("PR-EVENTS-26-11-3-8-0-0.jsonl", &open(None)),
            ("PR-EVENTS-26-11-3-9-0-0.jsonl.tmp", &draft),
            ("PR-INITIAL-26-11-3-9-0-0.log", b"head\n"),
            ("PR-PORTS-26-11-3-9-0-0.log", b"head\n"),
        ]);
        assert_eq!(last(&dir).as_deref(), Some("26-11-3-8-0-0"));
        assert_eq!(names(&dir), ["PR-EVENTS-26-11-3-8-0-0.jsonl"]);
    }

    #[test]
    fn an_end_that_is_not_in_order_is_found_compressed_or_not() {
        const OPEN: &[u8] = b"{\"event\":\"open\",\"time\":\"1970-01-01T00:00:01Z\",\
            \"boot_id\":\"b\"}\n";
        const LISTEN: &[u8] = b"{\"event\":\"listen\",\"time\":\"1970-01-01T00:00:02Z\"}\n";
        const DAMAGED: &[u8] = b"\0\0\0\n";
        const SEAL: &[u8] = b"{\"event\":\"seal\",\"time\":\"1970-01-01T00:00:03Z\"}\n";
        const NAMES_NEXT: &[u8] = b"{\"event\":\"seal\",\"time\":\"1970-01-01T00:00:03Z\",\
            \"next\":\"26-11-3-9-0-0\"}\n";
        let name = "PR-EVENTS-26-11-3-8-0-0.jsonl";
        for (lines, expected) in [
            ([OPEN, SEAL].as_slice(), None),
            (&[OPEN], Some((1, false))),
            (&[OPEN, LISTEN], Some((2, false))),
            (&[OPEN, LISTEN, DAMAGED], Some((2, false))),
            (&[OPEN, LISTEN, NAMES_NEXT], Some((3, true))),
        ] {
            let bytes = lines.concat();
            let packed = zstd::encode_all(&*bytes, 1).unwrap();
            for (name, bytes) in [(name.to_owned(), &bytes), (format!("{name}.zst"), &packed)] {
                let (_temp, dir) = directory(&[(&name, bytes)]);
                let unended = recover(&dir).unwrap().unended;
                let found = unended.as_ref().map(|unended| {
                    assert_eq!(unended.boot_id.as_deref(), Some("b"));
                    (
                        unended.last.unwrap().0 / 1_000_000,
                        unended.missing.is_some(),
                    )
                });
                assert_eq!(found, expected, "{name} {lines:?}");
            }
        }
    }

    #[test]
    fn an_interrupted_compression_loses_nothing() {
        let events = open(None);
        let same = zstd::encode_all(&*events, 1).unwrap();
        let (_temp, dir) = directory(&[
            ("PR-EVENTS-26-11-3-8-0-0.jsonl", &events),
            ("PR-EVENTS-26-11-3-8-0-0.jsonl.zst", &same),
            ("PR-EVENTS-26-11-3-9-0-0.jsonl", &events),
            ("PR-EVENTS-26-11-3-9-0-0.jsonl.zst", &same[..same.len() - 4]),
            ("PR-PIDS-26-11-3-9-0-0.log", b"a\n"),
            ("PR-PIDS-26-11-3-9-0-0.log.zst.tmp", b"half"),
        ]);
        recover(&dir).unwrap();
        assert_eq!(
            names(&dir),
            [
                "PR-EVENTS-26-11-3-8-0-0.jsonl.zst",
                "PR-EVENTS-26-11-3-9-0-0.jsonl",
                "PR-PIDS-26-11-3-9-0-0.log"
            ]
        );
    }
}
