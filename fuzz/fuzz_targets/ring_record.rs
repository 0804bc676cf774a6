//! What the kernel programs put into the ring.
#![no_main]

use event::Attribution;
use sensor::Observation;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(Observation::Socket(socket)) = sensor::record::decode(bytes) {
        let known = socket.attribution != Attribution::Unknown;
        assert_eq!(
            socket.owner.is_some(),
            known,
            "an owner without a reason, or a reason without one"
        );
    }
});
