//! What the kernel says about a socket and about this process, as one line of
//! JSON on standard output.
//!
//! A fact is taken with calls that a recorder has no part in (`getsockname`,
//! `SO_COOKIE`, `/proc/self`), so that it is a second witness. What cannot be
//! read, such as `/proc` inside a bare chroot, is null.

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};
use std::os::unix::fs::MetadataExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::net::{SocketType, sockopt};
use serde_json::{Map, Value, json};

/// Prints the fact about one socket.
pub(crate) fn report(role: &str, socket: impl AsFd) -> io::Result<()> {
    report_with(role, socket, &json!({}))
}

/// Prints the fact about one socket, with more keys, which win over its own.
pub(crate) fn report_with(role: &str, socket: impl AsFd, more: &Value) -> io::Result<()> {
    let mut fact = process();
    let socket = socket.as_fd();
    let local = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    let remote = match rustix::net::getpeername(socket) {
        Ok(Some(peer)) => Some(SocketAddr::try_from(peer)?),
        Ok(None) | Err(_) => None,
    };
    let protocol = match sockopt::socket_type(socket)? {
        SocketType::DGRAM => "udp",
        _ => "tcp",
    };
    fact.extend(object(json!({
        "role": role,
        "cookie": cookie(socket)?,
        "protocol": protocol,
        "local_ip": local.ip().to_canonical().to_string(),
        "local_port": local.port(),
        "remote_ip": remote.map(|peer| peer.ip().to_canonical().to_string()),
        "remote_port": remote.map(|peer| peer.port()),
    })));
    fact.extend(object(more.clone()));
    say(&Value::Object(fact));
    Ok(())
}

/// Prints what is known of this process, with the truth about a socket that
/// has no address.
pub(crate) fn report_alone(role: &str, truth: &Value) {
    let mut fact = process();
    fact.extend(object(json!({"role": role})));
    fact.extend(object(truth.clone()));
    say(&Value::Object(fact));
}

/// The cookie of a socket, as the recorder writes it.
pub(crate) fn cookie(socket: impl AsFd) -> io::Result<String> {
    Ok(format!("{:x}", sockopt::socket_cookie(socket)?))
}

/// Prints one line. A test that has gone away is no error.
pub(crate) fn say(value: &Value) {
    let line = format!("{value}\n");
    let _ = io::stdout().lock().write_all(line.as_bytes());
}

/// Says that everything is in place and waits until the test has acted.
pub(crate) fn wait_for_the_test() -> io::Result<()> {
    say(&json!({"ready": true}));
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Microseconds since 1970.
pub(crate) fn wall_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// What is known about this process.
fn process() -> Map<String, Value> {
    let exe = std::fs::read_link("/proc/self/exe")
        .ok()
        .map(|path| event::text::from_bytes(path.as_os_str().as_bytes()));
    let arguments: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    let netns = std::fs::metadata("/proc/self/ns/net")
        .ok()
        .map(|ns| ns.ino());
    object(json!({
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
        "uid": rustix::process::geteuid().as_raw(),
        "exe": exe,
        "cmdline": event::text::join_arguments(arguments.iter().map(Vec::as_slice)),
        "started": started(),
        "netns": netns,
        "at": wall_micros(),
    }))
}

/// When this process started, in seconds since 1970.
fn started() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: f64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let booted: f64 = std::fs::read_to_string("/proc/stat")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    // USER_HZ is 100 on every architecture that Rust's std supports.
    Some(booted + ticks / 100.0)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
