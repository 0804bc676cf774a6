//! What the iterator over the descriptors of all processes writes.
#![no_main]

use event::Protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(row) = sensor::record::decode_row(bytes) {
        let tcp = row.socket.protocol == Protocol::Tcp;
        assert_eq!(row.socket.state.is_some(), tcp, "only TCP has states");
    }
});
