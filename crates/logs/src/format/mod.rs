//! What the four files of a log set look like, to the byte.
//!
//! * [`events`]: PR-EVENTS, JSON Lines, the complete record;
//! * [`ports`]: PR-PORTS, one CSV row for each port that comes into use;
//! * [`initial`]: PR-INITIAL, every mapping when the set was opened;
//! * [`pids`]: PR-PIDS, a process and its ports each time they changed;
//! * [`listing`]: the blocks that PR-INITIAL and PR-PIDS share;
//! * [`clock`]: how a moment is written in each of them.
//!
//! Everything here appends bytes to a buffer. It opens no file, reads no clock
//! and never fails: whether the bytes reach a disk, when a file is full and what
//! is done about it is decided elsewhere in this crate. Reading back is the job
//! of [`crate::read`].
//!
//! **Invariant:** whatever a process calls itself, what is appended is whole
//! lines, and the number of lines and of fields depends on nothing that a
//! process chose.

pub mod clock;
mod decimal;
pub mod events;
pub mod initial;
pub mod listing;
mod owner;
pub mod pids;
pub mod ports;
mod quote;

/// The version that stands in the first line of the three classic files. The
/// original tools wrote 1.0 and 1.01.
pub const CLASSIC_VERSION: &str = "2.0";

/// The line that stands in PR-INITIAL and PR-PIDS where no process can be named.
pub const NO_MAPPINGS: &str = "Port to process mappings are not available on this system.";
