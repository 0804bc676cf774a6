//! The local mode: the ports of this machine, in the original's layout.
//!
//! Rows, statistics and modules are those of PR-INITIAL (`logs::format::listing`);
//! what stands around them is PortQry's own: blank lines, and blocks without
//! the lines about user and command. `-v` adds the blocks.
//!
//! The original lists processes without ports among the blocks; so do we,
//! except for threads of the kernel, which have neither ports nor modules.

use std::collections::BTreeMap;

use anyhow::Context as _;
use event::{BootTime, Module, Process, ProcessKey, Socket};
use identity::{Identifier, Roots};
use logs::format::listing::{self, Modules, ProcessPorts};

use crate::tee::Tee;

/// The owner of ports whose owner was never known, as its block is headed.
const NOBODY: &[u8] = b"Process ID: 0 (System Idle Process)\n";

/// Prints the ports of this machine.
pub(super) fn run(out: &mut Tee, verbose: bool) -> anyhow::Result<()> {
    let snapshot = sensor::snapshot().context("cannot read the table of sockets")?;
    crate::list::warn(&snapshot.degradations);
    let sockets: Vec<&Socket> = snapshot.sockets.iter().map(|found| &found.socket).collect();
    let nobody_is_known = snapshot
        .sockets
        .iter()
        .all(|found| found.holders.is_empty());
    if nobody_is_known && !sockets.is_empty() && !snapshot.degradations.is_empty() {
        let mut text = Vec::new();
        without_processes(&mut text, &sockets);
        out.bytes(&text);
        return Ok(());
    }
    let mut identifier = Identifier::new(Roots::system());
    let mut know = |pid: u32| {
        let start = BootTime(0);
        let known = identifier.process(ProcessKey { pid, start });
        known.unwrap_or_else(|| Process {
            pid,
            ..Process::default()
        })
    };
    let mut owners: BTreeMap<Option<u32>, Owner> = BTreeMap::new();
    for found in &snapshot.sockets {
        let pid = found.holders.first().copied();
        let owner = owners.entry(pid).or_insert_with(|| Owner {
            process: pid.map(&mut know),
            sockets: Vec::new(),
            modules: Err(String::new()),
        });
        owner.sockets.push(&found.socket);
    }
    if verbose {
        for pid in processes() {
            owners.entry(Some(pid)).or_insert_with(|| Owner {
                process: Some(know(pid)),
                sockets: Vec::new(),
                modules: Err(String::new()),
            });
        }
        owners.retain(|_, owner| !owner.is_kernel_thread());
        for owner in owners.values_mut() {
            if let Some(process) = &owner.process {
                let modules = identifier.modules(process.key());
                owner.modules = modules.map_err(|error| error.to_string());
            }
        }
    }
    let mut text = Vec::new();
    let owners: Vec<Owner> = owners.into_values().collect();
    with_processes(&mut text, &sockets, &owners, verbose);
    out.bytes(&text);
    Ok(())
}

/// A process and its ports.
struct Owner<'a> {
    process: Option<Process>,
    sockets: Vec<&'a Socket>,
    modules: Result<Vec<Module>, String>,
}

impl Owner<'_> {
    fn is_kernel_thread(&self) -> bool {
        self.sockets.is_empty()
            && self
                .process
                .as_ref()
                .is_some_and(|process| process.exe.is_none() && process.cmdline.is_none())
    }

    fn ports(&self) -> ProcessPorts<'_> {
        ProcessPorts {
            process: self.process.as_ref(),
            sockets: &self.sockets,
            modules: match &self.modules {
                Ok(modules) => Modules::Known(modules),
                Err(reason) => Modules::Unavailable(reason),
            },
        }
    }
}

/// The numbers of all processes.
fn processes() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.flatten().filter_map(number).collect()
}

fn with_processes(text: &mut Vec<u8>, sockets: &[&Socket], owners: &[Owner], verbose: bool) {
    text.extend_from_slice(b"TCP/UDP Port to Process Mappings\n\n");
    let ports: Vec<ProcessPorts> = owners.iter().map(Owner::ports).collect();
    listing::mappings(text, &ports);
    statistics(text, sockets);
    if !verbose {
        return;
    }
    text.extend_from_slice(
        b"\nPort and Module Information by Process\n\n\
          Note: restrictions applied to some processes may\n      \
          prevent Portqry from accessing more information\n\n\
          For best results run Portqry in the context of\n\
          the local administrator\n\n",
    );
    for ports in &ports {
        text.extend_from_slice(listing::RULE);
        block(text, ports, true);
        text.push(b'\n');
    }
}

fn without_processes(text: &mut Vec<u8>, sockets: &[&Socket]) {
    text.extend_from_slice(
        b"Port to process mapping is not supported on this system.\n\nTCP/UDP Port Usage\n\n",
    );
    listing::active_ports(text, sockets);
    statistics(text, sockets);
}

fn statistics(text: &mut Vec<u8>, sockets: &[&Socket]) {
    text.extend_from_slice(b"\nPort Statistics\n\n");
    listing::counts(text, sockets);
    text.push(b'\n');
    listing::states(text, sockets);
}

/// The block of a process; with services and modules if it is to be verbose.
pub(super) fn block(text: &mut Vec<u8>, ports: &ProcessPorts<'_>, verbose: bool) {
    match ports.process {
        None => text.extend_from_slice(NOBODY),
        process => listing::heading(text, process),
    }
    if verbose && let Some(process) = ports.process {
        text.push(b'\n');
        listing::service(text, process);
    }
    text.push(b'\n');
    listing::ports(text, ports.process, ports.sockets);
    statistics(text, ports.sockets);
    if verbose {
        text.push(b'\n');
        listing::modules(text, ports.modules);
    }
}

#[cfg(test)]
mod tests {
    use event::{Endpoint, Protocol, Service, TcpState};

    use super::*;

    fn socket(
        protocol: Protocol,
        local: &str,
        remote: Option<&str>,
        state: Option<TcpState>,
    ) -> Socket {
        let end = |text: &str| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            Endpoint::new(address.ip(), address.port())
        };
        Socket {
            cookie: None,
            netns: None,
            protocol,
            local: end(local),
            remote: remote.map(end),
            state,
        }
    }

    fn sockets() -> [Socket; 4] {
        [
            socket(Protocol::Tcp, "0.0.0.0:53", None, Some(TcpState::Listening)),
            socket(
                Protocol::Tcp,
                "10.0.0.1:53",
                Some("10.0.0.2:4000"),
                Some(TcpState::CloseWait),
            ),
            socket(Protocol::Udp, "0.0.0.0:53", None, None),
            socket(
                Protocol::Tcp,
                "10.0.0.1:40000",
                Some("10.0.0.2:80"),
                Some(TcpState::TimeWait),
            ),
        ]
    }

    fn named() -> Process {
        Process {
            pid: 1276,
            name: Some("named\u{1b}[2J".to_owned()),
            exe: Some("/usr/sbin/named".to_owned()),
            user: Some("bind".to_owned()),
            service: Some(Service {
                name: "named.service".to_owned(),
                description: Some("BIND Domain Name Server".to_owned()),
                kind: None,
            }),
            ..Process::default()
        }
    }

    #[test]
    fn the_layout_with_processes() {
        let sockets = sockets();
        let all: Vec<&Socket> = sockets.iter().collect();
        let owners = [
            Owner {
                process: None,
                sockets: all[3..].to_vec(),
                modules: Err(String::new()),
            },
            Owner {
                process: Some(named()),
                sockets: all[..3].to_vec(),
                modules: Ok(vec![Module {
                    path: "/usr/sbin/named".to_owned(),
                    base: 0x40_0000,
                }]),
            },
        ];
        let mut brief = Vec::new();
        with_processes(&mut brief, &all, &owners, false);
        let mut verbose = Vec::new();
        with_processes(&mut verbose, &all, &owners, true);
        let verbose = String::from_utf8(verbose).unwrap();
        assert_eq!(verbose, include_str!("golden/local-verbose.txt"));
        assert!(verbose.starts_with(&String::from_utf8(brief).unwrap()));
    }

    #[test]
    fn the_layout_without_processes() {
        let sockets = sockets();
        let all: Vec<&Socket> = sockets.iter().collect();
        let mut text = Vec::new();
        without_processes(&mut text, &all);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, include_str!("golden/local-without-processes.txt"));
    }
}
