//! All rules of the calling thread's network namespace (`nfnetlink`).

use std::collections::BTreeMap;

use super::rule::{Rule, Verdict, attribute, attributes, number, text, value};
use crate::Error;
use crate::linux::netlink::Connection;

/// `NFNL_SUBSYS_NFTABLES << 8`.
const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = NFTABLES + 4;
const GET_RULE: u16 = NFTABLES + 7;
const GET_SET: u16 = NFTABLES + 10;
const GET_ELEMENTS: u16 = NFTABLES + 13;
/// The answer to a question has the number of the message that would make it.
const NEW: fn(u16) -> u16 = |get| get - 1;

/// The families whose tables packets of IP pass: `inet`, `ip`, `ip6`.
const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];

/// A table: its family's number and its name.
pub(super) type Table = (u8, String);

/// The rules of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) chains: BTreeMap<(Table, String), Chain>,
    pub(super) sets: BTreeMap<(Table, String), Set>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Where packets enter it; none for a chain that is only jumped to.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: u32,
    pub(super) priority: i32,
    /// What becomes of packets that reach its end: they are dropped.
    pub(super) drops: bool,
    /// `filter`, `route` or `nat`.
    pub(super) kind: String,
}

/// A set, or a map of verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) anonymous: bool,
    pub(super) intervals: bool,
    /// Keys are made of several fields.
    pub(super) concatenated: bool,
    pub(super) elements: Vec<Element>,
}

impl Set {
    /// Takes the elements, in whatever order they come.
    pub(super) fn take(&mut self, mut elements: Vec<Element>) {
        elements.sort_by(|one, other| one.key.cmp(&other.key));
        self.elements = elements;
    }
}

/// An element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    pub(super) key_end: Option<Vec<u8>>,
    /// It ends an interval and does not belong to it.
    pub(super) ends: bool,
    /// It stands for everything that no other element is.
    pub(super) catch_all: bool,
    pub(super) verdict: Option<Verdict>,
}

impl Ruleset {
    /// Asks the kernel.
    pub(super) fn read() -> Result<Self, Error> {
        let mut connection = Connection::open_netfilter()?;
        let mut ruleset = Self::default();
        for (family, _) in FAMILIES {
            let about = header(family);
            dump(&mut connection, GET_CHAIN, &about, |bytes| {
                ruleset.add_chain(family, bytes);
            })?;
            dump(&mut connection, GET_RULE, &about, |bytes| {
                ruleset.add_rule(family, bytes);
            })?;
            dump(&mut connection, GET_SET, &about, |bytes| {
                ruleset.add_set(family, bytes);
            })?;
        }
        let names: Vec<_> = ruleset.sets.keys().cloned().collect();
        for key in names {
            let ((family, table), name) = &key;
            let mut about = header(*family);
            put_text(&mut about, 1, table);
            put_text(&mut about, 2, name);
            let mut elements = Vec::new();
            dump(&mut connection, GET_ELEMENTS, &about, |bytes| {
                elements.extend(elements_of(bytes));
            })?;
            if let Some(set) = ruleset.sets.get_mut(&key) {
                set.take(elements);
            }
        }
        Ok(ruleset)
    }

    /// Takes in the attributes of an `NFT_MSG_NEWCHAIN`.
    pub(super) fn add_chain(&mut self, family: u8, bytes: &[u8]) {
        let (Some(table), Some(name)) = (text(bytes, 1), text(bytes, 3)) else {
            return;
        };
        let base = attribute(bytes, 4).and_then(|hook| {
            Some(Base {
                hook: number(hook, 1)?,
                priority: number(hook, 2)?.cast_signed(),
                drops: number(bytes, 5) == Some(0),
                kind: text(bytes, 7)?,
            })
        });
        self.chains.entry(((family, table), name)).or_default().base = base;
    }

    /// Takes in the attributes of an `NFT_MSG_NEWRULE`.
    pub(super) fn add_rule(&mut self, family: u8, bytes: &[u8]) {
        let (Some(table), Some(chain)) = (text(bytes, 1), text(bytes, 2)) else {
            return;
        };
        let chain = self.chains.entry(((family, table), chain)).or_default();
        chain.rules.push(Rule::decode(bytes));
    }

    /// Takes in the attributes of an `NFT_MSG_NEWSET`.
    pub(super) fn add_set(&mut self, family: u8, bytes: &[u8]) {
        let (Some(table), Some(name)) = (text(bytes, 1), text(bytes, 2)) else {
            return;
        };
        let flags = number(bytes, 3).unwrap_or_default();
        let set = Set {
            anonymous: flags & 1 != 0,
            intervals: flags & 4 != 0,
            concatenated: flags & 0x80 != 0,
            elements: Vec::new(),
        };
        self.sets.insert(((family, table), name), set);
    }
}

/// The elements in an `NFT_MSG_NEWSETELEM`.
pub(super) fn elements_of(bytes: &[u8]) -> Vec<Element> {
    let list = attribute(bytes, 3).unwrap_or_default();
    attributes(list)
        .map(|(_, element)| {
            let flags = number(element, 3).unwrap_or_default();
            Element {
                key: attribute(element, 1).and_then(value).unwrap_or_default(),
                key_end: attribute(element, 10).and_then(value),
                ends: flags & 1 != 0,
                catch_all: flags & 2 != 0,
                verdict: attribute(element, 2)
                    .and_then(|data| attribute(data, 2))
                    .and_then(Verdict::decode),
            }
        })
        .collect()
}

/// The name of a family of tables.
pub(super) fn family_name(number: u8) -> &'static str {
    let found = FAMILIES.iter().find(|(family, _)| *family == number);
    found.map_or("unknown", |(_, name)| name)
}

/// `struct nfgenmsg`: family, version, resource.
fn header(family: u8) -> Vec<u8> {
    vec![family, 0, 0, 0]
}

fn put_text(body: &mut Vec<u8>, kind: u16, text: &str) {
    let bytes = text.as_bytes();
    let length = u16::try_from(bytes.len() + 5).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(bytes);
    body.push(0);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Asks for a dump; `each` gets the attributes of every message of it.
fn dump(
    connection: &mut Connection,
    question: u16,
    about: &[u8],
    mut each: impl FnMut(&[u8]),
) -> Result<(), Error> {
    connection.ask(question, NEW(question), about, |payload| {
        if let Some(attributes) = payload.get(4..) {
            each(attributes);
        }
    })?;
    Ok(())
}
