//! Which process has which mappings, from the news of it in order.
//!
//! A process is entered when it is forked or runs a program; what one has that
//! was there before is not known, and said to be so. A fork has what its parent
//! has, the same list until one of the two maps something else. One that is
//! gone is kept until many others are gone, too: whoever asks for it comes
//! later than the news.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use event::{BootTime, Mapping, ProcessKey};
use rustc_hash::FxHashSet;

use super::record::{File, News, Record};

/// So many processes that are gone are kept, some kilobytes each at most.
const MOST_GONE: usize = 8192;
/// More files than this in one process are not followed.
const MOST_FILES: usize = 4096;
/// So many files may be known before those without a process are forgotten.
const LEAST_FILES: usize = 1024;
/// The news of a fork follows the start of the process within this time.
const FORK_NS: u64 = 1_000_000_000;

/// Every process that is known.
pub(super) struct Table {
    /// By number and the time at which it was first heard of.
    programs: BTreeMap<(u32, u64), Program>,
    gone: VecDeque<(u32, u64)>,
    files: FxHashSet<Arc<File>>,
    /// When there may be so many that some are of no use.
    purge_at: usize,
    /// Of what was there before this time, not everything is known.
    blind_until: BootTime,
    lost: u64,
}

struct Program {
    /// It was heard of when it was forked, and not later.
    from_fork: bool,
    /// Everything it has mapped; none if it is not known.
    mapped: Option<Arc<Vec<Part>>>,
}

/// A file at the lowest address at which it was mapped.
#[derive(Clone)]
struct Part {
    file: Arc<File>,
    address: u64,
    offset: u64,
}

impl Table {
    /// A table that knows nothing of what was there before.
    pub(super) fn new(now: BootTime) -> Self {
        Self {
            programs: BTreeMap::new(),
            gone: VecDeque::new(),
            files: FxHashSet::default(),
            purge_at: LEAST_FILES,
            blind_until: now,
            lost: 0,
        }
    }

    /// How many records were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes in the next news.
    pub(super) fn note(&mut self, record: Record) {
        let Record { at, news } = record;
        match news {
            News::Lost(count) => self.lose(count, at),
            News::Exec(pid) => {
                let mapped = Some(Arc::default());
                if let Some(program) = self.current(pid) {
                    program.mapped = mapped;
                } else {
                    let from_fork = false;
                    let program = Program { from_fork, mapped };
                    self.programs.insert((pid, at.0), program);
                }
            }
            News::Fork { parent, child } => {
                let mapped = self.current(parent).and_then(|it| it.mapped.clone());
                let from_fork = true;
                let program = Program { from_fork, mapped };
                self.programs.insert((child, at.0), program);
            }
            News::Exit(pid) => self.exit(pid),
            News::Map {
                pid,
                address,
                offset,
                file,
            } => self.map(pid, address, offset, file),
        }
    }

    /// So many records were lost: any process may have mapped something since,
    /// be gone, or run another program.
    pub(super) fn lose(&mut self, count: u64, at: BootTime) {
        *self = Self {
            lost: self.lost.saturating_add(count),
            ..Self::new(at)
        };
    }

    /// What a process has mapped; none if not all of it is known.
    pub(super) fn of(&self, process: ProcessKey) -> Option<Vec<Mapping>> {
        let from = (process.pid, process.start.0);
        let (&(_, since), program) = self.programs.range(from..=(process.pid, u64::MAX)).next()?;
        // It is not another one of the same number.
        let is_it = if program.from_fork {
            since - process.start.0 <= FORK_NS
        } else {
            process.start <= self.blind_until
        };
        let parts = program.mapped.as_deref().filter(|_| is_it)?;
        let mapping = |part: &Part| Mapping {
            path: part.file.path.to_vec(),
            address: part.address,
            offset: part.offset,
            device: part.file.device,
            inode: part.file.inode,
        };
        Some(parts.iter().map(mapping).collect())
    }

    fn current(&mut self, pid: u32) -> Option<&mut Program> {
        let mut all = self.programs.range_mut((pid, 0)..=(pid, u64::MAX));
        all.next_back().map(|(_, program)| program)
    }

    fn exit(&mut self, pid: u32) {
        let mut all = self.programs.range((pid, 0)..=(pid, u64::MAX));
        let Some((&key, program)) = all.next_back() else {
            return;
        };
        if program.mapped.is_none() {
            self.programs.remove(&key);
            return;
        }
        self.gone.push_back(key);
        if self.gone.len() > MOST_GONE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.programs.remove(&oldest);
        }
    }

    fn map(&mut self, pid: u32, address: u64, offset: u64, file: File) {
        // What a process has of which not everything is known is of no use.
        let mut all = self.programs.range_mut((pid, 0)..=(pid, u64::MAX));
        let program = all.next_back().map(|(_, program)| program);
        let Some(mapped) = program.and_then(|program| program.mapped.as_mut()) else {
            return;
        };
        let file = if let Some(known) = self.files.get(&file) {
            Arc::clone(known)
        } else {
            let file = Arc::new(file);
            self.files.insert(Arc::clone(&file));
            file
        };
        let mut parts = mapped.iter();
        match parts.position(|part| Arc::ptr_eq(&part.file, &file)) {
            Some(place) if mapped[place].address > address => {
                let part = &mut Arc::make_mut(mapped)[place];
                (part.address, part.offset) = (address, offset);
            }
            None if mapped.len() < MOST_FILES => Arc::make_mut(mapped).push(Part {
                file,
                address,
                offset,
            }),
            Some(_) | None => {}
        }
        if self.files.len() > self.purge_at {
            self.files.retain(|file| Arc::strong_count(file) > 1);
            self.purge_at = (self.files.len() * 2).max(LEAST_FILES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: u64 = 1000;

    fn table() -> Table {
        Table::new(BootTime(OPENED))
    }

    fn note(table: &mut Table, at: u64, news: News) {
        table.note(Record {
            at: BootTime(at),
            news,
        });
    }

    fn map(pid: u32, address: u64, path: &str) -> News {
        let file = File {
            path: path.as_bytes().into(),
            device: (8, 1),
            inode: path.len() as u64,
        };
        News::Map {
            pid,
            address,
            offset: 0x1000,
            file,
        }
    }

    fn fork(parent: u32, child: u32) -> News {
        News::Fork { parent, child }
    }

    /// The paths and addresses of a process.
    fn of(table: &Table, pid: u32, start: u64) -> Option<Vec<(String, u64)>> {
        let start = BootTime(start);
        let mappings = table.of(ProcessKey { pid, start })?;
        let text = |path| String::from_utf8(path).unwrap();
        Some(
            mappings
                .into_iter()
                .map(|mapping| (text(mapping.path), mapping.address))
                .collect(),
        )
    }

    fn parts(parts: &[(&str, u64)]) -> Vec<(String, u64)> {
        parts
            .iter()
            .map(|&(path, address)| (path.to_owned(), address))
            .collect()
    }

    #[test]
    fn a_program_has_what_it_mapped_also_when_it_is_gone() {
        let mut table = table();
        note(&mut table, 2001, fork(1, 9));
        assert_eq!(of(&table, 9, 2000), None, "its parent is not known");
        note(&mut table, 2002, News::Exec(9));
        note(&mut table, 2003, map(9, 0x7000, "/bin/a"));
        note(&mut table, 2004, map(9, 0x9000, "/lib/c"));
        note(&mut table, 2005, map(9, 0x6000, "/bin/a"));
        note(&mut table, 2006, News::Exit(9));
        let all = Some(parts(&[("/bin/a", 0x6000), ("/lib/c", 0x9000)]));
        assert_eq!(of(&table, 9, 2000), all);
    }

    #[test]
    fn another_program_begins_with_nothing() {
        let mut table = table();
        note(&mut table, 2001, News::Exec(9));
        note(&mut table, 2002, map(9, 0x7000, "/bin/a"));
        note(&mut table, 2003, News::Exec(9));
        note(&mut table, 2004, map(9, 0x7000, "/bin/b"));
        let all = Some(parts(&[("/bin/b", 0x7000)]));
        assert_eq!(of(&table, 9, 500), all, "older than the table");
        assert_eq!(of(&table, 9, 1500), None, "its fork was not seen");
    }

    #[test]
    fn a_fork_has_what_its_parent_has_and_then_its_own() {
        let mut table = table();
        note(&mut table, 2001, News::Exec(8));
        note(&mut table, 2002, map(8, 0x7000, "/bin/a"));
        note(&mut table, 2004, fork(8, 9));
        note(&mut table, 2005, map(9, 0x8000, "/lib/child"));
        note(&mut table, 2006, map(8, 0x9000, "/lib/parent"));
        let child = Some(parts(&[("/bin/a", 0x7000), ("/lib/child", 0x8000)]));
        let parent = Some(parts(&[("/bin/a", 0x7000), ("/lib/parent", 0x9000)]));
        assert_eq!(of(&table, 9, 2003), child);
        assert_eq!(of(&table, 8, 900), parent);
    }

    #[test]
    fn two_processes_of_one_number_are_told_apart() {
        let mut table = table();
        for (start, path) in [(2000, "/bin/a"), (3000, "/bin/b")] {
            note(&mut table, start + 1, fork(1, 9));
            note(&mut table, start + 2, News::Exec(9));
            note(&mut table, start + 3, map(9, 0x7000, path));
            note(&mut table, start + 4, News::Exit(9));
        }
        assert_eq!(of(&table, 9, 2000), Some(parts(&[("/bin/a", 0x7000)])));
        assert_eq!(of(&table, 9, 3000), Some(parts(&[("/bin/b", 0x7000)])));
        assert_eq!(of(&table, 9, 4000), None);
        // One whose fork was not seen is not the next one of its number.
        let mut table = self::table();
        note(&mut table, FORK_NS * 3, fork(1, 9));
        note(&mut table, FORK_NS * 3 + 1, News::Exec(9));
        assert_eq!(of(&table, 9, FORK_NS), None);
        assert_eq!(of(&table, 9, FORK_NS * 3), Some(parts(&[])));
    }

    #[test]
    fn after_a_loss_nothing_old_is_believed() {
        let mut table = table();
        note(&mut table, 2001, News::Exec(9));
        note(&mut table, 2002, map(9, 0x7000, "/bin/a"));
        note(&mut table, 2003, News::Lost(5));
        note(&mut table, 2004, map(9, 0x8000, "/lib/c"));
        assert_eq!(of(&table, 9, 900), None);
        assert_eq!(table.lost(), 5);
        note(&mut table, 2005, News::Exec(9));
        note(&mut table, 2006, map(9, 0x7000, "/bin/b"));
        assert_eq!(of(&table, 9, 1500), Some(parts(&[("/bin/b", 0x7000)])));
    }

    #[test]
    fn what_is_long_gone_is_forgotten() {
        let mut table = table();
        for pid in 1..20_000 {
            let at = 2000 + u64::from(pid) * 10;
            note(&mut table, at + 1, fork(0, pid));
            note(&mut table, at + 2, News::Exec(pid));
            note(
                &mut table,
                at + 3,
                map(
                    pid,
                    0x7000,
                    &format!("/{}", "x".repeat(pid as usize % 3000)),
                ),
            );
            note(&mut table, at + 4, News::Exit(pid));
        }
        assert_eq!(table.programs.len(), MOST_GONE);
        assert_eq!(table.gone.len(), MOST_GONE);
        assert!(table.files.len() <= 6000, "{}", table.files.len());
        assert_eq!(of(&table, 1, 2010), None);
        assert!(of(&table, 19_999, 2000 + 199_990).is_some());
    }
}
