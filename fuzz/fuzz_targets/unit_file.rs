//! A unit file of systemd: its description, with specifiers.
#![no_main]

use identity::parse::{self, UnitName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(description) = parse::description(bytes) else {
        return;
    };
    for name in [
        "plain.service",
        "getty@tty1.service",
        "a-b-c@x\\x2dy.scope",
        "x@.socket",
    ] {
        if let Some(name) = UnitName::new(name) {
            let text = parse::expand(&description, &name);
            assert!(description.contains('%') || text == description);
        }
    }
});
