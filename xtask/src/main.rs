//! Chores of the project, run with `cargo xtask`.
//!
//! Each chore is a module; this file only parses the command line and calls
//! it. What a user of Port Reporter needs is never here: the program builds,
//! tests and runs with `cargo` alone.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod bpf;
mod completeness;
mod load;
mod vm;

#[derive(Parser)]
#[command(about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure the recorder beside its peers and print the figures.
    Bench(bench::Options),
    /// Make the kernel object from its source, or compare the two.
    Bpf(bpf::Options),
    /// Run the end-to-end tests, or any command, on other kernels.
    Vm(vm::Options),
    /// Hold the recorder and its peers against sockets whose truth is known.
    Completeness(completeness::Options),
    /// Open and close connections (a load of `bench`).
    #[command(hide = true)]
    Storm(load::storm::Options),
    /// The server of `storm`.
    #[command(hide = true)]
    StormServer(load::storm::ServerOptions),
    /// Open sockets and keep them (a load of `bench`).
    #[command(hide = true)]
    Hold(load::hold::Options),
    /// Make sockets in one known way and tell the truth about them (a load of
    /// `completeness`).
    #[command(hide = true)]
    Scenario(load::scenarios::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().chore {
        Chore::Bench(options) => bench::run(&options),
        Chore::Bpf(options) => bpf::run(&options),
        Chore::Vm(options) => vm::run(&options),
        Chore::Completeness(options) => completeness::run(&options),
        Chore::Storm(options) => load::storm::run(&options).map(|()| ExitCode::SUCCESS),
        Chore::StormServer(options) => load::storm::serve(&options).map(|()| ExitCode::SUCCESS),
        Chore::Hold(options) => load::hold::run(&options).map(|()| ExitCode::SUCCESS),
        Chore::Scenario(options) => load::scenarios::run(&options).map(|()| ExitCode::SUCCESS),
    }
}
