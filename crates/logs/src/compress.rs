//! The thread that looks after closed files.
//!
//! When a set is closed its files are made to survive a power failure, and
//! PR-EVENTS and PR-PIDS are compressed. Both can take seconds on a slow disk;
//! the thread that writes must not wait for it, so it is done here, at the
//! lowest priority. The way to here is a bounded queue, and nobody waits for
//! room in it: what does not fit stays as it is and is found again when the
//! directory is looked through the next time.
//!
//! The original goes only when the compressed file is complete, on the disk and
//! has its name. A kill in between leaves both, and [`crate::recover`] settles
//! that.

use std::io::{self, Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::dir::Dir;
use crate::error::Error;
use crate::names::{FileName, Form};
use crate::report::Notice;
use crate::sink::Disk;

/// zstd's fastest ordinary level: a tenth of the size at the cost of reading.
const LEVEL: i32 = 1;

/// How many jobs may wait.
const QUEUE: usize = 256;

/// How many closed sets may wait to be synced: each of them holds its files
/// open, and a process may not have many.
const MOST_OPEN: usize = 2;

/// The lowest priority there is.
const NICE: i32 = 19;

enum Job {
    /// Make closed files survive a power failure.
    Sync(Vec<Box<dyn Disk>>),
    /// Compress a closed file.
    Compress(FileName),
}

/// The running thread.
pub(crate) struct Keeper {
    jobs: SyncSender<Job>,
    notices: Receiver<Notice>,
    deadline: Arc<OnceLock<Instant>>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub(crate) fn start(dir: Arc<Dir>) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let (reports, notices) = mpsc::channel();
        let deadline = Arc::new(OnceLock::new());
        let open = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            dir,
            reports,
            deadline: Arc::clone(&deadline),
            open: Arc::clone(&open),
        };
        let thread = thread::Builder::new()
            .name("compress".to_owned())
            .spawn(move || worker.run(queue))
            .map_err(|source| Error::Thread { source })?;
        Ok(Self {
            jobs,
            notices,
            deadline,
            open,
            thread,
        })
    }

    /// Hands over the files of a closed set, to be synced and closed.
    pub(crate) fn sync(&self, files: Vec<Box<dyn Disk>>) {
        // If there is no room for them the system syncs them in its own time.
        if self.open.load(Ordering::Relaxed) >= MOST_OPEN {
            return;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        if self.jobs.try_send(Job::Sync(files)).is_err() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Asks for a closed file to be compressed. Returns whether it will be.
    pub(crate) fn compress(&self, name: FileName) -> bool {
        self.jobs.try_send(Job::Compress(name)).is_ok()
    }

    /// What the thread has to say since the last time.
    pub(crate) fn notices(&self) -> impl Iterator<Item = Notice> + '_ {
        self.notices.try_iter()
    }

    /// Ends the thread. What it cannot compress in this time stays as it is.
    pub(crate) fn finish(self, patience: Duration) -> Vec<Notice> {
        let _ = self.deadline.set(Instant::now() + patience);
        drop(self.jobs);
        // A thread that panicked has said so; nothing of a log is in its hands.
        let _ = self.thread.join();
        self.notices.try_iter().collect()
    }
}

struct Worker {
    dir: Arc<Dir>,
    reports: Sender<Notice>,
    deadline: Arc<OnceLock<Instant>>,
    open: Arc<AtomicUsize>,
}

impl Worker {
    fn run(self, queue: Receiver<Job>) {
        // In Linux a priority is that of a thread. Where it cannot be lowered
        // the work is done all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        for job in queue {
            match job {
                Job::Sync(files) => {
                    for mut file in files {
                        let _ = file.sync();
                    }
                    let _ = self.dir.sync();
                    self.open.fetch_sub(1, Ordering::Relaxed);
                }
                Job::Compress(name) => {
                    if let Err(error) = compress(&self.dir, name, &|| self.is_over()) {
                        // Nobody listens any more if the writer is gone.
                        let _ = self.reports.send(Notice::NotCompressed {
                            path: self.dir.path_of(&name.to_string()),
                            error: error.to_string(),
                        });
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let deadline = self.deadline.get();
        deadline.is_some_and(|&deadline| Instant::now() >= deadline)
    }
}

/// Puts a compressed file in the place of a closed one. Gives up, and leaves
/// everything as it was, as soon as `is_over` says so.
fn compress(dir: &Dir, name: FileName, is_over: &dyn Fn() -> bool) -> io::Result<()> {
    let original = name.to_string();
    let draft = name.with_form(Form::CompressedDraft).to_string();
    let compressed = name.with_form(Form::Compressed).to_string();
    let written = write_compressed(dir, &original, &draft, is_over);
    match written {
        Ok(true) => {}
        Ok(false) => return dir.remove(&draft),
        // Retention was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let _ = dir.remove(&draft);
            return Err(error);
        }
    }
    dir.rename(&draft, &compressed)?;
    dir.sync()?;
    match dir.remove(&original) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => dir.remove(&compressed),
        removed => removed,
    }
}

/// Returns whether it was done to the end.
fn write_compressed(
    dir: &Dir,
    original: &str,
    draft: &str,
    is_over: &dyn Fn() -> bool,
) -> io::Result<bool> {
    let mut source = dir.read(original)?;
    let metadata = source.metadata()?;
    let target = dir.create(draft)?;
    let mut encoder = zstd::stream::write::Encoder::new(target, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(metadata.len()))?;
    let mut chunk = vec![0; 256 * 1024];
    loop {
        if is_over() {
            return Ok(false);
        }
        match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => encoder.write_all(&chunk[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let target = encoder.finish()?;
    // So that a listing shows when something was recorded, not compressed.
    target.set_modified(metadata.modified()?)?;
    target.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::names::FileKind;
    use crate::stamp::Stamp;

    fn events() -> FileName {
        let stamp = Stamp::parse("26-11-3-9-5-0").unwrap();
        FileName::new(FileKind::Events, stamp, Form::Plain)
    }

    #[test]
    fn the_original_goes_and_its_bytes_stay() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let content = b"{\"event\":\"listen\"}\n".repeat(100_000);
        std::fs::write(dir.path_of(&events().to_string()), &content).unwrap();
        compress(&dir, events(), &|| false).unwrap();
        let entries = dir.entries().unwrap();
        let compressed = events().with_form(Form::Compressed).to_string();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].name, compressed);
        let file = dir.read(&compressed).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(zstd::decode_all(file).unwrap(), content);
    }

    #[test]
    fn giving_up_leaves_everything_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        std::fs::write(dir.path_of(&events().to_string()), "x\n").unwrap();
        let before = dir.entries().unwrap();
        compress(&dir, events(), &|| true).unwrap();
        assert_eq!(dir.entries().unwrap(), before);
    }

    #[test]
    fn a_file_that_is_gone_is_nothing_to_report() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open(temp.path()).unwrap());
        let keeper = Keeper::start(Arc::clone(&dir)).unwrap();
        assert!(keeper.compress(events()));
        assert_eq!(keeper.finish(Duration::from_mins(1)), []);
        assert_eq!(dir.entries().unwrap(), []);
    }

    #[test]
    fn an_obstacle_is_reported() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open(temp.path()).unwrap());
        std::fs::write(dir.path_of(&events().to_string()), "x\n").unwrap();
        let draft = events().with_form(Form::CompressedDraft).to_string();
        std::fs::create_dir(dir.path_of(&draft)).unwrap();
        let keeper = Keeper::start(Arc::clone(&dir)).unwrap();
        assert!(keeper.compress(events()));
        let notices = keeper.finish(Duration::from_mins(1));
        assert!(matches!(&notices[..], [Notice::NotCompressed { .. }]));
        assert!(dir.path_of(&events().to_string()).exists());
    }
}
