//! A file and what waits in memory to be written to it.
//!
//! A disk that is full or fails must cost neither what was recorded before nor
//! the shape of the file. So what is written stays in memory until the system
//! has taken it; after a failure the file is cut back to the last whole line,
//! and the rest, from that line on, is kept and written again later. Nothing is
//! ever written twice, nothing in between is left out, and who reads the file
//! meanwhile sees whole lines.
//!
//! The sink knows nothing about *when* to write and how much may wait; that is
//! the writer's business.

use std::fs::File;
use std::io::{self, Write as _};

use crate::dir::{Dir, is_deleted};
use crate::seal::Digest;

/// A buffer is not kept when it is larger than this.
const LARGE: usize = 1 << 20;

/// The file under a sink; a test puts a failing one in its place.
pub(crate) trait Disk: Send {
    /// Appends some of the bytes, like `write(2)`.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file to a length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Waits until everything would survive a power failure.
    fn sync(&mut self) -> io::Result<()>;
    /// Did somebody delete the file? What is written goes with it.
    fn is_deleted(&self) -> bool;
}

impl Disk for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn is_deleted(&self) -> bool {
        is_deleted(self)
    }
}

/// Makes a new file in the log directory.
pub(crate) type Create = Box<dyn Fn(&Dir, &str) -> io::Result<Box<dyn Disk>> + Send>;

/// A file that is being written.
pub(crate) struct Sink {
    disk: Box<dyn Disk>,
    /// What waits; starts where the file ends.
    buffer: Vec<u8>,
    /// The bytes in the file, up to the end of a line.
    written: u64,
    /// There may be more in the file than that, to be cut before the next write.
    torn: bool,
    /// The hash of what is in the file.
    digest: Option<Digest>,
    /// The bytes of the head.
    head: u64,
}

/// A point to which a sink can be taken back.
pub(crate) struct Mark {
    written: u64,
    digest: Option<Digest>,
}

impl Sink {
    pub(crate) fn new(disk: Box<dyn Disk>) -> Self {
        Self {
            disk,
            buffer: Vec::new(),
            written: 0,
            torn: false,
            digest: None,
            head: 0,
        }
    }

    /// A sink that hashes what it writes.
    pub(crate) fn hashed(disk: Box<dyn Disk>) -> Self {
        Self {
            digest: Some(Digest::default()),
            ..Self::new(disk)
        }
    }

    /// To append whole lines to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// What waits: whole lines.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.buffer
    }

    /// How many bytes are in the file.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Did somebody delete the file?
    pub(crate) fn is_deleted(&self) -> bool {
        self.disk.is_deleted()
    }

    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// The length that the file has when everything is written.
    pub(crate) fn length(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Everything up to here is the head of the file.
    pub(crate) fn end_head(&mut self) {
        self.head = self.length();
    }

    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The hash of what is in the file, nothing waiting.
    pub(crate) fn digest(&self) -> Digest {
        self.digest.clone().unwrap_or_default()
    }

    /// Writes everything that waits. After an error it still waits.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        if self.torn {
            self.disk.cut(self.written)?;
            self.torn = false;
        }
        let mut taken = 0;
        while taken < self.buffer.len() {
            match self.disk.append(&self.buffer[taken..]) {
                Ok(0) => {
                    self.keep_from_line(taken);
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(n) => taken += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.keep_from_line(taken);
                    return Err(error);
                }
            }
        }
        self.account(taken);
        self.buffer.clear();
        // What an outage made large does not stay large.
        if self.buffer.capacity() > LARGE {
            self.buffer.shrink_to(LARGE / 2);
        }
        Ok(())
    }

    /// Here it can be taken back to, nothing waiting.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            written: self.written,
            digest: self.digest.clone(),
        }
    }

    /// Takes back everything since the mark.
    pub(crate) fn restore(&mut self, mark: Mark) {
        self.buffer.clear();
        self.written = mark.written;
        self.digest = mark.digest;
        self.cut_back();
    }

    /// Gives the file away, to be closed elsewhere.
    pub(crate) fn into_disk(self) -> Box<dyn Disk> {
        self.disk
    }

    /// The system took this much and no more: whole lines of it stay.
    fn keep_from_line(&mut self, taken: usize) {
        let whole = self.buffer[..taken]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        self.account(whole);
        self.buffer.drain(..whole);
        // Also when nothing was taken: a failed write may have left something.
        self.cut_back();
    }

    fn cut_back(&mut self) {
        self.torn = self.disk.cut(self.written).is_err();
    }

    fn account(&mut self, taken: usize) {
        if let Some(digest) = &mut self.digest {
            digest.update(&self.buffer[..taken]);
        }
        self.written += taken as u64;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    /// A disk of which each part can be made to fail.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Faults(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        /// How many more bytes fit; none: any number.
        room: Option<usize>,
        cannot_cut: bool,
        cannot_create: bool,
        files: HashMap<String, Vec<u8>>,
    }

    impl Faults {
        pub(crate) fn set_room(&self, room: Option<usize>) {
            self.0.lock().unwrap().room = room;
        }

        pub(crate) fn set_cannot_cut(&self, fails: bool) {
            self.0.lock().unwrap().cannot_cut = fails;
        }

        pub(crate) fn set_cannot_create(&self, fails: bool) {
            self.0.lock().unwrap().cannot_create = fails;
        }

        /// Files that are real, so that the directory shows them, with a disk
        /// under them that fails when told to.
        pub(crate) fn create(&self) -> Create {
            let faults = self.clone();
            Box::new(move |dir, name| {
                if faults.0.lock().unwrap().cannot_create {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let file = dir.create(name)?;
                Ok(Box::new(FaultyDisk {
                    faults: faults.clone(),
                    name: name.to_owned(),
                    file: Some(file),
                }))
            })
        }

        fn disk(&self, name: &str) -> Box<dyn Disk> {
            Box::new(FaultyDisk {
                faults: self.clone(),
                name: name.to_owned(),
                file: None,
            })
        }

        fn content(&self, name: &str) -> Vec<u8> {
            let state = self.0.lock().unwrap();
            state.files.get(name).cloned().unwrap_or_default()
        }
    }

    struct FaultyDisk {
        faults: Faults,
        name: String,
        file: Option<File>,
    }

    impl Disk for FaultyDisk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.faults.0.lock().unwrap();
            let fits = state.room.unwrap_or(usize::MAX).min(bytes.len());
            if fits == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.room = state.room.map(|room| room - fits);
            match &mut self.file {
                Some(file) => file.write_all(&bytes[..fits])?,
                None => state
                    .files
                    .entry(self.name.clone())
                    .or_default()
                    .extend_from_slice(&bytes[..fits]),
            }
            Ok(fits)
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            let mut state = self.faults.0.lock().unwrap();
            if state.cannot_cut {
                return Err(io::Error::other("cannot cut"));
            }
            if let Some(file) = &self.file {
                return file.set_len(length);
            }
            let length = usize::try_from(length).unwrap();
            let content = state.files.entry(self.name.clone()).or_default();
            assert!(length <= content.len());
            content.truncate(length);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn is_deleted(&self) -> bool {
            self.file.as_ref().is_some_and(is_deleted)
        }
    }

    #[test]
    fn a_full_disk_keeps_whole_lines_and_the_rest_waits() {
        let faults = Faults::default();
        let mut sink = Sink::hashed(faults.disk("a"));
        sink.buffer().extend_from_slice(b"one\ntwo\nthree\n");
        faults.set_room(Some(10));
        assert!(sink.drain().is_err());
        assert_eq!(faults.content("a"), b"one\ntwo\n");
        assert_eq!(sink.waiting(), 6);
        assert_eq!(sink.length(), 14);
        faults.set_room(None);
        sink.drain().unwrap();
        assert_eq!(faults.content("a"), b"one\ntwo\nthree\n");
    }

    #[test]
    fn what_cannot_be_cut_now_is_cut_before_the_next_write() {
        let faults = Faults::default();
        let mut sink = Sink::hashed(faults.disk("a"));
        sink.buffer().extend_from_slice(b"one\ntwo\n");
        faults.set_room(Some(6));
        faults.set_cannot_cut(true);
        assert!(sink.drain().is_err());
        assert_eq!(faults.content("a"), b"one\ntw");
        faults.set_room(None);
        assert!(sink.drain().is_err());
        assert_eq!(faults.content("a"), b"one\ntw");
        faults.set_cannot_cut(false);
        sink.drain().unwrap();
        assert_eq!(faults.content("a"), b"one\ntwo\n");
    }

    #[test]
    fn a_mark_takes_back_bytes_and_hash() {
        let faults = Faults::default();
        let mut sink = Sink::hashed(faults.disk("a"));
        sink.buffer().extend_from_slice(b"one\n");
        sink.drain().unwrap();
        let before = sink.digest().hex();
        let mark = sink.mark();
        sink.buffer().extend_from_slice(b"seal\n");
        sink.drain().unwrap();
        assert_ne!(sink.digest().hex(), before);
        sink.restore(mark);
        assert_eq!(faults.content("a"), b"one\n");
        assert_eq!(sink.digest().hex(), before);
    }

    proptest! {
        #[test]
        fn a_failing_disk_changes_nothing_in_the_end(
            lines in proptest::collection::vec("[a-z]{0,12}", 1..40),
            rooms in proptest::collection::vec((0_usize..30, any::<bool>()), 0..40),
        ) {
            let faults = Faults::default();
            let mut sink = Sink::hashed(faults.disk("a"));
            let mut expected = Vec::new();
            let mut rooms = rooms.into_iter();
            for line in lines {
                expected.extend_from_slice(line.as_bytes());
                expected.push(b'\n');
                sink.buffer().extend_from_slice(line.as_bytes());
                sink.buffer().push(b'\n');
                if let Some((room, cannot_cut)) = rooms.next() {
                    faults.set_room(Some(room));
                    faults.set_cannot_cut(cannot_cut);
                    let _ = sink.drain();
                    if !cannot_cut {
                        let content = faults.content("a");
                        prop_assert!(content.is_empty() || content.ends_with(b"\n"));
                        prop_assert!(expected.starts_with(&content));
                    }
                }
                prop_assert_eq!(sink.length(), expected.len() as u64);
            }
            faults.set_room(None);
            faults.set_cannot_cut(false);
            prop_assert!(sink.drain().is_ok());
            prop_assert_eq!(faults.content("a"), expected.clone());
            let mut digest = Digest::default();
            digest.update(&expected);
            prop_assert_eq!(sink.digest().hex(), digest.hex());
        }
    }
}
