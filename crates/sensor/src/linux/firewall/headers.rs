//! The packet's headers, as far as they are known before it is sent.

use std::net::IpAddr;

use event::Protocol;

use super::rule::REGISTERS;
use super::{Leg, Packet};

/// Flags of TCP (RFC 9293 section 3.1).
const SYN: u8 = 2;
const ACK: u8 = 16;

/// The packet's headers, each byte known or not.
pub(super) struct Headers {
    network: Vec<Option<u8>>,
    transport: Vec<Option<u8>>,
    v4: bool,
    protocol: Protocol,
}

impl Headers {
    pub(super) fn of(packet: &Packet, leg: Leg) -> Self {
        let (source, destination) = match leg {
            Leg::Question => (packet.source, packet.destination),
            Leg::Answer => (packet.destination, packet.source),
        };
        let known = |bytes: &[u8]| bytes.iter().copied().map(Some).collect::<Vec<_>>();
        let number = number_of(packet.protocol);
        let network = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![None; 12];
                header[0] = Some(0x45);
                header[9] = Some(number);
                header.extend(known(&source.octets()));
                header.extend(known(&destination.octets()));
                header
            }
            (source, destination) => {
                let octets = |address| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                let mut header = vec![None; 8];
                header[6] = Some(number);
                header.extend(known(&octets(source)));
                header.extend(known(&octets(destination)));
                header
            }
        };
        // The other port is the kernel's choice.
        let (port, chosen) = (known(&packet.port.to_be_bytes()), vec![None; 2]);
        let (mut transport, flags) = match leg {
            Leg::Question => ([chosen, port].concat(), SYN),
            Leg::Answer => ([port, chosen].concat(), SYN | ACK),
        };
        if packet.protocol == Protocol::Tcp {
            transport.resize(13, None);
            transport.push(Some(flags));
        }
        Self {
            network,
            transport,
            v4: packet.destination.is_ipv4(),
            protocol: packet.protocol,
        }
    }

    /// A part of a header: its name and its bytes.
    pub(super) fn part(
        &self,
        base: u32,
        offset: usize,
        length: usize,
    ) -> (String, Vec<Option<u8>>) {
        let length = length.min(REGISTERS);
        let part = |header: &[Option<u8>]| {
            (0..length)
                .map(|at| header.get(offset.checked_add(at)?).copied().flatten())
                .collect()
        };
        let ip = if self.v4 { "ip" } else { "ip6" };
        let (label, bytes) = match base {
            1 => (
                match (self.v4, offset, length) {
                    (true, 9, 1) | (false, 6, 1) => format!("{ip} protocol"),
                    (true, 12, 1..=4) | (false, 8, 1..=16) => format!("{ip} saddr"),
                    (true, 16, 1..=4) | (false, 24, 1..=16) => format!("{ip} daddr"),
                    _ => ip.to_owned(),
                },
                part(&self.network),
            ),
            2 => {
                let name = match self.protocol {
                    Protocol::Tcp => "tcp",
                    _ => "udp",
                };
                let label = match (offset, length) {
                    (0, 2) => format!("{name} sport"),
                    (2, 2) => format!("{name} dport"),
                    (13, 1) => format!("{name} flags"),
                    _ => name.to_owned(),
                };
                (label, part(&self.transport))
            }
            _ => ("payload".to_owned(), vec![None; length]),
        };
        (label, bytes)
    }
}

/// The number of a protocol in the IP header.
pub(super) fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        // It is asked of no others.
        _ => 17,
    }
}
