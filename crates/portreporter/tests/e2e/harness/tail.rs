//! The lines of PR-EVENTS while they are written.
//!
//! inotify says when to look; a look reads what is new in every file, also in
//! one that was closed and compressed since the look before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;
use serde_json::Value;

use super::overload;

/// The time after which a test that waits has failed. Nobody waits that long
/// for what comes, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// Reads the lines of a log directory, each once.
pub(crate) struct Tail {
    directory: PathBuf,
    notify: OwnedFd,
    read: HashMap<String, u64>,
    /// Closed and read: a busy machine's sets are large, and many.
    done: HashSet<String>,
    /// Read, but not yet looked at.
    unseen: VecDeque<Value>,
}

impl Tail {
    /// A reader from the next line on; the directory may not be there yet.
    pub(crate) fn new(directory: &Path) -> Self {
        let notify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .expect("inotify");
        let mut tail = Self {
            directory: directory.to_path_buf(),
            notify,
            read: HashMap::new(),
            done: HashSet::new(),
            unseen: VecDeque::new(),
        };
        // What a recorder before has left.
        tail.new_lines();
        tail
    }

    /// Reads until a line is wanted; gives it, or none when `ended` (a pidfd)
    /// says that the writer is gone, when the machine was too busy for it, or when
    /// the patience is at its end. No line is looked at twice, and none that was
    /// written is left out.
    pub(crate) fn find(
        &mut self,
        ended: impl AsFd,
        patience: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Option<Value> {
        let deadline = Instant::now() + patience;
        loop {
            self.watch();
            // Looked at before the lines, so that its last words are read.
            let gone = !wait(&[ended.as_fd()], Duration::ZERO).is_empty();
            let new = self.new_lines();
            self.unseen.extend(new);
            let mut found = None;
            while let Some(line) = self.unseen.pop_front() {
                overload::note(&line);
                if wanted(&line) {
                    found = Some(line);
                    break;
                }
            }
            if found.is_some() || gone || overload::is_spoiled() || Instant::now() > deadline {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            wait(&[self.notify.as_fd(), ended.as_fd()], left);
            self.drain();
        }
    }

    /// How many log sets there are.
    pub(crate) fn sets(&self) -> usize {
        self.files().len()
    }

    /// Waits until there are at least so many log sets.
    pub(crate) fn wait_for_sets(&mut self, ended: impl AsFd, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.sets() < count {
            self.watch();
            if self.sets() >= count {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{count} log sets were expected, {} are there",
                self.sets()
            );
            wait(&[self.notify.as_fd(), ended.as_fd()], left);
            self.drain();
        }
    }

    /// Waits for a change in the directory, unless `already` says that there is
    /// no need to.
    pub(crate) fn wait_for_a_change(&self, ended: impl AsFd, already: impl Fn() -> bool) {
        self.watch();
        if !already() {
            wait(&[self.notify.as_fd(), ended.as_fd()], PATIENCE);
            self.drain();
        }
    }

    /// Waits until so many files with such a name were made.
    pub(crate) fn wait_for_names(&self, count: usize, wanted: impl Fn(&str) -> bool) {
        self.watch();
        let deadline = Instant::now() + PATIENCE;
        let mut found = 0;
        while found < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{count} files were expected, not {found}");
            wait(&[self.notify.as_fd()], left);
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&self.notify, &mut buffer);
            while let Ok(event) = reader.next() {
                let is_made = event.events().contains(inotify::ReadFlags::CREATE);
                let name = event.file_name().map(|name| name.to_string_lossy());
                found += usize::from(is_made && name.is_some_and(|name| wanted(&name)));
            }
        }
    }

    fn watch(&self) {
        let what = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::MOVED_TO;
        // The parent, too: the recorder makes the directory itself.
        for path in [self.directory.as_path()]
            .into_iter()
            .chain(self.directory.parent())
        {
            let _ = inotify::add_watch(&self.notify, path, what);
        }
    }

    fn drain(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.notify, &mut buffer);
        while reader.next().is_ok() {}
    }

    fn new_lines(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        for (stamp, path) in self.files() {
            if self.done.contains(&stamp) {
                continue;
            }
            let offset = self.read.entry(stamp.clone()).or_default();
            let Ok(bytes) = read_from(&path, *offset) else {
                // Compressed since it was listed; the next look finds it.
                continue;
            };
            let whole = bytes
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            *offset += whole as u64;
            if path.extension().is_some_and(|extension| extension == "zst") {
                self.done.insert(stamp);
            }
            lines.extend(
                bytes[..whole]
                    .split(|&byte| byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .filter_map(|line| serde_json::from_slice(line).ok()),
            );
        }
        lines
    }

    /// The PR-EVENTS files by stamp, the uncompressed one where there are two.
    fn files(&self) -> HashMap<String, PathBuf> {
        let mut files = HashMap::new();
        for entry in std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix("PR-EVENTS-") else {
                continue;
            };
            if let Some(stamp) = rest.strip_suffix(".jsonl") {
                files.insert(stamp.to_owned(), entry.path());
            } else if let Some(stamp) = rest.strip_suffix(".jsonl.zst") {
                files.entry(stamp.to_owned()).or_insert(entry.path());
            }
        }
        files
    }
}

/// Waits until one of the descriptors is ready; gives the ready ones.
pub(crate) fn wait(fds: &[impl AsFd], at_most: Duration) -> Vec<usize> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(at_most).expect("a short time");
    match rustix::event::poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => panic!("poll: {error}"),
    }
    (0..polled.len())
        .filter(|&at| !polled[at].revents().is_empty())
        .collect()
}

fn read_from(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    if path.extension().is_some_and(|extension| extension == "zst") {
        let whole = zstd::decode_all(file)?;
        let offset = usize::try_from(offset).expect("a file that fits into memory");
        bytes.extend_from_slice(whole.get(offset..).unwrap_or_default());
    } else {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
