//! `mountinfo`, `/etc/passwd` and `timens_offsets`.
#![no_main]

use identity::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|&byte| byte == b'\n').count();
    assert!(parse::mounts(bytes).count() <= lines);
    let _ = parse::boottime_offset(bytes);
    for uid in [0, 1000, u32::MAX] {
        assert!(parse::user_name(bytes, uid).is_none_or(|name| !name.is_empty()));
    }
});
