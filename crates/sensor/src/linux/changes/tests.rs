use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::destroy::Counted;
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

/// The end of a socket: what it was, and acknowledged, received and sent bytes.
fn death(socket: &TableSocket, at: u64, counted: Option<(u64, u64, u64)>) -> Death {
    Death {
        at: BootTime(at),
        cookie: socket.socket.cookie.unwrap(),
        netns: socket.socket.netns,
        socket: Some(Socket {
            state: socket.socket.state.map(|_| TcpState::Closed),
            ..socket.socket.clone()
        }),
        counted: counted.map(|(acknowledged, received, sent)| Counted {
            acknowledged,
            received,
            data_segments: u32::from(received > 1),
            sent,
        }),
        unread: 0,
    }
}

/// A look where the kernel tells of deaths.
fn with_deaths(known: &mut Known, sockets: &[TableSocket], deaths: &[Death]) -> Vec<Observation> {
    with_deaths_at(50, known, sockets, deaths)
}

fn with_deaths_at(
    at: u64,
    known: &mut Known,
    sockets: &[TableSocket],
    deaths: &[Death],
) -> Vec<Observation> {
    let mut batch = Vec::new();
    let look = Look {
        deaths: deaths.to_vec(),
        told: HashSet::from([Some(1)]),
        ..look(sockets, at)
    };
    known.update(look, &mut Same::default(), &mut batch);
    batch
}

/// Reason, bytes sent and bytes received of the last observation.
fn end(batch: &[Observation]) -> (&'static str, Option<u64>, Option<u64>) {
    let Some(Observation::Socket(SocketObservation {
        action:
            Action::Close {
                reason,
                bytes_sent,
                bytes_received,
                ..
            },
        ..
    })) = batch.last()
    else {
        panic!("{batch:?}")
    };
    (reason.name(), *bytes_sent, *bytes_received)
}

fn client(state: TcpState, inode: u32) -> TableSocket {
    tcp(1, "10.0.0.1:5000", "10.0.0.2:80", state, inode)
}

fn server(state: TcpState, inode: u32) -> TableSocket {
    tcp(2, "10.0.0.2:80", "10.0.0.1:5000", state, inode)
}

#[test]
fn a_connection_that_no_look_has_seen_is_told_by_its_death() {
    let mut known = Known::default();
    let dead = death(&client(TcpState::Closed, 0), 7, Some((12, 21, 10)));
    let batch = with_deaths(&mut known, &[], &[dead]);
    assert_eq!(
        told(&batch),
        [
            "0 connect 10.0.0.1:5000 SYN_SENT None",
            "1 established 10.0.0.1:5000 ESTABLISHED None",
            "2 close 10.0.0.1:5000 CLOSED None"
        ]
    );
    // It left no remnant: the peer closed first, and its FIN was counted.
    assert_eq!(end(&batch), ("closed", Some(10), Some(20)));
    assert!(
        batch
            .iter()
            .all(|seen| matches!(seen, Observation::Socket(seen)
        if seen.at == BootTime(7) && seen.attribution == Attribution::Unknown))
    );
}

#[test]
fn who_closes_first_leaves_a_remnant() {
    let mut known = Known::default();
    // The remnant of a socket that nobody has looked at has another cookie.
    let remnant = TableSocket {
        socket: Socket {
            cookie: Some(Cookie(77)),
            ..client(TcpState::TimeWait, 0).socket
        },
        ..client(TcpState::TimeWait, 0)
    };
    let dead = death(&client(TcpState::Closed, 0), 7, Some((12, 20, 10)));
    let batch = with_deaths(&mut known, std::slice::from_ref(&remnant), &[dead]);
    assert_eq!(told(&batch)[2], "2 close 10.0.0.1:5000 TIME_WAIT None");
    assert_eq!(end(&batch), ("closed", Some(10), Some(20)));
    assert_eq!(with_deaths(&mut known, &[remnant], &[]), []);
}

#[test]
fn a_death_ends_what_a_look_has_seen() {
    let mut known = Known::default();
    let listener = tcp(3, "0.0.0.0:80", "", TcpState::Listening, 7);
    let seen = [listener, server(TcpState::Established, 8)];
    with_deaths(&mut known, &seen, &[]);
    // Our FIN was not acknowledged: nobody knows how it ended.
    let dead = death(&seen[1], 60, Some((10, 21, 10)));
    let batch = with_deaths(&mut known, &seen[..1], std::slice::from_ref(&dead));
    assert_eq!(told(&batch), ["2 close 10.0.0.2:80 CLOSED Some(8)"]);
    assert_eq!(end(&batch), ("unknown", Some(10), None));
    // The side that accepted needs one byte less for it.
    with_deaths(&mut known, &seen, &[]);
    let dead = death(&seen[1], 60, Some((11, 1, 10)));
    let batch = with_deaths(&mut known, &seen[..1], &[dead]);
    assert_eq!(end(&batch), ("closed", Some(10), Some(0)));
}

#[test]
fn a_connection_broken_off_has_lost_its_counters() {
    let mut known = Known::default();
    let seen = client(TcpState::SynSent, 7);
    with_deaths(&mut known, std::slice::from_ref(&seen), &[]);
    let alone = tcp(1, "10.0.0.1:5000", "", TcpState::Closed, 0);
    let batch = with_deaths(&mut known, &[], &[death(&alone, 60, Some((0, 0, 0)))]);
    assert_eq!(told(&batch), ["1 close 10.0.0.1:5000 CLOSED Some(7)"]);
    assert_eq!(end(&batch), ("unknown", None, None));
}

#[test]
fn an_unseen_connection_has_the_owner_of_its_listener() {
    let mut known = Known::default();
    let listener = tcp(3, "0.0.0.0:80", "", TcpState::Listening, 7);
    let deaths = [
        death(&server(TcpState::Closed, 0), 7, Some((11, 21, 10))),
        // From the listener's own port, but certainly made here.
        death(
            &tcp(4, "10.0.0.2:80", "10.0.0.9:9", TcpState::Closed, 0),
            8,
            Some((2, 1, 0)),
        ),
    ];
    let batch = with_deaths(&mut known, &[listener], &deaths);
    assert_eq!(
        told(&batch)[1..],
        [
            "1 accept 10.0.0.2:80 ESTABLISHED Some(7)",
            "2 close 10.0.0.2:80 CLOSED Some(7)",
            "3 connect 10.0.0.2:80 SYN_SENT None",
            "4 established 10.0.0.2:80 ESTABLISHED None",
            "5 close 10.0.0.2:80 CLOSED None"
        ]
    );
    let Observation::Socket(accepted) = &batch[1] else {
        panic!("{batch:?}")
    };
    assert_eq!(accepted.attribution, Attribution::Inherited);
}

#[test]
fn a_dead_port_is_a_listener_only_if_a_connection_came_in_by_it() {
    let mut known = Known::default();
    let port = |number: u64| {
        tcp(
            number,
            &format!("10.0.0.2:{number}"),
            "",
            TcpState::Closed,
            0,
        )
    };
    let deaths = [
        death(&port(80), 9, Some((0, 0, 0))),
        death(&port(81), 9, Some((0, 0, 0))),
        death(&server(TcpState::Closed, 0), 7, Some((11, 21, 10))),
    ];
    assert_eq!(
        told(&with_deaths(&mut known, &[], &deaths)),
        [
            "0 listen 10.0.0.2:80 LISTENING None",
            "1 accept 10.0.0.2:80 ESTABLISHED None",
            "2 close 10.0.0.2:80 CLOSED None",
            "3 close 10.0.0.2:80 CLOSED None"
        ]
    );
}

#[test]
fn a_listener_and_its_connections_may_die_in_any_order() {
    let listener = death(
        &tcp(80, "10.0.0.2:80", "", TcpState::Closed, 0),
        9,
        Some((0, 0, 0)),
    );
    let connection = death(&server(TcpState::Closed, 0), 7, Some((11, 21, 10)));
    for order in [[&listener, &connection], [&connection, &listener]] {
        let mut known = Known::default();
        let first = with_deaths(&mut known, &[], std::slice::from_ref(order[0]));
        assert_eq!(told(&first), [""; 0]);
        assert_eq!(
            told(&with_deaths(
                &mut known,
                &[],
                std::slice::from_ref(order[1])
            )),
            [
                "0 listen 10.0.0.2:80 LISTENING None",
                "1 accept 10.0.0.2:80 ESTABLISHED None",
                "2 close 10.0.0.2:80 CLOSED None",
                "3 close 10.0.0.2:80 CLOSED None"
            ]
        );
    }
    // Where nothing explains it: it was made, and is told one look later.
    let mut known = Known::default();
    with_deaths(&mut known, &[], &[connection]);
    let batch = with_deaths(&mut known, &[], &[]);
    assert_eq!(told(&batch)[0], "0 connect 10.0.0.2:80 SYN_SENT None");
}

/// Between two looks there was a listener; one look has seen the connection
/// that came in by it. Whatever of both ends first, or is first heard of.
#[test]
fn a_listener_that_no_look_has_seen_explains_a_connection() {
    let listener = death(
        &tcp(80, "10.0.0.2:80", "", TcpState::Closed, 0),
        55,
        Some((0, 0, 0)),
    );
    let alive = server(TcpState::Established, 7);
    let connection = death(&server(TcpState::Closed, 0), 60, Some((11, 21, 10)));
    let none: &[Death] = &[];
    for (deaths, dies_at) in [
        (
            [
                none,
                std::slice::from_ref(&listener),
                std::slice::from_ref(&connection),
            ],
            2,
        ),
        ([none, &[connection.clone(), listener.clone()], none], 1),
        ([none, &[listener.clone(), connection.clone()], none], 1),
        (
            [
                none,
                std::slice::from_ref(&connection),
                std::slice::from_ref(&listener),
            ],
            1,
        ),
        (
            [
                std::slice::from_ref(&listener),
                std::slice::from_ref(&connection),
                none,
            ],
            1,
        ),
        (
            [
                std::slice::from_ref(&listener),
                none,
                std::slice::from_ref(&connection),
            ],
            2,
        ),
    ] {
        let mut known = Known::default();
        let mut batch = Vec::new();
        for (at, deaths) in deaths.iter().enumerate() {
            let sockets = if at < dies_at {
                std::slice::from_ref(&alive)
            } else {
                &[]
            };
            batch.extend(with_deaths(&mut known, sockets, deaths));
        }
        let mut told = told(&batch);
        assert_eq!(told.remove(0), "0 listen 10.0.0.2:80 LISTENING None");
        assert_eq!(told.remove(0), "1 accept 10.0.0.2:80 ESTABLISHED Some(7)");
        told.sort_by_key(|line| line.ends_with("None"));
        let [connection, listener] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert!(
            connection.ends_with("close 10.0.0.2:80 CLOSED Some(7)"),
            "{connection}"
        );
        assert!(
            listener.ends_with("close 10.0.0.2:80 CLOSED None"),
            "{listener}"
        );
        let reasons = batch.iter().filter_map(|observation| match observation {
            Observation::Socket(SocketObservation {
                action: Action::Close { reason, .. },
                ..
            }) => Some(reason.name()),
            _ => None,
        });
        assert_eq!(reasons.collect::<Vec<_>>(), ["closed", "closed"]);
        assert!(!known.waits());
    }
}

#[test]
fn a_listener_that_is_there_explains_a_connection_better_than_a_dead_port() {
    let mut known = Known::default();
    let alive = server(TcpState::Established, 8);
    with_deaths(&mut known, std::slice::from_ref(&alive), &[]);
    let port = death(&tcp(80, "10.0.0.2:80", "", TcpState::Closed, 0), 55, None);
    let listener = tcp(3, "0.0.0.0:80", "", TcpState::Listening, 7);
    let batch = with_deaths(&mut known, &[alive, listener], &[port]);
    assert_eq!(
        told(&batch),
        [
            "0 listen 0.0.0.0:80 LISTENING Some(7)",
            "1 accept 10.0.0.2:80 ESTABLISHED Some(8)"
        ]
    );
}

#[test]
fn a_datagram_socket_is_closed_by_its_process_alone() {
    let mut known = Known::default();
    let socket = udp(5, "0.0.0.0:53", 9);
    let batch = with_deaths(&mut known, &[], &[death(&socket, 7, None)]);
    assert_eq!(
        told(&batch),
        ["0 bind 0.0.0.0:53 - None", "1 close 0.0.0.0:53 - None"]
    );
    assert_eq!(end(&batch), ("closed", None, None));
}

#[test]
fn a_death_may_come_some_looks_later() {
    let mut known = Known::default();
    let seen = [client(TcpState::Established, 7)];
    with_deaths(&mut known, &seen, &[]);
    with_deaths(&mut known, &seen, &[]);
    for at in [50, 51, 49 + PATIENCE] {
        let batch = with_deaths_at(at, &mut known, &[], &[]);
        assert_eq!(batch, [], "it is waited for");
        assert!(known.has_open(Some(1)));
    }
    let dead = death(&seen[0], 60, Some((2, 1, 0)));
    let batch = with_deaths(&mut known, &[], std::slice::from_ref(&dead));
    assert_eq!(told(&batch), ["2 close 10.0.0.1:5000 CLOSED Some(7)"]);
    assert_eq!(end(&batch), ("closed", Some(0), Some(0)));
    assert!(!known.has_open(Some(1)));

    with_deaths(&mut known, &seen, &[]);
    with_deaths(&mut known, &[], &[]);
    let batch = with_deaths_at(50 + PATIENCE, &mut known, &[], &[]);
    assert_eq!(end(&batch), ("unknown", None, None));
    assert_eq!(
        with_deaths(&mut known, &[], &[dead]),
        [],
        "what comes later still is of a socket that is known to be gone"
    );
}

#[test]
fn a_socket_that_comes_back_was_not_gone() {
    let mut known = Known::default();
    let seen = [udp(5, "0.0.0.0:53", 9)];
    with_deaths(&mut known, &seen, &[]);
    with_deaths(&mut known, &[], &[]);
    assert_eq!(with_deaths_at(PATIENCE, &mut known, &seen, &[]), []);
    let later = 51 + PATIENCE;
    assert_eq!(with_deaths_at(later, &mut known, &[], &[]), []);
    assert_eq!(with_deaths_at(later + 1, &mut known, &[], &[]), []);
}

#[test]
fn a_death_that_may_be_lost_is_waited_for_one_look_long() {
    let mut known = Known::default();
    let seen = [udp(5, "0.0.0.0:53", 9)];
    with_deaths(&mut known, &seen, &[]);
    let lossy = Look {
        lost: 1,
        told: HashSet::from([Some(1)]),
        ..look(&[], 50)
    };
    let mut batch = Vec::new();
    known.update(lossy, &mut Same::default(), &mut batch);
    assert_eq!(batch, []);
    let batch = with_deaths(&mut known, &[], &[]);
    assert_eq!(end(&batch), ("unknown", None, None));
}

#[test]
fn the_last_look_waits_for_no_death() {
    let mut known = Known::default();
    let seen = [udp(5, "0.0.0.0:53", 9)];
    with_deaths(&mut known, &seen, &[]);
    with_deaths(&mut known, &[], &[]);
    let last = Look {
        told: HashSet::from([Some(1)]),
        is_final: true,
        ..look(&[], 50)
    };
    let mut batch = Vec::new();
    known.update(last, &mut Same::default(), &mut batch);
    assert_eq!(end(&batch), ("unknown", None, None));
}

#[test]
fn what_was_lost_is_a_hole_in_the_numbers() {
    let mut known = Known::default();
    let mut batch = Vec::new();
    let look = Look {
        lost: 5,
        ..look(&[udp(1, "0.0.0.0:53", 9)], 5)
    };
    known.update(look, &mut Same::default(), &mut batch);
    assert_eq!(told(&batch), ["5 bind 0.0.0.0:53 - Some(9)"]);
    assert_eq!(known.produced(), 6);
}

#[test]
fn a_remnant_is_waited_for_unless_deaths_were_lost() {
    let mut known = Known::default();
    for _ in 0..2 {
        with_deaths(&mut known, &[client(TcpState::Established, 7)], &[]);
    }
    let remnant = [client(TcpState::TimeWait, 0)];
    for _ in 0..5 {
        assert_eq!(with_deaths(&mut known, &remnant, &[]), []);
    }
    let lossy = Look {
        lost: 1,
        told: HashSet::from([Some(1)]),
        ..look(&remnant, 60)
    };
    known.update(lossy, &mut Same::default(), &mut Vec::new());
    let batch = with_deaths(&mut known, &remnant, &[]);
    assert_eq!(told(&batch), ["3 close 10.0.0.1:5000 CLOSED Some(7)"]);
    assert_eq!(with_deaths(&mut known, &remnant, &[]), []);
}

proptest! {
    #[test]
    fn every_opening_has_one_close_and_no_number_is_missing(
        looks in proptest::collection::vec(
            proptest::collection::btree_map(1_u64..8, 1_u8..12, 0..8), 1..12)
    ) {
        let mut known = Known::default();
        let mut batch = Vec::new();
        for one in looks.into_iter().chain([BTreeMap::new()]) {
            let sockets: Vec<_> = one.into_iter().map(|(cookie, number)| {
                let state = TcpState::from_linux(number).unwrap();
                let peer = if state == TcpState::Listening { "" } else { "10.0.0.2:9" };
                tcp(cookie, &format!("10.0.0.1:{cookie}"), peer, state, 5)
            }).collect();
            known.update(look(&sockets, 0), &mut Same::default(), &mut batch);
        }
        let mut open = BTreeSet::new();
        for (expected, observation) in (0..).zip(&batch) {
            let Observation::Socket(seen) = observation else {
                panic!("{observation:?}");
            };
            prop_assert_eq!(seen.sequence, expected);
            if seen.action.opens_port() {
                prop_assert!(open.insert(seen.socket.cookie));
            } else if seen.action.ends_socket() {
                prop_assert!(open.remove(&seen.socket.cookie));
            } else {
                prop_assert!(open.contains(&seen.socket.cookie));
            }
        }
        prop_assert!(open.is_empty());
        prop_assert!(known.sockets.is_empty());
    }

    /// However looks and deaths interleave, each socket opens and closes once.
    #[test]
    fn every_life_has_one_beginning_and_one_end(
        lives in proptest::collection::vec((0_usize..6, 0_usize..6, 0_usize..3, any::<bool>()), 1..8)
    ) {
        let mut known = Known::default();
        let mut batch = Vec::new();
        for now in 0..16 {
            let socket = |at: usize| {
                let number = u64::try_from(at).unwrap() + 1;
                let local = format!("10.0.0.1:{number}");
                tcp(number, &local, "10.0.0.2:9", TcpState::Established, 5)
            };
            let (mut sockets, mut deaths) = (Vec::new(), Vec::new());
            for (at, &(from, lasts, late, remains)) in lives.iter().enumerate() {
                let (from, until) = (from.min(5), from + lasts);
                if (from..until).contains(&now) {
                    sockets.push(socket(at));
                } else if now >= until && remains {
                    let mut remnant = socket(at);
                    remnant.socket.state = Some(TcpState::TimeWait);
                    remnant.inode = 0;
                    sockets.push(remnant);
                }
                if now == until + late {
                    deaths.push(death(&socket(at), 9, Some((2, 1, 0))));
                }
            }
            batch.extend(with_deaths(&mut known, &sockets, &deaths));
        }
        let mut count = BTreeMap::new();
        for observation in &batch {
            let Observation::Socket(seen) = observation else {
                panic!("{observation:?}");
            };
            let (opened, closed): &mut (u32, u32) = count.entry(seen.socket.cookie).or_default();
            *opened += u32::from(seen.action.opens_port());
            *closed += u32::from(seen.action.ends_socket());
        }
        prop_assert_eq!(count.len(), lives.len());
        prop_assert!(count.values().all(|&each| each == (1, 1)), "{:?}", count);
    }
}
