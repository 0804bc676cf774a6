//! Reads a message that somebody else made.

use crate::Fault;

/// A place in a message. Never moves past the message's end: what is asked for
/// beyond it is [`Fault::Malformed`] with the word that the caller gave for it.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// The place, in bytes from the message's beginning.
    pub fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.message.len() - self.at
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// The whole message, for protocols whose names point back into it.
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.message[self.at..];
        self.at = self.message.len();
        rest
    }

    /// The next `length` bytes, which are `what`.
    pub fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Fault> {
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.message.len())
            .ok_or_else(|| self.malformed(what))?;
        let bytes = &self.message[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Fault> {
        let bytes = self.bytes(N, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Fault> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// Two bytes, the higher first.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Fault> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Four bytes, the highest first.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Fault> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Two bytes, the lower first.
    pub fn u16_le(&mut self, what: &'static str) -> Result<u16, Fault> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// Four bytes, the lowest first.
    pub fn u32_le(&mut self, what: &'static str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Moves to `at`, counted from the message's beginning.
    pub fn seek(&mut self, at: usize, what: &'static str) -> Result<(), Fault> {
        if at > self.message.len() {
            return Err(self.malformed(what));
        }
        self.at = at;
        Ok(())
    }

    /// The fault that names this place.
    pub fn malformed(&self, what: &'static str) -> Fault {
        Fault::Malformed { what, at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_both_orders_up_to_the_end() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5]);
        assert_eq!(reader.u16("a").unwrap(), 0x0102);
        assert_eq!(reader.u16_le("b").unwrap(), 0x0403);
        assert_eq!(reader.left(), 1);
        let fault = reader.u16("c").unwrap_err();
        assert!(matches!(fault, Fault::Malformed { what: "c", at: 4 }));
        assert_eq!(reader.rest(), [5]);
        assert!(reader.is_empty());
    }

    #[test]
    fn a_length_beyond_all_bounds_is_malformed() {
        let mut reader = Reader::new(&[1, 2]);
        reader.u8("first").unwrap();
        assert!(reader.bytes(usize::MAX, "body").is_err());
        assert!(reader.seek(3, "pointer").is_err());
        assert_eq!(reader.at(), 1);
    }
}
