//! What there is at a moment: the sockets in use and their owners.

use event::{Attribution, Degradation, Process, ProcessKey, Socket, WallTime};
use logs::SetState;
use logs::format::clock::LocalClock;
use logs::format::events::OwnerText;
use logs::format::initial;
use logs::format::listing::{Modules, ProcessPorts};
use rustc_hash::FxHashMap;

use crate::processes::Processes;
use crate::table::Table;

/// What there is at a moment: what a new set begins with, and what somebody
/// who watches may want to see as a whole.
pub struct State {
    pub(crate) table: Table,
    pub(crate) processes: Processes,
    pub(crate) nobody: OwnerText,
    pub(crate) host: String,
    pub(crate) os: String,
    pub(crate) names_processes: bool,
    /// What the table lacks.
    pub(crate) lacks: Option<Degradation>,
}

/// The owner of a socket, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The process; none where nobody is known.
    pub process: Option<&'a Process>,
    /// Its modules when it was last looked at.
    pub modules: Modules<'a>,
    /// The same as text for PR-EVENTS.
    pub text: &'a OwnerText,
}

impl State {
    /// Hands over every socket in use, with its owner, in no particular order.
    pub fn each<'s>(&'s self, each: &mut dyn FnMut(&'s Socket, Attribution, Owner<'s>)) {
        for live in self.table.iter() {
            each(&live.socket, live.attribution, self.owner(live.owner));
        }
    }

    /// Looks again at the modules of a process.
    pub fn refresh_modules(&mut self, process: ProcessKey) {
        self.processes.refresh_modules(process);
    }

    #[inline]
    pub(crate) fn owner(&self, owner: Option<ProcessKey>) -> Owner<'_> {
        match owner.and_then(|owner| self.processes.find(owner)) {
            Some(known) => Owner {
                process: Some(&known.process),
                modules: match &known.modules {
                    Ok(modules) => Modules::Known(modules),
                    Err(reason) => Modules::Unavailable(reason),
                },
                text: &known.text,
            },
            None => Owner {
                process: None,
                modules: Modules::Unavailable(""),
                text: &self.nobody,
            },
        }
    }

    pub(crate) fn ports_of<'s>(
        &'s self,
        owner: Option<ProcessKey>,
        sockets: &'s [&'s Socket],
    ) -> ProcessPorts<'s> {
        let owner = self.owner(owner);
        ProcessPorts {
            process: owner.process,
            sockets,
            modules: owner.modules,
        }
    }
}

impl SetState for State {
    fn initial(&self, out: &mut Vec<u8>, clock: &mut LocalClock, now: WallTime) {
        let classic = || {
            let all = self.table.iter();
            all.filter(|live| live.socket.protocol.is_classic())
        };
        if !self.names_processes {
            let sockets: Vec<&Socket> = classic().map(|live| &live.socket).collect();
            initial::write_without_processes(out, clock, now, &self.host, &self.os, &sockets);
            return;
        }
        let mut ports: FxHashMap<Option<ProcessKey>, Vec<&Socket>> = FxHashMap::default();
        for live in classic() {
            // An owner that is no longer known would have no block.
            let owner = live
                .owner
                .filter(|&owner| self.processes.find(owner).is_some());
            ports.entry(owner).or_default().push(&live.socket);
        }
        let processes: Vec<ProcessPorts<'_>> = ports
            .iter()
            .map(|(&owner, sockets)| self.ports_of(owner, sockets))
            .collect();
        initial::write(out, clock, now, &self.host, &self.os, &processes);
    }

    fn sockets(&self, each: &mut dyn FnMut(&Socket, Attribution, &OwnerText)) {
        self.each(&mut |socket, attribution, owner| each(socket, attribution, owner.text));
    }
}
