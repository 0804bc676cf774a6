//! Ports that are open, closed, dropped, rejected, or beyond a route that
//! forbids them.

use std::net::{TcpListener, UdpSocket};
use std::thread;

use crate::Case;
use crate::stage::{Neighbour, filter, ip, query, ran, sysctl, verdicts, words};

pub(super) const CASES: &[Case] = &[
    ("open_closed_and_dropped", open_closed_and_dropped),
    ("tcp_rejected_by_each_icmp_type", tcp_rejected),
    ("udp_rejected_by_each_icmp_type", udp_rejected),
    ("rejected_by_icmpv6", rejected_v6),
    ("routes_that_forbid", routes),
    ("own_packet_filter", own_filter),
    ("nobody_there", nobody_there),
    ("zone_index", zone_index),
    ("sockets_that_meet_themselves", own_peers),
    ("a_host_that_limits_its_messages", limited),
    ("leaves_no_time_wait", leaves_no_time_wait),
];

const ICMP: [(&str, &str, u64); 7] = [
    ("net-unreachable", "network unreachable", 0),
    ("host-unreachable", "host unreachable", 1),
    ("prot-unreachable", "protocol unreachable", 2),
    ("port-unreachable", "port unreachable", 3),
    ("net-prohibited", "network administratively prohibited", 9),
    ("host-prohibited", "host administratively prohibited", 10),
    ("admin-prohibited", "administratively prohibited", 13),
];

fn open_closed_and_dropped() {
    let open = TcpListener::bind("127.0.0.1:1000").expect("a listener");
    let echo = UdpSocket::bind("127.0.0.1:1000").expect("a socket");
    let silent = UdpSocket::bind("127.0.0.1:1003").expect("a socket");
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], from);
        }
    });
    filter(&["meta l4proto { tcp, udp } th dport 1002 drop"]);
    let found = verdicts(&["127.0.0.1:both:1000-1003", "--wait", "0.6", "--no-ask"]);
    assert_eq!(
        words(&found),
        [
            ("LISTENING", "connected"),
            ("LISTENING", "reply"),
            ("NOT LISTENING", "reset"),
            ("NOT LISTENING", "port unreachable (says 127.0.0.1)"),
            ("FILTERED", "no answer"),
            ("LISTENING or FILTERED", "no answer"),
            ("NOT LISTENING", "reset"),
            ("LISTENING or FILTERED", "no answer"),
        ]
    );
    assert_eq!(found[4]["attempts"], 3);
    assert!(found[0]["round_trip_us"].is_u64());
    assert!(found[4]["round_trip_us"].is_null());
    for (ports, code) in [
        ("1000", 0),
        ("1001", 1),
        ("1002", 2),
        ("1000,1001,1002", 0),
        ("1001,1002", 2),
        ("udp:1001", 1),
    ] {
        let host = format!("127.0.0.1:{ports}");
        ran(&mut query(&[&host, "--wait", "0.2", "--no-ask"])).ended(code);
    }
    let all = ["127.0.0.1:1000,1001", "--all", "--no-ask"];
    ran(&mut query(&all)).ended(1);
    drop((open, silent));
}

fn reject(protocol: &str, family: &str, types: impl Iterator<Item = &'static str>) {
    let rules: Vec<_> = types
        .zip(1000..)
        .map(|(kind, port)| format!("{protocol} dport {port} reject with {family} type {kind}"))
        .collect();
    filter(&rules.iter().map(String::as_str).collect::<Vec<_>>());
}

fn tcp_rejected() {
    reject("tcp", "icmp", ICMP.iter().map(|(kind, ..)| *kind));
    let found = verdicts(&["127.0.0.1:1000-1006"]);
    for (verdict, (_, said, code)) in found.iter().zip(ICMP) {
        assert_eq!(verdict["status"], "FILTERED", "{verdict}");
        assert_eq!(verdict["reason"], format!("{said} (says 127.0.0.1)"));
        assert_eq!(verdict["icmp"]["type"], 3);
        assert_eq!(verdict["icmp"]["code"], code);
        // It was heard at once.
        assert_eq!(verdict["attempts"], 1);
    }
    assert_eq!(found.len(), ICMP.len());
}

fn udp_rejected() {
    reject("udp", "icmp", ICMP.iter().map(|(kind, ..)| *kind));
    let found = verdicts(&["127.0.0.1:udp:1000-1006"]);
    for (verdict, (_, said, code)) in found.iter().zip(ICMP) {
        // From the host itself, this one means that nobody listens.
        let status = match code {
            3 => "NOT LISTENING",
            _ => "FILTERED",
        };
        assert_eq!(verdict["status"], status, "{verdict}");
        assert_eq!(verdict["reason"], format!("{said} (says 127.0.0.1)"));
    }
    assert_eq!(found.len(), ICMP.len());
}

fn rejected_v6() {
    let types = [
        ("no-route", "no route", 0),
        ("admin-prohibited", "administratively prohibited", 1),
        ("addr-unreachable", "host unreachable", 3),
        ("port-unreachable", "port unreachable", 4),
        ("policy-fail", "refused by the source address policy", 5),
        ("reject-route", "route rejected", 6),
    ];
    reject("udp", "icmpv6", types.iter().map(|(kind, ..)| *kind));
    let found = verdicts(&["[::1]:udp:1000-1005"]);
    for (verdict, (_, said, code)) in found.iter().zip(types) {
        let status = match code {
            4 => "NOT LISTENING",
            _ => "FILTERED",
        };
        assert_eq!(verdict["status"], status, "{verdict}");
        assert_eq!(verdict["reason"], format!("{said} (says ::1)"));
        assert_eq!(verdict["icmp"]["version"], 6);
    }
    assert_eq!(found.len(), types.len());
}

fn routes() {
    ip("link add cable type veth peer name end");
    ip("addr add 10.0.0.1/24 dev cable");
    ip("link set cable up");
    ip("link set end up");
    ip("route add blackhole 10.1.0.0/24");
    ip("route add unreachable 10.2.0.0/24");
    ip("route add prohibit 10.3.0.0/24");
    let hosts = ["10.1.0.1:both:80", "10.2.0.1:both:80", "10.3.0.1:both:80"];
    for (host, said) in hosts.into_iter().zip([
        "blackhole route of this machine",
        "host unreachable from here",
        "prohibited by a route of this machine",
    ]) {
        for verdict in verdicts(&[host]) {
            assert_eq!(verdict["status"], "FILTERED");
            assert_eq!(verdict["reason"], said);
        }
    }
    let found = verdicts(&["10.4.0.1:both:80", "[fd00::1]:both:80"]);
    assert_eq!(words(&found), [("FILTERED", "no route from here"); 4]);
}

fn own_filter() {
    let script = "table inet out { chain out { type filter hook output priority 0;
        udp dport 80 reject with icmpx type admin-prohibited; udp dport 81 drop;\n}\n}";
    let added = std::process::Command::new("/usr/sbin/nft")
        .arg(script)
        .status();
    assert!(added.expect("nft runs").success());
    let found = verdicts(&["127.0.0.1:udp:80,udp:81"]);
    assert_eq!(
        words(&found),
        [
            ("FILTERED", "administratively prohibited (says 127.0.0.1)"),
            ("FILTERED", "refused by this machine's own packet filter"),
        ]
    );
}

fn nobody_there() {
    let _neighbour = Neighbour::new();
    sysctl("net.ipv4.neigh.here.retrans_time_ms", "50");
    sysctl("net.ipv6.neigh.here.retrans_time_ms", "50");
    let found = verdicts(&["10.0.0.9:both:80", "[fd00::9]:both:80"]);
    for (status, reason) in words(&found) {
        assert_eq!(status, "FILTERED");
        assert!(reason.starts_with("host unreachable"), "{reason}");
    }
    assert_eq!(found.len(), 4);
}

fn zone_index() {
    ip("link add cable type veth peer name end");
    ip("addr add fe80::1/64 dev cable nodad");
    ip("link set cable up");
    ip("link set end up");
    let listener = TcpListener::bind("[::]:1000").expect("a listener");
    let found = verdicts(&["[fe80::1%cable]:1000,1001", "--no-ask"]);
    assert_eq!(
        words(&found),
        [("LISTENING", "connected"), ("NOT LISTENING", "reset")]
    );
    assert_eq!(found[0]["host"], "fe80::1%cable");
    let shown = ran(&mut query(&["fe80::1%cable", "-p", "1000", "--no-ask"])).ended(0);
    assert!(shown.out.contains("fe80::1%"), "{}", shown.out);
    drop(listener);
}

/// Over loopback a socket may be given the very port that it asks about, and
/// then connects to itself. With eight ports to choose from it nearly always
/// does, and runs out of them as well.
fn own_peers() {
    sysctl("net.ipv4.ip_local_port_range", "40000 40007");
    for _ in 0..5 {
        let found = verdicts(&["127.0.0.1:both:40000-40007", "--no-ask"]);
        assert_eq!(found.len(), 16);
        for verdict in found {
            assert_eq!(verdict["status"], "NOT LISTENING", "{verdict}");
        }
    }
}

/// A Linux host tells each peer of one closed port a second, after six.
fn limited() {
    let neighbour = Neighbour::new();
    neighbour.run("/usr/sbin/nft", "add table inet t");
    let chain = "add chain inet t i { type filter hook input priority 0; }";
    neighbour.run("/usr/sbin/nft", chain);
    neighbour.run("/usr/sbin/nft", "add rule inet t i udp dport 1003 drop");
    let found = verdicts(&["10.0.0.2:udp:1000-1011", "--wait", "0.6", "--no-ask"]);
    assert_eq!(found.len(), 12);
    for verdict in &found {
        let status = match verdict["port"].as_u64() {
            Some(1003) => "LISTENING or FILTERED",
            _ => "NOT LISTENING",
        };
        assert_eq!(verdict["status"], status, "{verdict}");
    }
    assert!(
        found
            .iter()
            .any(|verdict| verdict["attempts"].as_u64() > Some(3))
    );
}

fn leaves_no_time_wait() {
    let listener = TcpListener::bind("127.0.0.1:1000").expect("a listener");
    for _ in 0..3 {
        ran(&mut query(&["127.0.0.1:1000", "--no-ask"])).ended(0);
    }
    // From the same port three times: TIME_WAIT would forbid the second.
    for _ in 0..3 {
        let from = ["127.0.0.1:1000", "--source-port", "2000", "--wait", "0.1"];
        ran(&mut query(&from)).ended(0);
    }
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("a table");
    // State 06 is TIME_WAIT.
    assert!(!table.contains(" 06 "), "{table}");
    drop(listener);
}
