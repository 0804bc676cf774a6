//! The readers of what comes from outside, for fuzzers: each takes any bytes
//! and must come back. Not part of what this crate offers.

use event::{BootTime, Protocol};

use super::netlink;
use super::{destroy, firewall, holders, mappings, proc_connector, procfs, programs, sock_diag};

/// Reads a datagram as an answer of `sock_diag`; how many sockets are in it.
pub fn sock_diag(bytes: &[u8]) -> usize {
    let mut sockets = 0;
    // What is not netlink ends the reading, which is all that is asked here.
    let _ = netlink::read_datagram(bytes, sock_diag::BY_FAMILY, 0, |payload| {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            sockets += usize::from(matches!(
                sock_diag::decode(payload, protocol, None),
                Ok(Some(_))
            ));
        }
    });
    sockets
}

/// Takes messages of nftables (0: a chain, 1: a rule, 2: a set, else elements)
/// for a ruleset and follows a packet through it; how many obstacles there are.
pub fn firewall<'a>(messages: impl Iterator<Item = (u8, &'a [u8])>, port: u16) -> usize {
    firewall::follow_messages(messages, port)
}

/// Reads a file below `/proc/net`; how many sockets are in it.
pub fn proc_table(bytes: &[u8]) -> usize {
    [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .map(|protocol| procfs::parse_table(bytes, protocol, None).count())
        .sum()
}

/// Reads `stat` and `status` of a process and the target of a descriptor.
pub fn process(bytes: &[u8]) -> (Option<u64>, Option<u32>, Option<u32>) {
    (
        procfs::parse_start(bytes),
        procfs::parse_effective_uid(bytes),
        holders::parse_socket(bytes),
    )
}

/// Reads a datagram of the destroy groups of `sock_diag`; how many sockets are
/// in it.
pub fn sock_diag_destroy(bytes: &[u8]) -> usize {
    let mut sockets = 0;
    // What is malformed ends the reading, which is all that is asked here.
    let _ = destroy::decode(bytes, None, BootTime(0), |_| sockets += 1);
    sockets
}

/// Reads a datagram of the proc connector; how many events are in it.
pub fn proc_connector(bytes: &[u8]) -> usize {
    let mut events = 0;
    let _ = proc_connector::decode(bytes, |_| events += 1);
    events
}

/// Reads name and parent in `stat`; how long the name is.
pub fn process_stat(bytes: &[u8]) -> (Option<usize>, Option<u32>) {
    (
        programs::parse_name(bytes).map(<[u8]>::len),
        programs::parse_parent(bytes),
    )
}

/// Reads records of mappings; the bytes of all paths, and how many news.
pub fn mappings(bytes: &[u8]) -> (usize, usize) {
    let (mut paths, mut news) = (0, 0);
    let _ = mappings::record::decode(bytes, |record| {
        news += 1;
        if let mappings::record::News::Map { file, .. } = record.news {
            paths += file.path.len();
        }
    });
    (paths, news)
}
