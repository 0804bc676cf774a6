//! The system's name service, asked for a user.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

/// The first size of the buffer for an entry, enough for nearly all.
const FIRST: usize = 1024;
/// No entry is longer than that.
const LIMIT: usize = 1024 * 1024;

/// The name of a user. May take as long as the service likes. An error of the
/// service is the same as a user that it does not know: there is no name.
pub(super) fn user_name(uid: u32) -> Option<Vec<u8>> {
    let mut buffer: Vec<libc::c_char> = vec![0; FIRST];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found: *mut libc::passwd = ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and the length is that
        // of the buffer.
        let error = unsafe {
            libc::getpwuid_r(
                uid,
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        match error {
            0 if found.is_null() => return None,
            0 => {
                // SAFETY: on success the entry is filled in, and `found`
                // points to it.
                let name = unsafe { (*found).pw_name };
                if name.is_null() {
                    return None;
                }
                // SAFETY: the name is a terminated string inside the buffer,
                // which lives until the end of this block.
                return Some(unsafe { CStr::from_ptr(name) }.to_bytes().to_vec());
            }
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < LIMIT => buffer.resize(buffer.len() * 2, 0),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_the_table_knows() {
        let table = std::fs::read("/etc/passwd").unwrap_or_default();
        for uid in [0, 33, 65_534, 4_294_967_290] {
            if let Some(name) = super::super::parse::user_name(&table, uid) {
                assert_eq!(user_name(uid).as_deref(), Some(name));
            }
        }
        assert_eq!(user_name(4_294_967_290), None);
    }
}
