//! What is done to closed sets while recording goes on.

use std::collections::BTreeMap;

use event::WallTime;

use super::Logs;
use crate::names::{Form, StoredSet, inventory};
use crate::report::Notice;
use crate::stamp::{Stamp, civil};

impl Logs {
    /// Removes what retention says and compresses what is closed. To be called
    /// each minute; opening a set does it too.
    pub fn maintain(&mut self, now: WallTime) {
        // A directory that cannot be listed will show in every other way.
        let Ok(mut sets) = inventory(&self.dir) else {
            return;
        };
        let current = self.current();
        let today = civil(self.clock.zone(), now).date();
        for stamp in self.retention.surplus(&sets, current, today) {
            let Some(set) = sets.remove(&stamp) else {
                continue;
            };
            let bytes = set.bytes();
            let removed: Result<Vec<()>, _> = set
                .names()
                .map(|name| self.dir.remove(&name.to_string()))
                .collect();
            match removed {
                Ok(_) => self.notices.push(Notice::Removed { set: stamp, bytes }),
                Err(error) => {
                    if self.stuck.insert(stamp) {
                        let error = error.to_string();
                        self.notices.push(Notice::NotRemoved { set: stamp, error });
                    }
                }
            }
        }
        self.stuck.retain(|stamp| sets.contains_key(stamp));
        self.compress_closed(&sets);
    }

    /// Asks for each closed file to be compressed that was not asked for yet.
    pub(super) fn compress_closed(&mut self, sets: &BTreeMap<Stamp, StoredSet>) {
        self.kept.retain(|stamp| sets.contains_key(stamp));
        if !self.options.compress {
            return;
        }
        for (&stamp, set) in sets {
            if self.current() == Some(stamp) || self.kept.contains(&stamp) {
                continue;
            }
            let taken = set
                .names()
                .filter(|name| name.form == Form::Plain && name.kind.is_compressed())
                .all(|name| self.keeper.compress(name));
            if taken {
                self.kept.insert(stamp);
            }
        }
    }
}
