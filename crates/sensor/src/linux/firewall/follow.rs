//! Follows a packet through the rules.
//!
//! Every byte of the packet and of the registers is known or not, and so is the
//! outcome of every condition: it holds, it does not, or nobody can say from
//! here. A rule with a condition of the last kind may act, so what is found
//! after it is uncertain.

mod reading;
mod sets;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use reading::Reading;
use sets::{Found, find};

use super::headers::{Headers, number_of};
use super::registers::Registers;
use super::rule::{Expression, Rule, Verdict};
use super::ruleset::{Base, Chain, Element, Ruleset, Table, family_name};
use super::{Fate, Filtering, Leg, Obstacle, Packet};

/// The hooks that a packet to this machine itself passes, in this order
/// (`NF_INET_LOCAL_OUT`, `_POST_ROUTING`, `_PRE_ROUTING`, `_LOCAL_IN`).
const WAY: [(u32, Device); 4] = [
    (3, Device::Out),
    (4, Device::Out),
    (0, Device::In),
    (1, Device::In),
];
/// The kernel allows no more jumps within each other.
const DEPTH: usize = 16;
/// A ruleset in which every rule jumps twice to the next chain would take
/// forever; the kernel itself gives up on such.
const STEPS: usize = 1_000_000;
/// So many uncertain obstacles tell enough.
const ENOUGH: usize = 8;

/// On which side of the rules the loopback device is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    In,
    Out,
}

/// Follows `packet` up to the first thing that certainly stops it.
pub(super) fn follow(ruleset: &Ruleset, packet: &Packet, leg: Leg) -> Filtering {
    let mut walk = Walk {
        ruleset,
        packet,
        leg,
        headers: Headers::of(packet, leg),
        found: Vec::new(),
        steps: 0,
    };
    for (hook, device) in WAY {
        for ((table, name), chain, base) in bases(ruleset, packet, hook) {
            if walk.base(table, name, chain, base, device) {
                return walk.end();
            }
        }
    }
    walk.end()
}

/// The chains that see the packet at that hook, in the kernel's order.
fn bases<'a>(
    ruleset: &'a Ruleset,
    packet: &Packet,
    hook: u32,
) -> Vec<((&'a Table, &'a str), &'a Chain, &'a Base)> {
    let own_family = if packet.destination.is_ipv4() { 2 } else { 10 };
    let mut chains: Vec<_> = ruleset
        .chains
        .iter()
        .filter_map(|((table, name), chain)| {
            let base = chain.base.as_ref()?;
            let sees =
                base.hook == hook && (table.0 == 1 || table.0 == own_family) && base.kind != "nat";
            sees.then_some(((table, name.as_str()), chain, base))
        })
        .collect();
    chains.sort_by_key(|(_, _, base)| base.priority);
    chains
}

/// What a rule's conditions came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Unclear,
}

impl Truth {
    fn of(holds: Option<bool>) -> Self {
        match holds {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Unclear,
        }
    }
}

/// Where the packet is after a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Certainly stopped.
    Stopped,
    /// Certainly let through by this base chain.
    Accepted,
    /// At the end of the chain.
    Through,
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    leg: Leg,
    headers: Headers,
    found: Vec<Obstacle>,
    steps: usize,
}

/// The chain that is being followed.
#[derive(Clone, Copy)]
struct Place<'a> {
    table: &'a Table,
    chain: &'a str,
    device: Device,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn end(mut self) -> Filtering {
        let last = self.found.pop_if(|obstacle| obstacle.certain);
        self.found.truncate(ENOUGH);
        self.found.extend(last);
        Filtering {
            obstacles: self.found,
            unread: Vec::new(),
        }
    }

    /// Follows a base chain; true if the packet is certainly stopped.
    fn base(
        &mut self,
        table: &'a Table,
        chain: &'a str,
        rules: &'a Chain,
        base: &Base,
        device: Device,
    ) -> bool {
        let place = Place {
            table,
            chain,
            device,
            depth: 0,
        };
        let mut certain = true;
        match self.chain(place, &rules.rules, &mut certain) {
            Outcome::Stopped => return true,
            Outcome::Accepted => return false,
            Outcome::Through => {}
        }
        if base.drops {
            self.found.push(Obstacle {
                family: family_name(table.0),
                table: table.1.clone(),
                chain: chain.to_owned(),
                handle: None,
                text: "policy drop".to_owned(),
                comment: None,
                fate: Fate::Dropped,
                packets: None,
                certain,
                answer: self.leg == Leg::Answer,
            });
        }
        base.drops && certain
    }

    fn chain(&mut self, place: Place<'a>, rules: &'a [Rule], certain: &mut bool) -> Outcome {
        for rule in rules {
            self.steps += 1;
            if self.steps > STEPS || place.depth > DEPTH {
                *certain = false;
                return Outcome::Through;
            }
            let reading = self.read(place, rule);
            let sure = match reading.truth {
                Truth::No => continue,
                Truth::Yes => true,
                Truth::Unclear => false,
            };
            match reading.verdict.clone() {
                None | Some(Verdict::Continue) => {}
                Some(Verdict::Accept) if sure => return Outcome::Accepted,
                Some(Verdict::Return) if sure => return Outcome::Through,
                // It may end here, so nothing after it is certain.
                Some(Verdict::Accept | Verdict::Return) => *certain = false,
                Some(Verdict::Drop) => {
                    if self.stop(place, rule, &reading, Fate::Dropped, sure && *certain) {
                        return Outcome::Stopped;
                    }
                }
                Some(Verdict::Queue) => {
                    // The program behind the queue decides.
                    self.stop(place, rule, &reading, Fate::Queued, false);
                }
                Some(Verdict::Jump(to)) => match self.enter(place, &to, sure, certain) {
                    Outcome::Through => {}
                    outcome if sure => return outcome,
                    _ => *certain = false,
                },
                Some(Verdict::Goto(to)) => match self.enter(place, &to, sure, certain) {
                    outcome if sure => return outcome,
                    _ => *certain = false,
                },
            }
            if reading.rejects && self.stop(place, rule, &reading, Fate::Rejected, sure && *certain)
            {
                return Outcome::Stopped;
            }
        }
        Outcome::Through
    }

    fn enter(&mut self, place: Place<'a>, to: &str, sure: bool, certain: &mut bool) -> Outcome {
        let key = (place.table.clone(), to.to_owned());
        let Some(((_, name), chain)) = self.ruleset.chains.get_key_value(&key) else {
            *certain = false;
            return Outcome::Through;
        };
        let inner = Place {
            chain: name,
            depth: place.depth + 1,
            ..place
        };
        let mut inside = *certain && sure;
        let outcome = self.chain(inner, &chain.rules, &mut inside);
        // What became unclear in there is unclear after it, but not because the
        // jump itself may not have been taken.
        *certain &= inside || !sure;
        outcome
    }

    /// Notes what stops the packet; true if it certainly does.
    fn stop(
        &mut self,
        place: Place<'a>,
        rule: &Rule,
        reading: &Reading,
        fate: Fate,
        certain: bool,
    ) -> bool {
        if !certain && self.found.len() >= ENOUGH {
            return false;
        }
        self.found.push(Obstacle {
            family: family_name(place.table.0),
            table: place.table.1.clone(),
            chain: place.chain.to_owned(),
            handle: Some(rule.handle),
            text: reading.words.join(" "),
            comment: rule.comment.clone(),
            fate,
            packets: reading.packets,
            certain,
            answer: self.leg == Leg::Answer,
        });
        certain
    }

    /// Reads a rule up to its verdict, or to the first condition that fails.
    fn read(&self, place: Place<'_>, rule: &Rule) -> Reading {
        let mut registers = Registers::default();
        let mut reading = Reading::default();
        for expression in &rule.expressions {
            let truth = self.step(place, expression, &mut registers, &mut reading);
            match truth {
                Truth::Yes => {}
                Truth::Unclear => reading.truth = Truth::Unclear,
                Truth::No => {
                    reading.truth = Truth::No;
                    return reading;
                }
            }
            if reading.verdict.is_some() || reading.rejects {
                break;
            }
        }
        reading
    }

    fn step(
        &self,
        place: Place<'_>,
        expression: &Expression,
        registers: &mut Registers,
        reading: &mut Reading,
    ) -> Truth {
        match expression {
            Expression::Meta { to, key } => {
                let (label, value) = self.meta(place.device, *key);
                registers.load(*to, label, &value);
            }
            Expression::Payload {
                to,
                base,
                offset,
                length,
            } => {
                let (label, value) = self.headers.part(*base, *offset, *length);
                registers.load(*to, label, &value);
            }
            Expression::ConnectionState { to } => {
                // NF_CT_STATE_BIT of a new conversation, or one that is known.
                let state: u32 = match self.leg {
                    Leg::Question => 8,
                    Leg::Answer => 2,
                };
                let state: Vec<_> = state.to_ne_bytes().into_iter().map(Some).collect();
                registers.load(*to, "ct state".to_owned(), &state);
            }
            Expression::Bitwise {
                from,
                to,
                mask,
                xor,
            } => registers.combine(*from, *to, mask, xor),
            Expression::Compare {
                from,
                operator,
                value,
            } => return compare(*from, *operator, value, registers, reading),
            Expression::Range {
                from,
                inverted,
                low,
                high,
            } => {
                let sign = if *inverted { "!= " } else { "" };
                reading.say(registers, *from, sign, &[low, high]);
                let known = registers.get(*from, low.len());
                return Truth::of(
                    known.map(|known| (low <= &known && &known <= high) != *inverted),
                );
            }
            Expression::Lookup {
                set,
                from,
                inverted,
                verdict,
            } => return self.look_up(place, set, *from, *inverted, *verdict, registers, reading),
            Expression::Ports {
                low,
                high,
                inverted,
            } => {
                let sign = if *inverted { "!= " } else { "" };
                reading.words.push(format!("dport {sign}{low}-{high}"));
                return Truth::of(Some(
                    (*low..=*high).contains(&self.packet.port) != *inverted,
                ));
            }
            Expression::Verdict(verdict) => reading.decide(verdict.clone()),
            Expression::Reject => {
                reading.words.push("reject".to_owned());
                reading.rejects = true;
            }
            Expression::Counter { packets } => reading.packets = Some(*packets),
            Expression::Idle(_) => {}
            Expression::Unknown { name, to } => {
                let name = event::text::escape(name).into_owned();
                if let Some(to) = to {
                    registers.load(*to, name, &[None; 16]);
                } else {
                    reading.words.push(name);
                    return Truth::Unclear;
                }
            }
        }
        Truth::Yes
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one expression")]
    fn look_up(
        &self,
        place: Place<'_>,
        name: &str,
        from: usize,
        inverted: bool,
        verdict: bool,
        registers: &Registers,
        reading: &mut Reading,
    ) -> Truth {
        let set = self
            .ruleset
            .sets
            .get(&(place.table.clone(), name.to_owned()));
        let sign = if inverted { "!= " } else { "" };
        reading.say_set(registers, from, sign, name, set);
        let found = set.map_or(Found::Unclear, |set| find(set, registers, from));
        match found {
            Found::Unclear => {
                if verdict {
                    // Any of the map's verdicts may be carried out.
                    let drops = set.is_some_and(|set| {
                        let drop = |element: &Element| element.verdict == Some(Verdict::Drop);
                        set.elements.iter().any(drop)
                    });
                    reading.decide(if drops {
                        Verdict::Drop
                    } else {
                        Verdict::Accept
                    });
                }
                Truth::Unclear
            }
            Found::Nothing => Truth::of(Some(inverted && !verdict)),
            Found::Element(element) if verdict => {
                reading.decide(element.verdict.clone().unwrap_or(Verdict::Continue));
                Truth::Yes
            }
            Found::Element(_) => Truth::of(Some(!inverted)),
        }
    }

    /// What `meta` loads: its name and its bytes as the kernel has them.
    fn meta(&self, device: Device, key: u32) -> (String, Vec<Option<u8>>) {
        let known = |bytes: &[u8]| bytes.iter().copied().map(Some).collect::<Vec<_>>();
        let v4 = self.packet.destination.is_ipv4();
        // The loopback device has the number 1 in every namespace.
        let name = |here: bool| {
            let mut name = [0; 16];
            if here {
                name[..2].copy_from_slice(b"lo");
            }
            known(&name)
        };
        let index = |here: bool| known(&u32::from(here).to_ne_bytes());
        let (label, value) = match key {
            1 => {
                let ether: u16 = if v4 { 0x0800 } else { 0x86dd };
                ("meta protocol", known(&ether.to_be_bytes()))
            }
            4 => ("iif", index(device == Device::In)),
            5 => ("oif", index(device == Device::Out)),
            6 => ("iifname", name(device == Device::In)),
            7 => ("oifname", name(device == Device::Out)),
            15 => ("meta nfproto", known(&[if v4 { 2 } else { 10 }])),
            16 => ("meta l4proto", known(&[number_of(self.packet.protocol)])),
            3 => ("meta mark", vec![None; 4]),
            10 => ("meta skuid", vec![None; 4]),
            11 => ("meta skgid", vec![None; 4]),
            _ => ("meta", vec![None; 16]),
        };
        (label.to_owned(), value)
    }
}

/// Compares what a register holds (`enum nft_cmp_ops`).
fn compare(
    from: usize,
    operator: u32,
    value: &Vec<u8>,
    registers: &Registers,
    reading: &mut Reading,
) -> Truth {
    let (sign, holds): (_, &[Ordering]) = match operator {
        0 => ("", &[Ordering::Equal]),
        1 => ("!= ", &[Ordering::Less, Ordering::Greater]),
        2 => ("< ", &[Ordering::Less]),
        3 => ("<= ", &[Ordering::Less, Ordering::Equal]),
        4 => ("> ", &[Ordering::Greater]),
        5 => (">= ", &[Ordering::Greater, Ordering::Equal]),
        _ => return Truth::Unclear,
    };
    reading.say(registers, from, sign, &[value]);
    let known = registers.get(from, value.len());
    Truth::of(known.map(|known| holds.contains(&known.cmp(value))))
}
