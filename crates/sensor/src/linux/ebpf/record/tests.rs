//! The records as the kernel side makes them, by hand.

use proptest::prelude::*;

use super::*;

/// The offsets that this file reads at, by the names of `bpf/records.h`.
const OFFSETS: &[(&str, &str, usize)] = &[
    ("record_header", "at", 0),
    ("record_header", "kind", 8),
    ("record_header", "cpu", 12),
    ("process_key", "start", 0),
    ("process_key", "pid", 8),
    ("process_key", "uid", 12),
    ("socket_record", "sequence", 16),
    ("socket_record", "cookie", 24),
    ("socket_record", "owner", 32),
    ("socket_record", "since", 48),
    ("socket_record", "bytes_sent", 56),
    ("socket_record", "bytes_received", 64),
    ("socket_record", "netns", 72),
    ("socket_record", "local_port", 76),
    ("socket_record", "remote_port", 78),
    ("socket_record", "action", 80),
    ("socket_record", "attribution", 81),
    ("socket_record", "protocol", 82),
    ("socket_record", "family", 83),
    ("socket_record", "old_state", 84),
    ("socket_record", "state", 85),
    ("socket_record", "error", 86),
    ("socket_record", "flags", 88),
    ("socket_record", "local_ip", 96),
    ("socket_record", "remote_ip", 112),
    ("brief_record", "sequence", 16),
    ("brief_record", "cookie", 24),
    ("brief_record", "netns", 32),
    ("brief_record", "local_port", 36),
    ("brief_record", "remote_port", 38),
    ("brief_record", "old_state", 40),
    ("brief_record", "state", 41),
    ("brief_record", "error", 42),
    ("brief_record", "flags", 44),
    ("brief_record", "local_ip", 48),
    ("brief_record", "remote_ip", 52),
    ("brief_record", "bytes_sent", 56),
    ("brief_record", "bytes_received", 64),
    ("opening_record", "sequence", 16),
    ("opening_record", "cookie", 24),
    ("opening_record", "netns", 32),
    ("opening_record", "local_port", 36),
    ("opening_record", "remote_port", 38),
    ("opening_record", "old_state", 40),
    ("opening_record", "state", 41),
    ("opening_record", "zero", 42),
    ("opening_record", "attribution", 45),
    ("opening_record", "local_ip", 48),
    ("opening_record", "remote_ip", 52),
    ("opening_record", "owner", 56),
    ("owner_record", "cookie", 16),
    ("owner_record", "owner", 24),
    ("fork_record", "parent", 16),
    ("fork_record", "child", 32),
    ("exit_record", "process", 16),
    ("exec_record", "process", 16),
    ("exec_record", "cgroup", 32),
    ("exec_record", "parent", 40),
    ("exec_record", "path_length", 44),
    ("exec_record", "arguments_length", 46),
    ("exec_record", "path_cut", 48),
    ("exec_record", "arguments_cut", 49),
    ("exec_record", "comm", 56),
    ("exec_record", "data", 72),
    ("cgroup_record", "id", 16),
    ("cgroup_record", "path", 24),
    ("snapshot_row", "cookie", 0),
    ("snapshot_row", "start", 8),
    ("snapshot_row", "pid", 16),
    ("snapshot_row", "uid", 20),
    ("snapshot_row", "netns", 24),
    ("snapshot_row", "local_port", 28),
    ("snapshot_row", "remote_port", 30),
    ("snapshot_row", "protocol", 32),
    ("snapshot_row", "family", 33),
    ("snapshot_row", "state", 34),
    ("snapshot_row", "local_ip", 40),
    ("snapshot_row", "remote_ip", 56),
    ("namespaces", "count", 0),
    ("namespaces", "inums", 4),
];

#[test]
fn the_offsets_are_those_of_the_header() {
    let header = include_str!("../../../../../../bpf/records.h");
    let stated: Vec<(String, String, usize)> = header
        .lines()
        .filter_map(|line| line.strip_prefix("OFFSET(")?.strip_suffix(");"))
        // Those of the ring itself are for ring.rs.
        .filter(|line| !line.starts_with("ring_"))
        .map(|line| {
            let parts: Vec<&str> = line.split(", ").collect();
            (
                parts[0].to_owned(),
                parts[1].to_owned(),
                parts[2].parse().unwrap(),
            )
        })
        .collect();
    let ours: Vec<(String, String, usize)> = OFFSETS
        .iter()
        .map(|&(record, member, offset)| (record.to_owned(), member.to_owned(), offset))
        .collect();
    assert_eq!(stated, ours);
    assert!(header.contains(&format!("SIZE(snapshot_row, {SNAPSHOT_ROW});")));
}

fn socket_record(action: u8, old: u8, new: u8, error: u16) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes[0..8].copy_from_slice(&5_000_000u64.to_ne_bytes());
    bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
    bytes[12..16].copy_from_slice(&3u32.to_ne_bytes());
    bytes[16..24].copy_from_slice(&42u64.to_ne_bytes());
    bytes[24..32].copy_from_slice(&0xabcu64.to_ne_bytes());
    bytes[32..40].copy_from_slice(&777u64.to_ne_bytes());
    bytes[40..44].copy_from_slice(&1234u32.to_ne_bytes());
    bytes[48..56].copy_from_slice(&2_000_000u64.to_ne_bytes());
    bytes[76..78].copy_from_slice(&40000u16.to_ne_bytes());
    bytes[78..80].copy_from_slice(&80u16.to_ne_bytes());
    (bytes[80], bytes[81], bytes[82], bytes[83]) = (action, 1, 6, 10);
    (bytes[84], bytes[85]) = (old, new);
    bytes[86..88].copy_from_slice(&error.to_ne_bytes());
    bytes[88] = FLAG_COUNTED;
    for offset in [96, 112] {
        bytes[offset + 10..offset + 16].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    }
    bytes
}

fn observed(bytes: &[u8]) -> SocketObservation {
    match decode(bytes) {
        Some(Observation::Socket(observation)) => observation,
        other => panic!("not a socket: {other:?}"),
    }
}

fn brief_record(old: u8, new: u8, error: u16) -> Vec<u8> {
    let mut bytes = vec![0; if new == 7 { 72 } else { 56 }];
    bytes[0..8].copy_from_slice(&5_000_000u64.to_ne_bytes());
    bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
    bytes[16..24].copy_from_slice(&42u64.to_ne_bytes());
    bytes[24..32].copy_from_slice(&0xabcu64.to_ne_bytes());
    bytes[36..38].copy_from_slice(&40000u16.to_ne_bytes());
    bytes[38..40].copy_from_slice(&80u16.to_ne_bytes());
    (bytes[40], bytes[41]) = (old, new);
    bytes[42..44].copy_from_slice(&error.to_ne_bytes());
    bytes[48..52].copy_from_slice(&[127, 0, 0, 1]);
    bytes[52..56].copy_from_slice(&[127, 0, 0, 2]);
    if new == 7 {
        bytes[44] = FLAG_COUNTED;
        bytes[56..64].copy_from_slice(&10u64.to_ne_bytes());
        bytes[64..72].copy_from_slice(&20u64.to_ne_bytes());
    }
    bytes
}

#[test]
fn a_brief_record_tells_what_changed() {
    let established = observed(&brief_record(2, 1, 0));
    assert_eq!(established.action, Action::Established { connect_us: None });
    assert_eq!(established.socket.local.to_string(), "127.0.0.1:40000");
    assert_eq!(
        established.socket.remote.unwrap().to_string(),
        "127.0.0.2:80"
    );
    assert_eq!(
        (established.owner, established.attribution),
        (None, Attribution::Unknown)
    );
    let closed = observed(&brief_record(1, 7, ECONNRESET));
    assert_eq!(
        closed.action,
        Action::Close {
            reason: CloseReason::Reset,
            bytes_sent: Some(10),
            bytes_received: Some(20),
            duration_us: None,
        }
    );
    let waits = observed(&brief_record(5, 7, 0));
    assert_eq!(waits.socket.state, Some(TcpState::TimeWait));
    // Without its bytes, or without a state, it is not one.
    assert_eq!(decode(&brief_record(5, 7, 0)[..56]), None);
    assert_eq!(decode(&brief_record(0, 1, 0)), None);
}

fn opening_record(old: u8, new: u8, attribution: u8) -> Vec<u8> {
    let mut bytes = brief_record(old, new, 0);
    bytes.resize(72, 0);
    bytes[8..12].copy_from_slice(&8u32.to_ne_bytes());
    bytes[45] = attribution;
    bytes[56..64].copy_from_slice(&777u64.to_ne_bytes());
    bytes[64..68].copy_from_slice(&1234u32.to_ne_bytes());
    bytes[68..72].copy_from_slice(&1000u32.to_ne_bytes());
    bytes
}

#[test]
fn an_opening_record_tells_who_and_what() {
    let owner = ProcessKey {
        pid: 1234,
        start: BootTime(777),
    };
    let connects = observed(&opening_record(7, 2, 1));
    assert_eq!(connects.action, Action::Connect);
    assert_eq!(connects.socket.state, Some(TcpState::SynSent));
    assert_eq!(connects.socket.local.to_string(), "127.0.0.1:40000");
    assert_eq!(connects.socket.remote.unwrap().to_string(), "127.0.0.2:80");
    assert_eq!(
        (connects.attribution, connects.owner, connects.uid),
        (Attribution::Creator, Some(owner), Some(1000))
    );
    let accepts = observed(&opening_record(3, 1, 2));
    assert_eq!(accepts.action, Action::Accept);
    assert_eq!(
        (accepts.attribution, accepts.owner),
        (Attribution::Inherited, Some(owner))
    );
    let nobodys = observed(&opening_record(3, 1, 0));
    assert_eq!(
        (nobodys.attribution, nobodys.owner, nobodys.uid),
        (Attribution::Unknown, None, None)
    );
    // Cut, or with a state in which nothing opens, it is not one.
    assert_eq!(decode(&opening_record(3, 1, 2)[..71]), None);
    assert_eq!(decode(&opening_record(1, 4, 2)), None);
}

#[test]
fn a_mapped_connection_is_read_as_ipv4() {
    let seen = observed(&socket_record(5, 2, 1, 0));
    assert_eq!(
        seen.action,
        Action::Established {
            connect_us: Some(3000)
        }
    );
    assert_eq!(seen.socket.local.to_string(), "127.0.0.1:40000");
    assert_eq!(seen.socket.remote.unwrap().to_string(), "127.0.0.1:80");
    assert_eq!((seen.stream, seen.sequence), (3, 42));
    assert_eq!(
        seen.owner,
        Some(ProcessKey {
            pid: 1234,
            start: BootTime(777)
        })
    );
}

#[test]
fn why_a_connection_closed() {
    for (old, error, reason, state) in [
        (2, ECONNREFUSED, CloseReason::Refused, TcpState::Closed),
        (2, ETIMEDOUT, CloseReason::Timeout, TcpState::Closed),
        (2, 0, CloseReason::Closed, TcpState::Closed),
        (2, 113, CloseReason::Unknown, TcpState::Closed),
        (1, ECONNRESET, CloseReason::Reset, TcpState::Closed),
        (1, 0, CloseReason::Reset, TcpState::Closed),
        (8, EPIPE, CloseReason::Reset, TcpState::Closed),
        (9, 0, CloseReason::Closed, TcpState::Closed),
        (5, 0, CloseReason::Closed, TcpState::TimeWait),
        (11, 0, CloseReason::Closed, TcpState::TimeWait),
        (5, ECONNRESET, CloseReason::Reset, TcpState::Closed),
    ] {
        let seen = observed(&socket_record(7, old, 7, error));
        let Action::Close { reason: found, .. } = seen.action else {
            panic!("not a close: {:?}", seen.action)
        };
        assert_eq!(
            (found, seen.socket.state),
            (reason, Some(state)),
            "{old} {error}"
        );
    }
}

#[test]
fn a_program_run_has_its_path_and_arguments() {
    let mut bytes = vec![0; 72];
    bytes[8..12].copy_from_slice(&3u32.to_ne_bytes());
    bytes[44..46].copy_from_slice(&12u16.to_ne_bytes());
    bytes[46..48].copy_from_slice(&8u16.to_ne_bytes());
    bytes[56..59].copy_from_slice(b"nc\xff");
    bytes.extend_from_slice(b"nc\0bin\0usr\0\0nc\0-l\0\xfe\0");
    // The path is `nc`, `bin`, `usr`: eleven bytes; correct the length.
    bytes.remove(72 + 11);
    bytes[44..46].copy_from_slice(&11u16.to_ne_bytes());
    let Some(Observation::Exec(run)) = decode(&bytes) else {
        panic!("not a run")
    };
    assert_eq!(run.exe.as_deref(), Some("/usr/bin/nc"));
    assert_eq!(run.cmdline.as_deref(), Some("nc -l '\\xfe'"));
    assert_eq!(run.comm, "nc\\xff");
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = decode_row(&bytes);
    }

    #[test]
    fn any_socket_record_is_taken_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 128)) {
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        let _ = decode(&bytes);
    }
}
