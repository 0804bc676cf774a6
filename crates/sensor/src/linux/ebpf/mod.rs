//! The engine `ebpf`: programs in the kernel report each event.
//!
//! The kernel side is `bpf/port_reporter.bpf.c`, compiled once, committed, and
//! embedded here, so that nobody needs clang to build or to run this. Loading
//! goes: maps and programs, hooks one by one ([`hooks`]), a proof that each
//! fires ([`prove`]); from the first attached hook on, events gather in the
//! ring and wait for the [`stream`]. The [`inspector`] walks the descriptors of
//! all processes in the kernel and reads the counters.

mod hooks;
mod inspector;
mod prove;
pub mod record;
mod ring;
mod stream;

use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::Iter;
use aya::{Btf, Ebpf, EbpfLoader};
use event::{Degradation, Engine};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{Error, Sensor};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../../bpf/port_reporter.bpf.o");

/// Loads the programs, attaches and proves the hooks.
///
/// `ring_bytes` is the size of the ring, a power of two and a multiple of the
/// page size.
pub(super) fn open(ring_bytes: u32) -> Result<Sensor, Error> {
    // Kernels before 5.11 count maps against this limit.
    let _ = setrlimit(
        Resource::Memlock,
        Rlimit {
            current: None,
            maximum: None,
        },
    );
    if !has_types() {
        return Err(unavailable(
            "the kernel does not describe its types (/sys/kernel/btf/vmlinux is missing); \
             boot a kernel built with CONFIG_DEBUG_INFO_BTF",
        ));
    }
    let btf = Btf::from_sys_fs().map_err(|error| unavailable(&explain(&error)))?;
    // The least that the kernel's own ring buffer may have.
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .map_max_entries("ring_slots", ring::capacity(ring_bytes))
        .map_max_entries("ring_alarm", page)
        .load(OBJECT)
        .map_err(|error| unavailable(&explain(&error)))?;

    keep_quiet(&mut ebpf, true);
    let ring = open_ring(&ebpf, ring_bytes)?;

    let mut degradations = Vec::new();
    let mappings = super::mappings::open(&mut degradations);
    let mut missing = Vec::new();
    let attached = attach(&mut ebpf, &btf, &mut missing, &mut degradations)?;
    let proved = prove(&mut ebpf, &attached, &mut missing);
    let lacking = missing
        .iter()
        .filter_map(|(hook, why)| hook.missing(why, &proved));
    degradations.extend(lacking);
    let hooks = proved.iter().map(|hook| hook.name.to_owned()).collect();
    keep_quiet(&mut ebpf, false);
    let iterator: Result<(), aya::programs::ProgramError> = (|| {
        let program: &mut Iter = ebpf
            .program_mut("sockets_of_tasks")
            .ok_or(aya::programs::ProgramError::InvalidName {
                name: "sockets_of_tasks".to_owned(),
            })?
            .try_into()?;
        hooks::undisturbed(|| program.load("task_file", &btf))
    })();
    if let Err(error) = &iterator {
        degradations.push(Degradation {
            what: "iterator task_file".to_owned(),
            why: refusal(explain(error)),
            consequence: "sockets older than the recorder are found by a slower walk of /proc, \
                          and those in other network namespaces not at all"
                .to_owned(),
            remedy: None,
        });
    }
    let inspector = inspector::EbpfInspector::new(ebpf, iterator.is_ok());
    drop(btf);
    give_memory_back();
    Ok(Sensor {
        engine: Engine::Ebpf,
        hooks,
        degradations,
        stream: Box::new(stream::RingStream::new(ring)),
        inspector: Box::new(inspector),
        mappings,
    })
}

fn open_ring(ebpf: &Ebpf, bytes: u32) -> Result<ring::Ring, Error> {
    let descriptor = |name: &str| match ebpf.map(name) {
        Some(Map::Array(map) | Map::RingBuf(map)) => map
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| unavailable(&explain(&error))),
        _ => Err(unavailable(&format!("no map {name} in the object"))),
    };
    let maps = ring::Maps {
        slots: descriptor("ring_slots")?,
        ends: descriptor("ring_ends")?,
        alarm: descriptor("ring_alarm")?,
    };
    ring::Ring::new(maps, bytes).map_err(|error| unavailable(&explain(&error)))
}

/// Does the kernel describe its types?
pub(super) fn has_types() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Hooks that are not there, and why.
type Missing = Vec<(&'static hooks::Hook, String)>;

fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    missing: &mut Missing,
    degradations: &mut Vec<Degradation>,
) -> Result<Vec<&'static hooks::Hook>, Error> {
    let cgroup = hooks::cgroup_root();
    if cgroup.is_ok() && !hooks::sees_all_groups() {
        degradations.push(Degradation {
            what: "cgroup namespace".to_owned(),
            why: "this process sees only a part of the control groups".to_owned(),
            consequence:
                "UDP ports of other groups are not seen, nor who accepts their connections"
                    .to_owned(),
            remedy: Some("run in the host's cgroup namespace".to_owned()),
        });
    }
    let mut attached = Vec::new();
    for hook in &hooks::HOOKS {
        if !hook.is_wanted(&attached) {
            continue;
        }
        let result = hook.attach(ebpf, btf, cgroup.as_ref().map_err(String::as_str));
        match result.map_err(refusal) {
            Ok(()) => attached.push(hook),
            Err(why) if hook.is_required() => {
                return Err(unavailable(&format!("{}: {why}", hook.name)));
            }
            Err(why) => missing.push((hook, why)),
        }
    }
    if !attached.iter().any(|hook| hook.reports_udp()) {
        degradations.push(Degradation {
            what: "UDP".to_owned(),
            why: "none of the hooks that report it can be attached".to_owned(),
            consequence: "UDP ports are not seen when they come and go".to_owned(),
            remedy: None,
        });
    }
    Ok(attached)
}

/// Returns the hooks that were seen to fire.
fn prove(
    ebpf: &mut Ebpf,
    attached: &[&'static hooks::Hook],
    missing: &mut Missing,
) -> Vec<&'static hooks::Hook> {
    let exercised = prove::exercise();
    let ipv6 = prove::has_ipv6();
    let packets = prove::packet();
    let fired: Option<Array<&MapData, u32>> = ebpf
        .map("fired")
        .and_then(|map: &Map| Array::try_from(map).ok());
    let mut proved = Vec::new();
    for &hook in attached {
        let seen = fired
            .as_ref()
            .and_then(|fired| fired.get(&hook.key, 0).ok())
            == Some(1);
        let is_beyond_proof = (hook.is_ipv6() && !ipv6)
            || (hook.is_for_packets() && !packets)
            || !hook.can_be_exercised();
        if seen || is_beyond_proof {
            proved.push(hook);
        } else {
            let why = match &exercised {
                Ok(()) => "it was attached but does not fire".to_owned(),
                Err(error) => format!("it could not be proved to fire: {error}"),
            };
            missing.push((hook, why));
        }
    }
    proved
}

/// Sockets of this process are not reported while it proves the hooks. In a
/// PID namespace of its own it cannot know its number in the initial one, by
/// which the kernel side goes; then its few sockets are recorded like any other.
fn keep_quiet(ebpf: &mut Ebpf, is_quiet: bool) {
    /// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`).
    const INITIAL: &str = "pid:[4026531836]";
    let is_initial =
        std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL);
    let pid = if is_quiet && is_initial {
        std::process::id()
    } else {
        0
    };
    // An error leaves it as it is: nobody is quiet, or we stay so.
    let _ = set(ebpf, SETTING_QUIET, pid);
}

/// Sets one of the `enum setting` of `bpf/records.h`.
pub(super) fn set(ebpf: &mut Ebpf, setting: u32, value: u32) -> Result<(), MapError> {
    let map = ebpf
        .map_mut("settings")
        .ok_or_else(|| MapError::InvalidName {
            name: "settings".to_owned(),
        })?;
    Array::<_, u32>::try_from(map)?.set(setting, value, 0)
}

const SETTING_QUIET: u32 = 0;
pub(super) const SETTING_LEAN: u32 = 1;

/// Reading the kernel's types takes some 15 MB for a moment, which the allocator
/// would keep for as long as the recorder runs.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks and releases only
    // memory that is not in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn unavailable(reason: &str) -> Error {
    Error::Unavailable {
        engine: Engine::Ebpf,
        reason: reason.to_owned(),
    }
}

/// What stands before the verifier's log in an error of aya.
const LOG: &str = ". Verifier output: ";

/// One line of an error and its causes.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors tell their cause themselves.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    // A verifier's log begins with warnings that mean nothing, and ends with
    // the reason and then figures.
    let is_reason = |line: &&str| {
        let figures = ["processed ", "verification time ", "stack depth ", ": "];
        !line.is_empty() && !figures.iter().any(|start| line.starts_with(start))
    };
    let mut lines = text.lines().map(str::trim).filter(is_reason);
    let first = lines.next().unwrap_or_default();
    match lines.next_back() {
        Some(last) => {
            let before = first.split_once(LOG).map_or(first, |(before, _)| before);
            format!("{before}: {last}")
        }
        None => first.to_owned(),
    }
}

/// Why a program was refused. A kernel that is locked down answers only that it
/// does not know a helper.
fn refusal(why: String) -> String {
    if why.contains("bpf_probe_read") && is_confidential(Path::new("/sys/kernel/security/lockdown"))
    {
        "the kernel is locked down (lockdown=confidentiality) and lets no program read its memory"
            .to_owned()
    } else {
        why
    }
}

/// Does the kernel keep its memory secret, from root too? `lockdown` is the
/// file that says which of several levels is in force.
fn is_confidential(lockdown: &Path) -> bool {
    std::fs::read_to_string(lockdown).is_ok_and(|levels| levels.contains("[confidentiality]"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("map error: {0}")]
        Tells(#[source] Box<Self>),
        #[error("failed to create map")]
        Silent(#[source] io::Error),
    }

    #[test]
    fn each_cause_is_told_once() {
        let inner = Nested::Silent(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(
            explain(&Nested::Tells(Box::new(inner))),
            "map error: failed to create map: Operation not permitted (os error 1)"
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the syscall returned {source}. Verifier output: {log}")]
    struct Refused {
        source: io::Error,
        log: &'static str,
    }

    #[test]
    fn the_reason_is_taken_from_the_verifiers_log() {
        let refused = |log| Refused {
            source: io::Error::from_raw_os_error(libc::EINVAL),
            log,
        };
        let long = refused(
            "reg type unsupported for arg#0 function tcp_state#63\n\
             0: R1=ctx(off=0,imm=0) R10=fp0\n\
             unknown func bpf_probe_read_kernel#113\n\
             processed 24 insns (limit 1000000) max_states_per_insn 0\n",
        );
        let begin = "the syscall returned Invalid argument (os error 22)";
        assert_eq!(
            explain(&long),
            format!("{begin}: unknown func bpf_probe_read_kernel#113")
        );
        assert!(explain(&refused("")).starts_with(begin));
    }

    #[test]
    fn the_level_in_force_is_the_one_in_brackets() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lockdown");
        assert!(!is_confidential(&file));
        std::fs::write(&file, "none [integrity] confidentiality\n").unwrap();
        assert!(!is_confidential(&file));
        std::fs::write(&file, "none integrity [confidentiality]\n").unwrap();
        assert!(is_confidential(&file));
    }
}
