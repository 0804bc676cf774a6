//! The table of sockets beside what the kernel shows: what is written where the
//! two differ, and that nothing is where they do not.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use event::{Action, Attribution, Cookie, Endpoint, ProcessKey, Protocol, Socket, TcpState};
use recorder::Reconciled;
use sensor::{FoundSocket, Observation, SocketObservation};
use serde_json::Value;

use crate::stage::{
    CHILD, Look, NETNS, PARENT, Prompter, Record, SHOWN, accept, close, line, look, made, seen,
};

/// A socket in this state, and the process that holds it.
fn found(cookie: u64, state: TcpState, holder: Option<ProcessKey>) -> FoundSocket {
    let mut socket = Socket {
        cookie: Some(Cookie(cookie)),
        ..seen(0, Action::Accept, state).socket
    };
    if state == TcpState::Listening {
        socket.remote = None;
    }
    FoundSocket {
        socket,
        holders: holder.iter().map(|holder| holder.pid).collect(),
        owner: holder,
        uid: None,
    }
}

fn listener(cookie: u64) -> FoundSocket {
    found(cookie, TcpState::Listening, Some(CHILD))
}

fn of(cookie: u64, mut observation: SocketObservation) -> Observation {
    observation.socket.cookie = Some(Cookie(cookie));
    Observation::Socket(observation)
}

fn cookies(lines: &[&Value]) -> Vec<String> {
    let mut cookies: Vec<String> = lines
        .iter()
        .map(|line| line["socket"].as_str().unwrap().to_owned())
        .collect();
    cookies.sort();
    cookies
}

#[track_caller]
fn differs_nowhere(record: &Record) {
    let differing = [record.all("discover"), record.all("vanish")].concat();
    assert!(differing.is_empty(), "{differing:#?}");
    assert_eq!(record.reconciled, []);
    assert_eq!(record.total, Reconciled::default());
}

/// Two packet sockets are made at nearly the same time. Their beginnings were
/// told before they had a cookie; each gets its own.
#[test]
fn packet_sockets_that_are_not_numbered_yet_are_not_confused() {
    let packet = |cookie: Option<u64>| Socket {
        cookie: cookie.map(Cookie),
        netns: Some(NETNS),
        protocol: Protocol::Packet(3),
        local: Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        remote: None,
        state: None,
    };
    let owners = [(CHILD, 5), (PARENT, 6)];
    let found = owners.map(|(owner, cookie)| FoundSocket {
        socket: packet(Some(cookie)),
        holders: vec![owner.pid],
        owner: None,
        uid: None,
    });
    let told = [0, 1].map(|number| {
        Observation::Socket(SocketObservation {
            socket: packet(None),
            owner: Some(owners[number].0),
            attribution: Attribution::Creator,
            ..seen(number as u64, Action::Bind, TcpState::Closed)
        })
    });
    let record = look(
        vec![
            Look::at(&[]),
            Look::at(&found).meanwhile(move |prompter| prompter.tell(told.to_vec())),
            Look::at(&found),
            Look::at(&found),
        ],
        made(2),
    );
    differs_nowhere(&record);
    let binds: Vec<_> = record
        .all("bind")
        .into_iter()
        .map(|line| {
            (
                line["pid"].as_u64(),
                line["socket"].as_str(),
                line["owner"].as_str(),
            )
        })
        .collect();
    assert_eq!(binds.len(), 2, "{binds:?}");
    for (owner, cookie) in owners {
        let (pid, cookie) = (u64::from(owner.pid), cookie.to_string());
        assert!(
            binds.contains(&(Some(pid), Some(cookie.as_str()), Some("creator"))),
            "{binds:?}"
        );
    }
    assert_eq!(record.table().len(), 2);
}

#[test]
fn a_socket_that_no_event_told_of_is_discovered() {
    let missed = [listener(5)];
    let looks = vec![Look::at(&[]), Look::at(&missed), Look::at(&missed)];
    let record = look(looks, made(0));
    let discover = line(&record.lines, "discover");
    assert_eq!(discover["socket"], "5");
    assert_eq!(
        (&discover["pid"], &discover["owner"], &discover["state"]),
        (&CHILD.pid.into(), &"snapshot".into(), &"LISTENING".into())
    );
    let one = Reconciled {
        discovered: 1,
        vanished: 0,
    };
    // Nothing was lost that would explain it.
    assert_eq!(record.reconciled, [(one, false)]);
    assert_eq!(record.total, one);

    let table = record.table();
    assert_eq!(cookies(&table), ["5"]);
    assert_eq!(table[0]["pid"], CHILD.pid);
    let row = format!(",TCP,80,127.0.0.1,,0.0.0.0,{},", CHILD.pid);
    assert_eq!(record.ports.matches(&row).count(), 1, "{}", record.ports);
}

#[test]
fn who_holds_it_owns_what_is_discovered() {
    let held = FoundSocket {
        holders: vec![SHOWN, 1],
        owner: None,
        ..listener(5)
    };
    let nobodys = found(6, TcpState::CloseWait, None);
    let missed = [held, nobodys];
    let looks = vec![Look::at(&[]), Look::at(&missed), Look::at(&missed)];
    let record = look(looks, made(0));
    let of = |cookie: &str| {
        let mut discovered = record.all("discover").into_iter();
        discovered.find(|line| line["socket"] == cookie).unwrap()
    };
    assert_eq!(
        (&of("5")["pid"], &of("5")["process"], &of("5")["owner"]),
        (&SHOWN.into(), &"shown".into(), &"snapshot".into())
    );
    assert_eq!(
        (&of("6")["pid"], &of("6")["owner"]),
        (&Value::Null, &"unknown".into())
    );
}

#[test]
fn a_socket_that_the_kernel_lacks_vanishes() {
    let before = [listener(5), listener(6)];
    let after = [listener(6)];
    let looks = vec![Look::at(&before), Look::at(&after), Look::at(&after)];
    let record = look(looks, made(0));
    let vanish = line(&record.lines, "vanish");
    assert_eq!(
        (&vanish["socket"], &vanish["pid"]),
        (&"5".into(), &CHILD.pid.into())
    );
    let one = Reconciled {
        discovered: 0,
        vanished: 1,
    };
    assert_eq!(record.reconciled, [(one, false)]);
    assert_eq!(record.total, one);
    assert_eq!(cookies(&record.table()), ["6"]);
    assert!(record.all("discover").is_empty());
}

#[test]
fn a_socket_vanishes_with_its_network_namespace() {
    for existing in [None, Some([NETNS, NETNS + 1].as_slice())] {
        let mut looks = vec![Look::at(&[listener(5)])];
        looks.extend((0..3).map(|_| Look::without(existing)));
        differs_nowhere(&look(looks, made(0)));
    }
    let mut looks = vec![Look::at(&[listener(5)])];
    looks.extend((0..2).map(|_| Look::without(Some(&[NETNS + 1]))));
    let record = look(looks, made(0));
    assert_eq!(cookies(&record.all("vanish")), ["5"]);
    assert!(record.table().is_empty());
}

#[test]
fn a_connection_that_came_to_wait_unseen_keeps_its_owner() {
    let [open, waits] = [TcpState::Established, TcpState::TimeWait].map(|state| {
        let holder = (state == TcpState::Established).then_some(CHILD);
        [found(5, state, holder)]
    });
    let record = look(
        vec![Look::at(&open), Look::at(&waits), Look::at(&waits)],
        made(0),
    );
    let vanish = line(&record.lines, "vanish");
    let table = record.table();
    assert_eq!(cookies(&table), ["5"]);
    for line in [vanish, table[0]] {
        assert_eq!(
            (&line["state"], &line["pid"]),
            (&"TIME_WAIT".into(), &CHILD.pid.into())
        );
    }
}

#[test]
fn what_differs_in_one_look_only_is_nothing() {
    let stays = listener(1);
    let with = |cookie| [stays.clone(), listener(cookie)];
    differs_nowhere(&look(
        vec![
            Look::at(&with(5)),
            // 5 is missing for once, 6 is there for once, then 7.
            Look::at(&with(6)),
            Look::at(&[with(5).as_slice(), &with(7)].concat()),
            Look::at(&with(5)),
        ],
        made(0),
    ));
}

#[test]
fn what_is_heard_of_during_a_look_is_not_judged_by_it() {
    // Both looks meet 0xabc between its accept and its close, and miss 0xdef
    // just after its accept.
    let short = found(0xabc, TcpState::Established, Some(PARENT));
    let passing = |first: u64| {
        move |prompter: &Prompter| {
            prompter.tell(vec![of(0xabc, accept(first)), of(0xabc, close(first + 1))]);
            let state = Action::State {
                old: TcpState::Established,
            };
            prompter.tell(vec![of(
                0xdef,
                match first {
                    0 => accept(2),
                    _ => seen(first + 2, state, TcpState::CloseWait),
                },
            )]);
        }
    };
    let record = look(
        vec![
            Look::at(&[]),
            Look::at(std::slice::from_ref(&short)).meanwhile(passing(0)),
            Look::at(std::slice::from_ref(&short)).meanwhile(passing(3)),
            Look::at(&[found(0xdef, TcpState::CloseWait, Some(PARENT))]),
        ],
        made(6),
    );
    differs_nowhere(&record);
    assert_eq!(record.all("accept").len(), 3);
}

#[test]
fn only_where_all_was_looked_at_is_a_socket_missing() {
    let elsewhere = |cookie, netns| {
        let mut found = listener(cookie);
        found.socket.netns = netns;
        found
    };
    let before = [
        listener(5),
        elsewhere(6, Some(NETNS + 1)),
        elsewhere(7, None),
    ];
    let looks = vec![Look::at(&before), Look::at(&[]), Look::at(&[])];
    let record = look(looks, made(0));
    assert_eq!(cookies(&record.all("vanish")), ["5"]);
    assert_eq!(cookies(&record.table()), ["6", "7"]);
}

#[test]
fn what_no_event_would_have_told_of_is_not_discovered() {
    let mut sockets: Vec<FoundSocket> = (1..)
        .zip([
            TcpState::TimeWait,
            TcpState::SynReceived,
            TcpState::Closed,
            TcpState::FinWait2,
        ])
        .map(|(cookie, state)| found(cookie, state, None))
        .collect();
    sockets.push(found(9, TcpState::FinWait2, Some(CHILD)));
    let looks = vec![Look::at(&[]), Look::at(&sockets), Look::at(&sockets)];
    let record = look(looks, made(0));
    assert_eq!(cookies(&record.all("discover")), ["9"]);
}

#[test]
fn a_connected_udp_socket_that_was_silent_is_no_news() {
    let mut silent = listener(5);
    silent.socket.protocol = Protocol::Udp;
    silent.socket.state = None;
    silent.socket.remote = Some(Endpoint {
        port: 53,
        ..silent.socket.local
    });
    let missed = [silent];
    let looks = vec![Look::at(&[]), Look::at(&missed), Look::at(&missed)];
    let record = look(looks, made(0));
    let discover = line(&record.lines, "discover");
    assert_eq!(
        (&discover["protocol"], &discover["pid"]),
        (&"udp".into(), &CHILD.pid.into())
    );
    assert_eq!(record.reconciled, []);
    assert_eq!(cookies(&record.table()), ["5"]);
}

#[test]
fn an_owner_gives_way_to_the_process_that_holds_the_socket() {
    let held_by = |cookie, holders: &[u32], owner| FoundSocket {
        holders: holders.to_vec(),
        owner,
        ..listener(cookie)
    };
    let cases = [
        // Passed on.
        (held_by(1, &[CHILD.pid], Some(CHILD)), CHILD.pid),
        (held_by(2, &[SHOWN], None), SHOWN),
        // Shared.
        (
            held_by(3, &[CHILD.pid, PARENT.pid], Some(CHILD)),
            PARENT.pid,
        ),
        // Nobody was found, or nothing about who holds it now.
        (held_by(4, &[], None), PARENT.pid),
        (held_by(5, &[CHILD.pid], None), PARENT.pid),
    ];
    let (now, owners): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let before: Vec<_> = (1..)
        .take(now.len())
        .map(|cookie| held_by(cookie, &[PARENT.pid], Some(PARENT)))
        .collect();
    let record = look(vec![Look::at(&before), Look::at(&now)], made(0));
    differs_nowhere(&record);
    let mut table = record.table();
    table.sort_by_key(|line| line["socket"].as_str());
    let told: Vec<_> = table.iter().map(|line| line["pid"].clone()).collect();
    assert_eq!(told, owners);
}

#[test]
fn a_state_of_which_the_news_was_lost_is_put_right() {
    let first = [found(5, TcpState::Established, Some(CHILD))];
    let later = [found(5, TcpState::CloseWait, Some(CHILD))];
    let record = look(vec![Look::at(&first), Look::at(&later)], made(0));
    differs_nowhere(&record);
    let table = record.table();
    assert_eq!(
        (&table[0]["state"], &table[0]["pid"]),
        (&"CLOSE_WAIT".into(), &CHILD.pid.into())
    );
}

#[test]
fn what_is_found_is_not_in_the_books() {
    let after = [listener(6), listener(7)];
    let losing = |prompter: &Prompter| {
        // Two are missing after them, and nothing comes that would show it.
        prompter.tell(vec![of(0xabc, accept(0)), of(0xabc, close(1))]);
    };
    let record = look(
        vec![
            Look::at(&[listener(5)]),
            Look::at(&after).meanwhile(losing),
            Look::at(&after),
        ],
        made(4),
    );
    assert_eq!(cookies(&record.all("discover")), ["6", "7"]);
    assert_eq!(cookies(&record.all("vanish")), ["5"]);
    let counters = line(&record.lines, "counters");
    assert_eq!(
        (&counters["kernel"], &counters["written"], &counters["lost"]),
        (&4.into(), &2.into(), &2.into())
    );
    // And the loss explains what was found.
    let found = Reconciled {
        discovered: 2,
        vanished: 1,
    };
    assert_eq!(record.reconciled, [(found, true)]);
}

#[test]
fn a_loss_during_a_look_that_finds_nothing_explains_what_the_next_one_finds() {
    let losing = |prompter: &Prompter| {
        prompter.tell(vec![of(0xabc, accept(0)), of(0xabc, close(1))]);
    };
    let record = look(
        vec![
            Look::at(&[listener(5)]),
            Look::at(&[listener(5)]).meanwhile(losing),
            Look::at(&[]),
            Look::at(&[]),
        ],
        made(4),
    );
    let one = Reconciled {
        discovered: 0,
        vanished: 1,
    };
    assert_eq!(record.reconciled, [(one, true)]);
}

#[test]
fn a_stop_during_a_look_ends_in_order() {
    /// More than the queue to the recorder's thread holds.
    const BATCHES: u64 = 64;
    let stopping = |prompter: &Prompter| {
        prompter.stop();
        // When the last is taken, the recorder has long begun to stop.
        for number in 0..BATCHES {
            prompter.tell(vec![of(100 + number, accept(number))]);
        }
    };
    let sockets = [listener(5)];
    let looks = vec![Look::at(&sockets), Look::at(&[]).meanwhile(stopping)];
    let record = look(looks, made(BATCHES));
    differs_nowhere(&record);
    let last = record.lines.last().unwrap();
    assert_eq!(last["event"], "seal", "{last}");
    assert_eq!(record.all("accept").len() as u64, BATCHES);
    let counters = line(&record.lines, "counters");
    assert_eq!(
        (&counters["kernel"], &counters["written"], &counters["lost"]),
        (&BATCHES.into(), &BATCHES.into(), &0.into())
    );
}

#[test]
fn a_look_that_panics_costs_only_itself() {
    let panics = |_: &Prompter| panic!("on purpose");
    let missed = [listener(5)];
    let record = look(
        vec![
            Look::at(&[]),
            Look::at(&missed).meanwhile(panics),
            Look::at(&missed),
            Look::at(&missed),
        ],
        made(3),
    );
    assert_eq!(line(&record.lines, "discover")["socket"], "5");
    // Who made them can still be asked.
    let counters = record.all("counters");
    assert_eq!(counters.last().unwrap()["lost"], 3);
}

#[test]
fn told_to_stop_twice_it_does_not_wait_for_a_look_without_end() {
    let endless = |prompter: &Prompter| {
        prompter.stop();
        prompter.stop();
        prompter.tell_without_end(&[Observation::Exit(PARENT)]);
    };
    let looks = vec![Look::at(&[]), Look::at(&[]).meanwhile(endless)];
    let record = look(looks, made(0));
    let last = record.lines.last().unwrap();
    assert_eq!(last["event"], "seal", "{last}");
}

#[test]
fn who_wants_a_port_waits_for_the_look_to_end() {
    let mut connect = seen(0, Action::Connect, TcpState::SynSent);
    connect.attribution = Attribution::Creator;
    let there = [FoundSocket {
        socket: connect.socket.clone(),
        ..listener(0xabc)
    }];
    connect.socket.local.port = 0;
    let long = |prompter: &Prompter| {
        prompter.tell(vec![Observation::Socket(connect)]);
        // Longer than its line waits for anything else.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(750) {
            prompter.tell(Vec::new());
        }
    };
    let record = look(
        vec![
            Look::at(&[]),
            Look::at(&[]).meanwhile(long),
            Look::at(&there),
            Look::at(&there),
        ],
        made(1),
    );
    differs_nowhere(&record);
    assert_eq!(line(&record.lines, "connect")["local_port"], 80);
}

#[test]
fn a_look_that_fails_is_taken_again() {
    let missed = [listener(5)];
    let record = look(
        vec![
            Look::at(&[]),
            Look::at(&missed),
            // No second opinion: the next look is a first one again.
            Look::failing(),
            Look::at(&missed),
            Look::at(&missed),
        ],
        made(0),
    );
    assert_eq!(line(&record.lines, "discover")["socket"], "5");
    assert_eq!(record.reconciled.len(), 1);
}

#[test]
fn in_a_healthy_run_there_is_nothing_to_find() {
    let listens = listener(1);
    let connection = |state| found(0xabc, state, Some(PARENT));
    let opens = |prompter: &Prompter| prompter.tell(vec![Observation::Socket(accept(0))]);
    let closes = |prompter: &Prompter| prompter.tell(vec![Observation::Socket(close(1))]);
    let open = [listens.clone(), connection(TcpState::Established)];
    let record = look(
        vec![
            Look::at(std::slice::from_ref(&listens)),
            Look::at(std::slice::from_ref(&listens)),
            Look::at(&open).meanwhile(opens),
            Look::at(&open),
            Look::at(&open),
            Look::at(std::slice::from_ref(&listens)).meanwhile(closes),
            Look::at(std::slice::from_ref(&listens)),
        ],
        made(2),
    );
    differs_nowhere(&record);
    let accepted = line(&record.lines, "accept");
    assert_eq!(
        (&accepted["pid"], &accepted["owner"]),
        (&PARENT.pid.into(), &Attribution::Inherited.name().into())
    );
}
