//! A connected datagram socket on which a question is asked.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::Fault;

/// What carries datagrams to and from one address: a connected socket, or a
/// script in a test.
pub trait Wire {
    /// Sends one datagram.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// The next datagram, waited for at most `wait` (never zero). Nothing in
    /// that time is an error of kind `TimedOut` or `WouldBlock`.
    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize>;
}

impl Wire for UdpSocket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        Self::send(self, datagram).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        self.set_read_timeout(Some(wait))?;
        self.recv(buffer)
    }
}

/// Questions and answers in datagrams, bounded in time and in number.
pub struct Datagrams<'a> {
    wire: Box<dyn Wire + 'a>,
    wait: Duration,
    deadline: Instant,
    received: usize,
}

impl<'a> Datagrams<'a> {
    /// How many datagrams a question looks at: enough for the longest paged
    /// answer, and an end for who sends without one.
    pub const LIMIT: usize = 4096;

    /// How often a request is sent while nothing is heard.
    const TRIES: u32 = 2;

    /// A conversation over `wire` that ends `wait` from now.
    pub fn new(wire: impl Wire + 'a, wait: Duration) -> Self {
        Self {
            wire: Box::new(wire),
            wait,
            deadline: Instant::now() + wait,
            received: 0,
        }
    }

    /// How long the whole conversation may take.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Sends `request` and gives the first datagram for which `answers` is
    /// true; others (late, forged, of another question) are passed over. While
    /// nothing is heard the request is sent again halfway to the deadline.
    pub fn exchange(
        &mut self,
        request: &[u8],
        answers: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Fault> {
        for left in (0..Self::TRIES).rev() {
            self.wire.send(request)?;
            match self.receive(self.remaining() / (left + 1), &answers) {
                Err(Fault::Silent(_)) if left > 0 => {}
                result => return result,
            }
        }
        Err(Fault::Silent(self.wait))
    }

    /// The next datagram for which `answers` is true, without asking again.
    pub fn next(&mut self, answers: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, Fault> {
        self.receive(self.remaining(), &answers)
    }

    /// Sends a datagram to which no answer is awaited.
    pub fn send(&mut self, datagram: &[u8]) -> Result<(), Fault> {
        Ok(self.wire.send(datagram)?)
    }

    fn receive(
        &mut self,
        wait: Duration,
        answers: &impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Fault> {
        let until = Instant::now() + wait;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            // A socket takes a wait of zero for no limit, and counts in microseconds.
            if wait < Duration::from_micros(1) {
                return Err(Fault::Silent(self.wait));
            }
            if self.received >= Self::LIMIT {
                return Err(Fault::Long(self.received));
            }
            match self.wire.receive(&mut buffer, wait) {
                Ok(length) => {
                    self.received += 1;
                    if answers(&buffer[..length]) {
                        buffer.truncate(length);
                        return Ok(buffer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
                    ) =>
                {
                    return Err(Fault::Silent(self.wait));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Script;

    #[test]
    fn passes_over_what_does_not_answer() {
        let script = Script::of(&[b"other", b"mine"]);
        let mut datagrams = Datagrams::new(script.clone(), Duration::from_secs(5));
        let answer = datagrams
            .exchange(b"question", |datagram| datagram.starts_with(b"mine"))
            .unwrap();
        assert_eq!(answer, b"mine");
        assert_eq!(script.sent(), b"question");
    }

    #[test]
    fn asks_again_once() {
        let script = Script::silent(&[]);
        let mut datagrams = Datagrams::new(script.clone(), Duration::from_secs(5));
        let fault = datagrams.exchange(b"q", |_| true).unwrap_err();
        assert!(matches!(fault, Fault::Silent(_)));
        assert_eq!(script.sent(), b"qq");
    }

    #[test]
    fn a_flood_comes_to_an_end() {
        let pieces: Vec<&[u8]> = vec![b"x"; Datagrams::LIMIT + 1];
        let mut datagrams = Datagrams::new(Script::of(&pieces), Duration::from_mins(1));
        assert!(matches!(
            datagrams.exchange(b"q", |_| false),
            Err(Fault::Long(_))
        ));
    }
}
