//! A datagram socket on which a question is asked.

use std::borrow::Borrow;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::Fault;

/// What carries datagrams to and from one address: a connected socket, an
/// [`Unconnected`] one, or a script in a test.
pub trait Wire {
    /// Sends one datagram.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// The next datagram, waited for at most `wait` (never zero). Nothing in
    /// that time is an error of kind `TimedOut` or `WouldBlock`.
    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize>;
}

impl Wire for UdpSocket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        Wire::send(&mut &*self, datagram)
    }

    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        Wire::receive(&mut &*self, buffer, wait)
    }
}

/// Whoever wants to know afterwards what the socket was told keeps it.
impl Wire for &UdpSocket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        UdpSocket::send(self, datagram).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        self.set_read_timeout(Some(wait))?;
        self.recv(buffer)
    }
}

/// A socket for services that answer from another port than the one they were
/// asked on, as TFTP does; a connected socket would never see such an answer.
///
/// It takes datagrams of the address that was asked, from any of its ports.
/// What is sent goes to the port that was heard last, so that a conversation
/// stays with the port that the service moved it to. Being unconnected it is
/// not told that a port is unreachable: find that out on a connected one first.
#[derive(Debug)]
pub struct Unconnected<S = UdpSocket> {
    socket: S,
    peer: SocketAddr,
}

impl<S: Borrow<UdpSocket>> Unconnected<S> {
    /// Asks `address` through `socket`, which is bound and not connected.
    pub fn new(socket: S, address: SocketAddr) -> Self {
        Self {
            socket,
            peer: address,
        }
    }
}

impl<S: Borrow<UdpSocket>> Wire for Unconnected<S> {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let socket = self.socket.borrow();
        socket.send_to(datagram, self.peer).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        let socket = self.socket.borrow();
        socket.set_read_timeout(Some(wait))?;
        let (length, sender) = socket.recv_from(buffer)?;
        if sender.ip().to_canonical() != self.peer.ip().to_canonical() {
            // `Datagrams` comes again with the time that is left.
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.peer = sender;
        Ok(length)
    }
}

/// Questions and answers in datagrams, bounded in time and in number.
pub struct Datagrams<'a> {
    wire: Box<dyn Wire + 'a>,
    wait: Duration,
    deadline: Instant,
    received: usize,
    /// How long the first answer took.
    round_trip: Duration,
}

impl<'a> Datagrams<'a> {
    /// How many datagrams a question looks at: enough for the longest paged
    /// answer, and an end for who sends without one.
    pub const LIMIT: usize = 4096;

    /// How often a request is sent while nothing is heard: it or its answer may
    /// be lost, and then one of the two again.
    const TRIES: usize = 3;

    /// How many times as long as the first answer took a further one may take.
    const PATIENCE: u32 = 8;

    /// The time that a further answer has at least.
    const MOMENT: Duration = Duration::from_millis(250);

    /// A conversation over `wire` that ends `wait` from now.
    pub fn new(wire: impl Wire + 'a, wait: Duration) -> Self {
        Self {
            wire: Box::new(wire),
            wait,
            deadline: Instant::now() + wait,
            received: 0,
            round_trip: wait,
        }
    }

    /// How long the whole conversation may take.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether any datagram has come, of whatever kind.
    pub fn has_heard(&self) -> bool {
        self.received > 0
    }

    /// Sends `request` and gives the first datagram for which `answers` is
    /// true; others (late, forged, of another question) are passed over. While
    /// nothing is heard the request is sent again, twice, evenly over the time.
    pub fn exchange(
        &mut self,
        request: &[u8],
        answers: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Fault> {
        self.exchange_any(&[request; Self::TRIES], answers)
    }

    /// The same with several requests of which any may be answered, such as one
    /// for each version of a protocol. They are sent one after the other, evenly
    /// over the time that is left, until something answers.
    pub fn exchange_any(
        &mut self,
        requests: &[&[u8]],
        answers: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Fault> {
        let begin = Instant::now();
        for (request, left) in requests.iter().zip((1..=requests.len()).rev()) {
            self.wire.send(request)?;
            let share = self.remaining() / u32::try_from(left).unwrap_or(u32::MAX);
            match self.receive(share, &answers) {
                Err(Fault::Silent(_)) if left > 1 => {}
                result => {
                    self.round_trip = begin.elapsed();
                    return result;
                }
            }
        }
        Err(Fault::Silent(self.wait))
    }

    /// Asks one thing more of a service that has answered before. Many are
    /// configured not to answer such a thing, so this is sent once and waited
    /// for only as long as the first answer makes one expect.
    pub fn ask_more(
        &mut self,
        request: &[u8],
        answers: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Fault> {
        self.wire.send(request)?;
        self.more(answers)
    }

    /// The next datagram of such an answer, waited for as long.
    pub fn more(&mut self, answers: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, Fault> {
        let patience = self.round_trip.saturating_mul(Self::PATIENCE);
        let patience = patience.max(Self::MOMENT);
        self.receive(self.remaining().min(patience), &answers)
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
    fn asks_three_times() {
        let script = Script::silent(&[]);
        let mut datagrams = Datagrams::new(script.clone(), Duration::from_secs(5));
        let fault = datagrams.exchange(b"q", |_| true).unwrap_err();
        assert!(matches!(fault, Fault::Silent(_)));
        assert_eq!(script.sent(), b"qqq");
    }

    #[test]
    fn asks_in_turn_until_something_answers() {
        let script = Script::silent(&[]);
        let mut datagrams = Datagrams::new(script.clone(), Duration::from_secs(5));
        let fault = datagrams.exchange_any(&[b"1", b"2", b"3"], |_| true);
        assert!(matches!(fault, Err(Fault::Silent(_))));
        assert_eq!(script.sent(), b"123");
    }

    #[test]
    fn asks_one_thing_more_only_once() {
        let script = Script::of(&[b"first"]);
        let mut datagrams = Datagrams::new(script.clone(), Duration::from_secs(5));
        datagrams.exchange(b"a", |_| true).unwrap();
        let fault = datagrams.ask_more(b"b", |_| true);
        assert!(matches!(fault, Err(Fault::Silent(_))));
        assert_eq!(script.sent(), b"ab");
    }

    #[test]
    fn an_answer_may_come_from_another_port() {
        let asked = UdpSocket::bind("127.0.0.1:0").unwrap();
        let answering = UdpSocket::bind("127.0.0.1:0").unwrap();
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        stranger.send_to(b"forged", ("127.0.0.1", port)).unwrap();
        answering.send_to(b"answer", ("127.0.0.1", port)).unwrap();

        let wire = Unconnected::new(socket, asked.local_addr().unwrap());
        let mut datagrams = Datagrams::new(wire, Duration::from_mins(1));
        assert_eq!(
            datagrams.exchange(b"question", |_| true).unwrap(),
            b"answer"
        );
        datagrams.send(b"thanks").unwrap();

        let mut buffer = [0; 16];
        let length = asked.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"question");
        let length = answering.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"thanks");
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
