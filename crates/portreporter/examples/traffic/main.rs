//! Real traffic whose truth is known: the other half of the end-to-end tests.
//!
//! `traffic SCENARIO [ARGUMENT…]` makes sockets in one exactly known way and
//! says on standard output what the kernel told it about each: one JSON object
//! a line ([`facts`]), with the socket's cookie, its addresses and the process
//! that owns it. The tests compare these facts with what the recorder wrote.
//!
//! Some scenarios are wrappers (`in-netns`, `in-pidns`, `in-chroot`,
//! `in-cgroup`): they change where the process lives and then play the
//! scenario that follows them. Where a test must act in between, the program
//! prints `{"ready":true}` and waits for one line on standard input.
//!
//! This is not a load generator for benchmarks, and nothing here knows the
//! recorder.

use std::process::ExitCode;

mod facts;
mod handed;
mod other;
mod process;
mod storm;
mod tcp;
mod udp;

/// What a scenario ends with.
type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // The program's own name may be any bytes; what follows is ours.
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match play(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("traffic {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// Plays the scenario that the arguments name.
fn play(arguments: &[String]) -> Outcome {
    let (scenario, rest) = arguments.split_first().ok_or("no scenario is named")?;
    match scenario.as_str() {
        "listen" => tcp::listen(rest),
        "listen-unbound" => tcp::listen_unbound(),
        "pair" => tcp::pair(rest),
        "pair-at" => tcp::pair_at(rest),
        "refused" => tcp::refused(),
        "timeout" => tcp::timeout(),
        "non-blocking" => tcp::non_blocking(),
        "quick" => tcp::quick(),
        "mapped" => tcp::mapped(),
        "bytes" => tcp::bytes(),
        "reset" => tcp::reset(rest),
        "time-wait" => tcp::time_wait(rest),
        "hold" => tcp::hold(),
        "exit-open" => tcp::exit_open(),
        "connect-exit" => tcp::connect_exit(rest),
        "udp-bind" => udp::bind(rest),
        "udp-autobind" => udp::autobind(rest),
        "udp-receive" => udp::receive(),
        "udp-reconnect" => udp::reconnect(),
        "other" => other::other(rest),
        "storm" => storm::storm(rest),
        "churn" => storm::churn(rest),
        "short" => process::short(rest),
        "fork-accept" => process::fork_accept(rest),
        "reuse-port" => process::reuse_port(rest),
        "reuse-port-member" => process::reuse_port_member(rest),
        "accept-late" => handed::accept_late(),
        "setuid" => handed::setuid(rest),
        "exec" => handed::exec(rest),
        "execed" => handed::execed(rest),
        "pass" => handed::pass(),
        "dup" => handed::dup(),
        "activate" => handed::activate(),
        "activated" => handed::activated(rest),
        "in-netns" => process::in_netns(rest),
        "without-room" => other::without_room(rest),
        "in-pidns" => process::in_pidns(rest),
        "in-chroot" => process::in_chroot(rest),
        "in-cgroup" => process::in_cgroup(rest),
        other => Err(format!("no such scenario: {other}").into()),
    }
}
