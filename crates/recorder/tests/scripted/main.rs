//! The recorder fed by hand: what must come out for what goes in.
//!
//! A kernel is played ([`stage`]): it tells of events ([`events`]), also late,
//! out of order or not at all, and it shows its sockets when it is asked
//! ([`reconcile`]). What is looked at is what the recorder wrote.

#![expect(clippy::unwrap_used, reason = "a test may")]

mod events;
mod reconcile;
mod stage;
