//! Bytes of a fuzzer as the replies of a server, in pieces: each has its length
//! in two bytes before it, the higher first; the last one may be cut off.

use std::net::SocketAddr;
use std::time::Duration;

use event::Protocol;
use probe::question::{self, Asked, Script};
use probe::{Datagrams, Stream};

/// Puts the question of that name over each protocol to a script of the pieces,
/// which `prepare` may change.
pub fn ask(name: &str, bytes: &[u8], prepare: impl Fn(Script) -> Script) {
    let pieces = split(bytes);
    let asked = Asked {
        host: "host.example",
        address: SocketAddr::from(([192, 0, 2, 1], 9)),
        community: "public",
        secret: question::DEFAULT_SECRET,
    };
    let wait = Duration::from_secs(60);
    if let Some(question) = question::find(name, Protocol::Udp) {
        let script = prepare(Script::of(&pieces));
        let _ = question.ask_datagrams(&asked, &mut Datagrams::new(script, wait));
    }
    if let Some(question) = question::find(name, Protocol::Tcp) {
        let script = Script::of(&pieces);
        let _ = question.ask_stream(&asked, &mut Stream::new(script, wait));
    }
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
