//! Packets of a `NetBIOS` session (RFC 1002 §4.3). SMB without `NetBIOS` keeps the
//! same four bytes before each message (MS-SMB2 §2.1).

use super::super::netbios;
use crate::{Fault, Stream};

/// The types of packet.
mod kind {
    pub(super) const MESSAGE: u8 = 0x00;
    pub(super) const REQUEST: u8 = 0x81;
    pub(super) const POSITIVE: u8 = 0x82;
    pub(super) const NEGATIVE: u8 = 0x83;
    pub(super) const RETARGET: u8 = 0x84;
    pub(super) const KEEP_ALIVE: u8 = 0x85;
}

/// What a packet may hold. An agreement has some hundred bytes.
const MESSAGE: usize = 128 << 10;

/// Asks for a session with whatever file server there is, by the name that
/// stands for it. Some words if it is refused.
pub(super) fn open(stream: &mut Stream<'_>) -> Result<Option<String>, Fault> {
    let mut names = netbios::encoded(b"*SMBSERVER      ");
    names.extend(netbios::encoded(b"PORTREPORTER   \0"));
    stream.send(&packet(kind::REQUEST, &names))?;
    let (kind, body) = take_packet(stream)?;
    match kind {
        kind::POSITIVE => Ok(None),
        kind::NEGATIVE => Ok(Some(refusal(body.first().copied()))),
        kind::RETARGET => Ok(Some("the session is served elsewhere".to_owned())),
        _ => Err(Fault::Malformed {
            what: "an answer to a session request",
            at: 0,
        }),
    }
}

fn refusal(code: Option<u8>) -> String {
    match code {
        Some(0x80) => "not listening on called name".to_owned(),
        Some(0x81) => "not listening for calling name".to_owned(),
        Some(0x82) => "called name not present".to_owned(),
        Some(0x83) => "insufficient resources".to_owned(),
        Some(code) => format!("session refused with code {code:#04x}"),
        None => "session refused".to_owned(),
    }
}

/// Sends a message.
pub(super) fn send(stream: &mut Stream<'_>, message: &[u8]) -> Result<(), Fault> {
    stream.send(&packet(kind::MESSAGE, message))
}

/// The next message.
pub(super) fn take(stream: &mut Stream<'_>) -> Result<Vec<u8>, Fault> {
    loop {
        match take_packet(stream)? {
            (kind::MESSAGE, message) => return Ok(message),
            (kind::KEEP_ALIVE, _) => {}
            _ => {
                return Err(Fault::Malformed {
                    what: "a session message",
                    at: 0,
                });
            }
        }
    }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind, high, middle, low], body].concat()
}

fn take_packet(stream: &mut Stream<'_>) -> Result<(u8, Vec<u8>), Fault> {
    let header = stream.exact(4)?;
    let length = header[1..]
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MESSAGE {
        return Err(Fault::Long(MESSAGE));
    }
    Ok((header[0], stream.exact(length)?))
}
