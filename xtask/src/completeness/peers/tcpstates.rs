//! `tcpstates` of libbpf-tools: a line for each change of a TCP state.
//!
//! A connection's port is not chosen yet when its first line is printed. The
//! lines of a socket are joined by the kernel address that each begins with, as
//! a reader would do it, so that the first line's process counts.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::lines::{Lines, Parse, installed, tracer};
use crate::completeness::sighting::{Sighting, What};
use crate::load::scenarios::fact::Kind;

/// Starts it.
pub(in crate::completeness) fn start() -> anyhow::Result<Lines<States>> {
    let program = installed(&["tcpstates"], "libbpf-tools")?;
    let mut command = tracer(program);
    Lines::start("tcpstates", command.arg("-w"), States::default())?
        .counts_losses()
        .attached()
}

/// The sockets whose end has not been printed.
#[derive(Default)]
pub(in crate::completeness) struct States {
    connecting: HashMap<String, u32>,
}

impl Parse for States {
    fn line(&mut self, line: &str, at: i64) -> Vec<Sighting> {
        self.parse(line, at).unwrap_or_default()
    }
}

impl States {
    fn parse(&mut self, line: &str, at: i64) -> Option<Vec<Sighting>> {
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        let socket = (*fields.first()?).to_owned();
        let pid: u32 = fields.get(1)?.parse().ok()?;
        // A name may have spaces in it; what follows has none.
        let rest = fields.split_off(fields.len().checked_sub(8)?.max(2));
        let [
            local_ip,
            local_port,
            remote_ip,
            remote_port,
            old,
            "->",
            new,
            _,
        ] = rest[..]
        else {
            return None;
        };
        let end = |ip: &str, port: &str| -> Option<SocketAddr> {
            Some(SocketAddr::new(
                ip.parse::<IpAddr>().ok()?,
                port.parse().ok()?,
            ))
        };
        let local = end(local_ip, local_port)?;
        let remote = end(remote_ip, remote_port)?;
        let said = Sighting {
            at,
            protocol: "tcp".to_owned(),
            local: Some(local),
            remote: (remote.port() != 0).then_some(remote),
            pid: Some(pid),
            ..Sighting::default()
        };
        let opened = |kind, pid| Sighting {
            what: What::Opened(kind),
            pid: Some(pid),
            ..said.clone()
        };
        let mut all = Vec::new();
        match (old, new) {
            ("CLOSE", "LISTEN") => all.push(opened(Kind::Listen, pid)),
            ("CLOSE", "SYN_SENT") => {
                self.connecting.insert(socket, pid);
            }
            ("SYN_RECV", "ESTABLISHED") => all.push(opened(Kind::Accept, pid)),
            (_, "CLOSE") => {
                if let Some(pid) = self.connecting.remove(&socket) {
                    all.push(opened(Kind::Connect, pid));
                }
                all.push(Sighting {
                    what: What::Closed(None),
                    ..said
                });
            }
            _ => {
                if let Some(pid) = self.connecting.remove(&socket) {
                    all.push(opened(Kind::Connect, pid));
                }
            }
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_the_first_line_counts() {
        let mut states = States::default();
        let first = "ffff88827fc23780 24 a b 4 127.0.0.1 0 127.0.0.8 80 CLOSE -> SYN_SENT 0.000";
        assert!(states.line(first, 1).is_empty());
        let up = "ffff88827fc23780 99 x 4 127.0.0.1 500 127.0.0.8 80 SYN_SENT -> ESTABLISHED 0.017";
        let said = states.line(up, 2);
        assert_eq!(said[0].what, What::Opened(Kind::Connect));
        assert_eq!(said[0].pid, Some(24));
        assert_eq!(said[0].local, Some("127.0.0.1:500".parse().unwrap()));
        let down = "ffff88827fc23780 99 x 4 127.0.0.1 500 127.0.0.8 80 LAST_ACK -> CLOSE 0.017";
        assert_eq!(states.line(down, 3)[0].what, What::Closed(None));
        assert!(states.line("SKADDR PID COMM", 4).is_empty());
    }
}
