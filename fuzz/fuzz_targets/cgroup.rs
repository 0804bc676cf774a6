//! `cgroup` of a process: its unit and its container.
#![no_main]

use identity::parse::{self, UnitName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let root = parse::manager_root(bytes);
    for root in ["", &root] {
        if let Some(unit) = parse::places(bytes, root).unit {
            assert!(
                UnitName::new(&unit.name).is_some(),
                "no name of a unit: {:?}",
                unit.name
            );
        }
    }
});
