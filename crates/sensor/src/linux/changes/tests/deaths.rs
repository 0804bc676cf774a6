//! Where the kernel tells of deaths.

use super::*;
use crate::linux::destroy::Counted;

/// The end of a socket: what it was, and acknowledged, received and sent bytes.
pub(super) fn death(socket: &TableSocket, at: u64, counted: Option<(u64, u64, u64)>) -> Death {
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
pub(super) fn with_deaths(
    known: &mut Known,
    sockets: &[TableSocket],
    deaths: &[Death],
) -> Vec<Observation> {
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
