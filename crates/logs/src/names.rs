//! The names of the files in a log directory.
//!
//! | name | what it is |
//! | --- | --- |
//! | `PR-INITIAL-STAMP.log`, `PR-PORTS-STAMP.log`, `PR-PIDS-STAMP.log`, `PR-EVENTS-STAMP.jsonl` | the four files of a set |
//! | `PR-PIDS-STAMP.log.zst`, `PR-EVENTS-STAMP.jsonl.zst` | the same, closed and compressed |
//! | `PR-EVENTS-STAMP.jsonl.tmp` | a set that is being opened: its head is not complete |
//! | `….zst.tmp` | a file that is being compressed |
//!
//! Whatever has another name, or is not a regular file, is not ours and is
//! never touched.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crate::dir::Dir;
use crate::stamp::Stamp;

/// One of the four files of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Every mapping when the set was opened.
    Initial,
    /// One row for each port that came into use.
    Ports,
    /// A process and its ports each time they changed.
    Pids,
    /// The complete record.
    Events,
}

impl FileKind {
    /// All four, the complete record last.
    pub const ALL: [Self; 4] = [Self::Initial, Self::Ports, Self::Pids, Self::Events];

    /// Is this file compressed when its set is closed?
    pub fn is_compressed(self) -> bool {
        matches!(self, Self::Pids | Self::Events)
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Initial => "PR-INITIAL-",
            Self::Ports => "PR-PORTS-",
            Self::Pids => "PR-PIDS-",
            Self::Events => "PR-EVENTS-",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Initial | Self::Ports | Self::Pids => ".log",
            Self::Events => ".jsonl",
        }
    }
}

/// In which state of its life a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    /// As it is written.
    Plain,
    /// Compressed.
    Compressed,
    /// Its head is being written.
    Draft,
    /// It is being compressed.
    CompressedDraft,
}

impl Form {
    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Compressed => ".zst",
            Self::Draft => ".tmp",
            Self::CompressedDraft => ".zst.tmp",
        }
    }
}

/// The name of a file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileName {
    pub(crate) kind: FileKind,
    pub(crate) stamp: Stamp,
    pub(crate) form: Form,
}

impl FileName {
    pub(crate) fn new(kind: FileKind, stamp: Stamp, form: Form) -> Self {
        Self { kind, stamp, form }
    }

    /// The name of the same file in another form.
    pub(crate) fn with_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        FileKind::ALL.into_iter().find_map(|kind| {
            let rest = name.strip_prefix(kind.prefix())?;
            let at = rest.find(kind.extension())?;
            let (stamp, end) = rest.split_at(at);
            let suffix = &end[kind.extension().len()..];
            let form = match suffix {
                "" => Form::Plain,
                ".tmp" if kind == FileKind::Events => Form::Draft,
                ".zst" if kind.is_compressed() => Form::Compressed,
                ".zst.tmp" if kind.is_compressed() => Form::CompressedDraft,
                _ => return None,
            };
            Some(Self::new(kind, Stamp::parse(stamp)?, form))
        })
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}{}",
            self.kind.prefix(),
            self.stamp,
            self.kind.extension(),
            self.form.suffix()
        )
    }
}

/// The files of one stamp that are in the directory, with their lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredSet {
    files: Vec<(FileName, u64)>,
}

impl StoredSet {
    #[cfg(test)]
    pub(crate) fn new(files: Vec<(FileName, u64)>) -> Self {
        Self { files }
    }

    /// The names, in the order in which a set is taken apart: the complete
    /// record goes last.
    pub(crate) fn names(&self) -> impl Iterator<Item = FileName> + '_ {
        self.files.iter().map(|&(name, _)| name)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|&(_, length)| length).sum()
    }

    /// The name of a file if it is there in this form and not empty.
    pub(crate) fn find(&self, kind: FileKind, form: Form) -> Option<FileName> {
        let wanted = |&&(name, length): &&(FileName, u64)| {
            name.kind == kind && name.form == form && length > 0
        };
        self.files.iter().find(wanted).map(|&(name, _)| name)
    }
}

/// Every set in the directory, the oldest stamp first.
pub(crate) fn inventory(dir: &Dir) -> io::Result<BTreeMap<Stamp, StoredSet>> {
    let mut sets: BTreeMap<Stamp, StoredSet> = BTreeMap::new();
    for entry in dir.entries()? {
        if let Some(name) = FileName::parse(&entry.name) {
            let files = &mut sets.entry(name.stamp).or_default().files;
            files.push((name, entry.length));
        }
    }
    for set in sets.values_mut() {
        set.files.sort_unstable();
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let stamp = Stamp::parse("26-11-3-9-5-0-2").unwrap();
        let mut names = Vec::new();
        for kind in FileKind::ALL {
            for form in [
                Form::Plain,
                Form::Compressed,
                Form::Draft,
                Form::CompressedDraft,
            ] {
                let name = FileName::new(kind, stamp, form);
                if let Some(parsed) = FileName::parse(&name.to_string()) {
                    assert_eq!(parsed, name);
                    names.push(name.to_string());
                }
            }
        }
        assert_eq!(
            names,
            [
                "PR-INITIAL-26-11-3-9-5-0-2.log",
                "PR-PORTS-26-11-3-9-5-0-2.log",
                "PR-PIDS-26-11-3-9-5-0-2.log",
                "PR-PIDS-26-11-3-9-5-0-2.log.zst",
                "PR-PIDS-26-11-3-9-5-0-2.log.zst.tmp",
                "PR-EVENTS-26-11-3-9-5-0-2.jsonl",
                "PR-EVENTS-26-11-3-9-5-0-2.jsonl.zst",
                "PR-EVENTS-26-11-3-9-5-0-2.jsonl.tmp",
                "PR-EVENTS-26-11-3-9-5-0-2.jsonl.zst.tmp",
            ]
        );
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "portreporter.lock",
            "PR-EVENTS-.jsonl",
            "PR-EVENTS-26-11-3-9-5-0.log",
            "PR-EVENTS-26-11-3-9-5-0.jsonl.gz",
            "PR-EVENTS-26-11-3-9-5-0.jsonl.jsonl",
            "PR-EVENTS-26-11-3-9-5-0.jsonl~",
            "PR-PORTS-26-11-3-9-5-0.log.zst",
            "PR-OTHER-26-11-3-9-5-0.log",
            "pr-events-26-11-3-9-5-0.jsonl",
            "xPR-EVENTS-26-11-3-9-5-0.jsonl",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}
