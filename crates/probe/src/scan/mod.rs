//! Asks many ports at once.
//!
//! One thread holds all sockets that wait for a connection or for a datagram;
//! none of them blocks. What listens and has a question to be asked is handed to
//! a few threads that may wait ([`interview`]), because there are few such ports
//! and a conversation reads better as one. How many sockets are open at once is
//! bounded by [`Settings::concurrency`] and by the system's limit; how long each
//! may take, by what the host has shown so far ([`pace`]).
//!
//! A fault of this machine (no descriptor, no free port, the source port taken)
//! is never a verdict about a port: it is waited out, or the scan ends with a
//! [`ScanError`].

mod doubt;
mod engine;
mod interview;
mod order;
mod pace;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use event::Protocol;

use crate::question::Question;
use crate::{Host, Port, Services, Verdict};

/// How ports are asked.
#[derive(Clone)]
pub struct Settings {
    /// The longest wait for one try of a connection. Hosts that answer fast are
    /// waited for less.
    pub wait: Duration,
    /// How long a datagram, or a question, may stay without an answer.
    pub reply_wait: Duration,
    /// How often a connection is tried, or a plain datagram is sent.
    pub tries: u32,
    /// The port to ask from. Ports are then asked one after the other.
    pub source_port: Option<u16>,
    /// How many sockets are open at once, at most; the limit of descriptors
    /// counts as well.
    pub concurrency: usize,
    /// How many tries a second, at most.
    pub rate: Option<u32>,
    /// Ask in a scattered order.
    pub shuffle: bool,
    /// Which question is asked.
    pub ask: Ask,
    /// Read what a port says of itself where no question is known.
    pub banner: bool,
    /// The SNMP community.
    pub community: String,
    /// The secret that RADIUS servers share with this host.
    pub secret: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(2),
            reply_wait: Duration::from_secs(3),
            tries: 3,
            source_port: None,
            concurrency: 1024,
            rate: None,
            shuffle: true,
            ask: Ask::ByService,
            banner: true,
            community: "public".to_owned(),
            secret: crate::question::DEFAULT_SECRET.to_owned(),
        }
    }
}

/// Which question is put to a port that may listen.
#[derive(Clone, Copy)]
pub enum Ask {
    /// None.
    Nothing,
    /// That of the service which the database names for the port.
    ByService,
    /// This one, whatever the port.
    As(&'static dyn Question),
}

/// What is to be asked: every port of every host.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// Whom.
    pub hosts: &'a [Host],
    /// What.
    pub ports: &'a [Port],
}

impl Targets<'_> {
    /// How many verdicts there will be.
    pub fn count(&self) -> u64 {
        self.hosts.len() as u64 * self.ports.len() as u64
    }
}

/// Why a scan ended early. All are this machine's or the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Another program uses the source port.
    #[error("the source port {0} is in use by another program")]
    SourcePortTaken(u16),
    /// Ports below 1024 need a privilege.
    #[error("the source port {0} may not be used without privileges")]
    SourcePortDenied(u16),
    /// Not one socket could be opened.
    #[error("no socket can be opened: {0}")]
    Descriptors(#[source] io::Error),
    /// All ephemeral ports stayed in use.
    #[error("no free port is left to ask from")]
    PortsUsedUp,
    /// Something else that the system refused.
    #[error("cannot ask {address}: {source}")]
    System {
        /// Who was to be asked.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Asks every port of every host; `verdict` gets each as it is known. When
/// `stop` becomes true the scan ends soon, with what is known by then.
pub fn scan(
    targets: Targets<'_>,
    services: &Services,
    settings: &Settings,
    stop: &AtomicBool,
    verdict: &mut dyn FnMut(Verdict),
) -> Result<(), ScanError> {
    engine::Engine::new(targets, services, settings, stop, verdict)?.run()
}

/// Asks one port of one host.
pub fn ask(
    host: &Host,
    port: Port,
    services: &Services,
    settings: &Settings,
) -> Result<Verdict, ScanError> {
    let targets = Targets {
        hosts: std::slice::from_ref(host),
        ports: &[port],
    };
    let mut found = None;
    let mut keep = |verdict| found = Some(verdict);
    scan(
        targets,
        services,
        settings,
        &AtomicBool::new(false),
        &mut keep,
    )?;
    found.ok_or_else(|| ScanError::System {
        address: host.address,
        source: io::ErrorKind::Interrupted.into(),
    })
}

impl Settings {
    /// The question that is put to a UDP port.
    fn question_at(
        &self,
        services: &Services,
        address: SocketAddr,
        port: Port,
    ) -> Option<&'static dyn Question> {
        let question = self.question(services, port)?;
        let objection = self.objection(question, address);
        objection.is_none().then_some(question)
    }

    /// Why that question is not put to that address.
    fn objection(&self, question: &dyn Question, address: SocketAddr) -> Option<&'static str> {
        if matches!(self.ask, Ask::As(_)) {
            return None;
        }
        let harm = question.harms_this_machine()?;
        crate::is_own(address).then_some(harm)
    }

    /// The question for a port, by all the names of its service.
    fn question(&self, services: &Services, port: Port) -> Option<&'static dyn Question> {
        let question = match self.ask {
            Ask::Nothing => return None,
            Ask::As(question) => question.over().contains(&port.protocol).then_some(question),
            Ask::ByService => services
                .names(port.number, port.protocol)
                .iter()
                .find_map(|name| crate::question::find(name, port.protocol)),
        };
        let banner = || {
            let wanted = self.banner && port.protocol == Protocol::Tcp;
            wanted.then(|| crate::question::find("banner", Protocol::Tcp))?
        };
        question.or_else(banner)
    }
}
