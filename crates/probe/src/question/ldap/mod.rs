//! LDAP (RFC 4511): the root DSE (RFC 4512 §5.1), which every server shows to
//! anybody and which names its directory, its capabilities and its host.
//!
//! Over TCP the search comes as one message for each entry and one at the end;
//! over UDP (CLDAP: RFC 1798, and MS-ADTS §3.1.1.3) all are in one datagram. An
//! Active Directory is then asked for its domain as well, with the search that
//! Windows clients look for their domain controller with ([`netlogon`]).

mod netlogon;

use event::{Protocol, text};

use super::nonce::nonce;
use super::{Asked, Question};
use crate::ber::{self, Ber, Tag, Writer};
use crate::{Answer, Datagrams, Fact, Fault, Stream, Value};

/// Asks for the root DSE.
pub(super) struct Ldap;

const SEARCH_REQUEST: Tag = Tag::application(3);
const SEARCH_ENTRY: Tag = Tag::application(4);
const SEARCH_DONE: Tag = Tag::application(5);
const SEARCH_REFERENCE: Tag = Tag::application(19);
const EXTENDED_RESPONSE: Tag = Tag::application(24);

/// `unbindRequest`, message 2: the polite end.
const UNBIND: [u8; 7] = [0x30, 0x05, 0x02, 0x01, 0x02, 0x42, 0x00];

/// What one message may hold: the largest root DSEs have some 10 KB.
const MESSAGE: usize = 256 << 10;

/// `LDAP_CAP_ACTIVE_DIRECTORY_OID` of MS-ADTS §3.1.1.3.4.3.1.
const ACTIVE_DIRECTORY: &str = "1.2.840.113556.1.4.800";

impl Question for Ldap {
    fn name(&self) -> &'static str {
        "ldap"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["cldap", "gc", "msft-gc", "globalcatalog"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp, Protocol::Udp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        stream.send(&root_dse(1))?;
        let mut found = Found::default();
        while found.result.is_none() {
            let message = ber::element_of(stream, MESSAGE)?;
            found.read(&mut Ber::new(&message), 1)?;
        }
        // Nothing depends on it any more.
        let _ = stream.send(&UNBIND);
        Ok(found.into_answer())
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let id = message_id();
        let reply = datagrams.exchange(&root_dse(id), |reply| answers(reply, id))?;
        let mut found = Found::default();
        found.read_all(&reply, id)?;
        // The end may come in a datagram of its own, and tells nothing then.
        let mut answer = found.into_answer();
        if is_active_directory(&answer) {
            let id = message_id();
            let reply = datagrams.ask_more(&netlogon::request(id), |reply| answers(reply, id));
            // It is an addition; who does not answer it has answered the question.
            if let Ok(reply) = reply
                && let Some(facts) = netlogon_of(&reply, id)
            {
                answer.add("netlogon", facts);
            }
        }
        Ok(answer)
    }
}

/// The search for the root DSE: base scope, no base, any class, and all
/// attributes: those that users set (`*`) and those of the server (`+`).
fn root_dse(id: u32) -> Vec<u8> {
    search(id, &["*", "+"], |writer| {
        writer.element(PRESENT, b"objectClass");
    })
}

/// `Filter.present`.
const PRESENT: Tag = Tag::context_value(7);

/// A search at the root (RFC 4511 §4.5.1).
fn search(id: u32, attributes: &[&str], filter: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.wrap(Tag::SEQUENCE, |writer| {
        writer.integer(id.into());
        writer.wrap(SEARCH_REQUEST, |writer| {
            writer.octets(b""); // baseObject
            writer.enumerated(0); // scope: baseObject
            writer.enumerated(0); // derefAliases: never
            writer.integer(0); // sizeLimit: none
            writer.integer(0); // timeLimit: none
            writer.boolean(false); // typesOnly
            filter(writer);
            writer.wrap(Tag::SEQUENCE, |writer| {
                for attribute in attributes {
                    writer.octets(attribute.as_bytes());
                }
            });
        });
    });
    writer.into_bytes()
}

/// A message id that takes four bytes.
fn message_id() -> u32 {
    u32::from_be_bytes(nonce()) & 0x3fff_ffff | 0x4000_0000
}

/// Whether a datagram begins with a message of that id.
fn answers(datagram: &[u8], id: u32) -> bool {
    Ber::new(datagram)
        .enter(Tag::SEQUENCE, "message")
        .and_then(|mut message| message.integer("message id"))
        .is_ok_and(|number| number == i64::from(id))
}

/// What messages have told so far.
#[derive(Debug, Default)]
struct Found {
    attributes: Vec<Attribute>,
    /// The `LDAPResult` that ends the search.
    result: Option<Outcome>,
}

/// An attribute of the entry with its values as they came.
#[derive(Debug)]
struct Attribute {
    name: String,
    values: Vec<Vec<u8>>,
}

/// An `LDAPResult` (RFC 4511 §4.1.9).
#[derive(Debug)]
struct Outcome {
    code: i64,
    message: String,
}

impl Found {
    /// Reads all messages of a datagram.
    fn read_all(&mut self, datagram: &[u8], id: u32) -> Result<(), Fault> {
        let mut messages = Ber::new(datagram);
        while !messages.is_empty() && self.result.is_none() {
            self.read(&mut messages, id)?;
        }
        Ok(())
    }

    /// Reads one message.
    fn read(&mut self, messages: &mut Ber<'_>, id: u32) -> Result<(), Fault> {
        let mut message = messages.enter(Tag::SEQUENCE, "an LDAP message")?;
        let number = message.integer("a message id")?;
        let operation = message.any("an operation")?;
        // Message 0 is what a server says unasked before it hangs up (§4.4.1).
        let asked = number == i64::from(id);
        match operation.tag() {
            SEARCH_ENTRY if asked => {
                let mut entry = operation.enter("a search entry")?;
                entry.octets("the name of the entry")?;
                let mut attributes = entry.enter(Tag::SEQUENCE, "attributes")?;
                while !attributes.is_empty() {
                    self.attributes.push(Attribute::read(&mut attributes)?);
                }
            }
            SEARCH_REFERENCE if asked => {}
            SEARCH_DONE if asked => {
                self.result = Some(Outcome::read(&mut operation.enter("a search result")?)?);
            }
            EXTENDED_RESPONSE if asked || number == 0 => {
                self.result = Some(Outcome::read(&mut operation.enter("a notice")?)?);
            }
            _ => return Err(message.malformed("an operation that answers a search")),
        }
        Ok(())
    }

    fn into_answer(self) -> Answer {
        let mut answer = Answer::of("ldap");
        for attribute in self.attributes {
            answer.facts.push(attribute.into_fact());
        }
        answer.summary = summary(&answer);
        match self.result {
            Some(outcome) if outcome.code != 0 => {
                let error = outcome.into_text();
                if answer.summary.is_empty() {
                    answer.summary.clone_from(&error);
                }
                answer.add("error", error);
            }
            _ => {}
        }
        if answer.summary.is_empty() {
            answer.summary.push_str("LDAP");
        }
        answer
    }
}

impl Attribute {
    /// Reads a `PartialAttribute` (§4.1.7).
    fn read(attributes: &mut Ber<'_>) -> Result<Self, Fault> {
        let mut attribute = attributes.enter(Tag::SEQUENCE, "an attribute")?;
        let name = text::from_bytes(attribute.octets("the name of an attribute")?);
        let mut set = attribute.enter(Tag::SET, "the values of an attribute")?;
        let mut values = Vec::new();
        while !set.is_empty() {
            values.push(set.octets("a value")?.to_vec());
        }
        Ok(Self { name, values })
    }

    fn into_fact(self) -> Fact {
        let mut values = self.values.iter().map(|value| text::from_bytes(value));
        let value = match (values.next(), values.len()) {
            (Some(value), 0) => Value::Text(value),
            (first, _) => Value::List(first.into_iter().chain(values).map(Value::Text).collect()),
        };
        Fact {
            name: self.name,
            value,
        }
    }
}

impl Outcome {
    fn read(result: &mut Ber<'_>) -> Result<Self, Fault> {
        let code = result.enumerated("a result code")?;
        result.octets("a matched name")?;
        let message = text::from_bytes(result.octets("a diagnostic message")?);
        Ok(Self { code, message })
    }

    fn into_text(self) -> String {
        let name = RESULTS.iter().find(|(code, _)| *code == self.code);
        let name = name.map_or_else(|| self.code.to_string(), |(_, name)| (*name).to_owned());
        if self.message.is_empty() {
            name
        } else {
            format!("{name}: {}", self.message)
        }
    }
}

/// The result codes (RFC 4511 §4.1.9) that a search can end with.
const RESULTS: [(i64, &str); 20] = [
    (1, "operationsError"),
    (2, "protocolError"),
    (3, "timeLimitExceeded"),
    (4, "sizeLimitExceeded"),
    (7, "authMethodNotSupported"),
    (8, "strongerAuthRequired"),
    (10, "referral"),
    (11, "adminLimitExceeded"),
    (12, "unavailableCriticalExtension"),
    (13, "confidentialityRequired"),
    (16, "noSuchAttribute"),
    (18, "inappropriateMatching"),
    (32, "noSuchObject"),
    (34, "invalidDNSyntax"),
    (48, "inappropriateAuthentication"),
    (50, "insufficientAccessRights"),
    (51, "busy"),
    (52, "unavailable"),
    (53, "unwillingToPerform"),
    (80, "other"),
];

/// What the attributes come to: the host and its domain, else the product, else
/// what is kept there.
fn summary(answer: &Answer) -> String {
    let mut parts = Vec::new();
    if let Some(host) = first(answer, "dnsHostName") {
        parts.push(host.to_owned());
    }
    if is_active_directory(answer) {
        parts.push("Active Directory".to_owned());
    } else if let Some(vendor) = first(answer, "vendorName") {
        let version = first(answer, "vendorVersion").unwrap_or_default();
        parts.push(format!("{vendor} {version}").trim_end().to_owned());
    } else if contains(answer, "objectClass", "OpenLDAProotDSE") {
        parts.push("OpenLDAP".to_owned());
    }
    let context = first(answer, "defaultNamingContext").or_else(|| first(answer, "namingContexts"));
    if let Some(context) = context {
        parts.push(context.to_owned());
    }
    parts.join(", ")
}

fn is_active_directory(answer: &Answer) -> bool {
    contains(answer, "supportedCapabilities", ACTIVE_DIRECTORY)
}

/// The values of an attribute, whose name has no case.
fn values<'a>(answer: &'a Answer, name: &str) -> &'a [Value] {
    let named = |fact: &&Fact| fact.name.eq_ignore_ascii_case(name);
    match answer.facts.iter().find(named).map(|fact| &fact.value) {
        Some(Value::List(values)) => values,
        Some(value) => std::slice::from_ref(value),
        None => &[],
    }
}

fn first<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    match values(answer, name).first()? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn contains(answer: &Answer, name: &str, text: &str) -> bool {
    values(answer, name).contains(&Value::Text(text.to_owned()))
}

/// The facts in the answer to [`netlogon::request`].
fn netlogon_of(datagram: &[u8], id: u32) -> Option<Vec<Fact>> {
    let mut found = Found::default();
    found.read_all(datagram, id).ok()?;
    let value = found.attributes.first()?.values.first()?;
    netlogon::read(value).ok()
}

#[cfg(test)]
mod tests;
