//! What a new set begins with: the sockets in use and their owners.

use event::{Attribution, ProcessKey, Socket, WallTime};
use logs::SetState;
use logs::format::clock::LocalClock;
use logs::format::events::OwnerText;
use logs::format::initial;
use logs::format::listing::{Modules, ProcessPorts};
use rustc_hash::FxHashMap;

use crate::processes::Processes;
use crate::table::Table;

/// What a new set begins with.
pub(crate) struct State {
    pub(crate) table: Table,
    pub(crate) processes: Processes,
    pub(crate) nobody: OwnerText,
    pub(crate) host: String,
    pub(crate) os: String,
    pub(crate) names_processes: bool,
}

impl State {
    pub(crate) fn ports_of<'s>(
        &'s self,
        owner: Option<ProcessKey>,
        sockets: &'s [&'s Socket],
    ) -> ProcessPorts<'s> {
        let known = owner.and_then(|owner| self.processes.find(owner));
        ProcessPorts {
            process: known.map(|known| known.process.as_ref()),
            sockets,
            modules: match known.map(|known| &known.modules) {
                Some(Ok(modules)) => Modules::Known(modules),
                Some(Err(reason)) => Modules::Unavailable(reason),
                None => Modules::Unavailable(""),
            },
        }
    }
}

impl SetState for State {
    fn initial(&self, out: &mut Vec<u8>, clock: &mut LocalClock, now: WallTime) {
        if !self.names_processes {
            let sockets: Vec<&Socket> = self.table.iter().map(|live| &live.socket).collect();
            initial::write_without_processes(out, clock, now, &self.host, &self.os, &sockets);
            return;
        }
        let mut ports: FxHashMap<Option<ProcessKey>, Vec<&Socket>> = FxHashMap::default();
        for live in self.table.iter() {
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
        for live in self.table.iter() {
            let known = live.owner.and_then(|owner| self.processes.find(owner));
            let text = known.map_or(&self.nobody, |known| &known.text);
            each(&live.socket, live.attribution, text);
        }
    }
}
