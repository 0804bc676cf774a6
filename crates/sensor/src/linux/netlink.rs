//! Netlink, as far as dumps need it: a bounds-checked reader of messages,
//! and a socket that asks one question and hands over the parts
//! of the answer.
//!
//! The format (`netlink(7)`): a datagram holds messages, each a header of 16
//! bytes (length, type, flags, sequence number, port) and a payload, each
//! padded to 4 bytes; a payload may end in attributes (length, type, value,
//! padded likewise). Numbers are in the byte order of the machine.
//!
//! Nothing here knows what the payloads mean. Readers take bytes and give
//! parts of them, so that a test or a fuzzer can play the kernel.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::Error;

/// An answer ends with this message (`NLMSG_DONE`).
const DONE: u16 = 3;
/// The question failed (`NLMSG_ERROR`).
const ERROR: u16 = 2;
/// The table changed while it was read (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH`.
const REQUEST_DUMP: u16 = 0x301;
/// The header of a message.
const HEADER: usize = 16;
/// The kernel fills at most 32 KiB at a time today.
const BUFFER: usize = 256 * 1024;

/// Reads numbers and slices from bytes, never beyond their end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_ne_bytes)
    }

    /// The next 16 bits, in the machine's byte order.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    /// The next 16 bits, in network byte order.
    pub(crate) fn u16_be(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next 32 bits, in the machine's byte order.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Skips the padding after something of `length` bytes; missing padding at
    /// the very end is not an error.
    fn skip_padding(&mut self, length: usize) {
        let padding = length.next_multiple_of(4) - length;
        self.rest = self.rest.get(padding..).unwrap_or_default();
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Its type.
    pub(crate) kind: u16,
    /// Its flags.
    pub(crate) flags: u16,
    /// The number of the question that it answers.
    pub(crate) sequence: u32,
    /// What it carries.
    pub(crate) payload: &'a [u8],
}

/// Reads the next message; none at the end of the datagram, an error if what
/// is left is not a message.
pub(crate) fn next_message<'a>(reader: &mut Reader<'a>) -> Result<Option<Message<'a>>, Malformed> {
    if reader.rest().is_empty() {
        return Ok(None);
    }
    let mut read = || {
        let length = usize::try_from(reader.u32()?).ok()?;
        let kind = reader.u16()?;
        let flags = reader.u16()?;
        let sequence = reader.u32()?;
        let _port = reader.u32()?;
        let payload = reader.take(length.checked_sub(HEADER)?)?;
        reader.skip_padding(length);
        Some(Message {
            kind,
            flags,
            sequence,
            payload,
        })
    };
    read().map(Some).ok_or(Malformed)
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What one datagram says about the answer as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The answer is complete.
    pub(crate) done: bool,
    /// The table changed while it was read: the answer may lack or double some.
    pub(crate) interrupted: bool,
}

/// Why a datagram cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The kernel's answer is this error.
    Kernel(i32),
    /// The bytes are not netlink.
    Malformed,
}

/// Reads the datagram, calling `each` with the payload of every message of
/// the type `kind` that answers the question `sequence`.
pub(crate) fn read_datagram(
    bytes: &[u8],
    kind: u16,
    sequence: u32,
    mut each: impl FnMut(&[u8]),
) -> Result<Progress, Refusal> {
    let mut reader = Reader::new(bytes);
    let mut progress = Progress {
        done: false,
        interrupted: false,
    };
    while let Some(message) = next_message(&mut reader).map_err(|Malformed| Refusal::Malformed)? {
        if message.sequence != sequence {
            continue;
        }
        progress.interrupted |= message.flags & DUMP_INTERRUPTED != 0;
        if message.kind == kind {
            each(message.payload);
        } else if message.kind == ERROR || message.kind == DONE {
            // Both carry an errno, negative; a bare DONE carries nothing.
            let code = Reader::new(message.payload).array().map(i32::from_ne_bytes);
            match code {
                Some(code) if code < 0 => return Err(Refusal::Kernel(code.saturating_neg())),
                None if message.kind == ERROR => return Err(Refusal::Malformed),
                _ => progress.done = true,
            }
        }
    }
    Ok(progress)
}

/// Makes a request for a dump: a header and `body`.
pub(crate) fn encode_request(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&sequence.to_ne_bytes());
    request.extend_from_slice(&0_u32.to_ne_bytes());
    request.extend_from_slice(body);
    request
}

/// A netlink socket that asks for dumps. It looks at the network namespace in
/// which it was opened.
pub(crate) struct Connection {
    /// Whom it asks, for messages.
    of: &'static str,
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Connection {
    /// Opens a socket of the `NETLINK_SOCK_DIAG` family in the network
    /// namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::to(netlink::SOCK_DIAG, "sock_diag")
    }

    /// The same of the `NETLINK_NETFILTER` family.
    pub(crate) fn open_netfilter() -> Result<Self, Error> {
        Self::to(netlink::NETFILTER, "netfilter")
    }

    fn to(family: rustix::net::Protocol, of: &'static str) -> Result<Self, Error> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(family),
        )
        .map_err(|errno| system(format!("cannot open a {of} socket"), errno))?;
        Ok(Self {
            of,
            socket,
            buffer: vec![0; BUFFER],
            sequence: 0,
        })
    }

    /// Asks for a dump and calls `each` with the payload of every message of
    /// the type `kind`. Says whether the table changed meanwhile.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        each: impl FnMut(&[u8]),
    ) -> Result<bool, Error> {
        self.ask(kind, kind, body, each)
    }

    /// The same where the answer's type is another than the question's.
    pub(crate) fn ask(
        &mut self,
        question: u16,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<bool, Error> {
        let of = self.of;
        self.sequence = self.sequence.wrapping_add(1);
        let request = encode_request(question, self.sequence, body);
        retry(|| send(&self.socket, &request, SendFlags::empty()))
            .map_err(|errno| system(format!("cannot ask {of}"), errno))?;
        let mut interrupted = false;
        loop {
            let (filled, length) =
                retry(|| recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC))
                    .map_err(|errno| system(format!("cannot read from {of}"), errno))?;
            let bytes = self.buffer.get(..filled).unwrap_or_default();
            if length > filled || bytes.is_empty() {
                return Err(Error::Protocol {
                    what: of.to_owned(),
                });
            }
            match read_datagram(bytes, kind, self.sequence, &mut each) {
                Ok(progress) => {
                    interrupted |= progress.interrupted;
                    if progress.done {
                        return Ok(interrupted);
                    }
                }
                Err(Refusal::Kernel(code)) => {
                    return Err(system(
                        format!("{of} refuses to dump"),
                        Errno::from_raw_os_error(code),
                    ));
                }
                Err(Refusal::Malformed) => {
                    return Err(Error::Protocol {
                        what: of.to_owned(),
                    });
                }
            }
        }
    }
}

fn system(what: String, errno: Errno) -> Error {
    Error::System {
        what,
        source: errno.into(),
    }
}

/// Repeats a call that a signal interrupts.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = encode_request(kind, sequence, payload);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn reads_the_parts_of_an_answer() {
        let mut bytes = message(20, 2, 7, b"abcde");
        bytes.extend(message(20, 2 | DUMP_INTERRUPTED, 7, b"fg"));
        bytes.extend(message(20, 2, 6, b"of another question"));
        let mut seen = Vec::new();
        let progress = read_datagram(&bytes, 20, 7, |payload| seen.push(payload.to_vec()));
        assert_eq!(
            progress,
            Ok(Progress {
                done: false,
                interrupted: true
            })
        );
        assert_eq!(seen, [b"abcde".to_vec(), b"fg".to_vec()]);
        let done = message(DONE, 2, 7, &0_i32.to_ne_bytes());
        assert!(read_datagram(&done, 20, 7, |_| ()).unwrap().done);
    }

    #[test]
    fn an_error_is_an_error_even_at_the_end() {
        for kind in [ERROR, DONE] {
            let bytes = message(kind, 0, 1, &(-2_i32).to_ne_bytes());
            assert_eq!(
                read_datagram(&bytes, 20, 1, |_| ()),
                Err(Refusal::Kernel(2))
            );
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for length in [0_u32, 15, 17, u32::MAX] {
            let mut bytes = message(20, 0, 1, b"");
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(
                read_datagram(&bytes, 20, 1, |_| ()),
                Err(Refusal::Malformed),
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind in 4_u16.., sequence: u32, body in proptest::collection::vec(any::<u8>(), 0..99)) {
            let bytes = encode_request(kind, sequence, &body);
            let mut seen = Vec::new();
            read_datagram(&bytes, kind, sequence, |payload| seen.push(payload.to_vec())).unwrap();
            prop_assert_eq!(seen, [body]);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = read_datagram(&bytes, 20, 0, |payload| assert!(payload.len() <= bytes.len()));
        }
    }
}
