//! What a port is, and what answered there, in the original's words.
//!
//! The original knew a dozen services, and scripts look for its lines; those
//! are written as it wrote them. What it did not know (NTP, TLS, Redis …) is
//! told in the same manner: the query is announced, what came back stands
//! between a heading and a line of `=`.
//!
//! Its peculiarities are kept on purpose. Of an LDAP attribute with several
//! values one is shown. SNMP, TFTP and L2TP answers show only in the last
//! line, which says that the port is listening; DNS does not even have one.
//! `portreporter query` tells everything.

use event::Protocol;
use probe::{Answer, Fact, Fault, Status, Value, Verdict};

use crate::tee::Tee;

/// The order in which the original tells the attributes of a root DSE.
const LDAP_ORDER: [&str; 21] = [
    "subschemaSubentry",
    "dsServiceName",
    "namingContexts",
    "defaultNamingContext",
    "schemaNamingContext",
    "configurationNamingContext",
    "rootDomainNamingContext",
    "supportedControl",
    "supportedLDAPVersion",
    "supportedLDAPPolicies",
    "highestCommittedUSN",
    "supportedSASLMechanisms",
    "dnsHostName",
    "ldapServiceName",
    "serverName",
    "supportedCapabilities",
    "isSynchronized",
    "isGlobalCatalogReady",
    "domainFunctionality",
    "forestFunctionality",
    "domainControllerFunctionality",
];

const EPHEMERAL: &str = "Using ephemeral source port";

/// How an exchange with a service is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// The status alone.
    Status,
    /// What the service said of its own accord.
    Banner,
    Ldap,
    EndpointMapper,
    AdapterStatus,
    Snmp,
    SqlServer,
    /// The query is announced; its answer shows in the status alone.
    Announced(&'static str),
    /// Announced, and the answer as text.
    Isa,
    /// As the others, for what the original did not know.
    Other,
}

impl Manner {
    fn of(question: &str, protocol: Protocol) -> Self {
        match (question, protocol) {
            ("domain" | "dns", _) => Self::Status,
            ("ldap" | "cldap", _) => Self::Ldap,
            ("epmap" | "rpc", _) => Self::EndpointMapper,
            ("netbios-ns", _) => Self::AdapterStatus,
            ("snmp", _) => Self::Snmp,
            ("ms-sql-m", _) => Self::SqlServer,
            ("tftp", _) => Self::Announced("TFTP"),
            ("l2tp", _) => Self::Announced("L2TP"),
            ("isakmp" | "ike", _) => Self::Announced("ISAKMP"),
            ("winsock-proxy", Protocol::Udp) => Self::Announced("ISA"),
            ("winsock-proxy", Protocol::Tcp) => Self::Isa,
            ("banner" | "ftp" | "smtp" | "pop3" | "imap" | "ssh", _) => Self::Banner,
            _ => Self::Other,
        }
    }
}

/// One port, asked over one protocol.
pub(super) fn tell(out: &mut Tee, verdict: &Verdict, community: &str) {
    let protocol = verdict.protocol;
    let label = protocol.label();
    let port = verdict.address.port();
    let service = verdict.service.as_deref().unwrap_or("unknown");
    let asked = verdict
        .asked
        .map(|question| (question, Manner::of(question, protocol)));
    // What is told in one line is told as it is in the end.
    let shows_status = matches!(asked, None | Some((_, Manner::Status)));
    let first = if shows_status {
        verdict.status
    } else {
        verdict.first
    };
    out.line(&format!("{label} port {port} ({service} service): {first}"));
    let (Some((question, manner)), Some(answer)) = (asked, &verdict.answer) else {
        return;
    };
    if verdict.first == Status::NotListening {
        // The question may have been what found that out.
        return;
    }
    let exchange = Exchange {
        verdict,
        label,
        port,
        question,
        manner,
        community,
    };
    if let Err(fault @ Fault::Withheld(_)) = answer {
        out.blank();
        out.line(&format!("{} query {fault}", exchange.name()));
        return;
    }
    exchange.announce(out);
    match answer {
        Ok(answer) => exchange.answer(out, answer),
        Err(fault) => exchange.fault(out, fault),
    }
    if protocol == Protocol::Udp && !shows_status {
        if manner == Manner::AdapterStatus && verdict.status == Status::Listening {
            out.line(&format!("{label} port: {}", verdict.status));
        } else {
            out.blank();
            out.line(&format!("{label} port {port} is {}", verdict.status));
        }
    }
}

/// A question and its answer.
struct Exchange<'a> {
    verdict: &'a Verdict,
    label: &'static str,
    port: u16,
    question: &'a str,
    manner: Manner,
    community: &'a str,
}

impl Exchange<'_> {
    fn announce(&self, out: &mut Tee) {
        let Self { label, port, .. } = self;
        let name = self.name();
        let is_rpc =
            self.manner == Manner::EndpointMapper && self.verdict.protocol == Protocol::Tcp;
        let leaves = self.verdict.ephemeral || is_rpc || self.manner == Manner::AdapterStatus;
        let line = match self.manner {
            Manner::Status | Manner::Banner => return,
            Manner::EndpointMapper => "Querying Endpoint Mapper Database...".to_owned(),
            Manner::AdapterStatus => {
                format!("Attempting NETBIOS adapter status query to {label} port {port}...")
            }
            _ => format!("Sending {name} query to {label} port {port}..."),
        };
        out.blank();
        if leaves {
            out.line(EPHEMERAL);
        }
        if self.manner == Manner::Snmp {
            out.line("community name for query:");
            out.line(self.community);
        }
        out.line(&line);
    }

    /// What the query is called.
    fn name(&self) -> String {
        match self.manner {
            Manner::Ldap => "LDAP".to_owned(),
            Manner::EndpointMapper => "RPC Endpoint Mapper".to_owned(),
            Manner::AdapterStatus => "NETBIOS adapter status".to_owned(),
            Manner::Snmp => "SNMP".to_owned(),
            Manner::SqlServer => "SQL Server".to_owned(),
            Manner::Isa => "ISA".to_owned(),
            Manner::Announced(name) => name.to_owned(),
            Manner::Status | Manner::Banner | Manner::Other => match self.question {
                "kerberos" => "Kerberos".to_owned(),
                "mysql" => "MySQL".to_owned(),
                "postgresql" => "PostgreSQL".to_owned(),
                "redis" => "Redis".to_owned(),
                "ms-sql-s" => "SQL Server".to_owned(),
                "netbios-ssn" => "NETBIOS session".to_owned(),
                question => question.to_uppercase(),
            },
        }
    }

    fn answer(&self, out: &mut Tee, answer: &Answer) {
        let name = self.name();
        match self.manner {
            Manner::Status | Manner::Snmp | Manner::Announced(_) => {}
            Manner::Banner => {
                let Some(text) = answer.text.as_deref().filter(|text| !text.is_empty()) else {
                    return;
                };
                out.blank();
                out.line("Data returned from port:");
                lines(out, text);
            }
            Manner::Ldap => {
                out.blank();
                out.line("LDAP query response:");
                out.blank();
                ldap(out, answer);
                out.blank();
                out.line("======== End of LDAP query response ========");
            }
            Manner::EndpointMapper => {
                out.line("Server's response:");
                out.blank();
                endpoints(out, answer);
                out.blank();
                out.line("==== End of RPC Endpoint Mapper query response ====");
            }
            Manner::AdapterStatus => {
                out.blank();
                adapter(out, answer);
            }
            Manner::SqlServer => {
                out.blank();
                out.line("Server's response:");
                out.blank();
                instances(out, answer);
                out.line("==== End of SQL Server query response ====");
            }
            Manner::Isa | Manner::Other => {
                out.blank();
                out.line(&format!("{name} query response:"));
                out.blank();
                match &answer.text {
                    Some(text) if self.manner == Manner::Isa => lines(out, text),
                    _ => facts(out, answer),
                }
                out.blank();
                out.line(&format!("======== End of {name} query response ========"));
            }
        }
    }

    fn fault(&self, out: &mut Tee, fault: &Fault) {
        let name = self.name();
        let Self { port, .. } = self;
        if matches!(self.manner, Manner::Status | Manner::Banner) {
            return;
        }
        out.blank();
        if matches!(fault, Fault::Silent(_)) {
            out.line(&format!("Server did not respond to {name} query"));
        } else {
            out.line(&format!("{name} query to port {port} failed: {fault}"));
        }
    }
}

/// Text of several lines.
fn lines(out: &mut Tee, text: &str) {
    for line in text.trim_end().lines() {
        out.line(line);
    }
}

/// A value in one line; of several the first, as the original had it.
fn first(value: &Value) -> String {
    match value {
        Value::List(values) => values.first().map(first).unwrap_or_default(),
        value => whole(value),
    }
}

/// A value in one line.
fn whole(value: &Value) -> String {
    let named = |fact: &Fact| format!("{} {}", fact.name, whole(&fact.value));
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Truth(true) => "yes".to_owned(),
        Value::Truth(false) => "no".to_owned(),
        Value::List(values) => join(values.iter().map(whole)),
        Value::Facts(facts) => join(facts.iter().map(named)),
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn ldap(out: &mut Tee, answer: &Answer) {
    let is = |name: &str, fact: &Fact| fact.name.eq_ignore_ascii_case(name);
    let find = |name: &str| answer.facts.iter().find(|fact| is(name, fact));
    if let Some(time) = find("currentTime") {
        let time = first(&time.value);
        let date = generalized(&time).unwrap_or(time);
        out.line(&format!("currentdate: {date} (unadjusted GMT)"));
    }
    for name in LDAP_ORDER {
        if let Some(fact) = find(name) {
            out.line(&format!("{name}: {}", first(&fact.value)));
        }
    }
    // What servers of other makers tell comes after it.
    for fact in &answer.facts {
        let is_told = is("currentTime", fact) || LDAP_ORDER.iter().any(|name| is(name, fact));
        if !is_told && !matches!(fact.value, Value::Facts(_)) {
            out.line(&format!("{}: {}", fact.name, first(&fact.value)));
        }
    }
}

/// `20040916103503.0Z` as `09/16/2004 10:35:03`.
fn generalized(time: &str) -> Option<String> {
    let digits = time.get(..14)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !time.ends_with('Z') {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    Some(format!(
        "{}/{}/{} {}:{}:{}",
        part(4, 6),
        part(6, 8),
        part(0, 4),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    ))
}

fn endpoints(out: &mut Tee, answer: &Answer) {
    let mut total = 0;
    for endpoint in answer.facts.iter().filter(|fact| fact.name == "endpoint") {
        let Value::Facts(facts) = &endpoint.value else {
            continue;
        };
        total += 1;
        let part = |name: &str| {
            let fact = facts.iter().find(|fact| fact.name == name);
            fact.map(|fact| first(&fact.value)).unwrap_or_default()
        };
        let title = format!("UUID: {} {}", part("uuid"), part("annotation"));
        out.line(title.trim_end());
        out.line(&part("binding"));
        out.blank();
    }
    out.line(&format!("Total endpoints found: {total}"));
    if let Some(error) = answer.get("error") {
        out.line(&format!("The list ends early: {}", first(error)));
    }
}

fn adapter(out: &mut Tee, answer: &Answer) {
    if let Some(error) = answer.get("error") {
        out.line(&format!("Server's response: {}", first(error)));
        return;
    }
    let mac = answer.get("mac").map(first).unwrap_or_default();
    let mac: String = mac.chars().filter(char::is_ascii_hexdigit).collect();
    out.line(&format!("Server's response: MAC address {mac}"));
    for name in answer.facts.iter().filter(|fact| fact.name == "name") {
        let Value::Facts(facts) = &name.value else {
            continue;
        };
        let part = |name: &str| {
            let fact = facts.iter().find(|fact| fact.name == name);
            fact.map(|fact| first(&fact.value)).unwrap_or_default()
        };
        let line = format!(" {:15} <{}> {}", part("name"), part("suffix"), part("kind"));
        out.line(line.trim_end());
    }
}

fn instances(out: &mut Tee, answer: &Answer) {
    for instance in answer.facts.iter().filter(|fact| fact.name == "instance") {
        let Value::Facts(facts) = &instance.value else {
            continue;
        };
        for fact in facts {
            out.line(&format!("{} {}", fact.name, first(&fact.value)));
        }
        out.blank();
    }
}

fn facts(out: &mut Tee, answer: &Answer) {
    if answer.facts.is_empty() {
        lines(out, answer.text.as_deref().unwrap_or(&answer.summary));
    }
    for fact in &answer.facts {
        match &fact.value {
            Value::List(values) => {
                for value in values {
                    out.line(&format!("{}: {}", fact.name, whole(value)));
                }
            }
            value => out.line(&format!("{}: {}", fact.name, whole(value))),
        }
    }
}

#[cfg(test)]
mod tests;
