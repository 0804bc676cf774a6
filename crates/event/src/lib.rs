//! The words of the field, and nothing else.
//!
//! This crate names what the other crates talk about: a [`Protocol`], a
//! [`TcpState`], a [`Socket`], the [`Process`] that owns it and what happened
//! to it (an [`Action`]). It does no I/O, knows no operating system and depends
//! on no crate of ours, so that a log written on one machine can be read on any
//! other.
//!
//! Two rules hold everywhere:
//!
//! * what is not known is [`None`], never a guess;
//! * text from outside is kept whole ([`text::from_bytes`]) and escaped only
//!   where it leaves for a terminal or a line-based file ([`text::escape`]).

mod action;
mod degradation;
mod process;
mod socket;
pub mod text;
mod time;

pub use crate::action::{Action, CloseReason};
pub use crate::degradation::{Degradation, Engine};
pub use crate::process::{
    Attribution, Mapping, Module, Owner, Process, ProcessKey, Service, ServiceKind,
};
pub use crate::socket::{Cookie, Endpoint, Family, Protocol, Socket, TcpState};
pub use crate::time::{BootTime, WallTime};
