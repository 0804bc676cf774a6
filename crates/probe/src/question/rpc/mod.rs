//! The endpoint mapper of DCE RPC (C706 appendix O, MS-RPCE §2.2.1.2): a table of
//! all services that registered with it, each with the protocol and address to
//! reach it by.
//!
//! It is asked with `ept_lookup` for every entry, page by page, over TCP
//! ([`connection`]) or over UDP ([`datagram`]), whose packets are different ones.
//! What the pages hold is the same ([`lookup`], [`tower`]).

mod connection;
mod datagram;
mod lookup;
mod ndr;
mod tower;

use event::Protocol;

use self::lookup::{Entry, Handle, Page};
use super::guid::Guid;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fact, Fault, Stream};

/// Asks for all endpoints.
pub(super) struct EndpointMapper;

/// The interface of the endpoint mapper.
const INTERFACE: Guid = Guid::of(
    0xe1af_8308,
    0x5d1f,
    0x11c9,
    [0x91, 0xa4, 0x08, 0x00, 0x2b, 0x14, 0xa0, 0xfa],
);

/// Its version.
const VERSION: u32 = 3;

/// `ept_lookup`.
const LOOKUP: u16 = 2;

impl Question for EndpointMapper {
    fn name(&self) -> &'static str {
        "epmap"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["loc-srv", "msrpc", "dcerpc"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp, Protocol::Udp]
    }

    fn ask_stream(&self, _asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let mut call = connection::bind(stream)?;
        look_up(|handle| call(&lookup::request(handle, 100)))
    }

    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let mut call = datagram::activity(datagrams);
        // Few enough that a page is one datagram of a usual size.
        look_up(|handle| call(&lookup::request(handle, 6)))
    }
}

/// What a call came to.
enum Reply {
    /// Results in the representation that `big_endian` tells.
    Results { stub: Vec<u8>, big_endian: bool },
    /// The server refused, with this status.
    Refused(u32),
}

/// Takes page after page until the server's handle says that there is no more.
/// A later page that fails leaves what came before it.
fn look_up(mut call: impl FnMut(&Handle) -> Result<Reply, Fault>) -> Result<Answer, Fault> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut handle = Handle::NONE;
    let mut bytes = 0;
    let error = loop {
        let reply = call(&handle).and_then(|reply| match reply {
            Reply::Results { stub, big_endian } => {
                bytes += stub.len();
                Page::read(&stub, big_endian).map(Ok)
            }
            Reply::Refused(status) => Ok(Err(status)),
        });
        match reply {
            Ok(Ok(page)) => {
                let more = page.status == lookup::OK && !page.entries.is_empty();
                entries.extend(page.entries);
                if page.status != lookup::OK && page.status != lookup::NO_MORE {
                    break Some(format!("status {:#010x}", page.status));
                }
                if !more || page.handle == Handle::NONE {
                    break None;
                }
                if bytes > Stream::LIMIT {
                    break Some(Fault::Long(Stream::LIMIT).to_string());
                }
                handle = page.handle;
            }
            Ok(Err(status)) => break Some(refusal(status)),
            Err(fault) if entries.is_empty() => return Err(fault),
            Err(fault) => break Some(fault.to_string()),
        }
    };
    Ok(answer(entries, error))
}

fn answer(entries: Vec<Entry>, error: Option<String>) -> Answer {
    let mut answer = Answer::of("epmap");
    let total = entries.len();
    answer.summary = match &error {
        Some(error) if total == 0 => error.clone(),
        _ if total == 1 => "1 endpoint".to_owned(),
        _ => format!("{total} endpoints"),
    };
    for entry in entries {
        answer.add("endpoint", facts(entry));
    }
    answer.add("total", i64::try_from(total).unwrap_or(i64::MAX));
    if let Some(error) = error {
        answer.add("error", error);
    }
    answer
}

fn facts(entry: Entry) -> Vec<Fact> {
    let mut facts = Answer::default();
    let tower = entry.tower;
    if let Some(interface) = &tower.interface {
        facts.add("uuid", interface.uuid.to_string());
        facts.add("version", interface.version());
    }
    facts.add("annotation", entry.annotation);
    if !entry.object.is_nil() {
        facts.add("object", entry.object.to_string());
    }
    if let Some(protocol) = tower.protocol {
        facts.add("protocol", protocol);
    }
    if let Some(address) = &tower.address {
        facts.add("address", address.as_str());
    }
    if let Some(endpoint) = &tower.endpoint {
        facts.add("endpoint", endpoint.as_str());
    }
    if let Some(binding) = tower.binding() {
        facts.add("binding", binding);
    }
    facts.facts
}

/// The words for a status with which calls are refused (C706 appendix E, and
/// those of Windows).
fn refusal(status: u32) -> String {
    let words = match status {
        0x0000_0005 => "access denied",
        0x0000_06f7 | 0x1c00_0006 => "bad stub data",
        0x1c01_0002 => "operation out of range",
        0x1c01_0003 => "unknown interface",
        0x1c01_0006 => "you crashed",
        0x1c01_000b => "protocol error",
        0x1c01_0013 => "out of memory",
        0x1c01_0014 => "server too busy",
        _ => return format!("refused with status {status:#010x}"),
    };
    format!("refused: {words}")
}

#[cfg(test)]
mod tests;
