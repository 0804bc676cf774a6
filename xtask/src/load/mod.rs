//! Loads that the benches put on the kernel.
//!
//! They run as processes of their own, so that their time and their sockets
//! are not those of the bench, and speak to it in lines on standard output.
//! All traffic stays on the loopback interface.

pub(crate) mod hold;
pub(crate) mod scenarios;
pub(crate) mod storm;
