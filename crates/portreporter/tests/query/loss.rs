//! Hosts behind a bad wire: packets that are lost, late, doubled or out of order.
//!
//! Times are bounded from above by far more than is needed, so that a busy
//! machine fails nothing.

use std::net::{TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Case;
use crate::stage::{query, ran, verdicts, words};
use crate::wire::{Carries, FAR, Fate, Kind, Wire, after, passes};

pub(super) const CASES: &[Case] = &[
    ("wire_loses_the_first_syn", first_syn),
    ("wire_loses_the_first_datagram", first_datagram),
    ("wire_loses_the_first_icmp", first_icmp),
    ("wire_loses_three_in_ten", three_in_ten),
    ("wire_loses_parts_of_long_answers", long_answers),
    ("wire_loses_a_fragment", fragment),
    ("wire_is_long", delay_of_all),
    ("wire_is_long_for_what_listens", delay_of_some),
    ("wire_is_long_and_loses", delay_and_loss),
    ("wire_doubles_and_reorders", doubled),
    ("wire_is_cut", never),
];

/// Far more than any of these takes.
const LONG: Duration = Duration::from_mins(2);

/// Listens over there, and says nothing.
fn listen(wire: &Wire, port: u16) -> TcpListener {
    wire.over_there(|| TcpListener::bind((FAR, port)).expect("a listener"))
}

/// Replies over there to each datagram with what `reply` makes of it.
fn reply(wire: &Wire, port: u16, reply: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
    let socket = wire.over_there(|| UdpSocket::bind((FAR, port)).expect("a socket"));
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&reply(&buffer[..length]), from);
        }
    });
}

/// A name server that knows nothing but how to say so, at that length: the
/// question with the bit of an answer in it, and zeros, which make it long.
fn name_server(length: usize) -> impl Fn(&[u8]) -> Vec<u8> + Send + 'static {
    const REPLY: u8 = 0x80;
    const REFUSED: u8 = 5;
    move |question| {
        let mut reply = question.to_vec();
        if let Some(flags) = reply.get_mut(2..4) {
            flags[0] |= REPLY;
            flags[1] = REFUSED;
        }
        let length = length.max(reply.len());
        reply.resize(length, 0);
        reply
    }
}

fn asked(ports: &str, options: &[&str]) -> Vec<Value> {
    let host = format!("{FAR}:{ports}");
    let begun = Instant::now();
    let found = verdicts(&[&[host.as_str()], options].concat());
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    found
}

fn statuses(found: &[Value]) -> Vec<&str> {
    words(found).into_iter().map(|(status, _)| status).collect()
}

fn to(carries: Carries, port: u16) -> Kind {
    Kind {
        away: true,
        carries,
        port,
    }
}

/// Loses the first `number` of each kind.
fn without_first(number: u32, carries: Carries, away: bool) -> impl Fn(Kind, u32) -> Fate {
    move |kind, before| {
        if kind.carries == carries && kind.away == away && before < number {
            Fate::Lost
        } else {
            passes()
        }
    }
}

const OPEN_CLOSED: [&str; 2] = ["LISTENING", "NOT LISTENING"];

fn first_syn() {
    for away in [true, false] {
        let wire = Wire::new(without_first(1, Carries::Tcp, away));
        let listener = listen(&wire, 1000);
        let found = asked("1000,1001", &["--no-ask"]);
        assert_eq!(statuses(&found), OPEN_CLOSED, "{found:?}");
        // None that was lost was left unnoticed.
        assert!(wire.number(to(Carries::Tcp, 1000)) > 1);
        drop(listener);
    }
    // The third one is the last.
    let wire = Wire::new(without_first(2, Carries::Tcp, true));
    let listener = listen(&wire, 1000);
    let found = asked("1000,1001", &["--no-ask"]);
    assert_eq!(statuses(&found), OPEN_CLOSED, "{found:?}");
    drop((wire, listener));
    let _wire = Wire::new(without_first(u32::MAX, Carries::Tcp, true));
    let found = asked("1000", &["--no-ask", "--wait", "0.3"]);
    assert_eq!(words(&found), [("FILTERED", "no answer")]);
    assert_eq!(found[0]["attempts"], 3);
}

fn first_datagram() {
    for away in [true, false] {
        let wire = Wire::new(without_first(1, Carries::Udp, away));
        reply(&wire, 53, name_server(0));
        reply(&wire, 1000, <[u8]>::to_vec);
        let found = asked("udp:53,udp:1000", &[]);
        assert_eq!(statuses(&found), ["LISTENING"; 2], "{found:?}");
        assert_eq!(found[0]["answer"]["facts"]["rcode"], "REFUSED");
        assert!(found[1]["attempts"].as_u64() > Some(1));
    }
    // Twice: the third question is answered.
    let wire = Wire::new(without_first(2, Carries::Udp, true));
    reply(&wire, 53, name_server(0));
    let found = asked("udp:53", &[]);
    assert_eq!(statuses(&found), ["LISTENING"], "{found:?}");
}

fn first_icmp() {
    let wire = Wire::new(without_first(1, Carries::Icmp, false));
    // With a question, and without.
    let found = asked("udp:53,udp:1000-1009", &[]);
    assert_eq!(found.len(), 11);
    for verdict in &found {
        assert_eq!(verdict["status"], "NOT LISTENING", "{verdict}");
        let said = "port unreachable (says 10.9.0.2)";
        assert_eq!(verdict["reason"], said, "{verdict}");
    }
    let told = Kind {
        away: false,
        carries: Carries::Icmp,
        port: 53,
    };
    assert!(wire.number(told) > 1);
}

/// Three of ten packets in each direction, but no two of three in a row.
fn some_lost(kind: Kind, before: u32) -> bool {
    let shift = u32::from(kind.port) + if kind.away { 0 } else { 5 };
    matches!((before + shift) % 10, 0 | 4 | 7)
}

fn three_in_ten() {
    let wire = Wire::new(|kind, before| {
        if some_lost(kind, before) {
            Fate::Lost
        } else {
            passes()
        }
    });
    let open = (1000..1010).map(|port| listen(&wire, port));
    let open: Vec<_> = open.collect();
    for port in 1000..1010 {
        reply(&wire, port, name_server(0));
    }
    let found = asked("tcp:1000-1019", &["--no-ask"]);
    let wanted = [["LISTENING"; 10], ["NOT LISTENING"; 10]].concat();
    assert_eq!(statuses(&found), wanted, "{found:?}");
    for options in [&["--no-ask"][..], &["--as", "dns"]] {
        let found = asked("udp:1000-1019", options);
        assert_eq!(statuses(&found), wanted, "{options:?} {found:?}");
    }
    drop(open);
}

/// The kernels mend what is lost of a connection.
fn long_answers() {
    let wire = Wire::new(|kind, before| {
        // Half of it: mending takes twice as long each time.
        if before % 2 == 0 && some_lost(kind, before) {
            Fate::Lost
        } else {
            after(2)
        }
    });
    let listener = listen(&wire, 80);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = "x".repeat(100_000);
            let head = "HTTP/1.0 200 OK\r\nServer: far away\r\nContent-Length: 100000\r\n\r\n";
            let _ = std::io::Write::write_all(&mut stream, format!("{head}{body}").as_bytes());
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let found = asked("80", &["--as", "banner", "--wait", "20"]);
    assert_eq!(statuses(&found), ["LISTENING"], "{found:?}");
    let found = asked("80", &["--wait", "20"]);
    assert_eq!(statuses(&found), ["LISTENING"], "{found:?}");
    let answer = &found[0]["answer"];
    assert!(answer.to_string().contains("far away"), "{found:?}");
}

/// An answer of several fragments is whole or not there.
fn fragment() {
    // Later fragments are a kind of their own, without a port.
    let wire = Wire::new(|kind, before| match (kind.away, kind.port, before) {
        (false, 0, 1) => Fate::Lost,
        _ => passes(),
    });
    reply(&wire, 53, name_server(5000));
    let found = asked("udp:53", &[]);
    assert_eq!(statuses(&found), ["LISTENING"], "{found:?}");
    assert_eq!(found[0]["answer"]["facts"]["rcode"], "REFUSED");
    let later = Kind {
        away: false,
        carries: Carries::Udp,
        port: 0,
    };
    assert!(
        wire.number(later) >= 6,
        "the answer came in fragments, twice"
    );
}

fn delay_of_all() {
    let wire = Wire::new(|_, _| after(100));
    let open = [1000, 1500, 1999].map(|port| listen(&wire, port));
    reply(&wire, 53, name_server(0));
    let found = asked("1000-1999", &["--no-ask"]);
    assert_eq!(found.len(), 1000);
    for verdict in &found {
        let is_open = [1000, 1500, 1999].contains(&verdict["port"].as_u64().unwrap_or(0));
        let status = OPEN_CLOSED[usize::from(!is_open)];
        assert_eq!(verdict["status"], status, "{verdict}");
        assert!(
            verdict["round_trip_us"].as_u64() >= Some(200_000),
            "{verdict}"
        );
    }
    let found = asked("both:53", &[]);
    assert_eq!(
        statuses(&found),
        ["NOT LISTENING", "LISTENING"],
        "{found:?}"
    );
    drop(open);
}

/// All that was learnt of the host is how fast it is otherwise.
fn delay_of_some() {
    let wire = Wire::new(|kind, _| match kind.port {
        1500..1510 => after(100),
        _ => passes(),
    });
    let open: Vec<_> = (1500..1510).map(|port| listen(&wire, port)).collect();
    let found = asked("1000-1999", &["--no-ask"]);
    for verdict in &found {
        let is_open = (1500..1510).contains(&verdict["port"].as_u64().unwrap_or(0));
        let status = OPEN_CLOSED[usize::from(!is_open)];
        assert_eq!(verdict["status"], status, "{verdict}");
    }
    drop(open);
}

fn delay_and_loss() {
    let wire = Wire::new(|kind, before| {
        if some_lost(kind, before) {
            Fate::Lost
        } else {
            // Not always the same, which changes their order as well.
            after(60 + u64::from(before * 7 % 80))
        }
    });
    let open: Vec<_> = (1000..1010).map(|port| listen(&wire, port)).collect();
    for port in 1000..1010 {
        reply(&wire, port, name_server(0));
    }
    let wanted = [["LISTENING"; 10], ["NOT LISTENING"; 10]].concat();
    for (ports, options) in [
        ("tcp:1000-1019", &["--no-ask"][..]),
        ("udp:1000-1019", &["--no-ask"]),
        ("udp:1000-1019", &["--as", "dns"]),
    ] {
        let found = asked(ports, options);
        assert_eq!(statuses(&found), wanted, "{ports} {options:?} {found:?}");
    }
    drop(open);
}

fn doubled() {
    // Each arrives twice. What answers the first question comes after what
    // answers the second, while a third is being asked.
    let wire = Wire::new(|kind, before| match (kind.away, before) {
        (false, 0) => Fate::Arrives([1100, 1110].map(Duration::from_millis).into()),
        _ => Fate::Arrives([0, 5].map(Duration::from_millis).into()),
    });
    reply(&wire, 53, |question| {
        const RESPONSE: u8 = 0x80;
        let mut reply = question.to_vec();
        reply[2] |= RESPONSE;
        // `version.bind` is answered with a text, at the name in the question.
        if question.ends_with(&[0, 16, 0, 3]) {
            reply[7] = 1;
            reply.extend(*b"\xc0\x0c\x00\x10\x00\x03\x00\x00\x00\x00\x00\x06\x05far 1");
        }
        reply
    });
    let found = asked("udp:53,udp:1000", &[]);
    assert_eq!(statuses(&found), OPEN_CLOSED, "{found:?}");
    let facts = &found[0]["answer"]["facts"];
    assert_eq!(facts["rcode"], "NOERROR", "{found:?}");
    assert_eq!(facts["version.bind"], "far 1", "{found:?}");
    let listener = listen(&wire, 1000);
    let found = asked("1000,1001", &["--no-ask"]);
    assert_eq!(statuses(&found), OPEN_CLOSED, "{found:?}");
    drop(listener);
}

fn never() {
    let _wire = Wire::new(|_, _| Fate::Lost);
    let begun = Instant::now();
    let found = asked("both:1-500", &["--wait", "0.5"]);
    // Three waits of half a second at most, and many ports at once: one after
    // the other they would take 25 minutes.
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    assert_eq!(found.len(), 1000);
    for verdict in &found {
        assert_eq!(verdict["reason"], "no answer", "{verdict}");
        let may_listen = verdict["status"] == "LISTENING or FILTERED";
        // A question for which there is no answer tells more.
        let is_udp = verdict["protocol"] == "udp" && verdict["question"].is_null();
        let is_ignored = verdict["question"] == "radius";
        assert_eq!(may_listen, is_udp || is_ignored, "{verdict}");
    }
    ran(&mut query(&[FAR, "-p", "1", "--wait", "0.2"])).ended(2);
}
