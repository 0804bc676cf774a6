//! Is a port listening, and what answers there.
//!
//! The library half of `portreporter query` and `portqry`. It takes addresses
//! and ports, finds out the [`Status`] of each, and puts to those that listen
//! the [`Question`](question::Question) that their service understands. It
//! returns values; words, columns and colours are the caller's.
//!
//! What it deliberately is not: a vulnerability scanner or a guesser of
//! versions. It sends one well-formed request of the protocol that the services
//! database names for the port, reads the reply within fixed bounds of time and
//! size, and says what the reply says.
//!
//! Everything that arrives is hostile. A reply is read through [`Reader`] (or
//! through [`Stream`], for what has no fixed size), which never reads past its
//! end; a question holds at most [`Stream::LIMIT`] bytes and ends at its
//! deadline, however slowly the other side sends. Text of a reply is kept as it
//! came and has to be escaped (`event::text::escape`) where it leaves for a
//! terminal.

mod answer;
pub mod ber;
mod certificate;
mod datagrams;
mod fault;
mod ports;
pub mod question;
mod reader;
mod scan;
mod services;
mod sets;
mod status;
mod stream;
mod target;
mod verdict;

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod system;

pub use crate::answer::{Answer, Fact, Value};
pub use crate::certificate::Certificate;
pub use crate::datagrams::{Datagrams, Unconnected, Wire};
pub use crate::fault::Fault;
pub use crate::ports::{BadPorts, Port, Ports};
pub use crate::reader::Reader;
pub use crate::scan::{Ask, ScanError, Settings, Targets, ask, scan};
pub use crate::services::Services;
pub use crate::sets::{BadSets, ServiceSet, ServiceSets, SetVerdict, Works};
pub use crate::status::Status;
pub use crate::stream::{Stream, Transport};
pub use crate::system::default_services;
pub use crate::target::{Host, Unresolved, is_own, resolve, reverse};
pub use crate::verdict::{Icmp, Reason, Refusal, Verdict};
