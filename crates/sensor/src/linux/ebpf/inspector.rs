//! Questions to the kernel side: which sockets are there, how many records
//! were made.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::Ebpf;
use aya::maps::{Array, MapData, MapError, PerCpuArray};
use aya::programs::{Iter, Program};
use event::{Cookie, Degradation, Engine};

use super::SETTING_LEAN;
use super::record::{self, SNAPSHOT_ROW};
use crate::linux::snapshot::View;
use crate::{Error, FoundSocket, Inspector, Snapshot};

/// `enum counter` in `bpf/records.h`.
const COUNTER_SOCKETS: u32 = 0;
const COUNTER_PROCESSES_LOST: u32 = 1;
const COUNTER_NESTED: u32 = 2;

/// `struct namespaces` of `bpf/records.h`: how many, and their inode numbers.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Namespaces([u32; 1024]);

// SAFETY: an array of numbers; any bytes are one.
unsafe impl aya::Pod for Namespaces {}

pub(super) struct EbpfInspector {
    ebpf: Ebpf,
    has_iterator: bool,
    /// The changes that neither program for them saw, when last asked.
    misses: u64,
}

impl EbpfInspector {
    pub(super) fn new(ebpf: Ebpf, has_iterator: bool) -> Self {
        Self {
            ebpf,
            has_iterator,
            misses: 0,
        }
    }

    /// Walks the descriptors of all processes, in the kernel.
    fn walk(&mut self) -> Result<Vec<FoundSocket>, Error> {
        let bytes = self.read_iterator().map_err(|source| Error::System {
            what: "walking the descriptors of all processes".to_owned(),
            source,
        })?;
        let mut found: Vec<FoundSocket> = Vec::with_capacity(bytes.len() / SNAPSHOT_ROW);
        let mut places: HashMap<Cookie, usize> = HashMap::with_capacity(found.capacity());
        for bytes in bytes.chunks_exact(SNAPSHOT_ROW) {
            let row = record::decode_row(bytes).ok_or_else(|| Error::Protocol {
                what: "row of the snapshot".to_owned(),
            })?;
            let Some(cookie) = row.socket.cookie else {
                continue;
            };
            let place = *places.entry(cookie).or_insert_with(|| {
                found.push(FoundSocket {
                    socket: row.socket,
                    holders: Vec::with_capacity(1),
                    owner: Some(row.holder),
                    uid: Some(row.uid),
                });
                found.len() - 1
            });
            let holders = &mut found[place].holders;
            if !holders.contains(&row.holder.pid) {
                holders.push(row.holder.pid);
            }
        }
        Ok(found)
    }

    fn read_iterator(&mut self) -> std::io::Result<Vec<u8>> {
        let program: &mut Iter = self
            .ebpf
            .program_mut("sockets_of_tasks")
            .ok_or(std::io::ErrorKind::NotFound)?
            .try_into()
            .map_err(std::io::Error::other)?;
        let link = program.attach().map_err(std::io::Error::other)?;
        let link = program.take_link(link).map_err(std::io::Error::other)?;
        let mut file = link.into_file().map_err(std::io::Error::other)?;
        let mut bytes = Vec::with_capacity(1 << 20);
        // Many descriptors without a socket make the kernel ask to be called
        // again.
        loop {
            match file.read_to_end(&mut bytes) {
                Ok(_) => return Ok(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// All network namespaces that the kernel has, as the last walk told; none
    /// if it did not.
    fn namespaces(&self) -> Option<BTreeSet<u32>> {
        let map = Array::<_, Namespaces>::try_from(self.ebpf.map("namespaces")?).ok()?;
        let Namespaces([count, numbers @ ..]) = map.get(&0, 0).ok()?;
        let told = numbers.get(..usize::try_from(count).ok()?)?;
        (!told.is_empty()).then(|| told.iter().copied().collect())
    }

    /// Makes sure that what an earlier walk told is not taken for what a later
    /// one tells.
    fn forget_namespaces(&mut self) -> Result<(), MapError> {
        let map = self.ebpf.map_mut("namespaces");
        let map = map.ok_or_else(|| MapError::InvalidName {
            name: "namespaces".to_owned(),
        })?;
        Array::try_from(map)?.set(0, Namespaces([0; 1024]), 0)
    }

    fn counter(&self, key: u32) -> Result<BTreeMap<u16, u64>, Error> {
        let failed = |what: &str| Error::Protocol {
            what: format!("map counters: {what}"),
        };
        let map = self.ebpf.map("counters").ok_or_else(|| failed("missing"))?;
        let counters: PerCpuArray<&MapData, u64> =
            PerCpuArray::try_from(map).map_err(|error| failed(&error.to_string()))?;
        let values = counters
            .get(&key, 0)
            .map_err(|error| failed(&error.to_string()))?;
        Ok((0..).zip(values.iter().copied()).collect())
    }
}

impl Inspector for EbpfInspector {
    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        if !self.has_iterator {
            return crate::snapshot();
        }
        let forgotten = self.forget_namespaces();
        let mut snapshot = match self.walk() {
            Ok(sockets) => Snapshot {
                sockets,
                has_others: true,
                existing_namespaces: forgotten.ok().and_then(|()| self.namespaces()),
                ..Snapshot::default()
            },
            Err(error) => {
                let mut snapshot = crate::snapshot()?;
                snapshot.degradations.insert(
                    0,
                    Degradation {
                        what: "iterator task_file".to_owned(),
                        why: crate::linux::ebpf::explain(&error),
                        consequence: "the sockets that are open now are looked for in another \
                                      way, which takes longer and may not know who holds them"
                            .to_owned(),
                        remedy: None,
                    },
                );
                return Ok(snapshot);
            }
        };
        // Sockets without a descriptor: TIME_WAIT, orphans, not yet accepted.
        // Only netlink knows them.
        add_sockets_without_descriptor(&mut snapshot);
        // Should it fail, the kernel side goes on to tell all of each socket.
        let _ = super::set(&mut self.ebpf, SETTING_LEAN, 1);
        Ok(snapshot)
    }

    fn produced(&mut self) -> Result<BTreeMap<u16, u64>, Error> {
        self.counter(COUNTER_SOCKETS)
    }

    fn unnumbered(&mut self) -> Result<u64, Error> {
        let program = self
            .ebpf
            .program("tcp_state")
            .and_then(|program| program.fd().ok());
        // Programs that were detached no longer answer.
        let Some(program) = program else {
            return Ok(self.misses);
        };
        // In this order: what is nested is counted after it is missed.
        let missed = recursion_misses(program.as_fd());
        let nested: u64 = self.counter(COUNTER_NESTED)?.values().sum();
        self.misses = self.misses.max(missed.saturating_sub(nested));
        Ok(self.misses)
    }

    fn processes_lost(&mut self) -> Result<u64, Error> {
        Ok(self.counter(COUNTER_PROCESSES_LOST)?.values().sum())
    }

    fn detach(&mut self) {
        let _ = self.unnumbered();
        for (name, program) in self.ebpf.programs_mut() {
            if name == "sockets_of_tasks" {
                continue;
            }
            // Unloading drops the link. One that was never loaded has nothing
            // to drop, and that is all that can fail.
            let _ = match program {
                Program::BtfTracePoint(program) => program.unload(),
                Program::CgroupSock(program) => program.unload(),
                Program::CgroupSockAddr(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                Program::FEntry(program) => program.unload(),
                _ => Ok(()),
            };
        }
    }
}

/// Adds what netlink knows and the walk did not find.
fn add_sockets_without_descriptor(snapshot: &mut Snapshot) {
    let tables = match View::system(Engine::SockDiag).tables() {
        Ok(tables) => tables,
        Err(error) => {
            snapshot.degradations.push(Degradation {
                what: "sock_diag".to_owned(),
                why: crate::linux::ebpf::explain(&error),
                consequence:
                    "sockets that no process holds (TIME_WAIT, not yet accepted) and that \
                              are older than the recorder are not listed"
                        .to_owned(),
                remedy: None,
            });
            return;
        }
    };
    let known: HashSet<Option<Cookie>> = snapshot
        .sockets
        .iter()
        .map(|found| found.socket.cookie)
        .collect();
    let others = tables
        .sockets
        .into_iter()
        .filter(|other| !known.contains(&other.socket.cookie));
    snapshot.sockets.extend(others.map(|other| FoundSocket {
        socket: other.socket,
        holders: Vec::new(),
        owner: None,
        uid: other.uid,
    }));
    snapshot.namespaces = tables.whole;
    snapshot.degradations.extend(tables.degradations);
}

/// How often a program was entered while it ran on the same CPU, and was
/// therefore left out (`bpf_prog_info.recursion_misses`, kernel 5.12 and later;
/// 0 before). The kernel does this to tracing programs when a softirq
/// interrupts one.
fn recursion_misses(program: BorrowedFd<'_>) -> u64 {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    /// Offset 208 in `struct bpf_prog_info` (include/uapi/linux/bpf.h).
    const RECURSION_MISSES: usize = 26;

    /// The part of `union bpf_attr` that this command reads.
    #[repr(C)]
    struct Attributes {
        fd: u32,
        info_length: u32,
        info: u64,
    }

    let mut info = [0u64; 32];
    let mut attributes = Attributes {
        fd: u32::try_from(program.as_raw_fd()).unwrap_or(u32::MAX),
        info_length: u32::try_from(size_of_val(&info)).unwrap_or(0),
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the command writes at most `info_length` bytes to `info`, which
    // lives until after the call; all pointers that `info` asks through are 0.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        info[RECURSION_MISSES]
    } else {
        0
    }
}
