//! What holds of all sockets, whatever happens to them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::deaths::{death, with_deaths};
use super::*;

proptest! {
    #[test]
    fn every_opening_has_one_close_and_no_number_is_missing(
        looks in proptest::collection::vec(
            proptest::collection::btree_map(1_u64..8, 1_u8..12, 0..8), 1..12)
    ) {
        let mut known = Known::default();
        let mut batch = Vec::new();
        for one in looks.into_iter().chain([BTreeMap::new()]) {
            let sockets: Vec<_> = one.into_iter().map(|(cookie, number)| {
                let state = TcpState::from_linux(number).unwrap();
                let peer = if state == TcpState::Listening { "" } else { "10.0.0.2:9" };
                tcp(cookie, &format!("10.0.0.1:{cookie}"), peer, state, 5)
            }).collect();
            known.update(look(&sockets, 0), &mut Same::default(), &mut batch);
        }
        let mut open = BTreeSet::new();
        for (expected, observation) in (0..).zip(&batch) {
            let Observation::Socket(seen) = observation else {
                panic!("{observation:?}");
            };
            prop_assert_eq!(seen.sequence, expected);
            if seen.action.opens_port() {
                prop_assert!(open.insert(seen.socket.cookie));
            } else if seen.action.ends_socket() {
                prop_assert!(open.remove(&seen.socket.cookie));
            } else {
                prop_assert!(open.contains(&seen.socket.cookie));
            }
        }
        prop_assert!(open.is_empty());
        prop_assert!(known.sockets.is_empty());
    }

    /// However looks and deaths interleave, each socket opens and closes once.
    #[test]
    fn every_life_has_one_beginning_and_one_end(
        lives in proptest::collection::vec((0_usize..6, 0_usize..6, 0_usize..3, any::<bool>()), 1..8)
    ) {
        let mut known = Known::default();
        let mut batch = Vec::new();
        for now in 0..16 {
            let socket = |at: usize| {
                let number = u64::try_from(at).unwrap() + 1;
                let local = format!("10.0.0.1:{number}");
                tcp(number, &local, "10.0.0.2:9", TcpState::Established, 5)
            };
            let (mut sockets, mut deaths) = (Vec::new(), Vec::new());
            for (at, &(from, lasts, late, remains)) in lives.iter().enumerate() {
                let (from, until) = (from.min(5), from + lasts);
                if (from..until).contains(&now) {
                    sockets.push(socket(at));
                } else if now >= until && remains {
                    let mut remnant = socket(at);
                    remnant.socket.state = Some(TcpState::TimeWait);
                    remnant.inode = 0;
                    sockets.push(remnant);
                }
                if now == until + late {
                    deaths.push(death(&socket(at), 9, Some((2, 1, 0))));
                }
            }
            batch.extend(with_deaths(&mut known, &sockets, &deaths));
        }
        let mut count = BTreeMap::new();
        for observation in &batch {
            let Observation::Socket(seen) = observation else {
                panic!("{observation:?}");
            };
            let (opened, closed): &mut (u32, u32) = count.entry(seen.socket.cookie).or_default();
            *opened += u32::from(seen.action.opens_port());
            *closed += u32::from(seen.action.ends_socket());
        }
        prop_assert_eq!(count.len(), lives.len());
        prop_assert!(count.values().all(|&each| each == (1, 1)), "{:?}", count);
    }
}
