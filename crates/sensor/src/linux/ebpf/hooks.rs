//! The programs of the object and where each is hung.
//!
//! Every hook is tried on its own. One that cannot be had is a
//! [`Degradation`] that says what the records lack without it; whether one that
//! was attached really fires is proved elsewhere (`prove`).

use std::fs::File;
use std::path::PathBuf;

use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramError};
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
}

enum Place {
    Tracepoint(&'static str),
    Socket,
    Address,
}

/// A link to a control group always stands beside those of others; asking for
/// that by a flag is refused.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

pub(super) const HOOKS: [Hook; 16] = [
    Hook {
        program: "tcp_state",
        name: "tp_btf/inet_sock_set_state",
        key: 0,
        place: Place::Tracepoint("inet_sock_set_state"),
        required: true,
        lacks: "no TCP event is seen",
    },
    Hook {
        program: "tcp_state_nested",
        name: "tp_btf/inet_sock_set_state (nested)",
        key: 1,
        place: Place::Tracepoint("inet_sock_set_state"),
        required: false,
        lacks: "a TCP event that interrupts another one on the same CPU is lost, and counted",
    },
    Hook {
        program: "udp_bind4",
        name: "cgroup/post_bind4",
        key: 2,
        place: Place::Socket,
        required: false,
        lacks: "a UDP port over IPv4 is recorded when it first sends or closes, not when it is bound",
    },
    Hook {
        program: "udp_bind6",
        name: "cgroup/post_bind6",
        key: 3,
        place: Place::Socket,
        required: false,
        lacks: "a UDP port over IPv6 is recorded when it first sends or closes, not when it is bound",
    },
    Hook {
        program: "udp_send4",
        name: "cgroup/sendmsg4",
        key: 4,
        place: Place::Address,
        required: false,
        lacks: "a UDP port over IPv4 that is taken by sending is not seen",
    },
    Hook {
        program: "udp_send6",
        name: "cgroup/sendmsg6",
        key: 5,
        place: Place::Address,
        required: false,
        lacks: "a UDP port over IPv6 that is taken by sending is not seen",
    },
    Hook {
        program: "udp_connect4",
        name: "cgroup/connect4",
        key: 6,
        place: Place::Address,
        required: false,
        lacks: "the owner of a UDP port over IPv4 that is taken by connect is not seen",
    },
    Hook {
        program: "udp_connect6",
        name: "cgroup/connect6",
        key: 7,
        place: Place::Address,
        required: false,
        lacks: "the owner of a UDP port over IPv6 that is taken by connect is not seen",
    },
    Hook {
        program: "socket_release",
        name: "cgroup/sock_release",
        key: 8,
        place: Place::Socket,
        required: false,
        lacks: "the close of a UDP port is not seen before the next comparison",
    },
    Hook {
        program: "tcp_accept4",
        name: "cgroup/getpeername4",
        key: 9,
        place: Place::Address,
        required: false,
        lacks: "a connection over IPv4 accepted by another process than its listener's is blamed on the listener until it sends or closes",
    },
    Hook {
        program: "tcp_accept6",
        name: "cgroup/getpeername6",
        key: 10,
        place: Place::Address,
        required: false,
        lacks: "a connection over IPv6 accepted by another process than its listener's is blamed on the listener until it sends or closes",
    },
    Hook {
        program: "socket_sent",
        name: "tp_btf/sock_send_length",
        key: 11,
        place: Place::Tracepoint("sock_send_length"),
        required: false,
        lacks: "a UDP port that is taken by connect is recorded when its socket closes, and not at all if the socket gave it up before; a connection's process may be known only at its close",
    },
    Hook {
        program: "process_exec",
        name: "tp_btf/sched_process_exec",
        key: 12,
        place: Place::Tracepoint("sched_process_exec"),
        required: false,
        lacks: "a process that is gone within milliseconds has no name",
    },
    Hook {
        program: "process_fork",
        name: "tp_btf/sched_process_fork",
        key: 13,
        place: Place::Tracepoint("sched_process_fork"),
        required: false,
        lacks: "a forked process that is gone within milliseconds has no name",
    },
    Hook {
        program: "process_exit",
        name: "tp_btf/sched_process_exit",
        key: 14,
        place: Place::Tracepoint("sched_process_exit"),
        required: false,
        lacks: "what is known of processes is kept longer than needed",
    },
    Hook {
        program: "group_made",
        name: "tp_btf/cgroup_mkdir",
        key: 15,
        place: Place::Tracepoint("cgroup_mkdir"),
        required: false,
        lacks: "the container of a group that is gone within milliseconds is not known",
    },
];

impl Hook {
    /// Loads and attaches the program. `cgroup` is the root of cgroup2.
    pub(super) fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: Result<&File, &str>,
    ) -> Result<(), String> {
        let program = ebpf.program_mut(self.program).ok_or("not in the object")?;
        let result: Result<(), ProgramError> = match self.place {
            Place::Tracepoint(name) => (|| {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, btf)?;
                program.attach().map(drop)
            })(),
            Place::Socket => {
                let cgroup = cgroup?;
                (|| {
                    let program: &mut CgroupSock = program.try_into()?;
                    program.load()?;
                    program.attach(cgroup, MODE).map(drop)
                })()
            }
            Place::Address => {
                let cgroup = cgroup?;
                (|| {
                    let program: &mut CgroupSockAddr = program.try_into()?;
                    program.load()?;
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
        self.name.ends_with('6')
    }

    /// Can the proof reach it? It makes no control groups.
    pub(super) fn can_be_exercised(&self) -> bool {
        self.program != "group_made"
    }

    /// What it means that this hook is not there.
    pub(super) fn missing(&self, why: &str) -> Degradation {
        Degradation {
            what: format!("hook {}", self.name),
            why: why.to_owned(),
            consequence: self.lacks.to_owned(),
            remedy: None,
        }
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
