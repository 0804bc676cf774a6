//! Silence that may mean no more than "I have said it too often".
//!
//! A host tells of a closed UDP port by ICMP, and systems limit how often they
//! do: Linux to one such message a second for each peer, after a burst of six.
//! Ask it about a hundred closed ports, and some ninety of them look as if they
//! listened. So the silent ports of a host that has told of closed ones are
//! asked again, so slowly that it may answer.
//!
//! How slowly is found out. The ports are asked in batches, each a while after
//! the host's last message. If a message comes the while was long enough, one
//! port is settled, and the next batch waits as long. If none comes the while is
//! doubled, until it is so long ([`LIMIT`]) that a host which tells of closed
//! ports would have told of one of these: then none of the batch is closed. So
//! each closed port costs the time that its host takes for a message, and the
//! others cost next to nothing.
//!
//! Hosts that never told of a closed port are not doubted, and neither is this
//! machine: Linux sets itself no limit over loopback.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use event::Protocol;

use super::{Settings, engine};
use crate::system::{self, Begun, Poller, ProbeSocket};
use crate::verdict::Reason;
use crate::{Status, Verdict};

/// The longest that systems are known to stay silent after a message, and a
/// little more.
const LIMIT: Duration = Duration::from_millis(1050);
/// The first while that is tried after none at all.
const FIRST: Duration = Duration::from_millis(100);
/// How many ports of a host are asked in a batch.
const BATCH: usize = 64;
/// How many verdicts are kept at most. More silent ports than that are told as
/// they are.
const ROOM: usize = 1 << 16;
/// How often `stop` is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Verdicts that are to be doubted, by host.
#[derive(Default)]
pub(super) struct Doubts {
    hosts: HashMap<IpAddr, Host>,
    kept: usize,
}

#[derive(Default)]
struct Host {
    silent: Vec<Verdict>,
    /// When it last told of a closed port, and how long that took at most.
    told: Option<Instant>,
    round_trip: Duration,
    /// How long after its last message it was seen to send another.
    gap: Duration,
    /// The while that is tried now.
    trying: Duration,
}

/// A port of a batch.
struct Asked {
    host: IpAddr,
    socket: ProbeSocket,
    sent: Instant,
    verdict: Verdict,
    reason: Option<Reason>,
}

impl Doubts {
    /// Gives a verdict back unless it is kept as doubtful.
    pub(super) fn sift(&mut self, verdict: Verdict) -> Option<Verdict> {
        let ip = verdict.address.ip();
        if verdict.protocol != Protocol::Udp || ip.is_loopback() {
            return Some(verdict);
        }
        match (&verdict.reason, verdict.status) {
            (_, Status::NotListening) => {
                let host = self.hosts.entry(ip).or_default();
                host.told(Instant::now(), verdict.round_trip);
            }
            (Reason::Silence, _) if self.kept < ROOM => {
                self.kept += 1;
                self.hosts.entry(ip).or_default().silent.push(verdict);
                return None;
            }
            _ => {}
        }
        Some(verdict)
    }

    /// Asks again what is doubtful, and tells everything that was kept.
    pub(super) fn settle(
        mut self,
        settings: &Settings,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(Verdict),
    ) -> io::Result<()> {
        for host in self.hosts.values_mut() {
            if host.told.is_none() {
                host.silent.drain(..).for_each(&mut *tell);
            }
        }
        let outcome = self.ask_again(settings, stop, tell);
        for host in self.hosts.into_values() {
            host.silent.into_iter().for_each(&mut *tell);
        }
        outcome
    }

    fn ask_again(
        &mut self,
        settings: &Settings,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(Verdict),
    ) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.hosts.retain(|_, host| !host.silent.is_empty());
            let Some(due) = self.hosts.values().filter_map(Host::due).min() else {
                return Ok(());
            };
            let pause = due.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                // Nobody has anything to say meanwhile.
                thread::sleep(pause.min(TICK));
                continue;
            }
            let mut batch = self.send(settings, tell)?;
            self.listen(&mut batch, settings)?;
            self.judge(batch, tell);
        }
        Ok(())
    }

    /// Sends a batch to each host whose time has come.
    fn send(
        &mut self,
        settings: &Settings,
        tell: &mut dyn FnMut(Verdict),
    ) -> io::Result<Vec<Asked>> {
        let mut room = engine::room(settings);
        let now = Instant::now();
        let mut batch = Vec::new();
        for (ip, host) in &mut self.hosts {
            if host.due().is_none_or(|due| due > now) {
                continue;
            }
            for _ in 0..room.min(BATCH) {
                let Some(mut verdict) = host.silent.pop() else {
                    break;
                };
                verdict.attempts += 1;
                let begun =
                    ProbeSocket::begin(verdict.address, Protocol::Udp, settings.source_port);
                let sent = Instant::now();
                let (socket, refused) = match begun {
                    Ok(Begun::Connected(socket) | Begun::Waiting(socket)) => {
                        let refused = socket.send(b"").err();
                        (socket, refused)
                    }
                    Ok(Begun::Failed(socket, error)) => (socket, Some(error)),
                    Err(error) => {
                        verdict.attempts -= 1;
                        host.silent.push(verdict);
                        if batch.is_empty() {
                            return Err(error);
                        }
                        break;
                    }
                };
                room -= 1;
                match refused.map(|error| reason(&socket, Some(error))) {
                    Some(None) => tell(verdict),
                    refused => batch.push(Asked {
                        host: *ip,
                        socket,
                        sent,
                        verdict,
                        reason: refused.flatten(),
                    }),
                }
            }
        }
        Ok(batch)
    }

    /// Waits for what comes back.
    fn listen(&mut self, batch: &mut [Asked], settings: &Settings) -> io::Result<()> {
        let slowest = batch.iter().filter_map(|asked| self.hosts.get(&asked.host));
        let slowest = slowest.map(|host| host.round_trip).max();
        let longest = (settings.reply_wait / settings.tries.max(1)).max(FIRST);
        let wait = (slowest.unwrap_or_default() * 4).clamp(FIRST, longest);
        let mut poller = Poller::new()?;
        for (number, asked) in batch.iter().enumerate() {
            poller.add(&asked.socket, number as u64, false)?;
        }
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || batch.iter().all(|asked| asked.reason.is_some()) {
                return Ok(());
            }
            for number in poller.wait(left)? {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                let Some(asked) = batch.get_mut(number) else {
                    continue;
                };
                let heard = match asked.socket.receive() {
                    Ok(true) => Some(Reason::Reply),
                    Ok(false) => reason(&asked.socket, None),
                    Err(error) => reason(&asked.socket, Some(error)),
                };
                asked.verdict.round_trip = heard.as_ref().map(|_| asked.sent.elapsed());
                asked.reason = heard.or(asked.reason.take());
            }
        }
    }

    /// Draws the conclusions from a batch.
    fn judge(&mut self, batch: Vec<Asked>, tell: &mut dyn FnMut(Verdict)) {
        let now = Instant::now();
        let mut silent: HashMap<IpAddr, Vec<Verdict>> = HashMap::new();
        let mut told = HashMap::new();
        for asked in batch {
            let Asked {
                host, mut verdict, ..
            } = asked;
            let Some(reason) = asked.reason else {
                silent.entry(host).or_default().push(verdict);
                continue;
            };
            verdict.status = reason.status(Protocol::Udp, host);
            verdict.first = verdict.status;
            verdict.reason = reason;
            if verdict.status == Status::NotListening {
                told.insert(host, verdict.round_trip);
            }
            silent.entry(host).or_default();
            tell(verdict);
        }
        for (ip, verdicts) in silent {
            let Some(host) = self.hosts.get_mut(&ip) else {
                continue;
            };
            if let Some(round_trip) = told.get(&ip) {
                host.gap = host.trying;
                host.told(now, *round_trip);
            } else if host.trying >= LIMIT {
                host.trying = host.gap;
                verdicts.into_iter().for_each(&mut *tell);
                continue;
            } else {
                host.trying = (host.trying * 2).clamp(FIRST, LIMIT);
            }
            host.silent.extend(verdicts);
        }
    }
}

impl Host {
    fn told(&mut self, now: Instant, round_trip: Option<Duration>) {
        self.told = Some(now);
        self.round_trip = self.round_trip.max(round_trip.unwrap_or_default());
        self.trying = self.gap;
    }

    /// When the next batch may go out.
    fn due(&self) -> Option<Instant> {
        Some(self.told? + self.trying)
    }
}

/// What a socket has been told.
fn reason(socket: &ProbeSocket, error: Option<io::Error>) -> Option<Reason> {
    let told = system::last_message(socket).map(Reason::Icmp);
    told.or_else(|| Reason::of(&error?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(address: &str, reason: Reason) -> Verdict {
        let address: std::net::SocketAddr = address.parse().unwrap();
        let status = reason.status(Protocol::Udp, address.ip());
        Verdict {
            address,
            protocol: Protocol::Udp,
            service: None,
            first: status,
            status,
            reason,
            attempts: 3,
            round_trip: None,
            asked: None,
            answer: None,
            ephemeral: false,
        }
    }

    #[test]
    fn hosts_that_tell_of_nothing_are_not_doubted() {
        let mut doubts = Doubts::default();
        let silent = verdict("192.0.2.1:7", Reason::Silence);
        assert!(doubts.sift(silent).is_none());
        let mut told = Vec::new();
        let stop = AtomicBool::new(false);
        let mut tell = |verdict: Verdict| told.push(verdict.status);
        doubts
            .settle(&Settings::default(), &stop, &mut tell)
            .unwrap();
        assert_eq!(told, [Status::ListeningOrFiltered]);
    }

    #[test]
    fn this_machine_is_not_doubted() {
        let mut doubts = Doubts::default();
        for address in ["127.0.0.1:7", "[::1]:7"] {
            assert!(doubts.sift(verdict(address, Reason::Silence)).is_some());
        }
    }

    #[test]
    fn when_stopped_the_doubtful_is_told_as_it_is() {
        let mut doubts = Doubts::default();
        let icmp = crate::Icmp {
            v6: false,
            kind: 3,
            code: 3,
            from: None,
        };
        assert!(
            doubts
                .sift(verdict("192.0.2.1:8", Reason::Icmp(icmp)))
                .is_some()
        );
        assert!(
            doubts
                .sift(verdict("192.0.2.1:7", Reason::Silence))
                .is_none()
        );
        let mut told = 0;
        let stop = AtomicBool::new(true);
        doubts
            .settle(&Settings::default(), &stop, &mut |_| told += 1)
            .unwrap();
        assert_eq!(told, 1);
    }
}
