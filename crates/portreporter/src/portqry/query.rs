//! The command line mode: resolve the name, ask each port, tell each answer.
//!
//! Ports are asked at once, as many as the engine finds right, and told in the
//! order in which they were named; with `-sp` one after the other, because they
//! share that port.
//!
//! The original knew IPv4 alone and asked one address of a name. One is asked
//! here, too, an IPv4 address if the name has one; `portreporter query` asks
//! all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event::Protocol;
use probe::{Ask, Host, Port, ScanError, Services, Settings, Targets, Verdict};

use super::answers;
use super::arguments::{Options, Ports, Protocols};
use crate::exit;
use crate::tee::Tee;

/// How long the name of an address is waited for.
const REVERSE_WAIT: Duration = Duration::from_secs(5);

/// What does not change from one question to the next.
pub(super) struct Desk<'a> {
    pub(super) services: &'a Services,
    /// Ctrl-C was pressed.
    pub(super) stop: &'a AtomicBool,
    /// The interactive mode tells how it comes to the service's name.
    pub(super) interactive: bool,
    /// Nobody reads the answers; the status is enough.
    pub(super) status_only: bool,
}

impl Desk<'_> {
    /// Asks a host, and tells. Returns the exit code.
    pub(super) fn ask(&self, out: &mut Tee, node: &str, options: &Options) -> u8 {
        let Some(host) = introduce(out, node, options.no_reverse) else {
            return exit::UNRESOLVED;
        };
        let ports = expand(&options.ports, options.protocol);
        // Within a range the original does not put its question to a mapper.
        let (mute, asked): (Vec<Port>, Vec<Port>) = unique(&ports)
            .into_iter()
            .partition(|&port| self.is_mute(options, port));
        let mut telling = Telling {
            desk: self,
            order: &ports,
            next: 0,
            told: 0,
            known: HashMap::new(),
            code: 0,
            community: &options.community,
        };
        for (ports, asks) in [(mute, false), (asked, true)] {
            let settings = settings(options, asks);
            let targets = Targets {
                hosts: std::slice::from_ref(&host),
                ports: &ports,
            };
            let mut tell = |verdict: Verdict| telling.learn(out, verdict);
            let end = probe::scan(targets, self.services, &settings, self.stop, &mut tell);
            if let Err(error) = end {
                return refuse(out, &error);
            }
        }
        if telling.next < ports.len() {
            telling.tell_the_rest(out);
            return exit::INTERRUPTED;
        }
        telling.code
    }

    fn is_mute(&self, options: &Options, port: Port) -> bool {
        let names = self.services.names(port.number, port.protocol);
        let find = |name: &String| probe::question::find(name, port.protocol);
        let question = names.iter().find_map(find);
        let is_mapper = question.is_some_and(|question| question.name() == "epmap");
        is_mapper && matches!(options.ports, Ports::Range(..))
            || self.status_only && port.protocol == Protocol::Tcp
    }
}

/// Tells verdicts in the order of the ports, as soon as that is possible.
struct Telling<'a> {
    desk: &'a Desk<'a>,
    order: &'a [Port],
    /// The first that was not told.
    next: usize,
    told: usize,
    known: HashMap<(u16, Protocol), Verdict>,
    code: u8,
    community: &'a str,
}

impl Telling<'_> {
    fn learn(&mut self, out: &mut Tee, verdict: Verdict) {
        let key = (verdict.address.port(), verdict.protocol);
        self.known.insert(key, verdict);
        while let Some(port) = self.order.get(self.next)
            && self.known.contains_key(&(port.number, port.protocol))
        {
            self.tell(out, *port);
            self.next += 1;
        }
        if out.is_pointless() {
            self.desk.stop.store(true, Ordering::Relaxed);
        }
    }

    fn tell(&mut self, out: &mut Tee, port: Port) {
        let Some(verdict) = self.known.get(&(port.number, port.protocol)) else {
            return;
        };
        if self.told > 0 {
            out.blank();
        }
        if self.desk.interactive {
            resolved(out, verdict);
        }
        answers::tell(out, verdict, self.community);
        self.told += 1;
        self.code = self.code.max(verdict.status.code());
    }

    /// It was stopped: what is known all the same.
    fn tell_the_rest(&mut self, out: &mut Tee) {
        let rest = self.order.get(self.next..).unwrap_or_default().to_vec();
        let mut missing = 0;
        for port in rest {
            if self.known.contains_key(&(port.number, port.protocol)) {
                self.tell(out, port);
            } else {
                missing += 1;
            }
        }
        out.blank();
        out.line(&format!(
            "Stopped: {missing} of {} ports were not queried to the end",
            self.order.len()
        ));
    }
}

/// Says who is asked. None if nobody can be.
fn introduce(out: &mut Tee, node: &str, no_reverse: bool) -> Option<Host> {
    out.line("Querying target system called:");
    out.blank();
    out.line(&format!(" {node}"));
    out.blank();
    let is_address = node.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || node.contains('%');
    if !is_address {
        out.line("Attempting to resolve name to IP address...");
        out.blank();
    }
    // What has a slash is a range of addresses to the engine.
    let hosts = if node.contains('/') {
        Err(None)
    } else {
        probe::resolve(node).map_err(Some)
    };
    let host = match hosts {
        Ok(hosts) => {
            let old = hosts.iter().find(|host| host.address.is_ipv4());
            old.or(hosts.first()).cloned()
        }
        Err(error) => {
            out.error("Failed to resolve name to IP address");
            if let Some(error) = error {
                out.error(&format!(" {error}"));
            }
            return None;
        }
    }?;
    if !is_address {
        out.line(&format!("Name resolved to {}", host.address.ip()));
    } else if no_reverse {
        return Some(host);
    } else {
        out.line("Attempting to resolve IP address to a name...");
        out.blank();
        match probe::reverse(host.address, REVERSE_WAIT) {
            Some(name) => out.line(&format!("IP address resolved to {name}")),
            None => out.line("Failed to resolve IP address to name"),
        }
    }
    out.blank();
    out.line("querying...");
    out.blank();
    Some(host)
}

/// How the interactive mode comes to the service's name.
fn resolved(out: &mut Tee, verdict: &Verdict) {
    let label = verdict.protocol.label();
    out.line("resolving service name using local services file...");
    match &verdict.service {
        Some(service) => out.line(&format!("{label} port resolved to the '{service}' service")),
        None => out.line(&format!("{label} port could not be resolved to a service")),
    }
    out.blank();
}

/// Says why nobody could be asked. Returns the exit code.
fn refuse(out: &mut Tee, error: &ScanError) -> u8 {
    match error {
        ScanError::SourcePortTaken(_) => {
            out.error("Cannot use specified source port.");
            out.error("Port is already in use.");
            out.error("Specify a port that is not in use and run the command again.");
            exit::UNAVAILABLE
        }
        ScanError::SourcePortDenied(port) => {
            out.error("Cannot use specified source port.");
            out.error(&format!(
                "Port {port} needs a privilege: run the command as root, or specify a port above 1023."
            ));
            exit::PERMISSION
        }
        error @ (ScanError::Descriptors(_) | ScanError::PortsUsedUp) => {
            out.error(&format!("Cannot query: {error}"));
            exit::UNAVAILABLE
        }
        error => {
            out.error(&format!("Cannot query: {error}"));
            exit::IO
        }
    }
}

fn settings(options: &Options, asks: bool) -> Settings {
    let default = Settings::default();
    let patience = if options.slow { 2 } else { 1 };
    Settings {
        reply_wait: default.reply_wait * patience,
        source_port: Some(options.source_port).filter(|&port| port != 0),
        ask: if asks { Ask::ByService } else { Ask::Nothing },
        banner: asks,
        shuffle: false,
        community: options.community.clone(),
        ..default
    }
}

/// Every port with every protocol, in order.
fn expand(ports: &Ports, protocols: Protocols) -> Vec<Port> {
    let numbers: Vec<u16> = match ports {
        Ports::One(port) => vec![*port],
        Ports::Range(first, last) => (*first..=*last).collect(),
        Ports::List(ports) => ports.clone(),
    };
    let protocols: &[Protocol] = match protocols {
        Protocols::Tcp => &[Protocol::Tcp],
        Protocols::Udp => &[Protocol::Udp],
        Protocols::Both => &[Protocol::Tcp, Protocol::Udp],
    };
    let with = |number| {
        protocols
            .iter()
            .map(move |&protocol| Port { protocol, number })
    };
    numbers.into_iter().flat_map(with).collect()
}

fn unique(ports: &[Port]) -> Vec<Port> {
    let mut seen = std::collections::HashSet::new();
    let is_new = |port: &&Port| seen.insert((port.number, port.protocol));
    ports.iter().filter(is_new).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols_port_by_port() {
        let ports = expand(&Ports::List(vec![25, 80, 25]), Protocols::Both);
        let shown: Vec<String> = ports
            .iter()
            .map(|port| format!("{}/{}", port.number, port.protocol.name()))
            .collect();
        let wanted = ["25/tcp", "25/udp", "80/tcp", "80/udp", "25/tcp", "25/udp"];
        assert_eq!(shown, wanted);
        assert_eq!(unique(&ports).len(), 4);
        let whole = expand(&Ports::Range(1, 65535), Protocols::Tcp);
        assert_eq!(whole.len(), 65535);
    }
}
