//! What programs have mapped for execution, also those that are gone before
//! anybody could read `/proc/PID/maps`.
//!
//! `perf_event_open(2)` can do more than sample: an event that never fires
//! still gets records of what changes the meaning of a sample, which is every
//! fork, exec and exit, and every mapping of a file that may be executed
//! ([`record`]). One such event for each CPU writes them into memory that is
//! shared with us ([`ring`]); put in order by their time they say at each moment
//! what a process has mapped ([`table`]).
//!
//! Nobody waits for this news. It lies in the rings until somebody asks, or
//! until a quarter of a ring is full and the kernel wakes a thread, whose only
//! work is to make room; on an idle machine it sleeps. Both take in all that
//! was written up to that moment, in order of time over all CPUs: what is
//! stamped before the first ring is read is in its ring by then, and what is
//! stamped later waits for the next time.
//!
//! This is not a record of all mappings. Only files count, not memory that a
//! program makes executable; what is unmapped again is not told of; and what
//! was mapped before the recorder began is not known ([`Mappings::of`] says so).

pub(crate) mod record;
mod ring;
mod table;

use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use event::{BootTime, Degradation, Mapping, ProcessKey};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{ClockId, clock_gettime};

use self::record::Record;
use self::ring::Ring;
use self::table::Table;
use crate::Mappings;

/// The room for records on each CPU: some thousand programs' worth.
const ROOM: usize = 256 * 1024;
/// How much of it is used when the kernel wakes the thread.
const WAKE_AT: u32 = 64 * 1024;

/// Opens it, or says what is not known without it.
pub(super) fn open(degradations: &mut Vec<Degradation>) -> Option<Box<dyn Mappings>> {
    match Watch::open(Path::new("/proc")) {
        Ok(watch) => Some(Box::new(watch)),
        Err(error) => {
            degradations.push(Degradation {
                what: "perf_event_open".to_owned(),
                why: error.to_string(),
                consequence: "the modules of processes that are gone before they can be read \
                              are not known"
                    .to_owned(),
                remedy: None,
            });
            None
        }
    }
}

/// The events, and the thread that makes room.
struct Watch {
    state: Arc<Mutex<State>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What the asking thread and the one that makes room share.
struct State {
    rings: Vec<Ring>,
    table: Table,
    /// Records that are later than the last round.
    waiting: Vec<Record>,
    bytes: Vec<u8>,
}

impl Watch {
    fn open(proc: &Path) -> io::Result<Self> {
        /// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`).
        const INITIAL: &str = "pid:[4026531836]";
        // Elsewhere the numbers are not those of the other observations.
        if std::fs::read_link(proc.join("self/ns/pid"))?.as_os_str() != INITIAL {
            return Err(io::Error::other("not in the initial PID namespace"));
        }
        let page = rustix::param::page_size();
        let mut events = Vec::new();
        let mut rings = Vec::new();
        for cpu in 0..cpus() {
            let event = match open_event(cpu) {
                Ok(event) => event,
                // It is not running.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(error) => return Err(error),
            };
            rings.push(Ring::new(event.as_fd(), ROOM.max(page))?);
            events.push(event);
        }
        let state = Arc::new(Mutex::new(State {
            rings,
            table: Table::new(now()),
            waiting: Vec::new(),
            bytes: Vec::new(),
        }));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let thread = {
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            std::thread::Builder::new()
                .name("mappings".to_owned())
                .spawn(move || make_room(&events, &state, &stop))?
        };
        Ok(Self {
            state,
            stop,
            thread: Some(thread),
        })
    }
}

impl Mappings for Watch {
    fn of(&mut self, process: ProcessKey) -> Option<Vec<Mapping>> {
        let mut state = lock(&self.state);
        state.take_in();
        state.table.of(process)
    }

    fn lost(&mut self) -> u64 {
        lock(&self.state).table.lost()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without it the thread would sleep on, which harms nobody.
        if rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // Its panic was already reported on standard error.
            let _ = thread.join();
        }
    }
}

impl State {
    /// Takes in everything that was written up to now.
    fn take_in(&mut self) {
        let now = now();
        let waiting = &mut self.waiting;
        let mut is_whole = true;
        for ring in &mut self.rings {
            is_whole &= ring.drain(&mut self.bytes);
            is_whole &= record::decode(&self.bytes, |record| waiting.push(record)).is_ok();
        }
        waiting.sort_by_key(|record| record.at);
        let ready = waiting.partition_point(|record| record.at <= now);
        for record in waiting.drain(..ready) {
            self.table.note(record);
        }
        if !is_whole {
            // How many there were cannot be told.
            self.table.lose(1, now);
        }
        // A storm is not to be paid for ever after.
        self.bytes.shrink_to(WAKE_AT as usize);
        self.waiting.shrink_to(4096);
    }
}

/// Takes in what was written whenever the kernel says that it is much.
fn make_room(events: &[OwnedFd], state: &Mutex<State>, stop: &OwnedFd) {
    let mut fds: Vec<PollFd<'_>> = std::iter::once(stop)
        .chain(events)
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    loop {
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // It cannot wait, and must not go round and round. The rings fill;
            // what finds no room is counted.
            Err(_) => return,
        }
        if fds.first().is_none_or(|stop| !stop.revents().is_empty()) {
            return;
        }
        lock(state).take_in();
        // A CPU that was taken away has nothing more to tell.
        let is_over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        fds.retain(|fd| !fd.revents().intersects(is_over));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing is left half done where it could panic.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    BootTime(seconds * 1_000_000_000 + nanos)
}

/// How many CPUs there may be.
fn cpus() -> i32 {
    // SAFETY: sysconf(3) only reads what the system is configured for.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    i32::try_from(count).unwrap_or(1)
}

/// `struct perf_event_attr` up to its fifth version
/// (`include/uapi/linux/perf_event.h`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wake_at: u32,
    breakpoint: u32,
    config_1: u64,
    config_2: u64,
    branches: u64,
    registers: u64,
    stack: u32,
    clock: i32,
    registers_at_interrupt: u64,
    wake_at_aux: u32,
    most_frames: u16,
    reserved: u16,
}

/// Opens the event of one CPU.
fn open_event(cpu: i32) -> io::Result<OwnedFd> {
    const SOFTWARE: u32 = 1;
    /// `PERF_COUNT_SW_DUMMY`: it counts nothing.
    const DUMMY: u64 = 9;
    const SAMPLE_TIME: u64 = 1 << 2;
    const MMAP: u64 = 1 << 8;
    const COMM: u64 = 1 << 9;
    const TASK: u64 = 1 << 13;
    const WATERMARK: u64 = 1 << 14;
    const SAMPLE_ID_ALL: u64 = 1 << 18;
    const MMAP2: u64 = 1 << 23;
    const COMM_EXEC: u64 = 1 << 24;
    const USE_CLOCK: u64 = 1 << 25;
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;

    let attributes = Attributes {
        kind: SOFTWARE,
        size: u32::try_from(size_of::<Attributes>()).unwrap_or(0),
        config: DUMMY,
        sample_type: SAMPLE_TIME,
        flags: MMAP | MMAP2 | COMM | COMM_EXEC | TASK | WATERMARK | SAMPLE_ID_ALL | USE_CLOCK,
        wake_at: WAKE_AT,
        clock: libc::CLOCK_BOOTTIME,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `size` bytes of the attributes, which live until
    // after the call.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            -1,
            cpu,
            -1,
            CLOSE_ON_EXEC,
        )
    };
    match libc::c_int::try_from(event) {
        Ok(event) if event >= 0 => {
            // SAFETY: the kernel has just given us this descriptor.
            Ok(unsafe { OwnedFd::from_raw_fd(event) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn elsewhere_than_in_the_initial_namespace_it_is_not_used() {
        let proc = tempfile::tempdir().unwrap();
        let ns = proc.path().join("self/ns");
        std::fs::create_dir_all(&ns).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", ns.join("pid")).unwrap();
        let error = Watch::open(proc.path()).err().unwrap();
        assert!(error.to_string().contains("namespace"), "{error}");
    }

    #[test]
    fn a_program_that_is_gone_is_known() {
        let Ok(mut watch) = Watch::open(Path::new("/proc")) else {
            // Not permitted here; what is done then is seen by the other tests.
            return;
        };
        let start = now();
        let mut child = Command::new("/bin/true")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        let found = watch.of(ProcessKey { pid, start }).unwrap();
        assert!(found.first().unwrap().path.ends_with(b"/true"), "{found:?}");
        assert!(
            found
                .iter()
                .any(|it| it.path.windows(4).any(|part| part == b"libc")),
            "{found:?}"
        );
        assert_eq!(watch.lost(), 0);
    }
}
