//! What must come out for the events that go in, also when some are missing,
//! late or out of order.

use std::collections::BTreeMap;

use event::{Action, Attribution, Cookie, Socket, TcpState};
use sensor::{FoundSocket, Observation, OwnerObservation};

use crate::stage::{CHILD, PARENT, accept, close, line, made, play, play_late, play_on, seen};

#[test]
fn the_process_that_accepts_owns_the_connection() {
    let owner = OwnerObservation {
        cookie: Cookie(0xabc),
        owner: CHILD,
        uid: 7,
    };
    let waits = seen(
        1,
        Action::State {
            old: TcpState::Established,
        },
        TcpState::CloseWait,
    );
    let script = vec![
        Observation::Socket(accept(0)),
        Observation::Socket(waits),
        Observation::Owner(owner),
        Observation::Socket(close(2)),
    ];
    let lines = play(script, made(3));
    for event in ["accept", "state", "close"] {
        let line = line(&lines, event);
        assert_eq!(
            (&line["pid"], &line["uid"]),
            (&CHILD.pid.into(), &7.into()),
            "{line}"
        );
        assert_eq!(line["owner"], "creator");
    }
}

#[test]
fn a_connection_that_nobody_was_seen_to_accept_is_its_closers() {
    let mut closed = close(1);
    (closed.attribution, closed.owner) = (Attribution::Creator, Some(CHILD));
    let script = vec![Observation::Socket(accept(0)), Observation::Socket(closed)];
    let lines = play(script, made(2));
    assert_eq!(line(&lines, "accept")["pid"], CHILD.pid);
    assert_eq!(line(&lines, "close")["pid"], CHILD.pid);
}

#[test]
fn a_connection_that_nobody_accepts_is_its_listeners() {
    let script = vec![
        Observation::Socket(accept(0)),
        Observation::Socket(close(1)),
    ];
    let lines = play(script, made(2));
    for event in ["accept", "close"] {
        let line = line(&lines, event);
        assert_eq!(
            (&line["pid"], &line["owner"]),
            (&PARENT.pid.into(), &"inherited".into())
        );
    }
}

#[test]
fn a_connect_has_the_port_that_it_gets_later() {
    let mut connect = seen(0, Action::Connect, TcpState::SynSent);
    connect.attribution = Attribution::Creator;
    let mut established = connect.clone();
    connect.socket.local.port = 0;
    established.sequence = 1;
    established.action = Action::Established {
        connect_us: Some(5),
    };
    let script = vec![
        Observation::Socket(connect),
        Observation::Socket(established),
    ];
    let lines = play(script, made(2));
    assert_eq!(line(&lines, "connect")["local_port"], 80);
    assert_eq!(line(&lines, "established")["local_port"], 80);
}

#[test]
fn what_is_missing_is_in_a_gap_and_in_the_books() {
    let script = vec![
        Observation::Socket(accept(0)),
        Observation::Socket(close(3)),
    ];
    // Two are missing between the two, one after them.
    let lines = play(script, made(5));
    let lost: u64 = lines
        .iter()
        .filter(|line| line["event"] == "gap")
        .map(|line| {
            assert!(line["from"].as_str() <= line["to"].as_str(), "{line}");
            line["lost"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(lost, 3, "{lines:#?}");
    let counters = line(&lines, "counters");
    assert_eq!(
        (&counters["kernel"], &counters["written"], &counters["lost"]),
        (&5.into(), &2.into(), &3.into())
    );
}

#[test]
fn a_stop_is_heard_where_the_queue_is_full() {
    /// As many as fit into the queue, and the one that waits before it.
    const BATCHES: u64 = 17;
    let one = |number| {
        let mut seen = accept(number);
        seen.socket.cookie = Some(Cookie(100 + number));
        vec![Observation::Socket(seen)]
    };
    let lines = play_late((0..BATCHES).map(one).collect(), made(BATCHES));
    let accepts = lines.iter().filter(|line| line["event"] == "accept");
    assert_eq!(accepts.count() as u64, BATCHES);
    assert_eq!(line(&lines, "counters")["lost"], 0);
}

#[test]
fn what_comes_out_of_order_is_not_lost() {
    let other_cpu = |sequence: u64, stream: u16| {
        let mut seen = accept(sequence);
        seen.stream = stream;
        seen.socket.cookie = Some(Cookie(u64::from(stream) * 100 + sequence));
        Observation::Socket(seen)
    };
    let script = vec![
        other_cpu(1, 0),
        other_cpu(0, 1),
        other_cpu(0, 0),
        other_cpu(1, 1),
    ];
    let lines = play(script, BTreeMap::from([(0, 2), (1, 2)]));
    assert!(
        lines.iter().all(|line| line["event"] != "gap"),
        "{lines:#?}"
    );
    let counters = line(&lines, "counters");
    assert_eq!(
        (&counters["kernel"], &counters["written"]),
        (&4.into(), &4.into())
    );
}

#[test]
fn a_set_says_what_its_head_lacks() {
    /// The most that a set begins with.
    const MOST: u64 = 16_384;
    let waiting = |number: u64| FoundSocket {
        socket: Socket {
            cookie: Some(Cookie(number + 1)),
            ..seen(0, Action::Accept, TcpState::TimeWait).socket
        },
        holders: Vec::new(),
        owner: None,
        uid: None,
    };
    for (count, expected) in [(MOST, None), (MOST + 3, Some("about 3 others"))] {
        let sockets: Vec<FoundSocket> = (0..count).map(waiting).collect();
        let lines = play_on(&sockets, Vec::new(), made(0));
        let listed = lines.iter().filter(|line| line["event"] == "snapshot");
        assert_eq!(listed.count() as u64, MOST);
        let degraded = line(&lines, "open")["degraded"].as_array().unwrap().clone();
        match expected {
            None => assert!(degraded.is_empty(), "{degraded:?}"),
            Some(part) => assert!(
                degraded.len() == 1 && degraded[0].as_str().unwrap().contains(part),
                "{degraded:?}"
            ),
        }
    }
}
