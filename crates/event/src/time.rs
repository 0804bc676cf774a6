//! Two clocks: the wall's, which people read and which may jump, and the time
//! since boot, in which the kernel stamps events and which never does.

/// A moment by the wall clock, in microseconds since 1970-01-01T00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub i64);

impl WallTime {
    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Microseconds within the second, 0 to 999,999.
    pub fn subsecond_micros(self) -> u32 {
        u32::try_from(self.0.rem_euclid(1_000_000)).unwrap_or(0)
    }
}

/// A moment in nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Microseconds from `earlier` to this moment; 0 if it is the later one.
    pub fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}
