use std::net::{IpAddr, Ipv4Addr};

use event::Protocol;
use proptest::prelude::*;

use super::super::rule::value;
use super::super::ruleset::Set;
use super::*;

const TABLE: fn() -> Table = || (1, "filter".to_owned());
const INPUT: u32 = 1;

fn to_port(protocol: Protocol, port: u16) -> Packet {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Packet {
        protocol,
        source: here,
        destination: here,
        port,
    }
}

/// `tcp dport PORT VERDICT`, as `nft` compiles it.
fn on_port(handle: u64, port: u16, verdict: Verdict) -> Rule {
    let mut expressions = condition(port);
    expressions.push(Expression::Verdict(verdict));
    Rule {
        handle,
        comment: None,
        expressions,
    }
}

fn condition(port: u16) -> Vec<Expression> {
    vec![
        Expression::Meta { to: 0, key: 16 },
        Expression::Compare {
            from: 0,
            operator: 0,
            value: vec![6],
        },
        Expression::Payload {
            to: 0,
            base: 2,
            offset: 2,
            length: 2,
        },
        Expression::Compare {
            from: 0,
            operator: 0,
            value: port.to_be_bytes().to_vec(),
        },
    ]
}

/// A condition whose outcome nobody here can know.
fn perhaps(mut rule: Rule) -> Rule {
    let limit = Expression::Unknown {
        name: "limit".to_owned(),
        to: None,
    };
    rule.expressions.insert(0, limit);
    rule
}

fn chain(ruleset: &mut Ruleset, name: &str, base: Option<(u32, i32, bool)>, rules: Vec<Rule>) {
    let base = base.map(|(hook, priority, drops)| Base {
        hook,
        priority,
        drops,
        kind: "filter".to_owned(),
    });
    ruleset
        .chains
        .insert((TABLE(), name.to_owned()), Chain { base, rules });
}

fn texts(filtering: &Filtering) -> Vec<(&str, bool)> {
    let obstacles = filtering.obstacles.iter();
    obstacles
        .map(|obstacle| (obstacle.text.as_str(), obstacle.certain))
        .collect()
}

#[test]
fn the_first_verdict_counts() {
    let mut ruleset = Ruleset::default();
    let rules = vec![
        on_port(1, 80, Verdict::Accept),
        on_port(2, 80, Verdict::Drop),
        on_port(3, 81, Verdict::Drop),
    ];
    chain(&mut ruleset, "input", Some((INPUT, 0, true)), rules);
    assert_eq!(
        texts(&follow(
            &ruleset,
            &to_port(Protocol::Tcp, 80),
            Leg::Question
        )),
        []
    );
    assert_eq!(
        texts(&follow(
            &ruleset,
            &to_port(Protocol::Tcp, 81),
            Leg::Question
        )),
        [("tcp dport 81 drop", true)]
    );
    // Another protocol reaches the end of the chain.
    assert_eq!(
        texts(&follow(
            &ruleset,
            &to_port(Protocol::Udp, 81),
            Leg::Question
        )),
        [("policy drop", true)]
    );
}

#[test]
fn accepted_by_one_chain_is_not_accepted_by_the_next() {
    let mut ruleset = Ruleset::default();
    let rules = |verdict| vec![on_port(1, 80, verdict)];
    chain(
        &mut ruleset,
        "b",
        Some((INPUT, -10, false)),
        rules(Verdict::Accept),
    );
    chain(
        &mut ruleset,
        "a",
        Some((INPUT, 10, false)),
        rules(Verdict::Drop),
    );
    assert_eq!(
        texts(&follow(
            &ruleset,
            &to_port(Protocol::Tcp, 80),
            Leg::Question
        )),
        [("tcp dport 80 drop", true)]
    );
}

#[test]
fn what_may_let_it_through_makes_the_rest_uncertain() {
    let mut ruleset = Ruleset::default();
    let rules = vec![
        perhaps(on_port(1, 80, Verdict::Accept)),
        on_port(2, 80, Verdict::Drop),
    ];
    chain(&mut ruleset, "input", Some((INPUT, 0, true)), rules);
    assert_eq!(
        texts(&follow(
            &ruleset,
            &to_port(Protocol::Tcp, 80),
            Leg::Question
        )),
        [("tcp dport 80 drop", false), ("policy drop", false)]
    );
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let rules = |verdict| vec![on_port(1, 80, verdict), on_port(2, 80, Verdict::Drop)];
    let sub = |ruleset: &mut Ruleset| {
        chain(ruleset, "sub", None, vec![on_port(3, 80, Verdict::Return)]);
    };
    let mut jumps = Ruleset::default();
    sub(&mut jumps);
    let jump = rules(Verdict::Jump("sub".to_owned()));
    chain(&mut jumps, "input", Some((INPUT, 0, false)), jump);
    let found = follow(&jumps, &to_port(Protocol::Tcp, 80), Leg::Question);
    assert_eq!(texts(&found), [("tcp dport 80 drop", true)]);
    assert_eq!(found.obstacles[0].handle, Some(2));

    let mut goes = Ruleset::default();
    sub(&mut goes);
    let goto = rules(Verdict::Goto("sub".to_owned()));
    chain(&mut goes, "input", Some((INPUT, 0, false)), goto);
    assert_eq!(
        texts(&follow(&goes, &to_port(Protocol::Tcp, 80), Leg::Question)),
        []
    );
}

#[test]
fn chains_that_call_each_other_come_to_an_end() {
    let mut ruleset = Ruleset::default();
    let twice = |to: &str| {
        let jump = || on_port(1, 80, Verdict::Jump(to.to_owned()));
        vec![jump(), jump()]
    };
    chain(&mut ruleset, "a", Some((INPUT, 0, false)), twice("b"));
    chain(&mut ruleset, "b", None, twice("a"));
    assert_eq!(
        texts(&follow(
            &ruleset,
            &to_port(Protocol::Tcp, 80),
            Leg::Question
        )),
        []
    );
}

#[test]
fn an_answer_may_not_pass_either() {
    let mut ruleset = Ruleset::default();
    let mut rule = on_port(1, 80, Verdict::Drop);
    // tcp sport 80
    rule.expressions[2] = Expression::Payload {
        to: 0,
        base: 2,
        offset: 0,
        length: 2,
    };
    chain(&mut ruleset, "output", Some((3, 0, false)), vec![rule]);
    let packet = to_port(Protocol::Tcp, 80);
    assert_eq!(
        texts(&follow(&ruleset, &packet, Leg::Answer)),
        [("tcp sport 80 drop", true)]
    );
    // The port that a question comes from is not known.
    assert_eq!(
        texts(&follow(&ruleset, &packet, Leg::Question)),
        [("tcp sport 80 drop", false)]
    );
}

#[test]
fn intervals_and_their_ends() {
    let element = |port: u16, ends| Element {
        key: port.to_be_bytes().to_vec(),
        ends,
        ..Element::default()
    };
    let set = Set {
        anonymous: true,
        intervals: true,
        concatenated: false,
        elements: vec![
            element(0, true),
            element(70, false),
            element(80, true),
            element(443, false),
            element(444, true),
        ],
    };
    let mut ruleset = Ruleset::default();
    ruleset.sets.insert((TABLE(), "__set0".to_owned()), set);
    let mut rule = on_port(1, 0, Verdict::Drop);
    rule.expressions[3] = Expression::Lookup {
        set: "__set0".to_owned(),
        from: 0,
        inverted: false,
        verdict: false,
    };
    chain(&mut ruleset, "input", Some((INPUT, 0, false)), vec![rule]);
    for (port, stopped) in [
        (69, false),
        (70, true),
        (79, true),
        (80, false),
        (443, true),
    ] {
        let found = follow(&ruleset, &to_port(Protocol::Tcp, port), Leg::Question);
        let expected: &[_] = if stopped {
            &[("tcp dport { 70-79, 443 } drop", true)]
        } else {
            &[]
        };
        assert_eq!(texts(&found), expected, "{port}");
    }
}

#[test]
fn a_value_longer_than_all_registers_is_none() {
    let mut attribute = 74_u16.to_ne_bytes().to_vec();
    attribute.extend(1_u16.to_ne_bytes());
    attribute.resize(74, 7);
    assert_eq!(value(&attribute), None);
}

proptest! {
    #[test]
    fn any_rules_are_survived(
        pieces in proptest::collection::vec((0_u8..4, proptest::collection::vec(any::<u8>(), 0..120)), 0..8),
        port: u16,
    ) {
        crate::fuzzing::firewall(pieces.iter().map(|(kind, bytes)| (*kind, bytes.as_slice())), port);
    }
}
