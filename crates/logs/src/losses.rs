//! Events that were lost and are not told yet.
//!
//! While nothing can be written a loss is only counted here, one entry for each
//! reason, whatever the number. Once writing works each entry becomes a `gap`,
//! before anything else is written.

use event::WallTime;

/// The reason of what a disk would not take.
pub(crate) const DISK: &str = "disk";

/// More reasons than this do not exist; further ones are counted with the last.
const MOST_REASONS: usize = 16;

/// Events of one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) reason: String,
    pub(crate) lost: u64,
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
    pub(crate) fn add(&mut self, reason: &str, lost: u64, from: WallTime, to: WallTime) {
        let full = self.0.len() >= MOST_REASONS;
        let known = self.0.iter_mut().position(|loss| loss.reason == reason);
        let at = known.or(full.then_some(MOST_REASONS - 1));
        if let Some(loss) = at.and_then(|at| self.0.get_mut(at)) {
            loss.lost = loss.lost.saturating_add(lost);
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
        losses.add(DISK, 1, WallTime(20), WallTime(20));
        losses.add("ring", 5, WallTime(1), WallTime(2));
        losses.add(DISK, 2, WallTime(10), WallTime(30));
        let loss = |reason: &str, lost, from, to| Loss {
            reason: reason.to_owned(),
            lost,
            from: WallTime(from),
            to: WallTime(to),
        };
        assert_eq!(
            losses.take(),
            [loss(DISK, 3, 10, 30), loss("ring", 5, 1, 2)]
        );
        assert!(losses.is_empty());
    }

    #[test]
    fn no_number_of_reasons_is_too_large() {
        let mut losses = Losses::default();
        for n in 0..100 {
            losses.add(&format!("reason {n}"), 1, WallTime(n), WallTime(n));
        }
        let told = losses.take();
        assert_eq!(told.len(), MOST_REASONS);
        assert_eq!(told.iter().map(|loss| loss.lost).sum::<u64>(), 100);
    }
}
