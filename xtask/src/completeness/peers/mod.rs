//! The peers: what else an administrator could use.
//!
//! Each runs as it would by hand, writes its lines into a pipe, and is read
//! line by line. One that is not installed, or does not run on this kernel, is
//! reported so, with its own words; nothing is guessed about it.

pub(super) mod lines;
pub(super) mod opensnitch;
pub(super) mod rustnet;
pub(super) mod ss;
pub(super) mod tcplife;
pub(super) mod tcpspy;
pub(super) mod tcpstates;
