//! Writes elements, as DER does: with the shortest length.

use super::{Oid, Tag};

/// Elements in a row.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Without elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// An element of any kind.
    pub fn element(&mut self, tag: Tag, contents: &[u8]) {
        self.bytes.push(tag.0);
        if let Ok(length @ ..0x80) = u8::try_from(contents.len()) {
            self.bytes.push(length);
        } else {
            let length = contents.len().to_be_bytes();
            let zeros = length.iter().take_while(|byte| **byte == 0).count();
            let length = &length[zeros..];
            // Of eight bytes at most, as `usize` is.
            self.bytes.push(0x80 | length.len().to_le_bytes()[0]);
            self.bytes.extend_from_slice(length);
        }
        self.bytes.extend_from_slice(contents);
    }

    /// An element around those that `inside` writes.
    pub fn wrap(&mut self, tag: Tag, inside: impl FnOnce(&mut Self)) {
        let mut contents = Self::new();
        inside(&mut contents);
        self.element(tag, &contents.bytes);
    }

    /// A BOOLEAN.
    pub fn boolean(&mut self, truth: bool) {
        self.element(Tag::BOOLEAN, &[if truth { 0xff } else { 0 }]);
    }

    /// An INTEGER.
    pub fn integer(&mut self, number: i64) {
        self.signed(Tag::INTEGER, number);
    }

    /// An ENUMERATED.
    pub fn enumerated(&mut self, number: i64) {
        self.signed(Tag::ENUMERATED, number);
    }

    /// A number that cannot be negative, under any tag.
    pub fn unsigned(&mut self, tag: Tag, number: u64) {
        let bytes = number.to_be_bytes();
        let zeros = bytes.iter().take(7).take_while(|byte| **byte == 0).count();
        if bytes[zeros] & 0x80 == 0 {
            self.element(tag, &bytes[zeros..]);
        } else {
            self.element(tag, &[&[0], &bytes[zeros..]].concat());
        }
    }

    /// An OCTET STRING.
    pub fn octets(&mut self, contents: &[u8]) {
        self.element(Tag::OCTET_STRING, contents);
    }

    /// A NULL.
    pub fn null(&mut self) {
        self.element(Tag::NULL, &[]);
    }

    /// An OBJECT IDENTIFIER.
    pub fn oid(&mut self, oid: &Oid) {
        self.element(Tag::OID, oid.contents());
    }

    fn signed(&mut self, tag: Tag, number: i64) {
        let bytes = number.to_be_bytes();
        let mut start = 0;
        // A byte that only repeats the sign is left out.
        while start < 7
            && (bytes[start] == 0 && bytes[start + 1] & 0x80 == 0
                || bytes[start] == 0xff && bytes[start + 1] & 0x80 != 0)
        {
            start += 1;
        }
        self.element(tag, &bytes[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        write(&mut writer);
        writer.into_bytes()
    }

    #[test]
    fn the_shortest_form() {
        assert_eq!(written(|w| w.integer(0)), [2, 1, 0]);
        assert_eq!(written(|w| w.integer(127)), [2, 1, 127]);
        assert_eq!(written(|w| w.integer(128)), [2, 2, 0, 128]);
        assert_eq!(written(|w| w.integer(-128)), [2, 1, 128]);
        assert_eq!(written(|w| w.integer(-129)), [2, 2, 0xff, 0x7f]);
        assert_eq!(written(|w| w.enumerated(1)), [10, 1, 1]);
        assert_eq!(written(|w| w.boolean(true)), [1, 1, 0xff]);
        assert_eq!(written(Writer::null), [5, 0]);
        assert_eq!(written(|w| w.octets(&[0; 127]))[..2], [4, 127]);
        assert_eq!(written(|w| w.octets(&[0; 128]))[..3], [4, 0x81, 128]);
        assert_eq!(written(|w| w.octets(&[0; 256]))[..4], [4, 0x82, 1, 0]);
    }
}
