//! Is a PR-EVENTS file whole and unchanged?
//!
//! A closed file ends with a `seal`: how many lines stand before it and the
//! hash of all their bytes. Whoever changes a line changes the hash; whoever
//! recomputes the seal changes the hash of the whole file, which the next file
//! holds in its `open`, and the system's log beside it. This module looks at one
//! file; [`Verification::file_sha256`] and [`Verification::open`] are what a
//! check of the chain needs.
//!
//! It proves nothing about a file that was never sealed (the recorder was
//! killed) beyond what its lines say of themselves: numbers without holes.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{Error, Event, Open, Raw, Reader, Seal};
use crate::format::events::Format;

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The first line, if it is an `open`.
    pub open: Option<Open>,
    /// The seal.
    pub seal: Option<Seal>,
    /// How many lines stand before the seal; all, if there is none. A torn
    /// line is not counted.
    pub events: u64,
    /// The hash of every byte before the seal, in hexadecimal.
    pub sha256: String,
    /// The hash of the whole file, uncompressed.
    pub file_sha256: String,
    /// The number of the first line.
    pub first_seq: Option<u64>,
    /// The number of the last line that has one.
    pub last_seq: Option<u64>,
    /// In how many places a number does not follow from the one before.
    pub breaks: u64,
    /// The first such place.
    pub first_break: Option<Break>,
    /// How many lines make no sense.
    pub damaged: u64,
    /// The first of them, counted from 1.
    pub first_damaged: Option<u64>,
    /// Does the file end within a line?
    pub torn: bool,
    /// How many lines stand after the seal.
    pub after_seal: u64,
}

/// A place where the numbers of the lines do not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// The line, counted from 1.
    pub line: u64,
    /// The number that it should have.
    pub expected: u64,
    /// The number that it has, if any.
    pub found: Option<u64>,
}

impl Verification {
    /// Is there a seal?
    pub fn sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Is the hash in the seal that of the bytes before it? None without a seal.
    pub fn sha256_matches(&self) -> Option<bool> {
        let seal = self.seal.as_ref()?;
        Some(seal.sha256.as_deref() == Some(&self.sha256))
    }

    /// Does the seal count as many lines as there are? None without a seal.
    pub fn events_match(&self) -> Option<bool> {
        let seal = self.seal.as_ref()?;
        Some(seal.events == Some(self.events))
    }

    /// Is there nothing wrong with what the file says of itself? A file that is
    /// still being written, or whose recorder was killed, can be consistent.
    pub fn consistent(&self) -> bool {
        self.open.is_some()
            && self.breaks == 0
            && self.damaged == 0
            && self.after_seal == 0
            && self.sha256_matches() != Some(false)
            && self.events_match() != Some(false)
    }

    /// Is the file closed, whole and unchanged?
    pub fn intact(&self) -> bool {
        self.sealed() && self.consistent() && !self.torn
    }

    /// Was the file written by a later program, in a format not known here?
    pub fn newer_format(&self) -> bool {
        let format = self.open.as_ref().and_then(|open| open.format);
        format.is_some_and(|format| Format(format) > Format::CURRENT)
    }

    /// A whole line up to the seal.
    fn line(&mut self, raw: &Raw<'_>) {
        let Ok(record) = raw.parse() else {
            self.damaged += 1;
            self.first_damaged.get_or_insert(raw.number);
            // Whatever its number was, the next line's is one more.
            self.last_seq = self.last_seq.map(|last| last.saturating_add(1));
            return;
        };
        self.follow(raw.number, record.seq);
        match record.event {
            Event::Open(open) if raw.number == 1 => self.open = Some(*open),
            Event::Seal(seal) => self.seal = Some(*seal),
            _ => {}
        }
    }

    fn follow(&mut self, line: u64, seq: Option<u64>) {
        if let Some(last) = self.last_seq {
            let expected = last.saturating_add(1);
            if seq != Some(expected) {
                self.breaks += 1;
                self.first_break.get_or_insert(Break {
                    line,
                    expected,
                    found: seq,
                });
            }
        }
        if let Some(seq) = seq {
            self.first_seq.get_or_insert(seq);
            self.last_seq = Some(seq);
        }
    }
}

/// Reads a whole file, compressed or not, and compares it with its seal.
pub fn verify(path: &Path) -> Result<Verification, Error> {
    check(&mut Reader::open(path)?)
}

fn check(reader: &mut Reader) -> Result<Verification, Error> {
    let mut found = Verification::default();
    let mut hasher = Sha256::new();
    while let Some(raw) = reader.next_raw(&mut |part| hasher.update(part))? {
        if raw.torn {
            found.torn = true;
        } else if found.sealed() {
            found.after_seal += 1;
        } else {
            found.line(&raw);
            if found.sealed() {
                found.sha256 = hex(hasher.clone());
            } else {
                found.events += 1;
            }
        }
        hasher.update(raw.bytes);
    }
    found.file_sha256 = hex(hasher);
    if !found.sealed() {
        found.sha256.clone_from(&found.file_sha256);
    }
    Ok(found)
}

fn hex(hasher: Sha256) -> String {
    format!("{:x}", hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use event::WallTime;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::format::clock::LocalClock;
    use crate::format::events::{EventsEncoder, Opening};
    use crate::read::MAX_LINE;

    /// A small sealed file.
    fn sealed() -> Vec<u8> {
        let mut clock = LocalClock::new(TimeZone::UTC);
        let mut encoder = EventsEncoder::new(40);
        let mut out = Vec::new();
        let opening = Opening {
            set: "26-11-2-3-4-5",
            ..Opening::default()
        };
        encoder.open(&mut out, &mut clock, WallTime(0), &opening);
        encoder.snapshot_end(&mut out, &mut clock, WallTime(1), 0);
        encoder.snapshot_end(&mut out, &mut clock, WallTime(2), 0);
        let sha256 = hex(Sha256::new_with_prefix(&out));
        encoder.seal(&mut out, &mut clock, WallTime(3), 3, &sha256, None);
        out
    }

    fn verify_bytes(bytes: &[u8]) -> Verification {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("PR-EVENTS-26-11-2-3-4-5.jsonl");
        fs::write(&path, bytes).unwrap();
        verify(&path).unwrap()
    }

    #[test]
    fn a_sealed_file_is_intact_compressed_or_not() {
        let bytes = sealed();
        let found = verify_bytes(&bytes);
        assert!(found.intact(), "{found:?}");
        assert_eq!(found.events, 3);
        assert_eq!((found.first_seq, found.last_seq), (Some(40), Some(43)));
        assert_eq!(found.file_sha256, hex(Sha256::new_with_prefix(&bytes)));
        assert!(!found.newer_format());
        let packed = zstd::encode_all(bytes.as_slice(), 3).unwrap();
        assert_eq!(verify_bytes(&packed), found);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = sealed();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let found = verify_bytes(&changed);
            let same = found.file_sha256 == hex(Sha256::new_with_prefix(&bytes));
            assert!(!same, "byte {at}");
            // The time and the name of the next set in the seal itself are
            // guarded by the hash of the file alone.
            let seal_at = bytes.len()
                - 1
                - bytes
                    .iter()
                    .rev()
                    .skip(1)
                    .position(|&b| b == b'\n')
                    .unwrap();
            if at < seal_at {
                assert!(!found.intact(), "byte {at}: {found:?}");
            }
        }
    }

    #[test]
    fn an_unfinished_file_is_consistent_but_not_intact() {
        let bytes = sealed();
        let lines: Vec<_> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        let unsealed = lines[..3].concat();
        let found = verify_bytes(&unsealed);
        assert!(found.consistent() && !found.intact());
        assert_eq!(found.sha256_matches(), None);
        assert_eq!(found.sha256, found.file_sha256);

        let torn = [&unsealed, &lines[3][..10]].concat();
        let found = verify_bytes(&torn);
        assert!(found.torn && found.consistent() && !found.intact());
        assert_eq!(found.events, 3);

        let found = verify_bytes(b"");
        assert!(!found.consistent());
    }

    #[test]
    fn a_missing_line_leaves_a_hole() {
        let bytes = sealed();
        let lines: Vec<_> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        let found = verify_bytes(&[lines[0], lines[2], lines[3]].concat());
        assert_eq!(
            found.first_break,
            Some(Break {
                line: 2,
                expected: 41,
                found: Some(42)
            })
        );
        assert_eq!(found.breaks, 1);
        assert_eq!(found.events_match(), Some(false));
        assert!(!found.consistent());
    }

    #[test]
    fn a_damaged_line_is_not_a_hole_too() {
        let bytes = sealed();
        let lines: Vec<_> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        let long = [vec![b'x'; MAX_LINE + 5], vec![b'\n']].concat();
        for damage in [b"garbage\n".as_slice(), &long] {
            let changed = [lines[0], damage, lines[2], lines[3]].concat();
            let found = verify_bytes(&changed);
            assert_eq!((found.damaged, found.first_damaged), (1, Some(2)));
            assert_eq!((found.breaks, found.events), (0, 3));
            assert_eq!(found.sha256_matches(), Some(false));
            assert_eq!(found.file_sha256, hex(Sha256::new_with_prefix(&changed)));
        }
    }

    #[test]
    fn nothing_may_follow_the_seal() {
        let bytes = sealed();
        let found = verify_bytes(&[bytes.clone(), bytes].concat());
        assert_eq!(found.after_seal, 4);
        assert_eq!(found.sha256_matches(), Some(true));
        assert!(!found.intact());
    }
}
