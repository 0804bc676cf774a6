//! Begins with a port: opens its socket, and sends the first packet.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use event::Protocol;

use super::conclude::why;
use super::{Engine, Task};
use crate::Port;
use crate::scan::ScanError;
use crate::scan::interview::{Interview, Line};
use crate::system::{self, Begun, ProbeSocket};
use crate::verdict::Reason;

/// What of a rate may be caught up with in one go.
const CATCH_UP: Duration = Duration::from_millis(20);
/// How often one port is asked again because the socket met itself.
const OWN_PEERS: u32 = 16;

/// Why a port could not be asked just now.
pub(super) enum Hindrance {
    /// Some descriptor or port has to become free.
    Later(io::Error),
    /// The scan cannot go on.
    Fatal(ScanError),
}

impl Engine<'_> {
    /// Opens a socket for the port and sends the first packet of the try.
    pub(super) fn begin(&mut self, task: Task, tried: u32) -> Result<(), Hindrance> {
        let address = self.address(task);
        for _ in 0..OWN_PEERS {
            if let Some(rate) = self.settings.rate {
                let step = Duration::from_secs(1) / rate.max(1);
                // What was missed because the thread slept is caught up with.
                let latest = Instant::now().checked_sub(CATCH_UP);
                self.not_before =
                    latest.map_or(self.not_before, |latest| self.not_before.max(latest)) + step;
            }
            let sent = Instant::now();
            let begun = self
                .open(address, task.port)
                .map_err(|error| self.hindrance(address, error))?;
            match begun {
                Begun::Connected(socket) if socket.is_own_peer() => {}
                Begun::Connected(socket) if task.port.protocol == Protocol::Udp => {
                    return self.begin_datagrams(task, socket);
                }
                Begun::Connected(socket) => {
                    return self
                        .connected(task, socket, tried, sent)
                        .map_err(Hindrance::Fatal);
                }
                Begun::Failed(socket, error) => {
                    let reason = why(address, &socket, error).map_err(Hindrance::Fatal)?;
                    self.conclude(task, reason, tried + 1, Some(sent));
                    return Ok(());
                }
                Begun::Waiting(socket) => return self.fly(task, socket, tried, sent),
            }
        }
        // Whoever listened there would have answered one of them.
        self.conclude(task, Reason::Reset, tried + 1, None);
        Ok(())
    }

    /// Opens a socket from the port that was asked for, else from the one that
    /// the question prefers if that can be had.
    fn open(&self, address: SocketAddr, port: Port) -> io::Result<Begun> {
        let source = self.settings.source_port;
        if source.is_none()
            && port.protocol == Protocol::Udp
            && let Some(question) = self.settings.question_at(self.services, address, port)
            && let Some(preferred) = question.source_port(port.number)
            && let Ok(begun) = ProbeSocket::begin(address, port.protocol, Some(preferred))
            && let Begun::Connected(socket) = &begun
            && !socket.is_own_peer()
        {
            return Ok(begun);
        }
        ProbeSocket::begin(address, port.protocol, source)
    }

    fn hindrance(&self, address: SocketAddr, error: io::Error) -> Hindrance {
        let source_port = self.settings.source_port;
        match (error.kind(), source_port) {
            (io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable, Some(port)) => {
                Hindrance::Fatal(ScanError::SourcePortTaken(port))
            }
            (io::ErrorKind::PermissionDenied, Some(port)) => {
                Hindrance::Fatal(ScanError::SourcePortDenied(port))
            }
            (io::ErrorKind::AddrNotAvailable, None) => Hindrance::Later(error),
            _ if system::is_shortage(&error) => Hindrance::Later(error),
            _ => Hindrance::Fatal(ScanError::System {
                address,
                source: error,
            }),
        }
    }

    fn begin_datagrams(&mut self, task: Task, socket: ProbeSocket) -> Result<(), Hindrance> {
        let address = self.address(task);
        let fatal = |source| Hindrance::Fatal(ScanError::System { address, source });
        if let Some(question) = self.settings.question_at(self.services, address, task.port) {
            let verdict = self.draft(task, Reason::Silence, 1, None);
            let interview = Interview {
                host: self.host(task).name.clone(),
                question,
                community: self.community.clone(),
                secret: self.secret.clone(),
                wait: self.settings.reply_wait,
                line: Line::Datagrams(socket.into_datagrams().map_err(fatal)?),
                verdict,
            };
            return self.interviewers.hold(interview).map_err(fatal);
        }
        let sent = Instant::now();
        match socket.send(b"") {
            Ok(()) => self.fly(task, socket, 0, sent),
            Err(error) => {
                let reason = why(address, &socket, error).map_err(Hindrance::Fatal)?;
                self.conclude(task, reason, 1, None);
                Ok(())
            }
        }
    }
}
