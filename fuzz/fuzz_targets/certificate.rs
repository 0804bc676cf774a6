//! A certificate, as any server may show it.
#![no_main]

use probe::Certificate;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(certificate) = Certificate::read(bytes) {
        assert!(
            certificate.is_valid(certificate.not_before)
                || certificate.not_after < certificate.not_before
        );
        let _ = certificate.facts(certificate.not_after);
    }
});
