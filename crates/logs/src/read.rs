//! Reads PR-EVENTS back, as written or compressed.
//!
//! A log is read most often when something went wrong, so this reader gives up
//! on nothing but the disk: a line that makes no sense is a
//! [`Line::Damaged`], the torn end that a crash leaves is a [`Line::Torn`], and
//! both come with the number of the line. Keys that it does not know are
//! passed over, keys that are missing are unknown, a line longer than
//! [`MAX_LINE`] is skipped without being kept in memory.
//!
//! What a line says is in [`Record`]; whether a file is whole and unchanged is
//! asked of [`verify`]. Searching, filtering and following a connection from
//! line to line is the work of a program on top of this.

mod record;
mod verify;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

pub use self::record::{
    CountersRecord, Event, GapRecord, Invalid, Moment, Open, Record, Seal, SocketRecord,
};
pub use self::verify::{Break, Verification, verify};

/// The longest line that is read, in bytes, its line feed included. The writer
/// keeps below it.
pub const MAX_LINE: usize = 1 << 20;

/// How a zstd frame begins (RFC 8878 §3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A line of PR-EVENTS.
#[derive(Debug)]
pub enum Line {
    /// It was understood.
    Record(Record),
    /// It was not: somebody changed the file, or the disk did.
    Damaged {
        /// The number of the line, from 1.
        number: u64,
        /// What is wrong with it.
        why: Invalid,
    },
    /// The file ends within this line: the recorder was killed while it wrote.
    Torn {
        /// The number of the line, from 1.
        number: u64,
    },
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there, or the caller may not read it.
    #[error("cannot open {path}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The path is a directory, a pipe or a device: the caller's fault.
    #[error("cannot open {path}: not a regular file", path = .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The disk failed, or the compressed data is damaged or cut short.
    #[error("cannot read line {line} of {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The line that was being read, from 1.
        line: u64,
        /// The system's or the decompressor's answer.
        #[source]
        source: io::Error,
    },
}

/// Reads a file line by line.
pub struct Reader {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
}

impl Reader {
    /// Opens a `.jsonl` or `.jsonl.zst`; which of them it is shows in its first
    /// bytes, not in its name.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let cannot_open = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        // Asked before opening: to open a pipe is to wait for its writer.
        if !std::fs::metadata(path).map_err(cannot_open)?.is_file() {
            return Err(Error::NotAFile {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(cannot_open)?;
        Self::new(BufReader::with_capacity(64 << 10, file), path).map_err(|source| Error::Read {
            path: path.to_owned(),
            line: 1,
            source,
        })
    }

    /// Reads from elsewhere; `path` is what errors call it.
    pub fn new(mut input: impl BufRead + Send + 'static, path: &Path) -> io::Result<Self> {
        let compressed = input.fill_buf()?.starts_with(&ZSTD_MAGIC);
        let input: Box<dyn BufRead + Send> = if compressed {
            let decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            Box::new(BufReader::with_capacity(64 << 10, decoder))
        } else {
            Box::new(input)
        };
        Ok(Self {
            path: path.to_owned(),
            input,
            line: Vec::new(),
            number: 0,
        })
    }

    /// The next line; none at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<Line>, Error> {
        let Some(raw) = self.next_raw(&mut |_| {})? else {
            return Ok(None);
        };
        let number = raw.number;
        Ok(Some(if raw.torn {
            Line::Torn { number }
        } else {
            match raw.parse() {
                Ok(record) => Line::Record(record),
                Err(why) => Line::Damaged { number, why },
            }
        }))
    }

    /// The next line as it stands. One that is too long is not kept; its bytes
    /// are handed to `overflow` instead, part by part.
    fn next_raw(&mut self, overflow: &mut dyn FnMut(&[u8])) -> Result<Option<Raw<'_>>, Error> {
        self.number += 1;
        let too_long =
            read_line(&mut self.input, &mut self.line, overflow).map_err(|source| Error::Read {
                path: self.path.clone(),
                line: self.number,
                source,
            })?;
        if self.line.is_empty() && !too_long {
            return Ok(None);
        }
        Ok(Some(Raw {
            number: self.number,
            torn: self.line.last() != Some(&b'\n'),
            too_long,
            bytes: if too_long { &[] } else { &self.line },
        }))
    }
}

impl Iterator for Reader {
    type Item = Result<Line, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

/// A line as it stands.
struct Raw<'a> {
    number: u64,
    /// It has no line feed.
    torn: bool,
    too_long: bool,
    /// The line with its line feed; empty if it is too long.
    bytes: &'a [u8],
}

impl Raw<'_> {
    fn parse(&self) -> Result<Record, Invalid> {
        if self.too_long {
            return Err(Invalid::TooLong);
        }
        Record::parse(self.bytes)
    }
}

/// Reads to the next line feed. Is the line too long? Then `line` holds only
/// its end, and `overflow` was given all of it.
fn read_line(
    input: &mut dyn BufRead,
    line: &mut Vec<u8>,
    overflow: &mut dyn FnMut(&[u8]),
) -> io::Result<bool> {
    let mut read = |line: &mut Vec<u8>| {
        line.clear();
        input.take(MAX_LINE as u64).read_until(b'\n', line)
    };
    read(line)?;
    if line.len() < MAX_LINE || line.ends_with(b"\n") {
        return Ok(false);
    }
    overflow(line);
    while !line.is_empty() && !line.ends_with(b"\n") {
        read(line)?;
        overflow(line);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    fn lines(bytes: impl Into<Vec<u8>>) -> Vec<Result<Line, Error>> {
        Reader::new(Cursor::new(bytes.into()), Path::new("test"))
            .unwrap()
            .collect()
    }

    #[test]
    fn damage_is_reported_and_passed_over() {
        let mut bytes =
            b"{\"seq\":0,\"event\":\"snapshot-end\",\"sockets\":3,\"new\":[1]}\n".to_vec();
        bytes.extend_from_slice(b"no json\n");
        bytes.extend_from_slice(&vec![b'x'; MAX_LINE * 2 + 17]);
        bytes.extend_from_slice(b"\n{\"event\":\"later\"}\n{\"seq\":4,\"ev");
        let lines: Vec<_> = lines(bytes).into_iter().map(Result::unwrap).collect();
        assert!(matches!(
            lines[0],
            Line::Record(Record {
                seq: Some(0),
                time: None,
                event: Event::SnapshotEnd { sockets: Some(3) }
            })
        ));
        assert!(matches!(
            lines[1],
            Line::Damaged {
                number: 2,
                why: Invalid::Json(_)
            }
        ));
        assert!(matches!(
            lines[2],
            Line::Damaged {
                number: 3,
                why: Invalid::TooLong
            }
        ));
        assert!(
            matches!(&lines[3], Line::Record(Record { event: Event::Other(name), .. }) if name == "later")
        );
        assert!(matches!(lines[4], Line::Torn { number: 5 }));
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn the_longest_line_is_read_and_one_byte_more_is_not() {
        let line = |length: usize| {
            let frame = "{\"event\":\"x\",\"y\":\"\"}\n".len();
            format!(
                "{{\"event\":\"x\",\"y\":\"{}\"}}\n",
                "y".repeat(length - frame)
            )
        };
        assert!(matches!(lines(line(MAX_LINE))[..], [Ok(Line::Record(_))]));
        assert!(matches!(
            lines(line(MAX_LINE + 1))[..],
            [Ok(Line::Damaged {
                why: Invalid::TooLong,
                ..
            })]
        ));
    }

    #[test]
    fn an_endless_line_without_an_end_is_torn() {
        for length in [MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE] {
            assert!(matches!(
                lines(vec![b'x'; length])[..],
                [Ok(Line::Torn { number: 1 })]
            ));
        }
    }

    #[test]
    fn compressed_or_not_is_seen_in_the_bytes() {
        let plain = b"{\"event\":\"a\"}\n{\"event\":\"b\"}\n".repeat(1000);
        let packed = zstd::encode_all(plain.as_slice(), 3).unwrap();
        assert_eq!(lines(packed.clone()).len(), 2000);
        assert_eq!(lines(plain).len(), 2000);
        assert!(lines(Vec::new()).is_empty());

        // Cut short, it gives what there is, then an error, and it ends.
        let cut = &packed[..packed.len() - 6];
        let mut reader = Reader::new(Cursor::new(cut.to_vec()), Path::new("test")).unwrap();
        assert!(reader.any(|line| matches!(line, Err(Error::Read { .. }))));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Reader::open(folder.path()),
            Err(Error::NotAFile { .. })
        ));
        let missing = folder.path().join("missing");
        assert!(matches!(Reader::open(&missing), Err(Error::Open { .. })));
        let path = folder.path().join("log");
        File::create(&path)
            .unwrap()
            .write_all(b"{\"event\":\"a\"}\n")
            .unwrap();
        assert_eq!(Reader::open(&path).unwrap().count(), 1);
    }
}
