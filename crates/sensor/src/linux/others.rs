//! Sockets that are neither TCP nor UDP, from the files below `/proc`:
//! `net/{udplite,raw,icmp}`, the same with a `6`, and `net/packet`.
//!
//! The kernel side of the engine `ebpf` knows them by number. For the engines
//! that look, netlink would tell the number of some (`raw_diag`, a module that
//! is seldom there, and `packet_diag`) and nothing of ping sockets; the files
//! tell of all kinds, with the inode, by which their holder is found. Two such
//! sockets of one kind, number and address are told apart by that inode while
//! they are looked at, but not by who reads the log.
//!
//! A file that is not there is a kind that this kernel does not have. There is
//! nothing to be said about one that cannot be read: what is then missed is
//! among what polling misses.

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr as _;

use event::{Endpoint, Protocol, Socket};

use super::procfs::{parse_line, parse_table};
use super::sock_diag::{Table, TableSocket};

/// Reads the tables below `directory`, which is `/proc/PID/net` of a process in
/// the network namespace `netns`.
pub(crate) fn tables(directory: &Path, netns: Option<u32>) -> Table {
    let mut sockets = Vec::new();
    let read = |name: &str| std::fs::read(directory.join(name)).unwrap_or_default();
    for (name, protocol) in [
        ("udplite", Protocol::UdpLite),
        ("udplite6", Protocol::UdpLite),
        ("icmp", Protocol::Icmp),
        ("icmp6", Protocol::Icmp),
    ] {
        sockets.extend(parse_table(&read(name), protocol, netns));
    }
    for name in ["raw", "raw6"] {
        sockets.extend(lines(&read(name)).filter_map(|line| parse_raw(line, netns)));
    }
    sockets.extend(lines(&read("packet")).filter_map(|line| parse_packet(line, netns)));
    Table {
        sockets,
        unstable: false,
    }
}

fn lines(table: &[u8]) -> impl Iterator<Item = &str> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
}

/// A line like those of UDP, with the number of the protocol for the port.
pub(crate) fn parse_raw(line: &str, netns: Option<u32>) -> Option<TableSocket> {
    let mut found = parse_line(line, Protocol::Icmp, netns)?;
    let number = std::mem::take(&mut found.socket.local.port);
    found.socket.protocol = Protocol::Raw(number);
    found.socket.remote = None;
    Some(found)
}

/// `sk RefCnt Type Proto Iface R Rmem User Inode`; the heading is none.
pub(crate) fn parse_packet(line: &str, netns: Option<u32>) -> Option<TableSocket> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let number = u16::from_str_radix(fields.next()?, 16).ok()?;
    let mut fields = fields.skip(3);
    let uid = u32::from_str(fields.next()?).ok()?;
    let inode = u32::from_str(fields.next()?).ok()?;
    Some(TableSocket {
        socket: Socket {
            cookie: None,
            netns,
            protocol: Protocol::Packet(number),
            local: Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            remote: None,
            state: None,
        },
        inode,
        uid: (inode != 0).then_some(uid),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RAW: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
    1: 0100007F:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0000000000000000 0
";
    const ICMP: &str = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
    9: 00000000:0A09 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
";
    const PACKET: &str = "\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
0000000000000000 3      3    0003   2     1 0      7      4713
";

    #[test]
    fn reads_every_kind() {
        let tree = tempfile::tempdir().unwrap();
        for (name, table) in [("raw", RAW), ("icmp", ICMP), ("packet", PACKET)] {
            std::fs::write(tree.path().join(name), table).unwrap();
        }
        let sockets = tables(tree.path(), Some(1)).sockets;
        let seen: Vec<_> = sockets
            .iter()
            .map(|found| {
                let local = found.socket.local.to_string();
                (found.socket.protocol, local, found.inode, found.uid)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (Protocol::Icmp, "0.0.0.0:2569".to_owned(), 4712, Some(0)),
                (Protocol::Raw(1), "127.0.0.1:0".to_owned(), 4711, Some(1000)),
                (Protocol::Packet(3), "0.0.0.0:0".to_owned(), 4713, Some(7)),
            ]
        );
        assert!(sockets.iter().all(|found| found.socket.netns == Some(1)));
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "\\PC{0,120}") {
            let _ = (parse_raw(&line, None), parse_packet(&line, None));
        }
    }
}
