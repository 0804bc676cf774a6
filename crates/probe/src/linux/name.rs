//! The names of addresses, from the system's resolver.

use std::ffi::CStr;
use std::net::SocketAddr;
use std::ptr;

/// The name of an address; none if it has none.
pub(super) fn name_of(address: SocketAddr) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::NI_MAXHOST as usize];
    let outcome = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: all zeros is a valid `sockaddr_in`.
            let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            raw.sin_family = libc::sa_family_t::try_from(libc::AF_INET).ok()?;
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            ask(ptr::from_ref(&raw).cast(), size_of_val(&raw), &mut name)
        }
        SocketAddr::V6(v6) => {
            // SAFETY: all zeros is a valid `sockaddr_in6`.
            let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            raw.sin6_family = libc::sa_family_t::try_from(libc::AF_INET6).ok()?;
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            ask(ptr::from_ref(&raw).cast(), size_of_val(&raw), &mut name)
        }
    };
    if outcome != 0 {
        return None;
    }
    // SAFETY: `getnameinfo` succeeded and has ended the text with a zero within
    // the buffer.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(event::text::from_bytes(name.to_bytes()))
}

fn ask(address: *const libc::sockaddr, length: usize, name: &mut [libc::c_char]) -> libc::c_int {
    let length = libc::socklen_t::try_from(length).unwrap_or(0);
    let room = libc::socklen_t::try_from(name.len()).unwrap_or(0);
    // SAFETY: `address` points to a socket address of `length` bytes and `name`
    // to `room` bytes; both outlive the call. A service is not asked for.
    unsafe {
        libc::getnameinfo(
            address,
            length,
            name.as_mut_ptr(),
            room,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    }
}
