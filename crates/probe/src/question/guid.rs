//! The identifiers by which Microsoft's protocols name everything.

use std::fmt;

use crate::{Fault, Reader};

/// A GUID in the form of the wire: of the first three fields the lowest byte
/// comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guid(pub(super) [u8; 16]);

impl Guid {
    /// Of its four fields, as it is written: `12345778-1234-abcd-…`.
    pub(super) const fn of(first: u32, second: u16, third: u16, rest: [u8; 8]) -> Self {
        let third = (third as u128) << 48;
        let fields = first as u128 | (second as u128) << 32 | third;
        let rest = u64::from_le_bytes(rest) as u128;
        Self((fields | rest << 64).to_le_bytes())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.array("a GUID").map(Self)
    }

    /// Whether it names nothing.
    pub(super) fn is_nil(self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
            if matches!(place, 5 | 7 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[place])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_people_do() {
        let guid = Guid::of(
            0xe1af_8308,
            0x5d1f,
            0x11c9,
            [0x91, 0xa4, 0x08, 0x00, 0x2b, 0x14, 0xa0, 0xfa],
        );
        assert_eq!(guid.to_string(), "e1af8308-5d1f-11c9-91a4-08002b14a0fa");
        assert_eq!(guid.0[..4], [0x08, 0x83, 0xaf, 0xe1]);
        assert_eq!(Guid::read(&mut Reader::new(&guid.0)).unwrap(), guid);
        assert!(Guid([0; 16]).is_nil());
    }
}
