//! The registers in which a rule's steps hand values to each other.

use std::collections::HashMap;
use std::net::IpAddr;

use super::rule::REGISTERS;

/// The registers, each byte known or not, and what each holds.
pub(super) struct Registers {
    bytes: [Option<u8>; REGISTERS],
    labels: HashMap<usize, String>,
    /// What was masked out of each, if that is all that was done to it.
    masks: HashMap<usize, Vec<u8>>,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            bytes: [None; REGISTERS],
            labels: HashMap::new(),
            masks: HashMap::new(),
        }
    }
}

impl Registers {
    pub(super) fn load(&mut self, to: usize, label: String, value: &[Option<u8>]) {
        for (byte, value) in self.bytes.iter_mut().skip(to).zip(value) {
            *byte = *value;
        }
        self.labels.insert(to, label);
        self.masks.remove(&to);
    }

    /// The mask that the value was put under.
    pub(super) fn mask(&self, at: usize) -> Option<&[u8]> {
        self.masks.get(&at).map(Vec::as_slice)
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
        if xor.iter().all(|byte| *byte == 0) {
            self.masks.insert(to, mask.to_vec());
        }
    }
}

/// The states of a conversation in a mask of `ct state`.
pub(super) fn states(mask: &[u8]) -> Option<String> {
    const NAMES: [(u32, &str); 5] = [
        (1, "invalid"),
        (2, "established"),
        (4, "related"),
        (8, "new"),
        (64, "untracked"),
    ];
    let mask = u32::from_ne_bytes(mask.try_into().ok()?);
    let names = NAMES.iter().filter(|(bit, _)| mask & bit != 0);
    let names: Vec<_> = names.map(|(_, name)| *name).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// How many bits of an address a mask leaves, if it leaves the first ones.
pub(super) fn prefix(mask: &[u8]) -> Option<u32> {
    let leading = |byte: &u8| byte.leading_ones();
    let length: u32 = mask.iter().map(leading).take_while(|ones| *ones == 8).sum();
    let rest = mask.get(usize::try_from(length / 8).ok()?..)?;
    let (ones, others) = rest
        .split_first()
        .map_or((0, rest), |(first, others)| (leading(first), others));
    let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    (others.iter().all(|byte| *byte == 0) && bits == length + ones).then_some(bits)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_in_the_words_of_nft() {
        assert_eq!(prefix(&[255, 240, 0, 0]), Some(12));
        assert_eq!(prefix(&[255, 255, 255, 255]), Some(32));
        assert_eq!(prefix(&[0; 4]), Some(0));
        assert_eq!(prefix(&[255, 0, 255, 0]), None);
        assert_eq!(prefix(&[255, 0b1010_0000, 0, 0]), None);
        assert_eq!(states(&8_u32.to_ne_bytes()).as_deref(), Some("new"));
        let both = states(&6_u32.to_ne_bytes());
        assert_eq!(both.as_deref(), Some("established,related"));
        assert_eq!(states(&[0; 4]), None);
        assert_eq!(states(&[8]), None);
    }

    #[test]
    fn a_mask_is_known_until_something_else_is_loaded() {
        let mut registers = Registers::default();
        registers.load(0, "ip saddr".to_owned(), &[Some(10); 4]);
        assert_eq!(registers.mask(0), None);
        registers.combine(0, 0, &[255, 240, 0, 0], &[0; 4]);
        assert_eq!(registers.mask(0), Some(&[255, 240, 0, 0][..]));
        registers.load(0, "ip daddr".to_owned(), &[Some(10); 4]);
        assert_eq!(registers.mask(0), None);
    }
}
