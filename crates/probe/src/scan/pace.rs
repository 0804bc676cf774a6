//! How long to wait for a host, learnt from how fast it answers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// The shortest wait: under it, a host that is only busy would seem silent.
const SHORTEST: Duration = Duration::from_millis(100);
/// The wait for a host that has not answered yet (RFC 6298 section 2.1).
const UNKNOWN: Duration = Duration::from_secs(1);

/// Round trips by host.
#[derive(Debug, Default)]
pub(super) struct Pace {
    hosts: HashMap<IpAddr, RoundTrip>,
}

/// RFC 6298's smoothed round trip and its variation.
#[derive(Debug, Clone, Copy)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl Pace {
    /// An answer took that long (RFC 6298 section 2). True if it is the host's
    /// first.
    pub(super) fn learn(&mut self, host: IpAddr, took: Duration) -> bool {
        let known = self.hosts.len();
        self.hosts
            .entry(host)
            .and_modify(|known| {
                let off = known.smoothed.abs_diff(took);
                known.variation = (known.variation * 3 + off) / 4;
                known.smoothed = (known.smoothed * 7 + took) / 8;
            })
            .or_insert(RoundTrip {
                smoothed: took,
                variation: took / 2,
            });
        self.hosts.len() > known
    }

    /// How long to wait at the given try (from 0), at most `longest`: twice as
    /// long as at the one before.
    pub(super) fn wait(&self, host: IpAddr, tried: u32, longest: Duration) -> Duration {
        let base = self.hosts.get(&host).map_or(UNKNOWN, |known| {
            (known.smoothed + known.variation * 4).max(SHORTEST)
        });
        base.saturating_mul(2_u32.saturating_pow(tried))
            .min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LONGEST: Duration = Duration::from_secs(3);

    #[test]
    fn a_host_that_never_answered_gets_a_second() {
        let pace = Pace::default();
        let waits: Vec<_> = (0..4)
            .map(|tried| pace.wait(HOST, tried, LONGEST).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 3, 3]);
    }

    #[test]
    fn a_near_host_gets_little_and_a_far_one_more() {
        let mut pace = Pace::default();
        pace.learn(HOST, Duration::from_micros(50));
        assert_eq!(pace.wait(HOST, 0, LONGEST), SHORTEST);
        assert_eq!(pace.wait(HOST, 1, LONGEST), SHORTEST * 2);
        for _ in 0..100 {
            pace.learn(HOST, Duration::from_millis(300));
        }
        let wait = pace.wait(HOST, 0, LONGEST);
        assert!(wait >= Duration::from_millis(299), "{wait:?}");
        assert!(wait < Duration::from_millis(400), "{wait:?}");
    }
}
