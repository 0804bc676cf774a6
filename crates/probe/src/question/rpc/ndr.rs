//! Results in NDR, the network data representation (C706 chapter 14): numbers in
//! the sender's byte order, each at a multiple of its size.

use super::super::guid::Guid;
use crate::{Fault, Reader};

/// A place in a stub.
#[derive(Debug, Clone)]
pub(super) struct Ndr<'a> {
    reader: Reader<'a>,
    big_endian: bool,
}

impl<'a> Ndr<'a> {
    pub(super) fn new(stub: &'a [u8], big_endian: bool) -> Self {
        Self {
            reader: Reader::new(stub),
            big_endian,
        }
    }

    /// Moves to the next multiple of `size`.
    pub(super) fn align(&mut self, size: usize) -> Result<(), Fault> {
        let to = self.reader.at().next_multiple_of(size);
        self.reader.seek(to, "padding")
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Fault> {
        self.align(2)?;
        if self.big_endian {
            self.reader.u16(what)
        } else {
            self.reader.u16_le(what)
        }
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Fault> {
        self.align(4)?;
        if self.big_endian {
            self.reader.u32(what)
        } else {
            self.reader.u32_le(what)
        }
    }

    pub(super) fn guid(&mut self, what: &'static str) -> Result<Guid, Fault> {
        let first = self.u32(what)?;
        let second = self.u16(what)?;
        let third = self.u16(what)?;
        Ok(Guid::of(first, second, third, self.reader.array(what)?))
    }

    pub(super) fn bytes(&mut self, length: u32, what: &'static str) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.reader.bytes(length, what)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, Fault> {
        self.reader.u8(what)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.reader.rest()
    }

    pub(super) fn malformed(&self, what: &'static str) -> Fault {
        self.reader.malformed(what)
    }
}
