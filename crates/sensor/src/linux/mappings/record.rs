//! The records beside the samples of `perf_event_open(2)`: what they say of
//! programs and their mappings.
//!
//! Each begins with its type (4 bytes), flags (2) and length (2), and ends, as
//! they are asked for here, with the time (8). Between:
//!
//! | type | | content |
//! | --- | --- | --- |
//! | 2 | `LOST` | identifier (8), how many records found no room (8) |
//! | 3 | `COMM` | process, thread (4 each), name; a flag says that it is an exec |
//! | 4, 7 | `EXIT`, `FORK` | process, its parent, thread, its parent (4 each), time (8) |
//! | 10 | `MMAP2` | process, thread (4 each), address, length, offset in the file (8 each), device (4 + 4), inode, its generation (8 each), protection, flags (4 each), path |
//!
//! Names and paths end with a zero and are filled up with zeros. Anything else
//! is passed over by its length.

use event::BootTime;

use crate::linux::netlink::Reader;

const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const MMAP2: u32 = 10;
/// `PERF_RECORD_MISC_COMM_EXEC`.
const IS_EXEC: u16 = 1 << 13;
/// Type, flags, length.
const HEADER: usize = 8;
/// The time at the end.
const TIME: usize = 8;

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// When.
    pub(crate) at: BootTime,
    /// What.
    pub(crate) news: News,
}

/// What happened to a process, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// So many records found no room before this one.
    Lost(u64),
    /// It runs another program; nothing is mapped yet.
    Exec(u32),
    /// It was forked and has what its parent has.
    Fork {
        /// By this one,
        parent: u32,
        /// and has this number.
        child: u32,
    },
    /// It is gone.
    Exit(u32),
    /// It has mapped a file for execution.
    Map {
        /// The process.
        pid: u32,
        /// The first address.
        address: u64,
        /// Where in the file that is.
        offset: u64,
        /// What.
        file: File,
    },
}

impl News {
    /// Is it not of a mapping without a file?
    fn is_of_use(&self) -> bool {
        match self {
            // What is no file is called `[vdso]` or `//anon`, and so are paths
            // that the kernel could not tell.
            Self::Map { file, .. } => file.path.starts_with(b"/") && !file.path.starts_with(b"//"),
            _ => true,
        }
    }
}

/// A file that was mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct File {
    /// Its path when it was mapped, as its process saw it.
    pub(crate) path: Box<[u8]>,
    /// The number of its file system, in major and minor part.
    pub(crate) device: (u32, u32),
    /// Its number there.
    pub(crate) inode: u64,
}

/// The records do not follow each other as they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads records and calls `each` with those that are of use.
pub(crate) fn decode(bytes: &[u8], mut each: impl FnMut(Record)) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    while !reader.rest().is_empty() {
        let (Some(kind), Some(flags), Some(length)) = (reader.u32(), reader.u16(), reader.u16())
        else {
            return Err(Malformed);
        };
        let body = usize::from(length)
            .checked_sub(HEADER)
            .and_then(|length| reader.take(length))
            .ok_or(Malformed)?;
        if !matches!(kind, LOST | COMM | EXIT | FORK | MMAP2) {
            continue;
        }
        let (body, time) = body
            .len()
            .checked_sub(TIME)
            .and_then(|end| body.split_at_checked(end))
            .ok_or(Malformed)?;
        let at = number(&mut Reader::new(time))
            .map(BootTime)
            .ok_or(Malformed)?;
        if let Some(news) = read(kind, flags, body)? {
            each(Record { at, news });
        }
    }
    Ok(())
}

fn read(kind: u32, flags: u16, body: &[u8]) -> Result<Option<News>, Malformed> {
    let mut body = Reader::new(body);
    Ok(match kind {
        LOST => {
            let _identifier = number(&mut body).ok_or(Malformed)?;
            Some(News::Lost(number(&mut body).ok_or(Malformed)?))
        }
        COMM => {
            let pid = body.u32().ok_or(Malformed)?;
            (flags & IS_EXEC != 0).then_some(News::Exec(pid))
        }
        EXIT | FORK => {
            let mut next = || body.u32().ok_or(Malformed);
            let (pid, parent, tid) = (next()?, next()?, next()?);
            match kind {
                // A thread's parent is its own process.
                FORK if pid != parent => Some(News::Fork { parent, child: pid }),
                EXIT if pid == tid => Some(News::Exit(pid)),
                _ => None,
            }
        }
        _ => Some(read_map(&mut body).ok_or(Malformed)?).filter(News::is_of_use),
    })
}

fn read_map(body: &mut Reader<'_>) -> Option<News> {
    let pid = body.u32()?;
    let _thread = body.u32()?;
    let address = number(body)?;
    let _length = number(body)?;
    let offset = number(body)?;
    let device = (body.u32()?, body.u32()?);
    let inode = number(body)?;
    // The inode's generation; protection and flags.
    body.take(16)?;
    let path = body.rest();
    let path = path.split(|&byte| byte == 0).next().unwrap_or(path);
    Some(News::Map {
        pid,
        address,
        offset,
        file: File {
            path: path.into(),
            device,
            inode,
        },
    })
}

/// The next 64 bits.
fn number(reader: &mut Reader<'_>) -> Option<u64> {
    reader.array().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record as the kernel makes it.
    fn record(kind: u32, flags: u16, body: &[u8], at: u64) -> Vec<u8> {
        let length = u16::try_from(HEADER + body.len() + TIME).unwrap();
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(body);
        bytes.extend(at.to_ne_bytes());
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn map(pid: u32, address: u64, offset: u64, path: &[u8]) -> Vec<u8> {
        let mut body = words(&[pid, pid + 1]);
        for number in [address, 0x1000, offset] {
            body.extend(number.to_ne_bytes());
        }
        body.extend(words(&[8, 1]));
        for number in [77_u64, 5] {
            body.extend(number.to_ne_bytes());
        }
        body.extend(words(&[5, 2]));
        body.extend(path);
        body.resize((body.len() + 1).next_multiple_of(8), 0);
        record(MMAP2, 2, &body, 1000)
    }

    fn read(bytes: &[u8]) -> Vec<News> {
        let mut news = Vec::new();
        decode(bytes, |record| news.push(record.news)).unwrap();
        news
    }

    #[test]
    fn reads_what_happens_to_programs() {
        let name = b"my\0\0\0\0\0\0";
        let mut bytes = record(COMM, IS_EXEC, &[words(&[9, 10]), name.to_vec()].concat(), 1);
        bytes.extend(record(
            COMM,
            0,
            &[words(&[9, 10]), name.to_vec()].concat(),
            2,
        ));
        bytes.extend(record(FORK, 0, &words(&[9, 5, 9, 6, 0, 0]), 3));
        bytes.extend(record(EXIT, 0, &words(&[9, 9, 9, 9, 0, 0]), 4));
        // One that nobody asked for.
        bytes.extend(record(9, 0, &[], 5));
        bytes.extend(record(LOST, 0, &words(&[0, 0, 3, 0]), 6));
        let mut found = Vec::new();
        decode(&bytes, |record| found.push((record.at.0, record.news))).unwrap();
        let fork = News::Fork {
            parent: 5,
            child: 9,
        };
        assert_eq!(
            found,
            [
                (1, News::Exec(9)),
                (3, fork),
                (4, News::Exit(9)),
                (6, News::Lost(3))
            ]
        );
    }

    #[test]
    fn threads_are_left_out() {
        assert_eq!(read(&record(FORK, 0, &words(&[9, 9, 10, 9, 0, 0]), 3)), []);
        assert_eq!(read(&record(EXIT, 0, &words(&[9, 9, 10, 9, 0, 0]), 3)), []);
    }

    #[test]
    fn only_files_are_mappings() {
        let found = read(&map(9, 0x7000, 0x1000, b"/usr/lib/a b.so (deleted)"));
        let expected = News::Map {
            pid: 9,
            address: 0x7000,
            offset: 0x1000,
            file: File {
                path: b"/usr/lib/a b.so (deleted)".as_slice().into(),
                device: (8, 1),
                inode: 77,
            },
        };
        assert_eq!(found, [expected]);
        for other in [b"[vdso]".as_slice(), b"//anon", b"//toolong", b""] {
            assert_eq!(read(&map(9, 0x7000, 0, other)), []);
        }
    }

    #[test]
    fn a_length_that_lies_is_malformed() {
        let whole = map(9, 0x7000, 0x1000, b"/a");
        for length in [0_u16, 7, 8, 15, 16, 40, 71, u16::MAX] {
            let mut bytes = whole.clone();
            bytes[6..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(decode(&bytes, |_| ()), Err(Malformed), "{length}");
        }
        for end in 1..whole.len() {
            assert_eq!(decode(&whole[..end], |_| ()), Err(Malformed), "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, |_| ());
        }

        #[test]
        fn any_body_is_survived(
            kind in 0_u32..12,
            flags: u16,
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let _ = decode(&record(kind, flags, &body, 1), |_| ());
        }

        #[test]
        fn any_path_is_read(path in "/[a-z][^\0]{0,60}", pid in 0_u32..1000, address: u64) {
            let found = read(&map(pid, address, 0, path.as_bytes()));
            let is_it = matches!(
                found.as_slice(),
                [News::Map { pid: told, address: at, file, .. }]
                    if *told == pid && *at == address && *file.path == *path.as_bytes()
            );
            prop_assert!(is_it, "{found:?}");
        }
    }
}
