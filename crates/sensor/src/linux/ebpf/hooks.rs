//! The programs of the object and where each is hung.
//!
//! Every hook is tried on its own. One that cannot be had is a
//! [`Degradation`] that says what the records lack without it, unless others
//! stand in for it; whether one that was attached really fires is proved
//! elsewhere (`prove`).

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSock, CgroupSockAddr, FEntry, FExit, ProgramError,
};
use aya::{Btf, Ebpf};
use event::Degradation;

/// One place in the kernel that reports.
pub(super) struct Hook {
    /// The program in the object.
    pub(super) program: &'static str,
    /// Its name for people and in PR-EVENTS.
    pub(super) name: &'static str,
    /// Its key in the map `fired` (`enum hook` in `bpf/records.h`).
    pub(super) key: u32,
    place: Place,
    /// Without it there is no point in this engine.
    required: bool,
    /// What the records lack without it.
    lacks: &'static str,
    substitutes: Option<Substitutes>,
}

/// What stands in for a hook that is not there.
struct Substitutes {
    /// The programs, which must all fire.
    programs: &'static [&'static str],
    /// What the records lack even so.
    lacks: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Place {
    Tracepoint(&'static str),
    /// The return of a function. The other program is for kernels in which the
    /// function takes other arguments.
    Return(&'static str, Option<&'static str>),
    /// The beginning of a function.
    Entry(&'static str),
    Socket,
    Address,
}

/// A link to a control group always stands beside those of others; asking for
/// that by a flag is refused.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

pub(super) const HOOKS: [Hook; 23] = [
    Hook {
        program: "tcp_state",
        name: "tp_btf/inet_sock_set_state",
        key: 0,
        place: Place::Tracepoint("inet_sock_set_state"),
        required: true,
        lacks: "no TCP event is seen",
        substitutes: None,
    },
    Hook {
        program: "tcp_state_nested",
        name: "tp_btf/inet_sock_set_state (nested)",
        key: 1,
        place: Place::Tracepoint("inet_sock_set_state"),
        required: false,
        lacks: "a TCP event that interrupts another one on the same CPU is lost, and counted",
        substitutes: None,
    },
    Hook {
        program: "udp_bind4",
        name: "cgroup/post_bind4",
        key: 2,
        place: Place::Socket,
        required: false,
        lacks: "a UDP port over IPv4 is recorded when it first sends or closes, not when it is bound",
        substitutes: None,
    },
    Hook {
        program: "udp_bind6",
        name: "cgroup/post_bind6",
        key: 3,
        place: Place::Socket,
        required: false,
        lacks: "a UDP port over IPv6 is recorded when it first sends or closes, not when it is bound",
        substitutes: None,
    },
    Hook {
        program: "udp_send4",
        name: "cgroup/sendmsg4",
        key: 4,
        place: Place::Address,
        required: false,
        lacks: "a UDP port over IPv4 that is taken by sending is not seen",
        substitutes: None,
    },
    Hook {
        program: "udp_send6",
        name: "cgroup/sendmsg6",
        key: 5,
        place: Place::Address,
        required: false,
        lacks: "a UDP port over IPv6 that is taken by sending is not seen",
        substitutes: None,
    },
    Hook {
        program: "udp_connect4",
        name: "cgroup/connect4",
        key: 6,
        place: Place::Address,
        required: false,
        lacks: "the owner of a UDP port over IPv4 that is taken by connect is not seen",
        substitutes: None,
    },
    Hook {
        program: "udp_connect6",
        name: "cgroup/connect6",
        key: 7,
        place: Place::Address,
        required: false,
        lacks: "the owner of a UDP port over IPv6 that is taken by connect is not seen",
        substitutes: None,
    },
    Hook {
        program: "socket_release",
        name: "cgroup/sock_release",
        key: 8,
        place: Place::Socket,
        required: false,
        lacks: "the close of a UDP port is not seen before the next comparison",
        substitutes: None,
    },
    Hook {
        program: "tcp_accept4",
        name: "cgroup/getpeername4",
        key: 9,
        place: Place::Address,
        required: false,
        lacks: "a connection over IPv4 accepted by another process than its listener's is blamed on the listener until it sends or closes",
        substitutes: Some(Substitutes {
            programs: &["tcp_accepted"],
            lacks: None,
        }),
    },
    Hook {
        program: "tcp_accept6",
        name: "cgroup/getpeername6",
        key: 10,
        place: Place::Address,
        required: false,
        lacks: "a connection over IPv6 accepted by another process than its listener's is blamed on the listener until it sends or closes",
        substitutes: Some(Substitutes {
            programs: &["tcp_accepted"],
            lacks: None,
        }),
    },
    Hook {
        program: "socket_sent",
        name: "tp_btf/sock_send_length",
        key: 11,
        place: Place::Tracepoint("sock_send_length"),
        required: false,
        lacks: "a UDP port that is taken by connect is recorded when its socket closes, and not at all if the socket gave it up before; a connection's process may be known only at its close",
        substitutes: Some(Substitutes {
            programs: &["tcp_accepted", "connected_udp4", "connected_udp6"],
            lacks: Some("a process that was handed a connection may be known only at its close"),
        }),
    },
    Hook {
        program: "process_exec",
        name: "tp_btf/sched_process_exec",
        key: 12,
        place: Place::Tracepoint("sched_process_exec"),
        required: false,
        lacks: "a process that is gone within milliseconds has no name",
        substitutes: None,
    },
    Hook {
        program: "process_fork",
        name: "tp_btf/sched_process_fork",
        key: 13,
        place: Place::Tracepoint("sched_process_fork"),
        required: false,
        lacks: "a forked process that is gone within milliseconds has no name",
        substitutes: None,
    },
    Hook {
        program: "process_exit",
        name: "tp_btf/sched_process_exit",
        key: 14,
        place: Place::Tracepoint("sched_process_exit"),
        required: false,
        lacks: "what is known of processes is kept longer than needed",
        substitutes: None,
    },
    Hook {
        program: "group_made",
        name: "tp_btf/cgroup_mkdir",
        key: 15,
        place: Place::Tracepoint("cgroup_mkdir"),
        required: false,
        lacks: "the container of a group that is gone within milliseconds is not known",
        substitutes: None,
    },
    Hook {
        program: "tcp_accepted",
        name: "fexit/inet_csk_accept",
        key: 16,
        place: Place::Return("inet_csk_accept", Some("tcp_accepted_by_four")),
        required: false,
        lacks: "a connection accepted by another process than its listener's may be blamed on the listener until it sends or closes",
        substitutes: Some(Substitutes {
            programs: &["tcp_accept4", "tcp_accept6", "socket_sent"],
            lacks: None,
        }),
    },
    Hook {
        program: "connected_udp4",
        name: "fexit/__ip4_datagram_connect",
        key: 17,
        place: Place::Return("__ip4_datagram_connect", None),
        required: false,
        lacks: "a UDP port over IPv4 that is taken by connect is recorded when it closes",
        substitutes: Some(Substitutes {
            programs: &["socket_sent"],
            lacks: None,
        }),
    },
    Hook {
        program: "connected_udp6",
        name: "fexit/__ip6_datagram_connect",
        key: 18,
        place: Place::Return("__ip6_datagram_connect", None),
        required: false,
        lacks: "a UDP port over IPv6 that is taken by connect is recorded when it closes",
        substitutes: Some(Substitutes {
            programs: &["socket_sent"],
            lacks: None,
        }),
    },
    Hook {
        program: "socket_create",
        name: "cgroup/sock_create",
        key: 19,
        place: Place::Socket,
        required: false,
        lacks: "a raw or ping socket is recorded when the next comparison finds it",
        substitutes: None,
    },
    Hook {
        program: "packet_made",
        name: "fexit/packet_create",
        key: 20,
        place: Place::Return("packet_create", None),
        required: false,
        lacks: "a packet socket is recorded when the next comparison finds it",
        substitutes: Some(Substitutes {
            programs: &["packet_asked"],
            lacks: None,
        }),
    },
    Hook {
        program: "packet_released",
        name: "fentry/packet_release",
        key: 21,
        place: Place::Entry("packet_release"),
        required: false,
        lacks: "the end of a packet socket is recorded when the next comparison misses it",
        substitutes: Some(Substitutes {
            programs: &["packet_asked"],
            lacks: None,
        }),
    },
    // It tells less than those two, and is not tried where they are.
    Hook {
        program: "packet_asked",
        name: "tp_btf/cap_capable",
        key: 22,
        place: Place::Tracepoint("cap_capable"),
        required: false,
        lacks: "a packet socket is recorded when the next comparison finds it",
        substitutes: Some(Substitutes {
            programs: &["packet_made", "packet_released"],
            lacks: None,
        }),
    },
];

/// How long a program is given to the verifier again if signals keep coming.
const PATIENCE: Duration = Duration::from_secs(10);

/// Loads a program, again if need be: the verifier gives up with `EAGAIN` when a
/// signal waits for the process (`do_check` in `kernel/bpf/verifier.c`), be it
/// only that it was stopped and goes on. A hook must not be missing for that.
pub(super) fn undisturbed(
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    let begin = Instant::now();
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < PATIENCE => {}
            result => return result,
        }
    }
}

impl Hook {
    /// Loads and attaches the program. `cgroup` is the root of cgroup2.
    pub(super) fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: Result<&File, &str>,
    ) -> Result<(), String> {
        let result = self.attach_program(self.program, ebpf, btf, cgroup);
        match (self.place, result) {
            (Place::Return(_, Some(other)), Err(_)) => {
                self.attach_program(other, ebpf, btf, cgroup)
            }
            (_, result) => result,
        }
    }

    fn attach_program(
        &self,
        program: &str,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: Result<&File, &str>,
    ) -> Result<(), String> {
        let program = ebpf.program_mut(program).ok_or("not in the object")?;
        let result: Result<(), ProgramError> = match self.place {
            Place::Tracepoint(name) => (|| {
                let program: &mut BtfTracePoint = program.try_into()?;
                undisturbed(|| program.load(name, btf))?;
                program.attach().map(drop)
            })(),
            Place::Return(function, _) => (|| {
                let program: &mut FExit = program.try_into()?;
                undisturbed(|| program.load(function, btf))?;
                program.attach().map(drop)
            })(),
            Place::Entry(function) => (|| {
                let program: &mut FEntry = program.try_into()?;
                undisturbed(|| program.load(function, btf))?;
                program.attach().map(drop)
            })(),
            Place::Socket => {
                let cgroup = cgroup?;
                (|| {
                    let program: &mut CgroupSock = program.try_into()?;
                    undisturbed(|| program.load())?;
                    program.attach(cgroup, MODE).map(drop)
                })()
            }
            Place::Address => {
                let cgroup = cgroup?;
                (|| {
                    let program: &mut CgroupSockAddr = program.try_into()?;
                    undisturbed(|| program.load())?;
                    program.attach(cgroup, MODE).map(drop)
                })()
            }
        };
        result.map_err(|error| super::explain(&error))
    }

    /// Is the engine pointless without this hook?
    pub(super) fn is_required(&self) -> bool {
        self.required
    }

    /// Does it see UDP ports come into use or go?
    pub(super) fn reports_udp(&self) -> bool {
        self.program.starts_with("udp_") || self.program == "socket_release"
    }

    /// Does only traffic over IPv6 reach it?
    pub(super) fn is_ipv6(&self) -> bool {
        self.program.ends_with('6')
    }

    /// Does only a packet socket reach it?
    pub(super) fn is_for_packets(&self) -> bool {
        self.program.starts_with("packet_")
    }

    /// Is it of use beside those that are `attached`?
    pub(super) fn is_wanted(&self, attached: &[&Self]) -> bool {
        self.program != "packet_asked" || !attached.iter().any(|hook| hook.is_for_packets())
    }

    /// Can the proof reach it? It makes no control groups.
    pub(super) fn can_be_exercised(&self) -> bool {
        self.program != "group_made"
    }

    /// What it means that this hook is not there, if it means anything besides
    /// those that were `proved` to fire.
    pub(super) fn missing(&self, why: &str, proved: &[&Self]) -> Option<Degradation> {
        let is_proved = |name: &&str| proved.iter().any(|hook| hook.program == *name);
        let lacks = match &self.substitutes {
            Some(others) if others.programs.iter().all(is_proved) => others.lacks?,
            _ => self.lacks,
        };
        Some(Degradation {
            what: format!("hook {}", self.name),
            why: why.to_owned(),
            consequence: lacks.to_owned(),
            remedy: None,
        })
    }
}

/// Is the root of cgroup2 that is visible here that of the machine? In a
/// namespace of its own a process sees only its own part.
pub(super) fn sees_all_groups() -> bool {
    /// `PROC_CGROUP_INIT_INO` (`include/linux/proc_ns.h`).
    const INITIAL: &str = "cgroup:[4026531835]";
    // Without such namespaces there is only one.
    std::fs::read_link("/proc/self/ns/cgroup").map_or(true, |link| link.as_os_str() == INITIAL)
}

/// The root of the cgroup2 hierarchy, from the table of mounts.
pub(super) fn cgroup_root() -> Result<File, String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")
        .map_err(|error| format!("/proc/self/mounts: {error}"))?;
    let path = mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ');
            let path = fields.nth(1)?;
            (fields.next() == Some("cgroup2")).then(|| PathBuf::from(path))
        })
        .ok_or("no cgroup2 file system is mounted")?;
    File::open(&path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(program: &str) -> &'static Hook {
        HOOKS.iter().find(|hook| hook.program == program).unwrap()
    }

    #[test]
    fn each_hook_has_a_key_of_its_own() {
        for (key, hook) in HOOKS.iter().enumerate() {
            assert_eq!(hook.key as usize, key, "{}", hook.program);
        }
    }

    #[test]
    fn every_substitute_is_a_hook() {
        for name in HOOKS
            .iter()
            .filter_map(|hook| hook.substitutes.as_ref())
            .flat_map(|others| others.programs)
        {
            hook(name);
        }
    }

    #[test]
    fn nothing_is_missing_that_all_substitutes_tell() {
        let accepted = hook("tcp_accepted");
        let all = ["tcp_accept4", "tcp_accept6", "socket_sent"].map(hook);
        assert_eq!(accepted.missing("why", &all), None);
        let without_one = accepted.missing("why", &all[1..]).unwrap();
        assert_eq!(without_one.consequence, accepted.lacks);
        let nothing = hook("tcp_state").missing("why", &all).unwrap();
        assert_eq!(nothing.consequence, "no TCP event is seen");
    }

    #[test]
    fn what_substitutes_do_not_tell_is_said() {
        let others = ["tcp_accepted", "connected_udp4", "connected_udp6"].map(hook);
        let missing = hook("socket_sent").missing("why", &others).unwrap();
        assert!(missing.consequence.starts_with("a process that was handed"));
    }
}
