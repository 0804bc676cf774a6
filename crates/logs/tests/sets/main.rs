//! Log sets on a real file system: what a user, a killed process and a bad disk
//! can do to them.

#![expect(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "in a test a panic is a failure, and the names are exact"
)]

mod chain;
mod directory;
mod disk;
mod gone;
mod killed;
mod support;
