//! The ICMP messages that concern a socket (`ip(7)`, `IP_RECVERR`).
//!
//! Without this an application learns an error number, in which the kernel has
//! folded together what routers say ("host unreachable" and "administratively
//! prohibited" are the same there). With it the kernel keeps the message itself
//! in a queue beside the socket, for TCP as well as for UDP.

use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use crate::verdict::Icmp;

/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6`.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// Has the kernel keep messages for `socket`.
pub(super) fn listen(socket: impl AsFd, v4: bool) -> io::Result<()> {
    let (level, option) = if v4 {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    };
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one `c_int` from `on`, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            socklen(size_of::<libc::c_int>()),
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The last message that the kernel keeps for `socket`. All are taken.
pub(crate) fn last_message(socket: impl AsFd) -> Option<Icmp> {
    let mut last = None;
    // As many as a hostile network may send while we look, and no more.
    for _ in 0..64 {
        match take_message(&socket) {
            Taken::Message(message) => last = Some(message),
            Taken::Other => {}
            Taken::Nothing => break,
        }
    }
    last
}

/// What was in the queue.
enum Taken {
    Message(Icmp),
    /// Something else than ICMP.
    Other,
    Nothing,
}

/// Takes one message.
fn take_message(socket: &impl AsFd) -> Taken {
    // Aligned for `cmsghdr`, and large enough for an error with an address.
    let mut control = [MaybeUninit::<u64>::zeroed(); 32];
    let mut payload = [0_u8; 1];
    let mut parts = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: all zeros is a valid `msghdr` without any parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut parts;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in `message` is to a local that outlives the call,
    // with the length beside it.
    let received = unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut message,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    if received < 0 {
        return Taken::Nothing;
    }
    // SAFETY: the kernel has filled `message`; `CMSG_FIRSTHDR` and `CMSG_NXTHDR`
    // stay within `msg_controllen`, so a header that they give can be read.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(found) = header.as_ref() {
            let kind = (found.cmsg_level, found.cmsg_type);
            if kind == (libc::IPPROTO_IP, libc::IP_RECVERR)
                || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            {
                // The lengths are numbers of bytes from the header's beginning.
                let length = found.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let bytes = std::slice::from_raw_parts(libc::CMSG_DATA(header), length);
                return read(bytes).map_or(Taken::Other, Taken::Message);
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Taken::Other
}

/// Reads a `sock_extended_err` and the address behind it.
fn read(bytes: &[u8]) -> Option<Icmp> {
    let byte = |at: usize| bytes.get(at).copied();
    let v6 = match byte(offset_of!(libc::sock_extended_err, ee_origin))? {
        ORIGIN_ICMP => false,
        ORIGIN_ICMP6 => true,
        _ => return None,
    };
    let address = bytes.get(size_of::<libc::sock_extended_err>()..)?;
    Some(Icmp {
        v6,
        kind: byte(offset_of!(libc::sock_extended_err, ee_type))?,
        code: byte(offset_of!(libc::sock_extended_err, ee_code))?,
        from: offender(address),
    })
}

/// The address in a `sockaddr_in` or `sockaddr_in6`.
fn offender(bytes: &[u8]) -> Option<IpAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    match libc::c_int::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

fn socklen(length: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(length).unwrap_or(libc::socklen_t::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(origin: u8, kind: u8, code: u8, address: &[u8]) -> Vec<u8> {
        let mut bytes = 111_u32.to_ne_bytes().to_vec();
        bytes.extend([origin, kind, code, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(address);
        bytes
    }

    #[test]
    fn reads_who_said_what() {
        let mut address = 2_u16.to_ne_bytes().to_vec();
        address.extend([0, 0, 10, 0, 0, 1]);
        let icmp = read(&error(ORIGIN_ICMP, 3, 13, &address)).unwrap();
        assert_eq!(icmp.from, Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(icmp.words(), "administratively prohibited");
        assert!(!icmp.is_port_unreachable());
    }

    #[test]
    fn what_is_no_message_is_none() {
        let local = error(1, 0, 0, &[0; 16]);
        assert_eq!(read(&local), None);
        for length in 0..16 {
            assert_eq!(read(&error(ORIGIN_ICMP, 3, 3, &[])[..length]), None);
        }
        assert_eq!(read(&error(ORIGIN_ICMP, 3, 3, &[])).unwrap().from, None);
    }
}
