//! The registers in which a rule's steps hand values to each other.

use std::collections::HashMap;
use std::net::IpAddr;

use super::rule::REGISTERS;

/// The registers, each byte known or not, and what each holds.
pub(super) struct Registers {
    bytes: [Option<u8>; REGISTERS],
    labels: HashMap<usize, String>,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            bytes: [None; REGISTERS],
            labels: HashMap::new(),
        }
    }
}

impl Registers {
    pub(super) fn load(&mut self, to: usize, label: String, value: &[Option<u8>]) {
        for (byte, value) in self.bytes.iter_mut().skip(to).zip(value) {
            *byte = *value;
        }
        self.labels.insert(to, label);
    }

    pub(super) fn label(&self, at: usize) -> &str {
        self.labels.get(&at).map_or("?", String::as_str)
    }

    /// `length` bytes, if all are known.
    pub(super) fn get(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        let end = at.checked_add(length)?;
        self.bytes.get(at..end)?.iter().copied().collect()
    }

    pub(super) fn combine(&mut self, from: usize, to: usize, mask: &[u8], xor: &[u8]) {
        let result: Vec<_> = mask
            .iter()
            .zip(xor)
            .enumerate()
            .map(|(at, (mask, xor))| {
                let byte = self.bytes.get(from + at).copied().flatten();
                // A masked byte is known whatever it was.
                let byte = if *mask == 0 { Some(0) } else { byte };
                byte.map(|byte| byte & mask ^ xor)
            })
            .collect();
        let label = self.label(from).to_owned();
        self.load(to, label, &result);
    }
}

/// A value as `nft` would write it beside that label.
pub(super) fn in_words(label: &str, value: &[u8]) -> String {
    let big_endian = || {
        let shift = |sum, byte: &u8| sum << 8 | u64::from(*byte);
        value.iter().fold(0_u64, shift)
    };
    if label.ends_with("port") {
        return big_endian().to_string();
    }
    if label.ends_with("name") {
        let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
        return event::text::escape(&event::text::from_bytes(text)).into_owned();
    }
    if label.ends_with("addr") && value.len() <= 16 {
        return address(label, value);
    }
    // What is not of the packet is in the order of the machine.
    match <[u8; 4]>::try_from(value) {
        Ok(bytes) if ["iif", "oif", "meta mark", "ct state"].contains(&label) => {
            format!("{:#x}", u32::from_ne_bytes(bytes))
        }
        _ if value.len() <= 8 => format!("{:#x}", big_endian()),
        _ => "…".to_owned(),
    }
}

/// An address, or the bytes of one that a prefix leaves.
fn address(label: &str, value: &[u8]) -> String {
    let (whole, address) = if label.starts_with("ip6") || value.len() > 4 {
        let mut bytes = [0; 16];
        bytes[..value.len()].copy_from_slice(value);
        (16, IpAddr::from(bytes))
    } else {
        let mut bytes = [0; 4];
        bytes[..value.len()].copy_from_slice(value);
        (4, IpAddr::from(bytes))
    };
    if value.len() == whole {
        address.to_string()
    } else {
        format!("{address}/{}", value.len() * 8)
    }
}
