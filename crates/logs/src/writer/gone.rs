//! What is being written is deleted or moved.
//!
//! A file without a name takes everything that is written to it and gives it
//! back to nobody, so it must be noticed soon. Each second the files of the set
//! and the directory are looked for by their names. If one is not there a new
//! set is due; if the directory is not there it is made again, with the checks
//! of a start, as soon as that set is opened.
//!
//! What is only looked at by name may be anything: whether events are lost is
//! asked of the open file. One that was moved is closed in order where it is.

use std::sync::Arc;

use super::Logs;
use crate::compress::Keeper;
use crate::dir::{Dir, Place};
use crate::error::Error;
use crate::lock::Lock;
use crate::report::Notice;

/// Why events that were kept are lost.
pub(super) const DELETED: &str = "the log files were deleted while they were being written";

impl Logs {
    /// Looks whether what is being written is where it belongs, and says so
    /// once if it is not.
    pub(super) fn look(&mut self) {
        let Some(set) = &self.current else {
            return;
        };
        if self.gone {
            return;
        }
        let found = match self.dir.place() {
            Place::Kept => set
                .missing(&self.dir)
                .map(|(name, deleted)| (self.dir.path_of(&name.to_string()), deleted)),
            Place::Moved => Some((self.dir.path().to_path_buf(), set.events.is_deleted())),
            Place::Deleted => Some((self.dir.path().to_path_buf(), true)),
        };
        if let Some((path, deleted)) = found {
            self.gone = true;
            self.notices.push(Notice::Gone { path, deleted });
        }
    }

    /// Opens the directory again if it is not where it was.
    pub(super) fn follow(&mut self) -> Result<(), Error> {
        if self.dir.place() == Place::Kept {
            return Ok(());
        }
        let dir = Arc::new(Dir::open(&self.options.dir)?);
        let lock = Lock::take(&dir)?;
        let keeper = Keeper::start(Arc::clone(&dir))?;
        self.notices.extend(self.keeper.notices());
        // The one before ends with what it was given; nobody waits for it.
        self.keeper = keeper;
        self.dir = dir;
        self.lock = lock;
        self.leave();
        Ok(())
    }

    /// The sets so far are not where this recording says that it is.
    pub(super) fn leave(&mut self) {
        self.gone_sets += self.sets;
        self.sets = 0;
        self.lines = 0;
        self.bytes = 0;
        if let Some(set) = &mut self.current {
            set.is_left_behind = true;
        }
    }
}
