//! End to end: the real binary, the real kernel, the true owner.
//!
//! Each test starts `portreporter record` in a log directory of its own, lets
//! the example program `traffic` make sockets whose cookies, addresses and
//! owners are known, and compares what the recorder wrote with that truth.
//! Whatever else a test is about, every promise that holds for any log set is
//! checked when its recorder stops ([`harness::log`], [`harness::ports`]).
//!
//! Nothing here sleeps, nor fails because the machine is slow or busy
//! ([`harness::overload`]). Tests run beside each other, each with its own
//! recorder, and look only at the sockets that are theirs; those that put the
//! whole machine under load run alone.
//!
//! Most tests need root. Without it they are reported as ignored, with the
//! reason, which the standard test harness cannot do at run time.

use std::process::{Command, ExitCode, Stdio};
use std::sync::RwLock;

use libtest_mimic::{Arguments, Completion, Trial};

mod harness;
mod scenarios;

use self::harness::overload;

/// What a test needs of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing.
    Nothing,
    /// The rights of root.
    Root,
    /// The rights of root, and no other test beside it.
    RootAlone,
    /// The rights of root, and a mounted cgroup2 hierarchy.
    Cgroup2,
    /// The rights of root, and nftables.
    Nftables,
    /// The rights of root, no other test beside it, and a kernel that limits
    /// the room for what is kept with sockets for each network namespace.
    RoomByNamespace,
}

impl Needs {
    fn to_be_alone(self) -> bool {
        matches!(self, Self::RootAlone | Self::RoomByNamespace)
    }
}

/// A test: its name, its needs, and the test itself, which panics if it fails.
type Case = (&'static str, Needs, fn());

/// Held for reading by each test, for writing by one that runs alone.
static ALONE: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = scenarios::all()
        .into_iter()
        .map(|(name, needs, run)| {
            Trial::ignorable_test(name, move || {
                if let Some(reason) = missing(needs) {
                    return Ok(Completion::ignored_with(reason));
                }
                play(name, needs, run);
                Ok(Completion::Completed)
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    harness::clean_up();
    conclusion.exit_code()
}

fn play(name: &str, needs: Needs, run: fn()) {
    // A test that failed has poisoned nothing that another one uses.
    if needs.to_be_alone() {
        let _alone = ALONE
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        overload::play(name, run);
    } else {
        let _beside = ALONE
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        overload::play(name, run);
    }
}

/// Why a test cannot run here.
fn missing(needs: Needs) -> Option<&'static str> {
    if needs == Needs::Nothing {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    match needs {
        Needs::Cgroup2 if scenarios::cgroup::mount_point().is_none() => {
            Some("needs a mounted cgroup2 hierarchy")
        }
        Needs::Nftables if !succeeds(&["nft", "--version"]) => Some("needs nftables"),
        // Before Linux 6.8 the limit is that of the whole machine.
        Needs::RoomByNamespace
            if !succeeds(&["unshare", "--net", "test", "-w", ROOM_FOR_SOCKETS]) =>
        {
            Some("needs Linux 6.8, where optmem_max is a network namespace's own")
        }
        _ => None,
    }
}

/// The most bytes that are kept with one socket beside its packets.
const ROOM_FOR_SOCKETS: &str = "/proc/sys/net/core/optmem_max";

fn succeeds(command: &[&str]) -> bool {
    let status = Command::new(command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
