//! Who is who: every process that owns a socket or may soon.
//!
//! The kernel tells of each exec, fork and exit; that is remembered as it came
//! and only worked out (user, unit, container, text for the log) when the
//! process turns up as an owner, because most never do. A process that is gone
//! is kept while sockets refer to it and a little longer, since the news of its
//! end overtakes that of its last sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Module, Process, ProcessKey};
use identity::Identifier;
use logs::format::clock::LocalClock;
use logs::format::events::OwnerText;
use rustc_hash::FxHashMap;
use sensor::{Execution, Mappings};

use crate::clock::Anchor;

/// How long a process that is gone is kept at least.
const REST: Duration = Duration::from_secs(5);

/// A process that owns sockets.
pub(crate) struct Known {
    /// What is known of it.
    pub(crate) process: Arc<Process>,
    /// The same as text for the log.
    pub(crate) text: OwnerText,
    /// Its modules when it was last looked at, or why they are not known.
    pub(crate) modules: Result<Vec<Module>, String>,
}

enum Entry {
    /// What the kernel told when it ran its program; the parent's number.
    Told(Arc<Execution>, u32),
    /// Like the process that forked it; the parent's number.
    Like(Arc<Process>, u32),
    /// Worked out.
    Known(Box<Known>),
}

/// The table of processes.
pub(crate) struct Processes {
    identifier: Identifier,
    mappings: Option<Box<dyn Mappings>>,
    table: FxHashMap<ProcessKey, Slot>,
    gone: VecDeque<(ProcessKey, Instant)>,
    owners: u64,
}

struct Slot {
    entry: Entry,
    /// How many live sockets it owns.
    sockets: u32,
    is_gone: bool,
}

impl Processes {
    pub(crate) fn new(identifier: Identifier, mappings: Option<Box<dyn Mappings>>) -> Self {
        Self {
            identifier,
            mappings,
            table: FxHashMap::default(),
            gone: VecDeque::new(),
            owners: 0,
        }
    }

    /// How many processes were owners so far.
    pub(crate) fn owners(&self) -> u64 {
        self.owners
    }

    /// How many pieces of news about what programs have mapped were lost.
    pub(crate) fn mappings_lost(&mut self) -> u64 {
        self.mappings.as_mut().map_or(0, |mappings| mappings.lost())
    }

    /// A process ran a new program.
    pub(crate) fn exec(&mut self, execution: Execution) {
        let key = execution.key;
        let ppid = execution.ppid;
        let entry = Entry::Told(Arc::new(execution), ppid);
        if let Some(slot) = self.table.get_mut(&key) {
            if matches!(slot.entry, Entry::Known(_)) {
                // It is counted again when it is worked out again.
                self.owners -= 1;
            }
            slot.entry = entry;
        } else {
            self.insert(key, entry);
        }
    }

    /// A process was forked.
    pub(crate) fn fork(&mut self, parent: ProcessKey, child: ProcessKey) {
        let entry = match self.table.get(&parent).map(|slot| &slot.entry) {
            Some(Entry::Told(execution, _)) => Entry::Told(Arc::clone(execution), parent.pid),
            Some(Entry::Like(process, _)) => Entry::Like(Arc::clone(process), parent.pid),
            Some(Entry::Known(known)) => Entry::Like(Arc::clone(&known.process), parent.pid),
            None => {
                // Older than the recorder: look once, while it is there.
                let Some(process) = self.identifier.process(parent) else {
                    return;
                };
                let process = Arc::new(process);
                self.insert(
                    parent,
                    Entry::Like(Arc::clone(&process), process.ppid.unwrap_or(0)),
                );
                Entry::Like(process, parent.pid)
            }
        };
        // One that the snapshot found already is known better.
        if !self.table.contains_key(&child) {
            self.insert(child, entry);
        }
    }

    /// A process is gone.
    pub(crate) fn exit(&mut self, key: ProcessKey, now: Instant) {
        if let Some(slot) = self.table.get_mut(&key) {
            slot.is_gone = true;
            self.gone.push_back((key, now));
        }
    }

    /// Looks for processes that are gone, where the news of it may be lost.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let gone: Vec<ProcessKey> = self
            .table
            .iter()
            .filter(|(_, slot)| !slot.is_gone)
            .map(|(&key, _)| key)
            .filter(|&key| self.identifier.process(key).is_none())
            .collect();
        for key in gone {
            self.exit(key, now);
        }
    }

    /// A control group was made.
    pub(crate) fn group(&mut self, id: u64, path: String) {
        self.identifier.note_cgroup(id, path);
    }

    /// A socket of this process came (`true`) or went.
    pub(crate) fn count_socket(&mut self, key: ProcessKey, came: bool) {
        if let Some(slot) = self.table.get_mut(&key) {
            slot.sockets = if came {
                slot.sockets + 1
            } else {
                slot.sockets.saturating_sub(1)
            };
        }
    }

    /// Forgets those that are gone and own nothing.
    pub(crate) fn forget(&mut self, now: Instant) {
        let due = |&(_, since): &(ProcessKey, Instant)| now.duration_since(since) >= REST;
        let mut kept = Vec::new();
        while let Some((key, _)) = self.gone.pop_front_if(|gone| due(gone)) {
            match self.table.get(&key) {
                Some(slot) if slot.sockets > 0 => kept.push((key, now)),
                _ => drop(self.table.remove(&key)),
            }
        }
        self.gone.extend(kept);
    }

    /// What is known of a process; works it out if need be. `uid` is its
    /// effective user at the time of the event, which wins over what was known.
    pub(crate) fn known(
        &mut self,
        key: ProcessKey,
        uid: Option<u32>,
        clock: &mut LocalClock,
        anchor: &Anchor,
    ) -> &Known {
        let is_right = match self.table.get(&key).map(|slot| &slot.entry) {
            Some(Entry::Known(known)) => uid.is_none() || known.process.uid == uid,
            _ => false,
        };
        if !is_right {
            if self.find(key).is_none() {
                self.owners += 1;
            }
            let known = self.work_out(key, uid, clock, anchor);
            // Where nothing could be read it is gone already, and no news of
            // its end will come.
            let is_gone = known.process.ppid.is_none();
            let known = Entry::Known(Box::new(known));
            if let Some(slot) = self.table.get_mut(&key) {
                slot.entry = known;
            } else {
                self.insert(key, known);
                if is_gone {
                    self.exit(key, Instant::now());
                }
            }
        }
        match self.table.get(&key).map(|slot| &slot.entry) {
            Some(Entry::Known(known)) => known,
            _ => unreachable!("it was put there above"),
        }
    }

    /// Was it said to be gone?
    pub(crate) fn is_gone(&self, key: ProcessKey) -> bool {
        self.table.get(&key).is_some_and(|slot| slot.is_gone)
    }

    /// What is known of a process, if it was worked out.
    pub(crate) fn find(&self, key: ProcessKey) -> Option<&Known> {
        match &self.table.get(&key)?.entry {
            Entry::Known(known) => Some(known),
            Entry::Told(..) | Entry::Like(..) => None,
        }
    }

    /// Looks at the modules of a process again. Of one that is gone the kernel
    /// may have told more than could be read in time.
    pub(crate) fn refresh_modules(&mut self, key: ProcessKey) {
        let Some(Slot {
            entry: Entry::Known(known),
            is_gone,
            ..
        }) = self.table.get_mut(&key)
        else {
            return;
        };
        let read = if *is_gone {
            None
        } else {
            self.identifier.modules(key).ok()
        };
        // One that is just ending has none any more.
        if let Some(modules) = read.filter(|modules| !modules.is_empty()) {
            known.modules = Ok(modules);
            return;
        }
        let told = self.mappings.as_mut().and_then(|it| it.of(key));
        if let Some(mappings) = told
            && known
                .modules
                .as_ref()
                .map_or(!mappings.is_empty(), |modules| {
                    mappings.len() > modules.len()
                })
        {
            known.modules = Ok(self.identifier.modules_told(&mappings));
        }
    }

    /// The process with this number now.
    pub(crate) fn key_of(&mut self, pid: u32) -> Option<ProcessKey> {
        let process = self.identifier.process(ProcessKey {
            pid,
            start: event::BootTime(0),
        })?;
        let key = process.key();
        if !self.table.contains_key(&key) {
            let ppid = process.ppid.unwrap_or(0);
            self.insert(key, Entry::Like(Arc::new(process), ppid));
        }
        Some(key)
    }

    fn insert(&mut self, key: ProcessKey, entry: Entry) {
        self.table.insert(
            key,
            Slot {
                entry,
                sockets: 0,
                is_gone: false,
            },
        );
    }

    fn work_out(
        &mut self,
        key: ProcessKey,
        uid: Option<u32>,
        clock: &mut LocalClock,
        anchor: &Anchor,
    ) -> Known {
        let slot = self.table.get(&key);
        let is_gone = slot.is_some_and(|slot| slot.is_gone);
        let live = if is_gone {
            None
        } else {
            self.identifier.process(key)
        };
        let mut process = match slot.map(|slot| &slot.entry) {
            Some(Entry::Told(execution, ppid)) => {
                let execution = Arc::clone(execution);
                let ppid = *ppid;
                self.describe(key, &execution, ppid, live)
            }
            Some(Entry::Like(like, ppid)) => match live {
                Some(live) if live.exe.is_some() => live,
                // It is ending or gone: what it was forked from says more.
                _ => Process {
                    pid: key.pid,
                    ppid: Some(*ppid).filter(|&ppid| ppid != 0),
                    start: Some(key.start),
                    ..Process::clone(like)
                },
            },
            // Only its user was wrong.
            Some(Entry::Known(known)) => Process::clone(&known.process),
            None => live.unwrap_or_else(|| Process {
                pid: key.pid,
                start: Some(key.start).filter(|start| start.0 != 0),
                ..Process::default()
            }),
        };
        if uid.is_some() {
            process.uid = uid;
        }
        process.user = process
            .uid
            .and_then(|uid| self.identifier.user(uid))
            .map(|user| user.to_string());
        let before = match self.table.get_mut(&key).map(|slot| &mut slot.entry) {
            Some(Entry::Known(known)) => {
                Some(std::mem::replace(&mut known.modules, Ok(Vec::new())))
            }
            _ => None,
        };
        let modules = if let Some(before) = before {
            before
        } else {
            self.modules(key, is_gone)
        };
        let started = process.start.map(|start| anchor.wall(start));
        let text = OwnerText::new(&process, started, clock);
        Known {
            process: Arc::new(process),
            text,
            modules,
        }
    }

    /// The modules of a process: what is there to be read, or what the kernel
    /// told when it mapped them.
    fn modules(&mut self, key: ProcessKey, is_gone: bool) -> Result<Vec<Module>, String> {
        let read = if is_gone {
            Err("the process is gone".to_owned())
        } else {
            self.identifier
                .modules(key)
                .map_err(|error| error.to_string())
        };
        // One that is just ending has none any more, nor has the kernel's own.
        if read.as_ref().is_ok_and(|modules| !modules.is_empty()) {
            return read;
        }
        let told = self.mappings.as_mut().and_then(|it| it.of(key));
        match told {
            Some(mappings) if !mappings.is_empty() => Ok(self.identifier.modules_told(&mappings)),
            _ => read,
        }
    }

    /// Joins what the kernel told with what can still be read. The kernel's
    /// word on the program wins: a process can change its own arguments.
    fn describe(
        &mut self,
        key: ProcessKey,
        execution: &Execution,
        ppid: u32,
        live: Option<Process>,
    ) -> Process {
        let (mut service, mut container) = match execution.cgroup {
            Some(id) => match self.identifier.cgroup_path(id) {
                Some(path) => self.identifier.belongs(&path),
                None => (None, None),
            },
            None => (None, None),
        };
        let live_exe = live
            .as_ref()
            .and_then(|live| live.exe.clone())
            .filter(|shown| is_same_program(execution.exe.as_deref(), shown));
        let live_name = live.as_ref().and_then(|live| live.name.clone());
        if let Some(live) = live {
            service = live.service.or(service);
            container = live.container.or(container);
        }
        // A file that was deleted since is marked only by the live system.
        let exe = live_exe.or_else(|| execution.exe.clone());
        let name = identity::parse::image_name(exe.as_deref(), &execution.comm).or(live_name);
        Process {
            pid: key.pid,
            ppid: Some(ppid).filter(|&ppid| ppid != 0),
            start: Some(key.start),
            name,
            exe,
            cmdline: execution.cmdline.clone(),
            uid: Some(execution.uid),
            user: None,
            service,
            container,
        }
    }
}

/// Does the live system still show the program that the kernel told? By the time
/// it is looked at, the process may have run the next one.
fn is_same_program(told: Option<&str>, shown: &str) -> bool {
    /// What the kernel puts behind the path of a file that is gone.
    const GONE: &str = " (deleted)";
    told.is_none_or(|told| shown == told || shown.strip_suffix(GONE) == Some(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_later_program_is_no_news_of_this_one() {
        assert!(is_same_program(Some("/bin/a"), "/bin/a"));
        assert!(is_same_program(Some("/bin/a"), "/bin/a (deleted)"));
        assert!(!is_same_program(Some("/bin/a"), "/bin/b"));
        assert!(!is_same_program(Some("/bin/a"), "/bin/b (deleted)"));
        assert!(is_same_program(None, "/bin/b"));
    }
}
