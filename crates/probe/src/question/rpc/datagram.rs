//! Packets of connectionless RPC, version 4 (C706 chapter 12), over UDP.
//!
//! The calls are idempotent, so the server neither calls back to make sure who
//! is asking nor wants an acknowledgement at the end.

use super::super::nonce::nonce;
use super::ndr::Ndr;
use super::{INTERFACE, LOOKUP, Reply, VERSION};
use crate::{Datagrams, Fault, Stream};

/// The kinds of packet.
mod kind {
    pub(super) const REQUEST: u8 = 0;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const FAULT: u8 = 3;
    pub(super) const REJECT: u8 = 6;
    pub(super) const FRAGMENT_ACK: u8 = 9;
}

/// The flags of a packet.
mod flag {
    pub(super) const LAST: u8 = 0x02;
    pub(super) const FRAGMENT: u8 = 0x04;
    pub(super) const NO_FRAGMENT_ACK: u8 = 0x08;
    pub(super) const IDEMPOTENT: u8 = 0x20;
}

/// An activity: calls that belong together, one after the other. Gives what
/// calls `ept_lookup` with a stub.
pub(super) fn activity<'a>(
    datagrams: &'a mut Datagrams<'_>,
) -> impl FnMut(&[u8]) -> Result<Reply, Fault> + 'a {
    let id: [u8; 16] = nonce();
    let mut sequence: u32 = 0;
    move |stub| {
        let call = Call { id, sequence };
        sequence += 1;
        call.make(datagrams, stub)
    }
}

/// What tells packets of one call from those of others.
struct Call {
    id: [u8; 16],
    sequence: u32,
}

impl Call {
    fn make(&self, datagrams: &mut Datagrams<'_>, stub: &[u8]) -> Result<Reply, Fault> {
        let request = self.packet(kind::REQUEST, flag::IDEMPOTENT, 0, stub);
        let mut whole = Vec::new();
        let mut next = 0;
        let mut datagram = datagrams.exchange(&request, |datagram| self.answers(datagram, 0))?;
        loop {
            let packet = Packet::read(&datagram)?;
            if packet.kind != kind::RESPONSE {
                let status = packet.body().u32("the status of a fault")?;
                return Ok(Reply::Refused(status));
            }
            whole.extend_from_slice(packet.body().rest());
            if packet.flags & flag::FRAGMENT == 0 || packet.flags & flag::LAST != 0 {
                return Ok(Reply::Results {
                    stub: whole,
                    big_endian: packet.big_endian,
                });
            }
            if whole.len() > Stream::LIMIT {
                return Err(Fault::Long(Stream::LIMIT));
            }
            if packet.flags & flag::NO_FRAGMENT_ACK == 0 {
                datagrams.send(&self.packet(kind::FRAGMENT_ACK, 0, next, &[]))?;
            }
            next = next.checked_add(1).ok_or(Fault::Long(Stream::LIMIT))?;
            datagram = datagrams.next(|datagram| self.answers(datagram, next))?;
        }
    }

    /// Whether a datagram is the server's word on this call: that fragment of
    /// its response, or a refusal.
    fn answers(&self, datagram: &[u8], fragment: u16) -> bool {
        Packet::read(datagram).is_ok_and(|packet| {
            let mine = packet.id == self.id && packet.sequence == self.sequence;
            mine && match packet.kind {
                kind::RESPONSE => packet.fragment == fragment,
                kind::FAULT | kind::REJECT => true,
                _ => false,
            }
        })
    }

    fn packet(&self, kind: u8, flags: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
        const LITTLE_ENDIAN: [u8; 3] = [0x10, 0, 0];
        /// No hint where the server keeps interface and activity.
        const NO_HINT: [u8; 2] = [0xff, 0xff];
        let mut packet = vec![4, kind, flags, 0];
        packet.extend(LITTLE_ENDIAN);
        packet.push(0); // serial number, high
        packet.extend([0; 16]); // no object
        packet.extend(INTERFACE.0);
        packet.extend(self.id);
        packet.extend([0; 4]); // the server's boot time is not known
        packet.extend(VERSION.to_le_bytes());
        packet.extend(self.sequence.to_le_bytes());
        packet.extend(LOOKUP.to_le_bytes());
        packet.extend(NO_HINT);
        packet.extend(NO_HINT);
        packet.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes());
        packet.extend(fragment.to_le_bytes());
        packet.extend([0, 0]); // no authentication; serial number, low
        packet.extend(body);
        packet
    }
}

/// A packet that came.
struct Packet<'a> {
    kind: u8,
    flags: u8,
    big_endian: bool,
    id: [u8; 16],
    sequence: u32,
    fragment: u16,
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    fn read(datagram: &'a [u8]) -> Result<Self, Fault> {
        let representation = datagram.get(4).copied().unwrap_or_default();
        let big_endian = representation & 0x10 == 0;
        let mut header = Ndr::new(datagram, big_endian);
        if header.u8("a version")? != 4 {
            return Err(header.malformed("version 4"));
        }
        let kind = header.u8("a kind")?;
        let flags = header.u8("flags")?;
        header.bytes(37, "a header")?;
        // In the sender's byte order; what is compared is what was sent.
        let id = header.guid("an activity")?.0;
        header.bytes(8, "a header")?;
        let sequence = header.u32("a sequence number")?;
        header.bytes(6, "a header")?;
        let length = header.u16("a length")?;
        let fragment = header.u16("a fragment")?;
        header.bytes(2, "a header")?;
        Ok(Self {
            kind,
            flags,
            big_endian,
            id,
            sequence,
            fragment,
            body: header.bytes(length.into(), "a body")?,
        })
    }

    fn body(&self) -> Ndr<'a> {
        Ndr::new(self.body, self.big_endian)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_as_it_was_written() {
        let call = Call {
            id: nonce(),
            sequence: 7,
        };
        let bytes = call.packet(kind::RESPONSE, flag::FRAGMENT, 3, b"body");
        assert_eq!(bytes.len(), 80 + 4);
        assert!(call.answers(&bytes, 3));
        assert!(!call.answers(&bytes, 4));
        let other = Call {
            sequence: 8,
            ..call
        };
        assert!(!other.answers(&bytes, 3));
        assert_eq!(Packet::read(&bytes).unwrap().body, b"body");
        for length in 0..bytes.len() {
            assert!(Packet::read(&bytes[..length]).is_err());
        }
    }
}
