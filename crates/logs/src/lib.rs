//! The log sets PR-INITIAL, PR-PORTS, PR-PIDS and PR-EVENTS: format, write,
//! roll, seal, read.
//!
//! This crate turns what the recorder tells it into files that can be trusted
//! later, and knows nothing of where it came from: it asks the system about
//! files only, never about sockets or processes. [`Logs`] is the directory as
//! the recorder sees it; [`mod@format`] is what the files look like, to the
//! byte; [`read`] reads PR-EVENTS back and [`derive`](mod@derive) makes the classic files of
//! it.
//!
//! # A set
//!
//! A *set* is four files that share one stamp, such as `26-11-22-9-5-0`, local
//! time, with `-2`, `-3` … appended when a stamp is taken ([`Stamp`]):
//!
//! * `PR-EVENTS-STAMP.jsonl`, the complete record, one JSON object on a line;
//! * `PR-PORTS-STAMP.log`, one row for each port that came into use;
//! * `PR-PIDS-STAMP.log`, a process and its ports each time they changed;
//! * `PR-INITIAL-STAMP.log`, the whole state when the set was opened.
//!
//! The last three are what the original tools wrote and can be derived from the
//! first. Each set can be read alone: PR-EVENTS begins with an `open` line that
//! says who wrote it, then one `snapshot` line for each socket in use, then
//! `snapshot-end`. No event falls between two sets: what is recorded before the
//! new set is opened is in the old one, what is recorded after it in the new.
//!
//! A new set is opened at start, at local midnight, on request (SIGHUP) and
//! when a file has reached its size; [`mod@roll`] has the rules.
//!
//! # Numbers and promises
//!
//! `seq` counts the lines of PR-EVENTS from 0, without holes, over all sets of
//! one run. A hole is therefore always damage, never a loss: what could not be
//! recorded has no number, and a `gap` line says how many events that were,
//! between which moments, and why.
//!
//! # The chain
//!
//! The last line of a closed PR-EVENTS is its `seal`: how many lines stand
//! before it, the SHA-256 of every byte before it, and the stamp of the next
//! set (null at the end of a run). The `open` of the next file names the set
//! before it (`previous`) and carries the SHA-256 of that whole file, seal
//! included (`previous_sha256`). Both hashes are over uncompressed bytes. The
//! chain goes on over runs: the first `open` of a run names the last set of the
//! run before. So it can be proved that between two files none is missing and
//! in none a byte was changed, as long as one later hash is known from
//! elsewhere, which is why event 102 carries it too.
//!
//! Stamps are local time and clocks are set, so the order of stamps is not
//! always the order of writing. The chain is.
//!
//! # What a reader may find
//!
//! A PR-EVENTS file without a seal is the one being written, or the last of a
//! run that was killed. The next run does not seal it (who was not there when a
//! file ended cannot vouch for it); it cuts off a last line that is not
//! finished and takes the hash of what is left for its own `open`. At most the
//! last second and that line are missing; after them nobody recorded, which the
//! next run's first set says in a `gap` whose `lost` is null. A file under its final name always
//! holds its whole head: while a set is being opened its PR-EVENTS is called
//! `….jsonl.tmp`, and is of no interest to a reader. Closed PR-EVENTS and
//! PR-PIDS files become `.zst`; where both the file and its `.zst` are there a
//! kill came in between, and the one without the suffix is the one to read.
//!
//! # Disk
//!
//! A disk that is full stops nothing: what is recorded waits in memory, up to
//! 16 MiB, then events are dropped and counted, and a `gap` with reason `disk`
//! stands where they would have been, and a line in PR-PORTS beside it. What
//! the disk does not take until the end is counted in [`Unfinished`]. What is older than wanted, or more than
//! wanted in total, goes by whole sets, the oldest first.

pub mod derive;
pub mod format;
pub mod read;
pub mod roll;

mod compress;
mod dir;
mod error;
mod lock;
mod losses;
mod names;
mod recover;
mod report;
mod retain;
mod seal;
mod set;
mod sink;
mod stamp;
mod unended;
mod writer;

pub use crate::error::{Error, ErrorKind};
pub use crate::names::FileKind;
pub use crate::report::{Notice, SetOpened, Summary, Unfinished, Written};
pub use crate::roll::RollReason;
pub use crate::stamp::Stamp;
pub use crate::writer::{Logs, Options, Run, SetState};
