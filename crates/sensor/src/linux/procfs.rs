//! The files below `/proc` from which sockets and processes can be read when
//! netlink is not to be had: `net/{tcp,tcp6,udp,udp6}` (`proc_net_tcp(5)`),
//! and of a process its start and its effective user.
//!
//! The tables hold no cookie, so a socket found here is known by its addresses
//! alone. They have one advantage: those of another network namespace can be
//! read below one of its processes without any privilege.
//!
//! Parsers take bytes; readers take the path of `/proc`, so that a test can
//! hand them a tree of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr as _;

use event::{BootTime, Endpoint, ProcessKey, Protocol, Socket, TcpState};

use super::sock_diag::{Table, TableSocket};
use crate::Error;

/// The tables, and what they hold.
const TABLES: [(&str, Protocol); 4] = [
    ("tcp", Protocol::Tcp),
    ("tcp6", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("udp6", Protocol::Udp),
];

/// Reads the tables below `directory`, which is `/proc/net` or `/proc/PID/net`
/// of a process in the network namespace `netns`.
pub(crate) fn tables(
    directory: &Path,
    protocols: &[Protocol],
    netns: Option<u32>,
) -> Result<Table, Error> {
    let mut sockets = Vec::new();
    let mut any = false;
    for (name, protocol) in TABLES {
        if !protocols.contains(&protocol) {
            continue;
        }
        let path = directory.join(name);
        match std::fs::read(&path) {
            Ok(table) => {
                any = true;
                sockets.extend(parse_table(&table, protocol, netns));
            }
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(unreadable(&path, source)),
        }
    }
    if any {
        Ok(Table {
            sockets,
            unstable: false,
        })
    } else {
        Err(unreadable(directory, io::ErrorKind::NotFound.into()))
    }
}

/// The sockets in a table. Lines that are not understood, such as the heading,
/// are skipped.
pub(crate) fn parse_table(
    table: &[u8],
    protocol: Protocol,
    netns: Option<u32>,
) -> impl Iterator<Item = TableSocket> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(move |line| parse_line(std::str::from_utf8(line).ok()?, protocol, netns))
}

pub(crate) fn parse_line(
    line: &str,
    protocol: Protocol,
    netns: Option<u32>,
) -> Option<TableSocket> {
    let mut fields = line.split_ascii_whitespace();
    let _slot = fields.next()?.strip_suffix(':')?;
    let local = parse_endpoint(fields.next()?)?;
    let remote = parse_endpoint(fields.next()?)?;
    let number = u8::from_str_radix(fields.next()?, 16).ok()?;
    // Queues, timer and its expiry, retransmissions.
    let mut fields = fields.skip(3);
    let uid = u32::from_str(fields.next()?).ok()?;
    let inode = u32::from_str(fields.nth(1)?).ok()?;
    let state = match protocol {
        Protocol::Tcp => Some(TcpState::from_linux(number)?),
        _ => None,
    };
    if local.port == 0 || state == Some(TcpState::Closed) {
        return None;
    }
    Some(TableSocket {
        socket: Socket {
            cookie: None,
            netns,
            protocol,
            local,
            remote: Some(remote)
                .filter(|remote| remote.port != 0 && state != Some(TcpState::Listening)),
            state,
        },
        inode,
        uid: (inode != 0).then_some(uid),
    })
}

/// An address as 8 or 32 hexadecimal digits, each group of eight a word in the
/// byte order of the machine, and a port as four.
fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    let mut words = 0;
    for (chunk, digits) in bytes.chunks_exact_mut(4).zip(address.as_bytes().chunks(8)) {
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.len() == 8)?;
        let word = u32::from_str_radix(digits, 16).ok()?;
        chunk.copy_from_slice(&word.to_ne_bytes());
        words += 1;
    }
    let ip = match (words, address.len()) {
        (1, 8) => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        (4, 32) => IpAddr::V6(Ipv6Addr::from(bytes)),
        _ => return None,
    };
    Some(Endpoint::new(ip, port))
}

/// The numbers of all processes that `proc` (usually `/proc`) shows, ascending.
pub(crate) fn processes(proc: &Path) -> Result<Vec<u32>, Error> {
    let entries = std::fs::read_dir(proc).map_err(|source| unreadable(proc, source))?;
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Which process it is, by its start, and its effective user; none if it has
/// gone. `ticks` is how often the clock of `/proc` ticks in a second.
pub(crate) fn process(proc: &Path, pid: u32, ticks: u64) -> Option<(ProcessKey, Option<u32>)> {
    let directory = proc.join(pid.to_string());
    let stat = std::fs::read(directory.join("stat")).ok()?;
    let start = parse_start(&stat)?;
    let uid = std::fs::read(directory.join("status"))
        .ok()
        .and_then(|status| parse_effective_uid(&status));
    let start = self::start(start, ticks)?;
    Some((ProcessKey { pid, start }, uid))
}

/// When a process started that `/proc` says started at that tick.
pub(crate) fn start(tick: u64, ticks: u64) -> Option<BootTime> {
    let nanoseconds = u128::from(tick) * 1_000_000_000 / u128::from(ticks.max(1));
    u64::try_from(nanoseconds).ok().map(BootTime)
}

/// How often the clock in which `/proc` counts ticks in a second.
pub(crate) fn ticks_per_second() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks)
        .ok()
        .filter(|&ticks| ticks > 0)
        .unwrap_or(100)
}

/// Field 22 of `stat`, the start in ticks since boot. The name before it may
/// hold anything, also parentheses and blanks: what counts is the last `)`.
pub(crate) fn parse_start(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The second of the four user IDs in `status`.
pub(crate) fn parse_effective_uid(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut ids = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    ids.nth(1)?.parse().ok()
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::System {
        what: format!("cannot read {}", path.display()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::linux::sock_diag::BOTH;

    #[cfg(target_endian = "little")]
    const TCP: &[u8] = b"\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   991        0 4242 1 0000000000000000 100 0 0 10 5
   1: 0100007F:A0C4 0100007F:0035 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:A0C5 0100007F:0035 06 00000000:00000000 03:000016AE 00000000     0        0 0 3 0000000000000000
   3: garbage
";

    #[cfg(target_endian = "little")]
    const UDP6: &[u8] = b"\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 4098: 000080FE00000000FFFE0A02010000FE:0222 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 17 2 0000000000000000 0
 4099: 0000000000000000FFFF0000010200C0:0035 0000000000000000FFFF0000026433C6:01BB 01 00000000:00000000 00:00000000 00000000     0        0 18 2 0000000000000000 0
";

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_tables() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("tcp"), TCP).unwrap();
        std::fs::write(tree.path().join("udp6"), UDP6).unwrap();
        let found = tables(tree.path(), BOTH, Some(3)).unwrap().sockets;
        let shown: Vec<String> = found
            .iter()
            .map(|found| {
                let socket = &found.socket;
                format!(
                    "{} {} {:?} {:?} {} {:?}",
                    socket.protocol.name(),
                    socket.local,
                    socket.remote.map(|remote| remote.to_string()),
                    socket.state.map(TcpState::name),
                    found.inode,
                    found.uid
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "tcp 127.0.0.1:53 None Some(\"LISTENING\") 4242 Some(991)",
                "tcp 127.0.0.1:41156 Some(\"127.0.0.1:53\") Some(\"ESTABLISHED\") 4243 Some(1000)",
                "tcp 127.0.0.1:41157 Some(\"127.0.0.1:53\") Some(\"TIME_WAIT\") 0 None",
                "udp [fe80::20a:feff:fe00:1]:546 None None 17 Some(998)",
                "udp 192.0.2.1:53 Some(\"198.51.100.2:443\") None 18 Some(0)",
            ]
        );
    }

    #[test]
    fn no_tables_at_all_is_an_error() {
        let tree = tempfile::tempdir().unwrap();
        assert!(tables(tree.path(), BOTH, None).is_err());
    }

    #[test]
    fn a_hostile_name_does_not_move_the_start() {
        let stat = b"7 (a) S 1 (b \n) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(parse_start(stat), Some(4711));
        assert_eq!(parse_start(b"7 (a"), None);
    }

    #[test]
    fn reads_a_process() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("7");
        std::fs::create_dir(&directory).unwrap();
        std::fs::create_dir(tree.path().join("sys")).unwrap();
        let stat = "7 (x) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 250 9 9";
        std::fs::write(directory.join("stat"), stat).unwrap();
        std::fs::write(directory.join("status"), "Name:\tx\nUid:\t1\t2\t3\t4\n").unwrap();
        assert_eq!(processes(tree.path()).unwrap(), [7]);
        let (key, uid) = process(tree.path(), 7, 100).unwrap();
        assert_eq!(key.start, BootTime(2_500_000_000));
        assert_eq!(uid, Some(2));
        assert_eq!(process(tree.path(), 8, 100), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse_table(&bytes, Protocol::Tcp, None).count() <= bytes.len());
            let _ = (parse_start(&bytes), parse_effective_uid(&bytes));
        }

        #[test]
        fn any_line_of_the_right_shape_is_read(ip: u32, port in 1_u16.., state in 1_u8..7, inode: u32) {
            let line = format!("0: {ip:08X}:{port:04X} 00000000:0000 {state:02X} 0:0 0:0 0 5 0 {inode} 1");
            let found = parse_line(&line, Protocol::Tcp, None).unwrap();
            prop_assert_eq!(found.inode, inode);
            prop_assert_eq!(found.socket.local.port, port);
            prop_assert_eq!(found.socket.local.ip, IpAddr::from(ip.to_ne_bytes()));
        }
    }
}
