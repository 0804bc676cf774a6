//! What is known of a port in the end: told, or handed to the threads with questions.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use event::Protocol;

use super::{Engine, Task};
use crate::scan::ScanError;
use crate::scan::interview::{Interview, Line};
use crate::system::{self, ProbeSocket};
use crate::verdict::Reason;
use crate::{Fault, Port, Status, Verdict};

impl Engine<'_> {
    /// A TCP port listens.
    pub(super) fn connected(
        &mut self,
        task: Task,
        socket: ProbeSocket,
        tried: u32,
        sent: Instant,
    ) -> Result<(), ScanError> {
        let address = self.address(task);
        let took = sent.elapsed();
        self.learn(address.ip(), took);
        let verdict = self.draft(task, Reason::SynAck, tried + 1, Some(took));
        let Some(question) = self.settings.question(self.services, task.port) else {
            // Nobody has to remember this connection.
            socket.reset_at_close();
            (self.verdict)(verdict);
            return Ok(());
        };
        if self.settings.source_port.is_some() {
            // In TIME_WAIT, the port could not be used to ask this one again.
            socket.reset_at_close();
        }
        let system = |source| ScanError::System { address, source };
        let interview = Interview {
            host: self.host(task).name.clone(),
            question,
            community: self.community.clone(),
            secret: self.secret.clone(),
            wait: self.settings.reply_wait,
            line: Line::Stream(socket.into_stream().map_err(system)?),
            verdict,
        };
        self.interviewers.hold(interview).map_err(system)
    }

    pub(super) fn conclude(
        &mut self,
        task: Task,
        reason: Reason,
        attempts: u32,
        sent: Option<Instant>,
    ) {
        // The time until a refusal of this machine is no round trip.
        let answered = matches!(reason, Reason::Reset | Reason::Reply | Reason::Icmp(_));
        let took = sent.filter(|_| answered).map(|sent| sent.elapsed());
        if let Some(took) = took.filter(|_| reason == Reason::Reset) {
            self.learn(self.address(task).ip(), took);
        }
        let heard = matches!(reason, Reason::Reply | Reason::Silence);
        let mut verdict = self.draft(task, reason, attempts, took);
        if heard
            && task.port.protocol == Protocol::Udp
            && let Some(question) = self.settings.question(self.services, task.port)
            && let Some(why) = self.settings.objection(question, verdict.address)
        {
            verdict.asked = Some(question.name());
            verdict.answer = Some(Err(Fault::Withheld(why)));
        }
        self.tell(verdict);
    }

    pub(super) fn draft(
        &self,
        task: Task,
        reason: Reason,
        attempts: u32,
        round_trip: Option<Duration>,
    ) -> Verdict {
        let address = self.address(task);
        let Port { protocol, number } = task.port;
        let status: Status = reason.status(protocol, address.ip());
        Verdict {
            address,
            protocol,
            service: self.services.name(number, protocol).map(str::to_owned),
            first: status,
            status,
            reason,
            attempts,
            round_trip,
            asked: None,
            answer: None,
            ephemeral: false,
        }
    }
}

/// What the socket's error, or the ICMP message behind it, says.
pub(super) fn why(
    address: SocketAddr,
    socket: &ProbeSocket,
    error: io::Error,
) -> Result<Reason, ScanError> {
    let told = system::last_message(socket).map(Reason::Icmp);
    told.or_else(|| Reason::of(&error))
        .ok_or(ScanError::System {
            address,
            source: error,
        })
}
