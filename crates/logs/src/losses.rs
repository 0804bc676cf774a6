//! Events that were lost and are not told yet.
//!
//! While nothing can be written a loss is only counted here, one entry for each
//! reason, whatever the number; a loss whose number is unknown has an entry of
//! its own, so that it does not make the known ones unknown. Once writing works
//! each entry becomes a `gap`, before anything else is written.

use event::WallTime;

/// The reason of what a disk would not take.
pub(crate) const DISK: &str = "disk";

/// More reasons than this do not exist; further ones are counted with the last.
const MOST_REASONS: usize = 16;

/// Events of one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) reason: String,
    /// None: nobody can know.
    pub(crate) lost: Option<u64>,
    pub(crate) from: WallTime,
    pub(crate) to: WallTime,
}

/// What was lost and is not told yet.
#[derive(Debug, Default)]
pub(crate) struct Losses(Vec<Loss>);

impl Losses {
    /// Is there nothing to tell?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many more were lost between these moments.
    pub(crate) fn add(&mut self, reason: &str, lost: Option<u64>, from: WallTime, to: WallTime) {
        let full = self.0.len() >= MOST_REASONS;
        let alike = |loss: &Loss| loss.lost.is_some() == lost.is_some();
        let same = |loss: &Loss| alike(loss) && loss.reason == reason;
        let at = match self.0.iter().position(same) {
            None if full => self.0.iter().rposition(alike),
            known => known,
        };
        if let Some(loss) = at.and_then(|at| self.0.get_mut(at)) {
            loss.lost = loss
                .lost
                .zip(lost)
                .map(|(sum, lost)| sum.saturating_add(lost));
            loss.from = loss.from.min(from);
            loss.to = loss.to.max(to);
        } else {
            self.0.push(Loss {
                reason: reason.to_owned(),
                lost,
                from,
                to,
            });
        }
    }

    /// Everything, to be told.
    pub(crate) fn take(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_for_each_reason() {
        let mut losses = Losses::default();
        losses.add(DISK, Some(1), WallTime(20), WallTime(20));
        losses.add("ring", Some(5), WallTime(1), WallTime(2));
        losses.add(DISK, Some(2), WallTime(10), WallTime(30));
        losses.add(DISK, None, WallTime(40), WallTime(50));
        losses.add(DISK, None, WallTime(60), WallTime(70));
        let loss = |reason: &str, lost, from, to| Loss {
            reason: reason.to_owned(),
            lost,
            from: WallTime(from),
            to: WallTime(to),
        };
        assert_eq!(
            losses.take(),
            [
                loss(DISK, Some(3), 10, 30),
                loss("ring", Some(5), 1, 2),
                loss(DISK, None, 40, 70)
            ]
        );
        assert!(losses.is_empty());
    }

    #[test]
    fn no_number_of_reasons_is_too_large() {
        let mut losses = Losses::default();
        for n in 0..100 {
            losses.add(&format!("reason {n}"), Some(1), WallTime(n), WallTime(n));
        }
        for n in 0..100 {
            losses.add(&format!("reason {n}"), None, WallTime(n), WallTime(n));
        }
        let told = losses.take();
        assert_eq!(told.len(), MOST_REASONS + 1);
        assert_eq!(told.iter().filter_map(|loss| loss.lost).sum::<u64>(), 100);
        assert_eq!(told.last().map(|loss| loss.lost), Some(None));
    }
}
