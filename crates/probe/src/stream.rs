//! A connection on which a question is asked: bounded in time and in size.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Fault;

/// What carries bytes in both directions: a socket, or a script in a test.
pub trait Transport {
    /// Reads what is there, and waits for it at most `wait` (never zero). 0 is
    /// the end; nothing in that time is an error of kind `TimedOut` or
    /// `WouldBlock`.
    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize>;

    /// Writes what fits, and waits for room at most `wait` (never zero).
    fn write(&mut self, bytes: &[u8], wait: Duration) -> io::Result<usize>;
}

impl Transport for TcpStream {
    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        self.set_read_timeout(Some(wait))?;
        Read::read(self, buffer)
    }

    fn write(&mut self, bytes: &[u8], wait: Duration) -> io::Result<usize> {
        self.set_write_timeout(Some(wait))?;
        Write::write(self, bytes)
    }
}

impl<T: Transport> Transport for &mut T {
    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        (**self).read(buffer, wait)
    }

    fn write(&mut self, bytes: &[u8], wait: Duration) -> io::Result<usize> {
        (**self).write(bytes, wait)
    }
}

/// A connection with a deadline and a budget.
///
/// It can be read as [`Read`] and written as [`Write`] as well, for libraries
/// such as TLS; deadline and budget hold for them too.
pub struct Stream<'a> {
    transport: Box<dyn Transport + 'a>,
    wait: Duration,
    deadline: Instant,
    /// How many bytes have been taken from the transport.
    received: usize,
    /// Bytes that came together with what was asked for: `taken..`.
    waiting: Vec<u8>,
    taken: usize,
    in_tls: bool,
}

impl<'a> Stream<'a> {
    /// How many bytes a question takes in at most: 1 MiB, which is several
    /// times the largest honest answer (an endpoint map, a certificate chain).
    pub const LIMIT: usize = 1 << 20;

    /// A conversation over `transport` that ends `wait` from now.
    pub fn new(transport: impl Transport + 'a, wait: Duration) -> Self {
        Self {
            transport: Box::new(transport),
            wait,
            deadline: Instant::now() + wait,
            received: 0,
            waiting: Vec::new(),
            taken: 0,
            in_tls: false,
        }
    }

    /// The same, known to run inside of TLS.
    pub fn in_tls(mut self) -> Self {
        self.in_tls = true;
        self
    }

    /// Whether it runs inside of TLS, so that changing over to it makes no sense.
    pub fn is_in_tls(&self) -> bool {
        self.in_tls
    }

    /// How long the whole conversation may take.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let wait = self.remaining()?;
            match self.transport.write(bytes, wait) {
                Ok(0) => return Err(Fault::Closed),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(self.late()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What comes next, at least one byte; empty at the end of the connection.
    pub fn some(&mut self) -> Result<Vec<u8>, Fault> {
        if self.buffered().is_empty() {
            self.fill()?;
        }
        let bytes = self.buffered().to_vec();
        self.consume(bytes.len());
        Ok(bytes)
    }

    /// Exactly the next `length` bytes.
    pub fn exact(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        if length > Self::LIMIT {
            return Err(Fault::Long(Self::LIMIT));
        }
        while self.buffered().len() < length {
            if self.fill()? == 0 {
                return Err(Fault::Closed);
            }
        }
        let bytes = self.buffered()[..length].to_vec();
        self.consume(length);
        Ok(bytes)
    }

    /// A line without its `\n` or `\r\n`, of at most `limit` bytes.
    pub fn line(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(end) = self.buffered().iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffered()[..end].to_vec();
                self.consume(end + 1);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                if line.len() > limit {
                    return Err(Fault::Long(limit));
                }
                return Ok(line);
            }
            if self.buffered().len() > limit {
                return Err(Fault::Long(limit));
            }
            if self.fill()? == 0 {
                return Err(Fault::Closed);
            }
        }
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Result<Vec<u8>, Fault> {
        while self.fill()? != 0 {}
        let bytes = self.buffered().to_vec();
        self.consume(bytes.len());
        Ok(bytes)
    }

    /// What comes next, at most as much as fits, waited for at most `patience`;
    /// 0 is the end. Nothing in that time is [`Fault::Silent`], after which the
    /// conversation can go on.
    pub fn read_within(&mut self, buffer: &mut [u8], patience: Duration) -> Result<usize, Fault> {
        if self.buffered().is_empty() {
            self.fill_within(patience)?;
        }
        let length = self.buffered().len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.buffered()[..length]);
        self.consume(length);
        Ok(length)
    }

    /// What is left of the time that the whole conversation may take.
    pub fn remaining(&self) -> Result<Duration, Fault> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // A socket takes a wait of zero for no limit, and counts in microseconds.
        if left < Duration::from_micros(1) {
            return Err(self.late());
        }
        Ok(left)
    }

    /// What has come and was not asked for yet.
    pub fn buffered(&self) -> &[u8] {
        &self.waiting[self.taken..]
    }

    fn consume(&mut self, length: usize) {
        self.taken += length;
        if self.taken == self.waiting.len() {
            self.waiting.clear();
            self.taken = 0;
        }
    }

    /// Waits for more; 0 is the end of the connection.
    fn fill(&mut self) -> Result<usize, Fault> {
        self.fill_within(Duration::MAX)
    }

    fn fill_within(&mut self, patience: Duration) -> Result<usize, Fault> {
        let mut buffer = [0; 16 << 10];
        loop {
            if self.received >= Self::LIMIT {
                return Err(Fault::Long(Self::LIMIT));
            }
            let left = self.remaining()?;
            let wait = left.min(patience.max(Duration::from_micros(1)));
            match self.transport.read(&mut buffer, wait) {
                Ok(read) => {
                    self.received += read;
                    self.waiting.extend_from_slice(&buffer[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && wait < left => {
                    return Err(Fault::Silent(patience));
                }
                Err(error) if is_timeout(&error) => return Err(self.late()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The fault that time is up.
    pub(crate) fn late(&self) -> Fault {
        if self.received == 0 {
            Fault::Silent(self.wait)
        } else {
            Fault::Slow(self.wait)
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_within(buffer, Duration::MAX)
            .map_err(io::Error::other)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Script;

    fn stream(pieces: &[&[u8]]) -> Stream<'static> {
        Stream::new(Script::of(pieces), Duration::from_secs(5))
    }

    #[test]
    fn lines_may_come_in_pieces() {
        let mut stream = stream(&[b"220 he", b"llo\r", b"\nsecond\nrest"]);
        assert_eq!(stream.line(100).unwrap(), b"220 hello");
        assert_eq!(stream.line(100).unwrap(), b"second");
        assert_eq!(stream.exact(2).unwrap(), b"re");
        assert_eq!(stream.some().unwrap(), b"st");
        assert!(stream.some().unwrap().is_empty());
        assert!(matches!(stream.line(10), Err(Fault::Closed)));
    }

    #[test]
    fn a_line_without_end_is_too_long() {
        let endless = [b'x'; 300];
        assert!(matches!(
            stream(&[&endless]).line(100),
            Err(Fault::Long(100))
        ));
        let mut complete = endless.to_vec();
        complete.push(b'\n');
        assert!(matches!(
            stream(&[&complete]).line(100),
            Err(Fault::Long(100))
        ));
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let piece = vec![0; 16 << 10];
        let pieces: Vec<&[u8]> = vec![&piece; 100];
        assert!(matches!(
            stream(&pieces).rest(),
            Err(Fault::Long(Stream::LIMIT))
        ));
        assert!(matches!(
            stream(&pieces).exact(usize::MAX),
            Err(Fault::Long(Stream::LIMIT))
        ));
    }

    #[test]
    fn silence_and_slowness_are_told_apart() {
        let mut silent = Stream::new(Script::silent(&[]), Duration::from_millis(1));
        assert!(matches!(silent.some(), Err(Fault::Silent(_))));
        let mut slow = Stream::new(Script::silent(&[b"2"]), Duration::from_secs(5));
        assert!(matches!(slow.line(10), Err(Fault::Slow(_))));
    }

    #[test]
    fn a_pause_is_not_the_end() {
        let pause = Duration::from_millis(100);
        let mut stream = Stream::new(Script::silent(&[b"220 hello\n"]), Duration::from_mins(1));
        let mut buffer = [0; 4];
        assert_eq!(stream.read_within(&mut buffer, pause).unwrap(), 4);
        assert_eq!(stream.line(10).unwrap(), b"hello");
        let fault = stream.read_within(&mut buffer, pause).unwrap_err();
        assert!(matches!(fault, Fault::Silent(waited) if waited == pause));
        assert!(stream.send(b"go on").is_ok());
    }
}
