//! Rules as netlink has them: nested attributes, read without trust.
//!
//! Numbers of attributes, keys and verdicts are those of
//! `linux/netfilter/nf_tables.h`. All numbers of attributes are big-endian;
//! what stands in registers is as the packet or the kernel has it.

use super::super::netlink::Reader;

/// The bytes of all registers: 16 of 4 bytes each.
pub(super) const REGISTERS: usize = 64;

/// Attributes of `bytes`: type and value, up to the first that is malformed.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        let length = usize::from(reader.u16()?);
        // The two highest bits say "nested" and "big-endian".
        let kind = reader.u16()? & 0x3fff;
        let value = reader.take(length.checked_sub(4)?)?;
        let padding = length.next_multiple_of(4) - length;
        // The last one may go without padding.
        let _ = reader.take(padding.min(reader.rest().len()));
        Some((kind, value))
    })
}

/// The value of the attribute `wanted`.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// A number of four bytes.
pub(super) fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    let value = attribute(bytes, wanted)?;
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// A number of eight bytes.
pub(super) fn long(bytes: &[u8], wanted: u16) -> Option<u64> {
    let value = attribute(bytes, wanted)?;
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// A text that ends in a zero.
pub(super) fn text(bytes: &[u8], wanted: u16) -> Option<String> {
    let value = attribute(bytes, wanted)?;
    let value = value.split(|byte| *byte == 0).next()?;
    Some(event::text::from_bytes(value))
}

/// A rule of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) handle: u64,
    pub(super) comment: Option<String>,
    pub(super) expressions: Vec<Expression>,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads something about the packet.
    Meta { to: usize, key: u32 },
    /// Loads a part of the packet.
    Payload {
        to: usize,
        base: u32,
        offset: usize,
        length: usize,
    },
    /// Loads the state of the connection (`ct state`).
    ConnectionState { to: usize },
    /// `to = from & mask ^ xor`.
    Bitwise {
        from: usize,
        to: usize,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Goes on only if the comparison holds.
    Compare {
        from: usize,
        operator: u32,
        value: Vec<u8>,
    },
    /// Goes on only if the value lies between (or, inverted, outside).
    Range {
        from: usize,
        inverted: bool,
        low: Vec<u8>,
        high: Vec<u8>,
    },
    /// Goes on only if the set has the value (or, inverted, has not). With
    /// `verdict` what the map gives is carried out.
    Lookup {
        set: String,
        from: usize,
        inverted: bool,
        verdict: bool,
    },
    /// `xt` matches of TCP and UDP: destination ports, possibly inverted. Only
    /// when nothing else is asked of the packet.
    Ports { low: u16, high: u16, inverted: bool },
    /// A verdict.
    Verdict(Verdict),
    /// Refuses the packet.
    Reject,
    /// Counts packets.
    Counter { packets: u64 },
    /// Neither looks at the packet nor decides: a log, a comment.
    Idle(&'static str),
    /// Loads something unknown here into a register.
    Unknown { name: String, to: Option<usize> },
}

/// What is to become of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop,
    Accept,
    Queue,
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

impl Rule {
    /// Reads the attributes of an `NFT_MSG_NEWRULE`.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let list = attribute(bytes, 4).unwrap_or_default();
        Self {
            handle: long(bytes, 3).unwrap_or_default(),
            comment: attribute(bytes, 7).and_then(comment),
            expressions: attributes(list)
                .map(|(_, element)| Expression::decode(element))
                .collect(),
        }
    }
}

/// User data: type, length, value; type 0 is the comment.
fn comment(bytes: &[u8]) -> Option<String> {
    let mut reader = Reader::new(bytes);
    loop {
        let kind = reader.u8()?;
        let length = reader.u8()?;
        let value = reader.take(length.into())?;
        if kind == 0 {
            let value = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(event::text::from_bytes(value));
        }
    }
}

impl Expression {
    fn decode(element: &[u8]) -> Self {
        let name = text(element, 1).unwrap_or_default();
        let data = attribute(element, 2).unwrap_or_default();
        Self::known(&name, data).unwrap_or_else(|| Self::Unknown {
            // Those that load have their register first.
            to: match name.as_str() {
                "meta" | "payload" | "ct" | "fib" | "rt" | "hash" | "numgen" | "exthdr" | "osf"
                | "socket" | "tunnel" | "xfrm" => register(data, 1),
                "bitwise" | "byteorder" => register(data, 2),
                "lookup" => register(data, 3),
                _ => None,
            },
            name,
        })
    }

    fn known(name: &str, data: &[u8]) -> Option<Self> {
        Some(match name {
            "meta" => Self::Meta {
                to: register(data, 1)?,
                key: number(data, 2)?,
            },
            "payload" => Self::Payload {
                to: register(data, 1)?,
                base: number(data, 2)?,
                offset: usize::try_from(number(data, 3)?).ok()?,
                length: usize::try_from(number(data, 4)?).ok()?,
            },
            "ct" if number(data, 2)? == 0 => Self::ConnectionState {
                to: register(data, 1)?,
            },
            // The other operations are shifts.
            "bitwise" if number(data, 6).unwrap_or(0) == 0 => Self::Bitwise {
                from: register(data, 1)?,
                to: register(data, 2)?,
                mask: value(attribute(data, 4)?)?,
                xor: value(attribute(data, 5)?)?,
            },
            "cmp" => Self::Compare {
                from: register(data, 1)?,
                operator: number(data, 2)?,
                value: value(attribute(data, 3)?)?,
            },
            "range" => Self::Range {
                from: register(data, 1)?,
                inverted: number(data, 2)? == 1,
                low: value(attribute(data, 3)?)?,
                high: value(attribute(data, 4)?)?,
            },
            "lookup" => {
                // A map gives a value, which is a verdict in register 0.
                let to = attribute(data, 3).map(|_| number(data, 3));
                let verdict = match to {
                    None => false,
                    Some(Some(0)) => true,
                    Some(_) => return None,
                };
                Self::Lookup {
                    set: text(data, 1)?,
                    from: register(data, 2)?,
                    inverted: number(data, 5).unwrap_or(0) & 1 != 0,
                    verdict,
                }
            }
            "immediate" => match number(data, 1)? {
                0 => Self::Verdict(Verdict::decode(attribute(attribute(data, 2)?, 2)?)?),
                // A constant for an address translation: no condition.
                _ => Self::Idle("immediate"),
            },
            "queue" => Self::Verdict(Verdict::Queue),
            "reject" => Self::Reject,
            "counter" => Self::Counter {
                packets: long(data, 2)?,
            },
            "log" => Self::Idle("log"),
            "notrack" => Self::Idle("notrack"),
            "last" => Self::Idle("last"),
            "match" => ports(&text(data, 1)?, attribute(data, 3)?)?,
            "target" => match text(data, 1)?.as_str() {
                "REJECT" => Self::Reject,
                "LOG" | "NFLOG" | "TRACE" => Self::Idle("log"),
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// `xt_tcp` and `xt_udp` (`linux/netfilter/xt_tcpudp.h`), when they ask for
/// nothing but destination ports.
fn ports(name: &str, info: &[u8]) -> Option<Expression> {
    let mut reader = Reader::new(info);
    if name == "comment" {
        return Some(Expression::Idle("comment"));
    }
    let source = (reader.u16()?, reader.u16()?);
    let (low, high) = (reader.u16()?, reader.u16()?);
    let inverted = match name {
        "udp" => reader.u8()?,
        "tcp" => {
            let (option, mask, _flags) = (reader.u8()?, reader.u8()?, reader.u8()?);
            if (option, mask) != (0, 0) {
                return None;
            }
            reader.u8()?
        }
        _ => return None,
    };
    // Bit 0 inverts the source ports, bit 1 the destination ports.
    (source == (0, u16::MAX) && inverted & !2 == 0).then_some(Expression::Ports {
        low,
        high,
        inverted: inverted & 2 != 0,
    })
}

impl Verdict {
    /// Reads what is inside `NFTA_DATA_VERDICT`.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let code = number(bytes, 1)?.cast_signed();
        let chain = || text(bytes, 2);
        Some(match code {
            -1 | -2 => Self::Continue,
            -3 => Self::Jump(chain()?),
            -4 => Self::Goto(chain()?),
            -5 => Self::Return,
            // The higher bits hold the number of a queue or an error.
            _ => match code & 0xff {
                0 => Self::Drop,
                1 => Self::Accept,
                3 => Self::Queue,
                _ => return None,
            },
        })
    }
}

/// The place of a register among the bytes of all registers.
fn register(data: &[u8], wanted: u16) -> Option<usize> {
    let place = match number(data, wanted)? {
        number @ 1..=4 => (number - 1) * 16,
        number @ 8..=23 => (number - 8) * 4,
        _ => return None,
    };
    usize::try_from(place).ok()
}

/// What is inside `NFTA_DATA_VALUE`; longer than all registers is no value.
pub(super) fn value(data: &[u8]) -> Option<Vec<u8>> {
    let value = attribute(data, 1)?;
    (value.len() <= REGISTERS).then(|| value.to_vec())
}
