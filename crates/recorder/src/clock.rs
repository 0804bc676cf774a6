//! From the kernel's clock to the wall's.
//!
//! Events are stamped in time since boot, which never jumps; people read the
//! wall clock, which does. The distance between the two is measured anew for
//! each batch of events, so that a step of the wall clock shows in the log from
//! the next batch on and never reaches back.

use event::{BootTime, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The distance between the two clocks, as last measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    boot_ns: i128,
    wall_ns: i128,
}

impl Anchor {
    /// Measures it now.
    pub(crate) fn now() -> Self {
        Self {
            boot_ns: nanoseconds(clock_gettime(ClockId::Boottime)),
            wall_ns: nanoseconds(clock_gettime(ClockId::Realtime)),
        }
    }

    /// What the wall clock would have shown then.
    pub(crate) fn wall(&self, time: BootTime) -> WallTime {
        let ns = self.wall_ns - self.boot_ns + i128::from(time.0);
        WallTime(i64::try_from(ns.div_euclid(1000)).unwrap_or(i64::MAX))
    }

    /// The wall clock at the moment of the measurement.
    pub(crate) fn wall_now(&self) -> WallTime {
        self.wall(self.boot_now())
    }

    /// The time since boot at the moment of the measurement.
    pub(crate) fn boot_now(&self) -> BootTime {
        BootTime(u64::try_from(self.boot_ns).unwrap_or(0))
    }
}

/// The wall clock now.
pub fn wall_now() -> WallTime {
    Anchor::now().wall_now()
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_distance_from_now() {
        let anchor = Anchor {
            boot_ns: 5_000_000_000,
            wall_ns: 1_700_000_000_000_000_000,
        };
        assert_eq!(
            anchor.wall(BootTime(4_000_000_000)),
            WallTime(1_699_999_999_000_000)
        );
        assert_eq!(anchor.wall_now(), WallTime(1_700_000_000_000_000));
    }
}
