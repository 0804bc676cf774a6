//! In which order ports are asked.

use std::hash::{BuildHasher as _, RandomState};

/// A way through the numbers below `count` that meets each once, without a list
/// of them: 65,535 ports of 65,536 hosts would fill 16 GB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    count: u64,
    step: u64,
    start: u64,
}

impl Order {
    /// From the first to the last.
    pub(super) fn straight(count: u64) -> Self {
        Self {
            count,
            step: 1,
            start: 0,
        }
    }

    /// Scattered, and differently each time: neighbours are asked far from each
    /// other, so that a slow host or a rate limit meets all alike.
    pub(super) fn shuffled(count: u64) -> Self {
        if count < 3 {
            return Self::straight(count);
        }
        let random = |what: u8| RandomState::new().hash_one(what);
        // Near the golden ratio, a step scatters best; sharing no divisor with
        // the count, it meets every number.
        let golden = count / 8 * 5;
        let mut step = golden + random(0) % (count / 16 + 1);
        while divisor(step, count) != 1 {
            step += 1;
        }
        Self {
            count,
            step: step % count,
            start: random(1) % count,
        }
    }

    /// The number at that place.
    pub(super) fn at(self, place: u64) -> u64 {
        let (count, step) = (u128::from(self.count), u128::from(self.step));
        let number = (u128::from(place) * step + u128::from(self.start)) % count;
        u64::try_from(number).unwrap_or(0)
    }
}

/// The greatest common divisor.
fn divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_comes_once(count in 1_u64..3000) {
            for order in [Order::straight(count), Order::shuffled(count)] {
                let met: HashSet<_> = (0..count).map(|place| order.at(place)).collect();
                prop_assert_eq!(met.len() as u64, count);
                prop_assert!(met.iter().all(|number| *number < count));
            }
        }
    }

    #[test]
    fn the_largest_scan_does_not_overflow() {
        let order = Order::shuffled(1 << 48);
        assert!(order.at((1 << 48) - 1) < 1 << 48);
    }
}
