mod deaths;
mod lives;

use super::*;

/// Inode and process number are the same; inode 99 is nobody's.
#[derive(Default)]
struct Same {
    asked: usize,
}

impl Owners for Same {
    fn owner(&mut self, found: &TableSocket) -> Option<Holder> {
        let inode = found.inode;
        self.asked += 1;
        (inode != 99).then_some((key(inode), Some(1000)))
    }
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start: BootTime(1),
    }
}

fn tcp(cookie: u64, local: &str, remote: &str, state: TcpState, inode: u32) -> TableSocket {
    let endpoint = |text: &str| {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint::new(address.ip(), address.port())
    };
    TableSocket {
        socket: Socket {
            cookie: (cookie != 0).then_some(Cookie(cookie)),
            netns: Some(1),
            protocol: Protocol::Tcp,
            local: endpoint(local),
            remote: (!remote.is_empty()).then(|| endpoint(remote)),
            state: Some(state),
        },
        inode,
        uid: None,
    }
}

fn udp(cookie: u64, local: &str, inode: u32) -> TableSocket {
    let mut found = tcp(cookie, local, "", TcpState::Closed, inode);
    found.socket.protocol = Protocol::Udp;
    found.socket.state = None;
    found
}

/// What an update says, in short.
fn update(known: &mut Known, sockets: &[TableSocket]) -> Vec<String> {
    let mut batch = Vec::new();
    known.update(look(sockets, 5), &mut Same::default(), &mut batch);
    told(&batch)
}

fn look(sockets: &[TableSocket], at: u64) -> Look {
    Look {
        at: BootTime(at),
        sockets: sockets.to_vec(),
        ..Look::default()
    }
}

/// Observations in short.
fn told(batch: &[Observation]) -> Vec<String> {
    batch
        .iter()
        .map(|observation| match observation {
            Observation::Socket(seen) => format!(
                "{} {} {} {} {:?}",
                seen.sequence,
                seen.action.name(),
                seen.socket.local,
                seen.socket.state.map_or("-", TcpState::name),
                seen.owner.map(|owner| owner.pid)
            ),
            Observation::Owner(seen) => format!("owner {} {}", seen.cookie, seen.owner.pid),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_is_there_at_the_start_did_not_happen() {
    let mut known = Known::default();
    let sockets = [tcp(1, "0.0.0.0:80", "", TcpState::Listening, 7)];
    known.start(sockets.to_vec(), HashSet::new(), &mut Same::default());
    assert_eq!(update(&mut known, &sockets), [""; 0]);
    assert_eq!(known.produced(), 0);
    assert_eq!(
        update(&mut known, &[]),
        ["0 close 0.0.0.0:80 CLOSED Some(7)"]
    );
    assert_eq!(known.produced(), 1);
}

#[test]
fn a_connection_from_its_first_look_to_its_last() {
    let mut known = Known::default();
    let at = |state, inode| [tcp(1, "10.0.0.1:5000", "10.0.0.2:80", state, inode)];
    assert_eq!(
        update(&mut known, &at(TcpState::SynSent, 7)),
        ["0 connect 10.0.0.1:5000 SYN_SENT Some(7)"]
    );
    assert_eq!(
        update(&mut known, &at(TcpState::CloseWait, 7)),
        [
            "1 established 10.0.0.1:5000 ESTABLISHED Some(7)",
            "2 state 10.0.0.1:5000 CLOSE_WAIT Some(7)"
        ]
    );
    assert_eq!(
        update(&mut known, &at(TcpState::TimeWait, 0)),
        ["3 close 10.0.0.1:5000 TIME_WAIT Some(7)"]
    );
    assert_eq!(update(&mut known, &[]), [""; 0], "it had ended");
}

#[test]
fn without_cookies_a_remnant_is_still_the_connection() {
    let mut known = Known::default();
    let at = |state, inode| [tcp(0, "10.0.0.1:5000", "10.0.0.2:80", state, inode)];
    assert_eq!(update(&mut known, &at(TcpState::Established, 7)), [""; 0]);
    assert_eq!(update(&mut known, &at(TcpState::Established, 7)).len(), 2);
    assert_eq!(
        update(&mut known, &at(TcpState::TimeWait, 0)),
        ["2 close 10.0.0.1:5000 TIME_WAIT Some(7)"]
    );
    update(&mut known, &at(TcpState::Established, 8));
    assert_eq!(
        update(&mut known, &at(TcpState::Established, 8)),
        [
            "3 connect 10.0.0.1:5000 SYN_SENT Some(8)",
            "4 established 10.0.0.1:5000 ESTABLISHED Some(8)"
        ],
        "the addresses are used again"
    );
}

#[test]
fn a_connection_to_a_listener_was_accepted() {
    let mut known = Known::default();
    let listener = tcp(1, "[::]:80", "", TcpState::Listening, 7);
    // Not yet accepted: no inode, but the listener has an owner.
    let waiting = tcp(2, "10.0.0.1:80", "10.0.0.2:999", TcpState::Established, 0);
    let request = tcp(3, "10.0.0.1:80", "10.0.0.2:998", TcpState::SynReceived, 0);
    assert_eq!(
        update(&mut known, &[waiting.clone(), request, listener.clone()]),
        [
            "0 listen [::]:80 LISTENING Some(7)",
            "1 accept 10.0.0.1:80 ESTABLISHED Some(7)"
        ]
    );
    let accepted = TableSocket {
        inode: 8,
        ..waiting
    };
    assert_eq!(
        update(&mut known, &[accepted, listener]),
        ["owner 2 8"],
        "another process took it"
    );
}

#[test]
fn a_listener_may_show_a_look_later_than_its_connection() {
    let mut known = Known::default();
    let listener = tcp(1, "0.0.0.0:80", "", TcpState::Listening, 7);
    let accepted = tcp(2, "10.0.0.1:80", "10.0.0.2:9", TcpState::Established, 8);
    assert_eq!(update(&mut known, std::slice::from_ref(&accepted)), [""; 0]);
    assert!(known.waits());
    assert_eq!(
        update(&mut known, &[accepted, listener]),
        [
            "0 listen 0.0.0.0:80 LISTENING Some(7)",
            "1 accept 10.0.0.1:80 ESTABLISHED Some(8)"
        ]
    );
    assert!(!known.waits());
}

#[test]
fn a_listener_that_just_went_still_explains_a_connection() {
    let mut known = Known::default();
    update(
        &mut known,
        &[tcp(1, "10.0.0.1:80", "", TcpState::Listening, 7)],
    );
    let made = tcp(2, "10.0.0.1:80", "10.0.0.2:9", TcpState::Established, 8);
    assert_eq!(
        update(&mut known, &[made]),
        [
            "1 close 10.0.0.1:80 CLOSED Some(7)",
            "2 accept 10.0.0.1:80 ESTABLISHED Some(8)"
        ]
    );
}

#[test]
fn a_listener_of_ipv4_explains_no_connection_of_ipv6() {
    let mut known = Known::default();
    let sockets = [
        tcp(1, "0.0.0.0:80", "", TcpState::Listening, 7),
        tcp(2, "[fe80::1]:80", "[fe80::2]:9", TcpState::Established, 8),
    ];
    update(&mut known, &sockets);
    assert_eq!(
        update(&mut known, &sockets),
        [
            "1 connect [fe80::1]:80 SYN_SENT Some(8)",
            "2 established [fe80::1]:80 ESTABLISHED Some(8)"
        ]
    );
}

#[test]
fn sockets_that_share_a_port_are_told_apart() {
    let mut known = Known::default();
    let all = [udp(0, "0.0.0.0:53", 5), udp(0, "0.0.0.0:53", 6)];
    assert_eq!(update(&mut known, &all).len(), 2);
    assert_eq!(
        update(&mut known, &all[1..]),
        ["2 close 0.0.0.0:53 - Some(5)"]
    );
}

#[test]
fn owners_are_asked_for_new_sockets_only() {
    let mut known = Known::default();
    let mut owners = Same::default();
    let sockets = vec![udp(1, "0.0.0.0:53", 99), udp(2, "0.0.0.0:54", 5)];
    known.start(sockets.clone(), HashSet::new(), &mut owners);
    known.update(look(&sockets, 9), &mut owners, &mut Vec::new());
    assert_eq!(owners.asked, 2);
}
