//! The scenarios of the completeness suite: small programs whose truth is
//! known.
//!
//! `scenario NAME` plays one. It makes sockets in one exactly known way and
//! prints what is true about each ([`fact`]). A scenario knows nothing of the
//! watchers; what it does is what programs out there do, hard cases first. If
//! this machine cannot show one (a kernel without MPTCP, a missing tool) it
//! says so, and why, and that is not a failure.
//!
//! The basic cases are those of the end-to-end tests' `traffic` program, which
//! the suite plays as they are; here is what goes beyond them.

use anyhow::Context;

mod crowds;
pub(crate) mod fact;
mod images;
mod options;
mod owners;
mod places;
mod raw;
pub(super) mod stage;
mod states;
mod transfer;
mod udp;
mod uring;

use self::fact::Said;
use self::stage::Ignored;

/// One scenario.
pub(crate) struct Scenario {
    /// What it is called.
    pub(crate) name: &'static str,
    /// When it runs.
    pub(crate) when: When,
    play: Play,
}

/// When a scenario runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// By itself, while the watcher watches.
    Alone,
    /// It begins before the watcher comes, and goes on when the watcher is there.
    Before,
    /// It begins first and ends last, with all others in between.
    Throughout,
}

/// How a scenario is played.
#[derive(Clone, Copy)]
enum Play {
    /// The same way always.
    Fixed(fn() -> anyhow::Result<()>),
    /// With a size: the whole one, and the one that is enough for a smoke test.
    Sized(fn(u32) -> anyhow::Result<()>, u32, u32),
}

/// What to play.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The scenario, or a part of one.
    name: String,
    /// Play it at the size of a smoke test.
    #[arg(long)]
    smoke: bool,
    /// What a part of a scenario has to know.
    arguments: Vec<String>,
}

const fn alone(name: &'static str, play: fn() -> anyhow::Result<()>) -> Scenario {
    Scenario {
        name,
        when: When::Alone,
        play: Play::Fixed(play),
    }
}

const fn sized(
    name: &'static str,
    play: fn(u32) -> anyhow::Result<()>,
    whole: u32,
    smoke: u32,
) -> Scenario {
    Scenario {
        name,
        when: When::Alone,
        play: Play::Sized(play, whole, smoke),
    }
}

const fn at(when: When, name: &'static str, play: fn() -> anyhow::Result<()>) -> Scenario {
    Scenario {
        name,
        when,
        play: Play::Fixed(play),
    }
}

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Scenario] = &[
    at(When::Throughout, "half-closed", states::half_closed),
    at(When::Before, "accept-before", owners::accept_before),
    alone("bind-then-listen", states::bind_then_listen),
    alone("listen-twice", states::listen_twice),
    alone("tcp-unspec", states::tcp_unspec),
    alone("second-try", states::second_try),
    alone("close-wait", states::close_wait),
    alone("fin-wait-2", states::fin_wait_2),
    alone("simultaneous", states::simultaneous),
    alone("never-accepted", states::never_accepted),
    alone("abandoned", states::abandoned),
    alone("refused-v6", states::refused_v6),
    alone("killed", states::killed),
    alone("prefork", owners::prefork),
    alone("prefork-silent", owners::prefork_silent),
    alone("passed-connection", owners::passed_connection),
    alone("passed-listener", owners::passed_listener),
    alone("taken-listener", owners::taken_listener),
    alone("socket-activation", owners::socket_activation),
    alone("handed-to-grandchild", owners::handed_to_grandchild),
    alone("duplicated", owners::duplicated),
    alone("shared-by-fork", owners::shared_by_fork),
    alone("shared-table", owners::shared_table),
    alone("kept-over-exec", owners::kept_over_exec),
    alone("closed-by-exec", owners::closed_by_exec),
    alone("other-thread", owners::other_thread),
    alone("leader-gone", owners::leader_gone),
    alone("setuid-after-bind", owners::setuid_after_bind),
    alone("udp-sendmmsg", udp::sendmmsg),
    alone("udp-reconnect", udp::reconnect),
    alone("udp-unspec", udp::unspec),
    alone("udp-connect-only", udp::connect_only),
    alone("udp-multicast", udp::multicast),
    alone("udp-broadcast", udp::broadcast),
    alone("udp-lite", udp::lite),
    alone("two-networks", places::two_networks),
    alone("deleted-network", places::deleted_network),
    alone("across-a-cable", places::across_a_cable),
    alone("link-local", places::link_local),
    alone("pid-namespace", places::pid_namespace),
    alone("user-namespace", places::user_namespace),
    alone("other-root", places::other_root),
    alone("docker", places::docker),
    alone("docker-systemd", places::docker_systemd),
    alone("podman", places::podman),
    alone("kubernetes", places::kubernetes),
    alone("exe-deleted", images::deleted),
    alone("exe-replaced", images::replaced),
    alone("exe-in-memory", images::memory),
    alone("same-number", images::same_number),
    alone("sendfile", transfer::sendfile),
    alone("splice", transfer::splice),
    alone("relay", transfer::relay),
    alone("large", transfer::large),
    alone("urgent", transfer::urgent),
    alone("fast-open", transfer::fast_open),
    alone("fast-open-connect", transfer::fast_open_connect),
    alone("multipath", transfer::multipath),
    alone("io-uring", uring::inline),
    alone("io-uring-workers", uring::workers),
    alone("io-uring-polled", uring::polled),
    alone("bind-to-device", options::bind_to_device),
    alone("transparent", options::transparent),
    alone("free-bind", options::free_bind),
    alone("late-port", options::late_port),
    alone("v6-only", options::v6_only),
    alone("changed-family", options::changed_family),
    alone("raw", raw::raw),
    alone("raw-v6", raw::raw_v6),
    alone("ping", raw::ping),
    alone("packet", raw::packet),
    alone("refused-in-a-row", crowds::refused_in_a_row),
    alone("port-exhaustion", crowds::port_exhaustion),
    sized("short-processes", crowds::short_processes, 1000, 100),
    sized("fork-bomb", crowds::fork_bomb, 5, 3),
    sized("many-connections", crowds::many_connections, 65_000, 2000),
];

/// Plays one.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    // A suite that is stopped leaves nobody behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let outcome = play(options);
    match outcome {
        Err(error) if error.is::<Ignored>() => {
            let Some(Ignored(why)) = error.downcast_ref() else {
                return Err(error);
            };
            fact::say(&Said::Ignored(why.clone()))
        }
        other => other.with_context(|| format!("scenario {}", options.name)),
    }
}

fn play(options: &Options) -> anyhow::Result<()> {
    match options.name.as_str() {
        "part-serve-inherited" => owners::serve_inherited(),
        "part-send-inherited" => owners::send_inherited(&options.arguments),
        "part-contained" => places::contained_part(&options.arguments),
        "part-connect" => images::connect_part(&options.arguments),
        "part-nothing" => Ok(()),
        name => {
            let scenario = ALL
                .iter()
                .find(|scenario| scenario.name == name)
                .context("no such scenario")?;
            match scenario.play {
                Play::Fixed(play) => play(),
                Play::Sized(play, _, smoke) if options.smoke => play(smoke),
                Play::Sized(play, whole, _) => play(whole),
            }
        }
    }
}
