//! What this machine knows of its own ports, beside each verdict.
//!
//! The look goes through all network namespaces, those of the tests that run at
//! the same time included. So each port here is used by one test alone.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use serde_json::Value;

use crate::Case;
use crate::stage::{Neighbour, Nobody, filter, ip, query, ran, verdicts};

pub(super) const CASES: &[Case] = &[
    ("here_owner", owner),
    ("here_one_for_each_family", one_for_each_family),
    ("here_another_address", another_address),
    ("here_nobody", nobody_listens),
    ("here_another_namespace", another_namespace),
    ("here_queue_is_full", queue_is_full),
    ("here_rules", rules),
    ("here_rule_for_the_answer", rule_for_the_answer),
    ("here_policy", policy),
    ("here_without_privileges", without_privileges),
    ("here_nothing_of_others", nothing_of_others),
    ("here_ike_is_not_asked", ike_is_not_asked),
];

/// The findings of that kind.
fn findings<'a>(verdict: &'a Value, kind: &str) -> Vec<&'a Value> {
    let findings = verdict["here"].as_array().expect("a list");
    let of_kind = |finding: &&Value| finding["finding"] == kind;
    findings.iter().filter(of_kind).collect()
}

/// The one finding of that kind.
fn only<'a>(verdict: &'a Value, kind: &str) -> &'a Value {
    match findings(verdict, kind).as_slice() {
        [finding] => finding,
        _ => panic!("one {kind} was expected: {verdict}"),
    }
}

/// It tells of this process.
fn is_us(finding: &Value) {
    assert_eq!(finding["pid"], std::process::id(), "{finding}");
    let program = std::env::current_exe().expect("a program");
    let name = program.file_name().and_then(std::ffi::OsStr::to_str);
    assert_eq!(finding["process"].as_str(), name, "{finding}");
    assert_eq!(finding["user"], "root", "{finding}");
}

/// What is shown to people.
fn shown(arguments: &[&str], code: i32) -> String {
    ran(&mut query(arguments)).ended(code).out
}

fn owner() {
    let tcp = TcpListener::bind("127.0.0.1:4101").expect("a listener");
    let udp = UdpSocket::bind("0.0.0.0:4101").expect("a socket");
    // Takes IPv4, too.
    let both = TcpListener::bind("[::]:4102").expect("a listener");
    let wait = ["--no-ask", "--wait", "0.3"];
    let found = verdicts(&[&["127.0.0.1:both:4101,4102"][..], &wait].concat());
    for (verdict, (local, status)) in found.iter().zip([
        ("127.0.0.1", "LISTENING"),
        ("0.0.0.0", "LISTENING or FILTERED"),
        ("::", "LISTENING"),
    ]) {
        assert_eq!(verdict["status"], status, "{verdict}");
        let owner = only(verdict, "owner");
        is_us(owner);
        assert_eq!(owner["local_ip"], local);
        assert_eq!(owner["local_port"], verdict["port"]);
    }
    let found = verdicts(&[&["[::1]:4102"][..], &wait].concat());
    is_us(only(&found[0], "owner"));
    let line = format!("(pid {}, root", std::process::id());
    let text = shown(&["127.0.0.1:4101", "--no-ask"], 0);
    assert!(text.contains("    here: "), "{text}");
    assert!(
        text.contains(&line) && text.contains(") on 127.0.0.1\n"),
        "{text}"
    );
    drop((tcp, udp, both));
}

/// The one on `::` is not said to have what comes over IPv4.
fn one_for_each_family() {
    use rustix::net::{self, AddressFamily, SocketType};
    let four = TcpListener::bind("0.0.0.0:4119").expect("a listener");
    let six = net::socket(AddressFamily::INET6, SocketType::STREAM, None).expect("a socket");
    net::sockopt::set_ipv6_v6only(&six, true).expect("an option");
    net::bind(&six, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 4119))).expect("a port");
    net::listen(&six, 8).expect("a listener");
    for (asked, local) in [("127.0.0.1:4119", "0.0.0.0"), ("[::1]:4119", "::")] {
        let found = verdicts(&[asked, "--no-ask"]);
        let verdict = &found[0];
        assert_eq!(verdict["status"], "LISTENING", "{verdict}");
        assert_eq!(only(verdict, "owner")["local_ip"], local);
        assert!(findings(verdict, "other-address").is_empty(), "{verdict}");
    }
    drop((four, six));
}

fn another_address() {
    let tcp = TcpListener::bind("127.0.0.2:4103").expect("a listener");
    let udp = UdpSocket::bind("127.0.0.2:4103").expect("a socket");
    for verdict in verdicts(&["127.0.0.1:both:4103"]) {
        assert_eq!(verdict["status"], "NOT LISTENING");
        let elsewhere = only(&verdict, "other-address");
        is_us(elsewhere);
        assert_eq!(elsewhere["local_ip"], "127.0.0.2");
        assert!(findings(&verdict, "owner").is_empty(), "{verdict}");
    }
    let text = shown(&["127.0.0.1:4103"], 1);
    assert!(text.contains("listens on 127.0.0.2 only\n"), "{text}");
    // Of an address of an interface it is known as well, with its zone.
    ip("link add cable type veth peer name end");
    ip("addr add fe80::1/64 dev cable nodad");
    ip("link set cable up");
    ip("link set end up");
    let found = verdicts(&["[fe80::1%cable]:4103"]);
    only(&found[0], "other-address");
    drop((tcp, udp));
}

fn nobody_listens() {
    for verdict in verdicts(&["127.0.0.1:both:4104"]) {
        assert_eq!(verdict["status"], "NOT LISTENING");
        only(&verdict, "nobody-listens");
    }
    let text = shown(&["127.0.0.1:4104"], 1);
    assert!(
        text.contains("    here: nobody listens on it here\n"),
        "{text}"
    );
}

fn another_namespace() {
    let neighbour = Neighbour::new();
    let listener = neighbour.over_there(|| TcpListener::bind("0.0.0.0:4109").expect("a listener"));
    let found = verdicts(&["127.0.0.1:4109"]);
    assert_eq!(found[0]["status"], "NOT LISTENING");
    is_us(only(&found[0], "other-namespace"));
    let text = shown(&["127.0.0.1:4109"], 1);
    assert!(text.contains("in another network namespace\n"), "{text}");
    // Seen from there it is no other.
    let found = neighbour.over_there(|| verdicts(&["127.0.0.1:4109", "--no-ask"]));
    assert_eq!(found[0]["status"], "LISTENING");
    is_us(only(&found[0], "owner"));
    drop(listener);
}

fn queue_is_full() {
    let listener = TcpListener::bind("127.0.0.1:4105").expect("a listener");
    rustix::net::listen(&listener, 1).expect("a shorter queue");
    // The kernel lets in one more than the queue is long.
    let waiting = [(); 2].map(|()| TcpStream::connect("127.0.0.1:4105").expect("a connection"));
    let arguments = ["127.0.0.1:4105", "--no-ask", "--wait", "0.3"];
    let found = verdicts(&arguments);
    assert_eq!(found[0]["status"], "FILTERED", "{found:?}");
    is_us(only(&found[0], "owner"));
    let full = only(&found[0], "queue-full");
    assert_eq!((&full["waiting"], &full["limit"]), (&2.into(), &1.into()));
    let text = shown(&arguments, 2);
    let line = "the queue of the listener on 127.0.0.1 is full: \
                2 connections wait to be accepted, 1 may";
    assert!(text.contains(line), "{text}");
    // One that is accepted makes room.
    drop(listener.accept());
    let found = verdicts(&["127.0.0.1:4105", "--no-ask"]);
    assert_eq!(found[0]["status"], "LISTENING", "{found:?}");
    assert!(findings(&found[0], "queue-full").is_empty());
    drop(waiting);
}

/// The handle of the rule in which that stands, as nft numbers it.
fn handle(part: &str) -> u64 {
    let listed = Command::new("/usr/sbin/nft")
        .args(["-a", "list", "ruleset"])
        .output();
    let listed = String::from_utf8(listed.expect("nft runs").stdout).expect("text");
    let line = listed.lines().find(|line| line.contains(part));
    let line = line.expect("the rule is there");
    let number = line.rsplit("# handle ").next().expect("a handle");
    number.parse().expect("a number")
}

fn rules() {
    let listener = TcpListener::bind("127.0.0.1:4106").expect("a listener");
    let other = TcpListener::bind("127.0.0.1:4107").expect("a listener");
    filter(&[
        "tcp dport 1 accept",
        "tcp dport { 4106, 4116 } counter drop",
        "tcp dport 4107 reject with tcp reset comment \"no thanks\"",
        "udp dport 4108 reject",
    ]);
    let arguments = ["127.0.0.1:4106,4107,udp:4108", "--no-ask", "--wait", "0.3"];
    let found = verdicts(&arguments);
    for (verdict, (status, fate, part)) in found.iter().zip([
        ("FILTERED", "dropped", "4106"),
        ("NOT LISTENING", "rejected", "4107"),
        ("NOT LISTENING", "rejected", "4108"),
    ]) {
        assert_eq!(verdict["status"], status, "{verdict}");
        let rule = only(verdict, "rule");
        assert_eq!(rule["fate"], fate, "{rule}");
        assert_eq!(rule["handle"], handle(part), "{rule}");
        let place = ["family", "table", "chain"].map(|name| rule[name].as_str());
        assert_eq!(place, ["inet", "test", "input"].map(Some));
        assert!(rule["rule"].to_string().contains(part), "{rule}");
        assert_eq!(
            (&rule["certain"], &rule["of_answer"]),
            (&true.into(), &false.into())
        );
    }
    for verdict in &found[..2] {
        is_us(only(verdict, "owner"));
    }
    // Three tries were counted before it was looked.
    let packets = only(&found[0], "rule")["packets"].as_u64();
    assert!(packets >= Some(3), "{found:?}");
    assert_eq!(only(&found[1], "rule")["comment"], "no thanks");
    let text = shown(&arguments, 2);
    let line = format!(
        "    here: dropped by nftables: inet test input, handle {}: tcp dport {{ 4106, 4116 }}",
        handle("4106")
    );
    assert!(text.contains(&line), "{line}\n{text}");
    drop((listener, other));
}

fn rule_for_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:4112").expect("a listener");
    let script = "table inet out { chain out { type filter hook output priority 0;
        tcp sport 4112 drop;\n}\n}";
    let added = Command::new("/usr/sbin/nft").arg(script).status();
    assert!(added.expect("nft runs").success());
    let arguments = ["127.0.0.1:4112", "--no-ask", "--wait", "0.3"];
    let found = verdicts(&arguments);
    assert_eq!(found[0]["status"], "FILTERED", "{found:?}");
    // The question, too, might have come from that port; the answer does.
    let rules = findings(&found[0], "rule");
    let rule = rules.last().expect("a rule");
    let certain = (&rule["certain"], &rule["of_answer"]);
    assert_eq!(certain, (&true.into(), &true.into()));
    assert_eq!(rule["handle"], handle("4112"));
    let text = shown(&arguments, 2);
    assert!(text.contains("the answer is dropped by nftables"), "{text}");
    drop(listener);
}

/// No rule takes it, and the chain drops what none took.
fn policy() {
    let listener = TcpListener::bind("127.0.0.1:4114").expect("a listener");
    let script = "table inet strict { chain in { type filter hook input priority 0;
        policy drop; tcp dport 4115 accept;\n}\n}";
    let added = Command::new("/usr/sbin/nft").arg(script).status();
    assert!(added.expect("nft runs").success());
    let arguments = ["127.0.0.1:4114", "--no-ask", "--wait", "0.3"];
    let found = verdicts(&arguments);
    assert_eq!(found[0]["status"], "FILTERED", "{found:?}");
    is_us(only(&found[0], "owner"));
    let rules = findings(&found[0], "rule");
    let rule = rules.first().expect("a policy");
    assert_eq!(
        (&rule["table"], &rule["chain"]),
        (&"strict".into(), &"in".into())
    );
    assert_eq!(
        (&rule["fate"], &rule["handle"]),
        (&"dropped".into(), &Value::Null)
    );
    let text = shown(&arguments, 2);
    let line = "    here: dropped by nftables: inet strict in: ";
    assert!(text.contains(line), "{text}");
    drop(listener);
}

fn without_privileges() {
    let listener = TcpListener::bind("127.0.0.1:4110").expect("a listener");
    filter(&["tcp dport 4111 drop"]);
    let nobody = Nobody::new();
    let arguments = ["127.0.0.1:4110,4111", "--no-ask", "--wait", "0.3"];
    let mut command = nobody.query(&arguments);
    let told = ran(command.arg("--json")).ended(0);
    let mut lines = told.lines();
    lines.sort_by_key(|line| line["port"].as_u64());
    assert_eq!(lines[0]["status"], "LISTENING");
    // Who holds it may not be seen, and is not guessed.
    let owner = only(&lines[0], "owner");
    assert_eq!(
        (&owner["pid"], &owner["process"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(lines[1]["status"], "FILTERED");
    assert!(findings(&lines[1], "rule").is_empty());
    let said = "on this machine could not be read: packet filter: ";
    assert!(told.errors.contains(said), "{}", told.errors);
    assert!(
        told.errors.contains("as root it can be read"),
        "{}",
        told.errors
    );
    let told = ran(&mut nobody.query(&arguments)).ended(0);
    let line = "here: a process that cannot be seen on 127.0.0.1";
    assert!(told.out.contains(line), "{}", told.out);
    drop(listener);
}

fn nothing_of_others() {
    let neighbour = Neighbour::new();
    let listener = TcpListener::bind("0.0.0.0:4113").expect("a listener");
    let found = verdicts(&["10.0.0.2:4113", "--no-ask"]);
    assert_eq!(found[0]["status"], "NOT LISTENING");
    assert_eq!(found[0]["here"], Value::Array(Vec::new()));
    // The same port at our own end of the cable.
    let found = verdicts(&["10.0.0.1:4113", "--no-ask"]);
    is_us(only(&found[0], "owner"));
    drop((listener, neighbour));
}

/// A service of IKE may not bear that its own machine begins to talk.
fn ike_is_not_asked() {
    let neighbour = Neighbour::new();
    let service = UdpSocket::bind("0.0.0.0:500").expect("a socket");
    let mut datagram = [0; 2000];
    for host in ["127.0.0.1", "10.0.0.1"] {
        let ports = format!("{host}:udp:500");
        let found = verdicts(&[&ports, "--wait", "0.3"]);
        assert_eq!(found[0]["status"], "LISTENING or FILTERED", "{found:?}");
        assert_eq!(found[0]["question"], "ike");
        let fault = found[0]["fault"].to_string();
        assert!(fault.contains("not asked: "), "{fault}");
        for _ in 0..3 {
            assert_eq!(service.recv(&mut datagram).expect("a datagram"), 0);
        }
        let text = shown(&[&ports, "--wait", "0.3"], 2);
        let line = "ike not asked: ";
        assert!(text.contains(line) && text.contains("--as ike"), "{text}");
        for _ in 0..3 {
            assert_eq!(service.recv(&mut datagram).expect("a datagram"), 0);
        }
        // Whoever names the question has it asked.
        verdicts(&[&ports, "--wait", "0.3", "--as", "ike"]);
        for _ in 0..4 {
            assert!(service.recv(&mut datagram).expect("a datagram") > 28);
        }
    }
    // Another machine is asked.
    let far = neighbour.over_there(|| UdpSocket::bind("10.0.0.2:500").expect("a socket"));
    verdicts(&["10.0.0.2:udp:500", "--wait", "0.3"]);
    assert!(far.recv(&mut datagram).expect("a datagram") > 28);
}
