//! What a service said, as values.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::Fault;

/// The reply to a [`Question`](crate::question::Question).
///
/// A reply in which the service refuses (an SNMP error, an RPC fault, a
/// `-NOAUTH` of Redis) is an answer as well: it shows who is there. It is then
/// told in a fact named `error`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The protocol that was spoken, by the name of its question: `ldap`.
    pub protocol: &'static str,
    /// What one line can tell: `OpenSSH_9.2p1 Debian-2+deb12u3`.
    pub summary: String,
    /// Everything that was learnt, in the order of the reply.
    pub facts: Vec<Fact>,
    /// What the service said in words of its own, such as a banner, whole.
    pub text: Option<String>,
}

impl Answer {
    /// An answer of `protocol` without content.
    pub fn of(protocol: &'static str) -> Self {
        Self {
            protocol,
            ..Self::default()
        }
    }

    /// Adds a fact.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.facts.push(Fact::of(name, value));
    }

    /// Adds, as the fact `incomplete`, why no more was learnt. What came before
    /// is an answer all the same.
    pub fn broke_off(&mut self, fault: &Fault) {
        self.add("incomplete", fault.to_string());
    }

    /// The first fact of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let fact = self.facts.iter().find(|fact| fact.name == name)?;
        Some(&fact.value)
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("protocol", self.protocol)?;
        map.serialize_entry("summary", &self.summary)?;
        map.serialize_entry("facts", &Facts(&self.facts))?;
        map.serialize_entry("text", &self.text)?;
        map.end()
    }
}

/// One thing learnt: `dnsHostName: dc1.example.com`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// As the protocol itself names it, in its spelling.
    pub name: String,
    /// As the service gave it, unescaped.
    pub value: Value,
}

impl Fact {
    /// A fact of that name.
    pub fn of(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// The value of a [`Fact`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text from outside. Bytes that are not UTF-8 are kept as
    /// `event::text::from_bytes` keeps them.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Truth(bool),
    /// Several values under one name.
    List(Vec<Self>),
    /// Facts about one thing among several, such as one RPC endpoint.
    Facts(Vec<Fact>),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl From<Vec<Self>> for Value {
    fn from(values: Vec<Self>) -> Self {
        Self::List(values)
    }
}

impl From<Vec<Fact>> for Value {
    fn from(facts: Vec<Fact>) -> Self {
        Self::Facts(facts)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Truth(truth) => serializer.serialize_bool(*truth),
            Self::List(values) => serializer.collect_seq(values),
            Self::Facts(facts) => Facts(facts).serialize(serializer),
        }
    }
}

/// Facts as one JSON object; a name that comes again makes its value a list.
struct Facts<'a>(&'a [Fact]);

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In the order in which the names come; a hostile reply has very many.
        let mut places = HashMap::new();
        let mut groups: Vec<(&str, Vec<&Value>)> = Vec::new();
        for fact in self.0 {
            let place = *places.entry(fact.name.as_str()).or_insert_with(|| {
                groups.push((&fact.name, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(&fact.value);
        }
        let mut map = serializer.serialize_map(Some(groups.len()))?;
        for (name, values) in groups {
            match values.as_slice() {
                [value] => map.serialize_entry(name, value)?,
                values => map.serialize_entry(name, values)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_come_again_make_a_list() {
        let mut answer = Answer::of("ldap");
        answer.add("b", "first");
        answer.add("a", 1_i64);
        answer.add("b", vec![Value::Truth(true)]);
        answer.summary = "s".to_owned();
        let json = serde_json::to_string(&answer).unwrap();
        let expected =
            r#"{"protocol":"ldap","summary":"s","facts":{"b":["first",[true]],"a":1},"text":null}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn very_many_names_take_no_longer_each() {
        let mut answer = Answer::of("ldap");
        for number in 0..200_000 {
            answer.add(number.to_string(), true);
        }
        // Comparing each with each would take minutes.
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(json.matches("true").count(), 200_000);
    }
}
