//! What the packet filter does to a packet of this machine to itself.
//!
//! A port of this machine that is "filtered" although somebody listens on it is
//! nearly always dropped by a rule. Which one, nftables itself does not tell
//! (a trace has to be set up beforehand, and changes the rules). So the rules
//! are read ([`ruleset`]) and followed here ([`follow`]), as the kernel does
//! for the first packet of a conversation over loopback and for the answer.
//!
//! It is a reading, not a proof: where a rule depends on something that is not
//! known here (the time of day, a limit, a mark), the way forks, and what is
//! found on it is not [`certain`](Obstacle::certain). Chains of the type `nat`
//! are not followed; legacy iptables rules cannot be read this way, and their
//! presence is told ([`Filtering::unread`]).
//!
//! Only the calling thread's network namespace is looked at, which needs
//! `CAP_NET_ADMIN` there.

mod follow;
mod headers;
mod registers;
mod rule;
mod ruleset;

use std::net::IpAddr;

use event::Protocol;

use self::ruleset::Ruleset;
use crate::Error;

/// The first packet of a conversation of this machine with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// TCP (a SYN) or UDP.
    pub protocol: Protocol,
    /// From where.
    pub source: IpAddr,
    /// To where: an address of this machine.
    pub destination: IpAddr,
    /// To which port.
    pub port: u16,
}

/// What stands in a packet's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filtering {
    /// What stops the packet or the answer to it: first what may, and last what
    /// certainly does, after which nothing is looked at.
    pub obstacles: Vec<Obstacle>,
    /// What could not be read, in words.
    pub unread: Vec<String>,
}

/// A rule, or the policy of a chain, that stops a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The table's family: `inet`, `ip`, `ip6`.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle (`nft -a list ruleset`); none for a chain's policy.
    pub handle: Option<u64>,
    /// The rule, as far as it is understood: `tcp dport 4444 drop`.
    pub text: String,
    /// The comment that its author gave it.
    pub comment: Option<String>,
    /// What becomes of the packet.
    pub fate: Fate,
    /// How many packets the rule has met, if it counts.
    pub packets: Option<u64>,
    /// All conditions on the way were understood and hold.
    pub certain: bool,
    /// It is not the packet that is stopped, but the answer to it.
    pub answer: bool,
}

/// Which packet of a conversation is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    /// The first one, to the port.
    Question,
    /// The one that comes back from it, to a port that the kernel chose.
    Answer,
}

/// What becomes of a packet that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is dropped without a word.
    Dropped,
    /// It is refused, with a reset or an ICMP message.
    Rejected,
    /// It is handed to a program, which decides.
    Queued,
}

/// Follows `packet` through the rules of this network namespace.
pub fn filtering(packet: &Packet) -> Result<Filtering, Error> {
    let ruleset = Ruleset::read()?;
    let mut filtering = follow::follow(&ruleset, packet, Leg::Question);
    if !filtering.obstacles.last().is_some_and(|last| last.certain) {
        let answer = follow::follow(&ruleset, packet, Leg::Answer);
        filtering.obstacles.extend(answer.obstacles);
    }
    for names in ["ip_tables_names", "ip6_tables_names"] {
        // A kernel without legacy tables has no such file.
        let tables = std::fs::read_to_string(format!("/proc/thread-self/net/{names}"));
        let tables: Vec<_> = tables
            .iter()
            .flat_map(|text| text.split_whitespace())
            .collect();
        if !tables.is_empty() {
            filtering.unread.push(format!(
                "legacy iptables tables ({}); see iptables-legacy-save",
                event::text::escape(&tables.join(", "))
            ));
        }
    }
    Ok(filtering)
}

/// Follows a packet through a ruleset made of these messages, for fuzzers.
pub(super) fn follow_messages<'a>(
    messages: impl Iterator<Item = (u8, &'a [u8])>,
    port: u16,
) -> usize {
    const INET: u8 = 1;
    let mut ruleset = Ruleset::default();
    for (kind, bytes) in messages {
        match kind {
            0 => ruleset.add_chain(INET, bytes),
            1 => ruleset.add_rule(INET, bytes),
            2 => ruleset.add_set(INET, bytes),
            _ => {
                if let Some(set) = ruleset.sets.values_mut().next() {
                    set.take(ruleset::elements_of(bytes));
                }
            }
        }
    }
    let here = IpAddr::from([127, 0, 0, 1]);
    let packet = Packet {
        protocol: Protocol::Tcp,
        source: here,
        destination: here,
        port,
    };
    follow::follow(&ruleset, &packet, Leg::Question)
        .obstacles
        .len()
        + follow::follow(&ruleset, &packet, Leg::Answer)
            .obstacles
            .len()
}
