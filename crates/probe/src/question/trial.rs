//! Questions put to a [`Script`] in tests, and the replies that would break a
//! careless reader.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Asked, Question, Script};
use crate::{Answer, Datagrams, Fault, Stream};

/// Who is asked in a trial, at that port.
pub(super) fn asked(port: u16) -> Asked<'static> {
    Asked {
        host: "host.example",
        address: SocketAddr::from(([192, 0, 2, 1], port)),
        community: "public",
        secret: super::DEFAULT_SECRET,
    }
}

/// Asks over UDP.
pub(super) fn datagrams(question: &dyn Question, script: Script) -> Result<Answer, Fault> {
    let mut datagrams = Datagrams::new(script, Duration::from_mins(1));
    question.ask_datagrams(&asked(1), &mut datagrams)
}

/// Asks over TCP.
pub(super) fn stream(question: &dyn Question, script: Script) -> Result<Answer, Fault> {
    let mut stream = Stream::new(script, Duration::from_mins(1));
    question.ask_stream(&asked(1), &mut stream)
}

/// `reply` with one byte different, for each byte and several differences:
/// counts and lengths that are too small, too large, or as large as they can be.
pub(super) fn altered(reply: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..reply.len()).flat_map(move |at| {
        [0, 1, 0x7f, 0x80, 0xc0, 0xff].map(|byte| {
            let mut reply = reply.to_vec();
            reply[at] = byte;
            reply
        })
    })
}

/// `reply` cut off at each length that is shorter than its own.
pub(super) fn cut(reply: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..reply.len()).map(|length| &reply[..length])
}
