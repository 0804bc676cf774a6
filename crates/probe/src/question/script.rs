//! The other side of a conversation, written down beforehand.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::{Transport, Wire};

/// Replies that come whatever is sent, for tests and fuzzers. Clones share one
/// conversation, so a test keeps one to look at what was [`sent`](Self::sent).
#[derive(Debug, Clone)]
pub struct Script {
    shared: Arc<Mutex<State>>,
    silent: bool,
}

#[derive(Debug, Default)]
struct State {
    replies: VecDeque<Vec<u8>>,
    sent: Vec<u8>,
    /// The last datagram sent.
    last: Vec<u8>,
    echoes: Vec<(Range<usize>, usize)>,
}

impl Script {
    /// Each piece is one read or one datagram; after the last one the
    /// connection is closed (a datagram socket stays silent).
    pub fn of(pieces: &[&[u8]]) -> Self {
        let replies = pieces.iter().map(|piece| piece.to_vec()).collect();
        Self {
            shared: Arc::new(Mutex::new(State {
                replies,
                ..State::default()
            })),
            silent: false,
        }
    }

    /// The same, but after the last piece nothing comes until time is up (which
    /// it is at once).
    pub fn silent(pieces: &[&[u8]]) -> Self {
        Self {
            silent: true,
            ..Self::of(pieces)
        }
    }

    /// Copies that part of the last datagram sent into each one received, at
    /// `at`, as a server does with an identifier.
    pub fn echoing(self, part: Range<usize>, at: usize) -> Self {
        self.state().echoes.push((part, at));
        self
    }

    /// Everything that was sent so far.
    pub fn sent(&self) -> Vec<u8> {
        self.state().sent.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `buffer.len()` bytes of the next piece; the rest of it stays.
    fn take(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut state = self.state();
        // An empty piece would look like the end of the connection.
        while state.replies.front().is_some_and(Vec::is_empty) {
            state.replies.pop_front();
        }
        let piece = state.replies.front_mut()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        piece.drain(..length);
        Some(length)
    }
}

impl Transport for Script {
    fn read(&mut self, buffer: &mut [u8], _wait: Duration) -> io::Result<usize> {
        match self.take(buffer) {
            Some(length) => Ok(length),
            None if self.silent => Err(io::ErrorKind::TimedOut.into()),
            None => Ok(0),
        }
    }

    fn write(&mut self, bytes: &[u8], _wait: Duration) -> io::Result<usize> {
        self.state().sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl Wire for Script {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.sent.extend_from_slice(datagram);
        state.last = datagram.to_vec();
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], _wait: Duration) -> io::Result<usize> {
        let mut state = self.state();
        let mut piece = state.replies.pop_front().ok_or(io::ErrorKind::TimedOut)?;
        for (part, at) in &state.echoes {
            let to = piece.get_mut(*at..at.saturating_add(part.len()));
            if let (Some(to), Some(from)) = (to, state.last.get(part.clone())) {
                to.copy_from_slice(from);
            }
        }
        // Like a socket: what does not fit is lost.
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        Ok(length)
    }
}
