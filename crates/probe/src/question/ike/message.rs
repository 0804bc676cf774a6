//! Replies of both versions. They share the header and the way in which
//! payloads follow each other; what is in a payload differs.

use super::names;
use crate::{Fault, Reader};

pub(super) const VERSION_1: u8 = 0x10;
pub(super) const VERSION_2: u8 = 0x20;

/// Bits of the header: in version 2 that it is a response, in version 1 that
/// the payloads are encrypted.
const RESPONSE: u8 = 0x20;
const ENCRYPTED: u8 = 0x01;

/// A generic payload: what comes next, and the length with the head.
pub(super) fn payload(next: u8, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![next, 0];
    let length = u16::try_from(4 + body.len()).unwrap_or(u16::MAX);
    payload.extend(length.to_be_bytes());
    payload.extend_from_slice(body);
    payload
}

/// Whether it is a reply to the message of that initiator, and not that message
/// itself come back.
pub(super) fn answers(reply: &[u8], spi: [u8; 8]) -> bool {
    if reply.len() < 28 || reply[..8] != spi {
        return false;
    }
    let answered = reply[8..16] != [0; 8];
    match reply[17] & 0xf0 {
        VERSION_1 => answered || reply[18] == names::INFORMATIONAL,
        VERSION_2 => reply[19] & RESPONSE != 0,
        _ => answered,
    }
}

/// A reply.
#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    pub(super) major: u8,
    pub(super) minor: u8,
    pub(super) exchange: u8,
    /// What the other side chose.
    pub(super) proposal: Option<String>,
    pub(super) notifications: Vec<Notification<'a>>,
    pub(super) vendors: Vec<&'a [u8]>,
}

/// A status, or an error.
#[derive(Debug)]
pub(super) struct Notification<'a> {
    kind: u16,
    data: &'a [u8],
}

impl<'a> Message<'a> {
    pub(super) fn read(reply: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(reply);
        reader.bytes(16, "names of the association")?;
        let mut next = reader.u8("first payload")?;
        let version = reader.u8("version")?;
        let exchange = reader.u8("exchange")?;
        let flags = reader.u8("flags")?;
        reader.u32("message id")?;
        let length = reader.u32("length")?;
        if usize::try_from(length).is_ok_and(|length| length > reply.len()) {
            return Err(reader.malformed("a length within the datagram"));
        }
        let mut message = Self {
            major: version >> 4,
            minor: version & 0x0f,
            exchange,
            ..Self::default()
        };
        if message.major == 1 && flags & ENCRYPTED != 0 {
            return Ok(message);
        }
        while next != 0 {
            let kind = next;
            next = reader.u8("next payload")?;
            reader.u8("flags of a payload")?;
            let length = usize::from(reader.u16("length of a payload")?);
            let Some(length) = length.checked_sub(4) else {
                return Err(reader.malformed("a length of at least four"));
            };
            let body = reader.bytes(length, "body of a payload")?;
            match (message.major, kind) {
                (2, names::V2_SA) => message.proposal = Some(proposal2(body)?),
                (1, names::V1_SA) => message.proposal = Some(proposal1(body)?),
                (2, names::V2_NOTIFY) => {
                    message
                        .notifications
                        .push(Notification::read(Reader::new(body))?);
                }
                (1, names::V1_NOTIFY) => {
                    let mut body = Reader::new(body);
                    body.u32("domain of a notification")?;
                    message.notifications.push(Notification::read(body)?);
                }
                (2, names::V2_VENDOR) | (1, names::V1_VENDOR) => message.vendors.push(body),
                // Encrypted: there is nothing more to read.
                (2, names::V2_ENCRYPTED) => break,
                _ => {}
            }
        }
        Ok(message)
    }
}

impl<'a> Notification<'a> {
    /// From the protocol on, where both versions are alike.
    fn read(mut reader: Reader<'a>) -> Result<Self, Fault> {
        reader.u8("protocol of a notification")?;
        let length = reader.u8("length of an SPI")?;
        let kind = reader.u16("type of a notification")?;
        reader.bytes(usize::from(length), "SPI of a notification")?;
        Ok(Self {
            kind,
            data: reader.rest(),
        })
    }

    pub(super) fn is_error(&self, major: u8) -> bool {
        // RFC 7296 §3.10.1, RFC 2408 §3.14.1.
        self.kind < if major == 1 { 8192 } else { 16_384 }
    }

    pub(super) fn name(&self, major: u8) -> String {
        names::notification(major, self.kind)
    }

    /// The group that it wants instead of ours (RFC 7296 §1.3).
    pub(super) fn group(&self, major: u8) -> Option<u16> {
        let wants = major == 2 && self.kind == names::INVALID_KE_PAYLOAD;
        let group = <[u8; 2]>::try_from(self.data).ok();
        group.filter(|_| wants).map(u16::from_be_bytes)
    }
}

/// The transforms of the proposal that was chosen (RFC 7296 §3.3).
fn proposal2(body: &[u8]) -> Result<String, Fault> {
    let mut reader = Reader::new(body);
    let transforms = transforms(&mut reader)?;
    let mut parts = Vec::new();
    for transform in transforms {
        let mut reader = Reader::new(transform);
        let kind = reader.u8("type of a transform")?;
        reader.u8("a reserved byte")?;
        let id = reader.u16("id of a transform")?;
        let mut part = names::transform2(kind, id);
        for (attribute, value) in attributes(reader)? {
            if attribute == names::KEY_LENGTH_V2 & 0x7fff {
                part = format!("{part}_{value}");
            }
        }
        parts.push(part);
    }
    Ok(parts.join(" "))
}

/// The transform that was chosen (RFC 2408 §3.4, RFC 2409 Appendix A).
fn proposal1(body: &[u8]) -> Result<String, Fault> {
    let mut reader = Reader::new(body);
    reader.bytes(8, "domain and situation")?;
    let mut parts = Vec::new();
    for transform in transforms(&mut reader)? {
        let mut reader = Reader::new(transform);
        reader.bytes(4, "number and id of a transform")?;
        let attributes = attributes(reader)?;
        let value = |wanted| {
            let found = attributes.iter().find(|(kind, _)| *kind == wanted);
            found.map(|(_, value)| *value)
        };
        let cipher = value(1).map(|id| {
            let bits = value(14).map(|bits| format!("_{bits}")).unwrap_or_default();
            names::cipher1(id) + &bits
        });
        let named = [
            cipher,
            value(2).map(names::hash1),
            value(4).map(names::group),
            value(3).map(names::authentication1),
        ];
        parts.extend(named.into_iter().flatten());
    }
    Ok(parts.join(" "))
}

/// The bodies of the transforms in the first proposal.
fn transforms<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, Fault> {
    reader.bytes(4, "head of a proposal")?;
    reader.bytes(2, "number and protocol of a proposal")?;
    let spi = reader.u8("length of an SPI")?;
    let count = reader.u8("count of transforms")?;
    reader.bytes(usize::from(spi), "SPI of a proposal")?;
    let mut transforms = Vec::new();
    for _ in 0..count {
        reader.u16("head of a transform")?;
        let length = usize::from(reader.u16("length of a transform")?);
        let Some(length) = length.checked_sub(4) else {
            return Err(reader.malformed("a length of at least four"));
        };
        transforms.push(reader.bytes(length, "a transform")?);
    }
    Ok(transforms)
}

/// The attributes that are short numbers; others are passed over.
fn attributes(mut reader: Reader<'_>) -> Result<Vec<(u16, u16)>, Fault> {
    let mut attributes = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u16("an attribute")?;
        let value = reader.u16("value of an attribute")?;
        if kind & 0x8000 == 0 {
            // It is a length, and the value follows.
            reader.bytes(usize::from(value), "value of an attribute")?;
        } else {
            attributes.push((kind & 0x7fff, value));
        }
    }
    Ok(attributes)
}
