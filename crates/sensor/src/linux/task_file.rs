//! Who holds which socket, as the kernel tells at once.
//!
//! The walk of [`super::holders`] costs a system call for every open file of
//! the machine. A kernel that lets us (5.11 and later, with `CAP_BPF` and
//! `CAP_PERFMON`) walks through the files by itself, in a fifth of the time:
//! an iterator over all tasks' files runs a program of 30 instructions for
//! each, which writes process and inode of those that are sockets.
//!
//! The program is put together here rather than compiled, and loaded without
//! the machinery of the engine `ebpf`: a list is to be there at once, and to
//! read and relocate the engine's programs takes longer than the list. Two
//! things are asked of the kernel's description of itself ([`super::btf`]):
//! where the iterator is, and where a few members are.
//!
//! Whatever does not work out is an error, and the caller walks on foot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use rustix::thread::CapabilitySet;

use super::btf::{Btf, KernelTypes, Wanted};
use super::netlink::Reader;

/// The first PID namespace has this number everywhere (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";
/// What the program writes for a file: the inode of the socket or 0, the
/// process, and the network namespace of the process.
const ROW: usize = 16;
const LICENSE: &[u8] = b"Dual MIT/GPL\0";

/// What the walk found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Inode and process of every socket that a process has open.
    pub(crate) sockets: Vec<(u32, u32)>,
    /// The network namespaces of processes other than the one that was said to
    /// be known, each with a process in it.
    pub(crate) namespaces: BTreeMap<u32, u32>,
    /// The processes that were looked into. One that has no files, or that this
    /// kernel keeps from us, is not among them.
    pub(crate) processes: BTreeSet<u32>,
}

/// Walks through the open files of all processes. `netns` is our own network
/// namespace.
pub(crate) fn walk(netns: u32) -> io::Result<Walked> {
    // The kernel numbers processes as its first namespace does.
    let namespace = std::fs::read_link(Path::new("/proc/self/ns/pid"))?;
    if !is_permitted() || namespace.as_os_str().as_encoded_bytes() != FIRST_PID_NAMESPACE {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let places = Places::find(&KernelTypes::open()?).ok_or(io::ErrorKind::Unsupported)?;
    let program = load(&program(&places, netns)?, places.iterator)?;
    let link = link(&program)?;
    let mut rows = Vec::with_capacity(64 * 1024);
    File::from(iterate(&link)?).read_to_end(&mut rows)?;
    Ok(decode(&rows, netns))
}

fn decode(rows: &[u8], own: u32) -> Walked {
    let mut walked = Walked::default();
    walked.sockets.reserve(rows.len() / ROW);
    // The files of a process come one after another.
    let mut last = None;
    for row in rows.chunks_exact(ROW) {
        let mut reader = Reader::new(row);
        let inode = reader.array().map(u64::from_ne_bytes);
        let (Some(inode), Some(pid), Some(netns)) = (inode, reader.u32(), reader.u32()) else {
            continue;
        };
        if let Ok(inode) = u32::try_from(inode)
            && inode != 0
        {
            walked.sockets.push((inode, pid));
        }
        if last.replace(pid) != Some(pid) {
            walked.processes.insert(pid);
        }
        // A process that ends has no namespace any more.
        if netns != own && netns != 0 {
            walked.namespaces.entry(netns).or_insert(pid);
        }
    }
    walked
}

/// Asks before the dear part; the kernel has the last word.
fn is_permitted() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        let needed = CapabilitySet::BPF | CapabilitySet::PERFMON;
        sets.effective.contains(CapabilitySet::SYS_ADMIN) || sets.effective.contains(needed)
    })
}

/// Where things are in this kernel.
#[derive(Debug)]
struct Places {
    iterator: u32,
    file_inode: u16,
    inode_number: u16,
    task_tgid: u16,
    task_nsproxy: u16,
    nsproxy_net: u16,
    net_common: u16,
    common_inum: u16,
}

impl Places {
    fn find(types: &[u8]) -> Option<Self> {
        let mut wanted = [
            Wanted::Function("bpf_iter_task_file", None),
            Wanted::Member("file", "f_inode", None),
            Wanted::Member("inode", "i_ino", None),
            Wanted::Member("task_struct", "tgid", None),
            Wanted::Member("task_struct", "nsproxy", None),
            Wanted::Member("nsproxy", "net_ns", None),
            Wanted::Member("net", "ns", None),
            Wanted::Member("ns_common", "inum", None),
        ];
        Btf::new(types)?.find(&mut wanted);
        let [
            Wanted::Function(_, Some(iterator)),
            Wanted::Member(_, _, Some(file_inode)),
            Wanted::Member(_, _, Some(inode_number)),
            Wanted::Member(_, _, Some(task_tgid)),
            Wanted::Member(_, _, Some(task_nsproxy)),
            Wanted::Member(_, _, Some(nsproxy_net)),
            Wanted::Member(_, _, Some(net_common)),
            Wanted::Member(_, _, Some(common_inum)),
        ] = wanted
        else {
            return None;
        };
        Some(Self {
            iterator,
            file_inode,
            inode_number,
            task_tgid,
            task_nsproxy,
            nsproxy_net,
            net_common,
            common_inum,
        })
    }
}

/// The instructions that are used here, by their names in the manual
/// (`Documentation/bpf/standardization/instruction-set.rst`).
mod instruction {
    const fn encode(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
        let [o0, o1] = offset.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        let registers = if cfg!(target_endian = "little") {
            from << 4 | to
        } else {
            to << 4 | from
        };
        u64::from_ne_bytes([code, registers, o0, o1, v0, v1, v2, v3])
    }

    pub(super) const fn copy(to: u8, from: u8) -> u64 {
        encode(0xbf, to, from, 0, 0)
    }
    pub(super) const fn set(to: u8, value: i32) -> u64 {
        encode(0xb7, to, 0, 0, value)
    }
    pub(super) const fn add(to: u8, value: i32) -> u64 {
        encode(0x07, to, 0, 0, value)
    }
    pub(super) const fn load32(to: u8, from: u8, offset: i16) -> u64 {
        encode(0x61, to, from, offset, 0)
    }
    pub(super) const fn load64(to: u8, from: u8, offset: i16) -> u64 {
        encode(0x79, to, from, offset, 0)
    }
    pub(super) const fn store32(to: u8, offset: i16, from: u8) -> u64 {
        encode(0x63, to, from, offset, 0)
    }
    pub(super) const fn store64(to: u8, offset: i16, from: u8) -> u64 {
        encode(0x7b, to, from, offset, 0)
    }
    /// Skips so many instructions if the register has that value.
    pub(super) const fn skip_if(register: u8, value: i32, count: i16) -> u64 {
        encode(0x15, register, 0, count, value)
    }
    /// The same for the lower half of the register.
    pub(super) const fn skip_if_low(register: u8, value: u32, count: i16) -> u64 {
        encode(0x16, register, 0, count, value.cast_signed())
    }
    /// Skips so many instructions.
    pub(super) const fn skip(count: i16) -> u64 {
        encode(0x05, 0, 0, count, 0)
    }
    pub(super) const fn call(function: i32) -> u64 {
        encode(0x85, 0, 0, 0, function)
    }
    pub(super) const EXIT: u64 = encode(0x95, 0, 0, 0, 0);
}

/// The program that runs for every open file. Its context is
/// `struct bpf_iter__task_file`: meta, task, file number, file, 8 bytes each;
/// the first member of meta is the file that we read from.
fn program(places: &Places, own_netns: u32) -> io::Result<[u64; 30]> {
    use instruction::{
        EXIT, add, call, copy, load32, load64, set, skip, skip_if, skip_if_low, store32, store64,
    };
    const SEQ_WRITE: i32 = 127;
    const SOCK_FROM_FILE: i32 = 162;

    let offset = |offset: u16| i16::try_from(offset).map_err(|_| io::ErrorKind::Unsupported);
    let file_inode = offset(places.file_inode)?;
    let inode_number = offset(places.inode_number)?;
    let tgid = offset(places.task_tgid)?;
    let nsproxy = offset(places.task_nsproxy)?;
    let net = offset(places.nsproxy_net)?;
    let inum = offset(places.net_common.saturating_add(places.common_inum))?;
    Ok([
        // 6 context, 7 file, then inode, 8 task, 9 namespace.
        copy(6, 1),
        load64(8, 6, 8),
        skip_if(8, 0, 25),
        load64(2, 8, nsproxy),
        load64(2, 2, net),
        load32(9, 2, inum),
        load64(7, 6, 24),
        skip_if(7, 0, 20),
        // A socket?
        copy(1, 7),
        call(SOCK_FROM_FILE),
        skip_if(0, 0, 3),
        load64(7, 7, file_inode),
        load64(7, 7, inode_number),
        skip(4),
        // If not, it is of interest only where the process is elsewhere; but of
        // each process the first file, to say that it was looked into.
        set(7, 0),
        load32(1, 6, 16),
        skip_if(1, 0, 1),
        skip_if_low(9, own_netns, 10),
        store64(10, -16, 7),
        load32(1, 8, tgid),
        store32(10, -8, 1),
        store32(10, -4, 9),
        load64(1, 6, 0),
        load64(1, 1, 0),
        copy(2, 10),
        add(2, -16),
        set(3, 16),
        call(SEQ_WRITE),
        // On to the next file.
        set(0, 0),
        EXIT,
    ])
}

fn load(program: &[u64], iterator: u32) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const TYPE_TRACING: u32 = 26;
    let mut attributes = Attributes::default();
    attributes.u32(0, TYPE_TRACING);
    attributes.u32(4, u32::try_from(program.len()).unwrap_or(0));
    attributes.pointer(8, program.as_ptr().cast());
    attributes.pointer(16, LICENSE.as_ptr());
    attributes.u32(68, ATTACH_ITERATOR);
    attributes.u32(108, iterator);
    // SAFETY: the command reads `program` and `LICENSE`, which outlive it, and
    // writes nothing, for there is no log.
    unsafe { bpf(PROG_LOAD, &mut attributes) }
}

fn link(program: &OwnedFd) -> io::Result<OwnedFd> {
    const LINK_CREATE: libc::c_int = 28;
    let mut attributes = Attributes::default();
    attributes.u32(0, descriptor(program));
    attributes.u32(8, ATTACH_ITERATOR);
    // SAFETY: there are no pointers among the attributes.
    unsafe { bpf(LINK_CREATE, &mut attributes) }
}

fn iterate(link: &OwnedFd) -> io::Result<OwnedFd> {
    const ITER_CREATE: libc::c_int = 33;
    let mut attributes = Attributes::default();
    attributes.u32(0, descriptor(link));
    // SAFETY: there are no pointers among the attributes.
    unsafe { bpf(ITER_CREATE, &mut attributes) }
}

/// `BPF_TRACE_ITER`.
const ATTACH_ITERATOR: u32 = 28;

/// `union bpf_attr`, as far as it is used; what is not set is zero.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes([u64; 16]);

impl Attributes {
    fn u32(&mut self, at: usize, value: u32) {
        let mut word = self.0[at / 8].to_ne_bytes();
        word[at % 8..][..4].copy_from_slice(&value.to_ne_bytes());
        self.0[at / 8] = u64::from_ne_bytes(word);
    }

    fn pointer(&mut self, at: usize, value: *const u8) {
        self.0[at / 8] = value.expose_provenance() as u64;
    }
}

fn descriptor(file: &OwnedFd) -> u32 {
    // Open ones are never negative.
    u32::try_from(file.as_raw_fd()).unwrap_or(u32::MAX)
}

/// Runs a command of `bpf(2)` that makes a descriptor.
///
/// # Safety
///
/// Pointers among the attributes must be valid for what the command does.
unsafe fn bpf(command: libc::c_int, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are as long as is said; the rest is the caller's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<Attributes>(),
        )
    };
    match libc::c_int::try_from(result) {
        // SAFETY: the kernel just opened it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::{holders, netns, sock_diag};

    #[test]
    fn rows_are_read_and_a_torn_one_is_not() {
        let mut rows = 4711_u64.to_ne_bytes().to_vec();
        rows.extend(7_u32.to_ne_bytes());
        rows.extend(3_u32.to_ne_bytes());
        rows.extend([0; 8]);
        rows.extend(8_u32.to_ne_bytes());
        rows.extend(4_u32.to_ne_bytes());
        rows.extend([1, 2, 3]);
        let walked = decode(&rows, 3);
        assert_eq!(walked.sockets, [(4711, 7)]);
        assert_eq!(walked.namespaces, BTreeMap::from([(4, 8)]));
        assert_eq!(walked.processes, BTreeSet::from([7, 8]));
    }

    #[test]
    fn finds_what_the_walk_on_foot_finds() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = std::process::id();
        let Ok(found) = walk(0) else {
            // Not permitted here: then it must say so to the caller, who walks.
            assert!(holders::walk(Path::new("/proc"), &[own]).is_ok());
            return;
        };
        let table = sock_diag::dump(sock_diag::BOTH, None).unwrap();
        let ours = table
            .sockets
            .iter()
            .find(|found| found.socket.is_listener() && found.socket.local.port == port)
            .unwrap();
        assert!(found.sockets.contains(&(ours.inode, own)));
        assert!(found.processes.contains(&own));
        // Zero is nobody's namespace, so ours is another one.
        let ours = netns::find(Path::new("/"), Path::new("/proc"), &[])
            .own
            .unwrap();
        assert!(found.namespaces.contains_key(&ours));
        assert!(!walk(ours).unwrap().namespaces.contains_key(&ours));
    }
}
