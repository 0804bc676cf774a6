//! In which order ports are asked.

use std::hash::{BuildHasher as _, RandomState};

/// A way through the numbers below `count` that meets each once, without a list
/// of them: 65,535 ports of 65,536 hosts would fill 16 GB.
#[derive(Debug, Clone)]
pub(super) struct Order {
    count: u64,
    shuffle: Option<Shuffle>,
}

/// A Feistel network: a permutation of the numbers of `2 * half` bits, whatever
/// its round function is (Luby and Rackoff, 1988).
#[derive(Debug, Clone)]
struct Shuffle {
    half: u32,
    keys: [RandomState; 4],
}

impl Order {
    /// From the first to the last.
    pub(super) fn straight(count: u64) -> Self {
        Self {
            count,
            shuffle: None,
        }
    }

    /// Scattered, and differently each time, so that a slow host or a rate limit
    /// meets all alike. A mere stride would not do: with an unlucky one, a host's
    /// filtered ports come one after the other.
    pub(super) fn shuffled(count: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        let shuffle = Shuffle {
            half: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|_| RandomState::new()),
        };
        Self {
            count,
            shuffle: Some(shuffle),
        }
    }

    /// The number at that place, which is one below `count`.
    pub(super) fn at(&self, place: u64) -> u64 {
        let Some(shuffle) = &self.shuffle else {
            return place;
        };
        // The permutation is of up to four times as many numbers. Following it
        // from a number below `count` comes back to such a number.
        let mut number = shuffle.permute(place);
        while number >= self.count {
            number = shuffle.permute(number);
        }
        number
    }
}

impl Shuffle {
    fn permute(&self, number: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (number >> self.half & mask, number & mask);
        for key in &self.keys {
            (left, right) = (right, left ^ key.hash_one(right) & mask);
        }
        left << self.half | right
    }
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
    fn neighbours_are_torn_apart() {
        let order = Order::shuffled(20_000);
        let near = |place: u64| order.at(place).abs_diff(order.at(place + 1)) < 200;
        let near = (0..19_999).filter(|place| near(*place)).count();
        // Two in a hundred of all pairs are as near as that.
        assert!(near < 800, "{near}");
    }

    #[test]
    fn the_largest_scan_does_not_overflow() {
        let order = Order::shuffled(1 << 48);
        assert!(order.at((1 << 48) - 1) < 1 << 48);
    }
}
