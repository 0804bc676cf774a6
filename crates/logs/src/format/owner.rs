//! What is known of a process, as a line about one of its sockets says it.
//!
//! A process opens thousands of sockets and is the same in each line about
//! them, so its part of a line, and of a row of PR-PORTS, is made once. Whoever
//! learns something new about a process makes a new text of it.

use event::{Process, WallTime};

use super::clock::LocalClock;
use super::decimal::push_u64;
use super::events::{push_key, push_number_or_null};
use super::quote::{clip, push_csv, push_json_or_null};

/// The bytes of a text from outside that are kept.
pub const MAX_TEXT: usize = 16 << 10;

/// The bytes of a command line that are kept.
pub const MAX_COMMAND_LINE: usize = 64 << 10;

/// What is known of a process, as it stands in PR-EVENTS and PR-PORTS: made
/// once, copied into each line about its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerText {
    /// `"pid":…` to `"container":…`, then `PID,module,user context`.
    text: Box<[u8]>,
    /// Where the second part starts.
    ports_at: usize,
}

impl OwnerText {
    /// The text of a process that started at `started`.
    pub fn new(process: &Process, started: Option<WallTime>, clock: &mut LocalClock) -> Self {
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(b"\"pid\":");
        push_u64(&mut text, process.pid.into());
        text.extend_from_slice(b",\"ppid\":");
        push_number_or_null(&mut text, process.ppid.map(u64::from));
        text.extend_from_slice(b",\"start_time\":");
        match started {
            Some(started) => {
                text.push(b'"');
                clock.push_rfc3339(&mut text, started);
                text.push(b'"');
            }
            None => text.extend_from_slice(b"null"),
        }
        let service = process.service.as_ref().map(|service| &service.name);
        push_text(&mut text, "process", process.name.as_ref(), MAX_TEXT);
        push_text(&mut text, "exe", process.exe.as_ref(), MAX_TEXT);
        push_text(
            &mut text,
            "cmdline",
            process.cmdline.as_ref(),
            MAX_COMMAND_LINE,
        );
        text.extend_from_slice(b",\"uid\":");
        push_number_or_null(&mut text, process.uid.map(u64::from));
        push_text(&mut text, "user", process.user.as_ref(), MAX_TEXT);
        push_text(&mut text, "service", service, MAX_TEXT);
        push_text(&mut text, "container", process.container.as_ref(), MAX_TEXT);
        let ports_at = text.len();

        push_u64(&mut text, process.pid.into());
        text.push(b',');
        push_csv(
            &mut text,
            &clip(process.name.as_deref().unwrap_or_default(), MAX_TEXT),
        );
        text.push(b',');
        if let Some(user) = &process.user {
            push_csv(&mut text, &format!("<{}>", clip(user, MAX_TEXT)));
        }
        Self {
            text: text.into(),
            ports_at,
        }
    }

    /// The text where nobody is known.
    pub fn unknown() -> Self {
        let owner: &[u8] = b"\"pid\":null,\"ppid\":null,\"start_time\":null,\"process\":null,\
            \"exe\":null,\"cmdline\":null,\"uid\":null,\"user\":null,\"service\":null,\
            \"container\":null";
        Self {
            text: [owner, UNKNOWN_IN_PORTS].concat().into(),
            ports_at: owner.len(),
        }
    }

    /// `"pid":…` to `"container":…`.
    pub(super) fn events(&self) -> &[u8] {
        &self.text[..self.ports_at]
    }

    /// `PID,module,user context`, quoted where that is needed.
    pub(super) fn ports(&self) -> &[u8] {
        &self.text[self.ports_at..]
    }
}

/// `PID,module,user context` of a port whose owner was never known.
pub(super) const UNKNOWN_IN_PORTS: &[u8] = b"0,System Idle,";

fn push_text(out: &mut Vec<u8>, key: &str, text: Option<&String>, limit: usize) {
    push_key(out, key);
    push_json_or_null(out, text.map(|text| clip(text, limit)).as_deref());
}
