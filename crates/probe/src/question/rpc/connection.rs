//! Packets of connection-oriented RPC, version 5 (C706 chapter 12), over TCP.

use super::super::guid::Guid;
use super::ndr::Ndr;
use super::{INTERFACE, LOOKUP, Reply, VERSION};
use crate::{Fault, Stream};

/// The kinds of packet.
mod kind {
    pub(super) const REQUEST: u8 = 0;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const FAULT: u8 = 3;
    pub(super) const BIND: u8 = 11;
    pub(super) const BIND_ACK: u8 = 12;
    pub(super) const BIND_NAK: u8 = 13;
}

/// `PFC_LAST_FRAG`.
const LAST: u8 = 0x02;

/// How long a packet may be that is sent to us; the usual length.
const FRAGMENT: u16 = 5840;

const HEADER: usize = 16;

/// The representation in which results come back (NDR, version 2).
const TRANSFER: Guid = Guid::of(
    0x8a88_5d04,
    0x1ceb,
    0x11c9,
    [0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60],
);

/// Binds the connection to the endpoint mapper, and gives what calls
/// `ept_lookup` with a stub.
pub(super) fn bind<'a>(
    stream: &'a mut Stream<'_>,
) -> Result<impl FnMut(&[u8]) -> Result<Reply, Fault> + 'a, Fault> {
    stream.send(&bind_packet())?;
    let refused = match Packet::take(stream)? {
        packet if packet.kind == kind::BIND_ACK => packet.read_ack()?,
        packet if packet.kind == kind::BIND_NAK => Some(u32::from(packet.body().u16("a reason")?)),
        packet if packet.kind == kind::FAULT => Some(packet.read_fault()?),
        packet => return Err(packet.body().malformed("an answer to a bind")),
    };
    let mut call = 1;
    Ok(move |stub: &[u8]| {
        if let Some(status) = refused {
            return Ok(Reply::Refused(status));
        }
        call += 1;
        stream.send(&request_packet(call, stub))?;
        read_reply(stream, call)
    })
}

/// A packet, with its header, that is not in fragments.
fn packet(kind: u8, call: u32, body: &[u8]) -> Vec<u8> {
    const FIRST_AND_LAST: u8 = 0x03;
    const LITTLE_ENDIAN: [u8; 4] = [0x10, 0, 0, 0];
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut packet = vec![5, 0, kind, FIRST_AND_LAST];
    packet.extend(LITTLE_ENDIAN);
    packet.extend(length.to_le_bytes());
    packet.extend([0, 0]); // no authentication
    packet.extend(call.to_le_bytes());
    packet.extend(body);
    packet
}

fn bind_packet() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(FRAGMENT.to_le_bytes());
    body.extend(FRAGMENT.to_le_bytes());
    body.extend([0; 4]); // a new association
    body.extend([1, 0, 0, 0]); // one context
    body.extend([0, 0, 1, 0]); // number 0, one representation
    body.extend(INTERFACE.0);
    body.extend(VERSION.to_le_bytes());
    body.extend(TRANSFER.0);
    body.extend(2_u32.to_le_bytes());
    packet(kind::BIND, 1, &body)
}

fn request_packet(call: u32, stub: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(u32::try_from(stub.len()).unwrap_or_default().to_le_bytes());
    body.extend([0, 0]); // context 0
    body.extend(LOOKUP.to_le_bytes());
    body.extend(stub);
    packet(kind::REQUEST, call, &body)
}

/// The results of a call, put together from their fragments.
fn read_reply(stream: &mut Stream<'_>, call: u32) -> Result<Reply, Fault> {
    let mut stub = Vec::new();
    loop {
        let packet = Packet::take(stream)?;
        if packet.call != call {
            return Err(packet.body().malformed("an answer to the call"));
        }
        match packet.kind {
            kind::RESPONSE => {
                let mut body = packet.body();
                body.bytes(8, "a response")?;
                stub.extend_from_slice(body.rest());
                if packet.flags & LAST != 0 {
                    return Ok(Reply::Results {
                        stub,
                        big_endian: packet.big_endian,
                    });
                }
            }
            kind::FAULT => return packet.read_fault().map(Reply::Refused),
            _ => return Err(packet.body().malformed("a response")),
        }
    }
}

/// A packet that came.
struct Packet {
    kind: u8,
    flags: u8,
    big_endian: bool,
    call: u32,
    bytes: Vec<u8>,
}

impl Packet {
    fn take(stream: &mut Stream<'_>) -> Result<Self, Fault> {
        let mut bytes = stream.exact(HEADER)?;
        let [version, _, kind, flags, representation, ..] = bytes[..] else {
            return Err(Fault::Closed);
        };
        let big_endian = representation & 0x10 == 0;
        let mut header = Ndr::new(&bytes, big_endian);
        if version != 5 {
            return Err(header.malformed("version 5"));
        }
        header.bytes(8, "a header")?;
        let length = usize::from(header.u16("a length")?);
        let authentication = header.u16("a length")?;
        let call = header.u32("a call")?;
        if length < HEADER || authentication != 0 {
            return Err(header.malformed("a packet of a length that can be"));
        }
        bytes.extend(stream.exact(length - HEADER)?);
        Ok(Self {
            kind,
            flags,
            big_endian,
            call,
            bytes,
        })
    }

    fn body(&self) -> Ndr<'_> {
        let body = self.bytes.get(HEADER..).unwrap_or_default();
        Ndr::new(body, self.big_endian)
    }

    /// Why the one context was not accepted, if it was not.
    fn read_ack(&self) -> Result<Option<u32>, Fault> {
        let mut body = self.body();
        body.bytes(8, "an acknowledgement")?;
        let length = body.u16("the server's other address")?;
        body.bytes(length.into(), "the server's other address")?;
        body.align(4)?;
        if body.u8("a number of results")? == 0 {
            return Err(body.malformed("a result"));
        }
        body.bytes(3, "padding")?;
        let result = body.u16("a result")?;
        let reason = body.u16("a reason")?;
        Ok((result != 0).then_some(reason.into()))
    }

    fn read_fault(&self) -> Result<u32, Fault> {
        let mut body = self.body();
        body.bytes(8, "a fault")?;
        body.u32("the status of a fault")
    }
}
