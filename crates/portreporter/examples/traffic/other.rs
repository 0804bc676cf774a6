//! Sockets that are neither TCP nor UDP.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use serde_json::{Value, json};

use crate::Outcome;
use crate::facts::{report_with, wait_for_the_test};
use crate::tcp::ANY_V4;

/// `other raw|raw6|ping|udplite|packet`: makes one such socket, says so, waits
/// for the test if `held` follows, and closes it.
pub(crate) fn other(arguments: &[String]) -> Outcome {
    let kind = arguments.first().map_or("", String::as_str);
    let every_frame = i32::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
    let (family, how, number) = match kind {
        "raw" => (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        "raw6" => (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        "ping" => (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        "udplite" => (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        "packet" => (libc::AF_PACKET, libc::SOCK_RAW, every_frame),
        other => return Err(format!("no such kind: {other}").into()),
    };
    if kind == "ping" {
        // In a network namespace of its own, where nobody may by default.
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
    }
    // SAFETY: makes a descriptor, which is checked and owned below.
    let raw = unsafe { libc::socket(family, how | libc::SOCK_CLOEXEC, number) };
    if raw == -1 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: it is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut truth = match kind {
        "raw" | "raw6" => json!({"protocol": "raw", "local_port": Value::Null}),
        "ping" => json!({"protocol": "icmp", "local_port": Value::Null}),
        "packet" => {
            json!({"protocol": "packet", "local_port": Value::Null, "local_ip": Value::Null})
        }
        _ => json!({"protocol": "udplite"}),
    };
    if kind == "udplite" {
        rustix::net::bind(&socket, &ANY_V4)?;
    }
    if kind == "packet" {
        // Its address is none of the Internet's.
        truth["cookie"] = crate::facts::cookie(&socket)?.into();
        crate::facts::report_alone("other", &truth);
    } else {
        report_with("other", &socket, &truth)?;
    }
    if arguments.get(1).is_some_and(|word| word == "held") {
        wait_for_the_test()?;
    }
    Ok(())
}

/// Plays a scenario in a network namespace of its own in which sockets have no
/// room for what programs in the kernel want to keep with them.
pub(crate) fn without_room(arguments: &[String]) -> Outcome {
    // SAFETY: CLONE_NEWNET does not touch the table of file descriptors.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    std::fs::write("/proc/sys/net/core/optmem_max", "0")?;
    crate::process::raise_loopback()?;
    crate::play(arguments)
}
