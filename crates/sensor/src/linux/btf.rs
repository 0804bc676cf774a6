//! Where things are in this kernel: a reader of BPF Type Format that answers
//! two questions, the number of a function and the offset of a member.
//!
//! The kernel describes its own types in `/sys/kernel/btf/vmlinux`: a header,
//! a section of types and one of names. A type is 12 bytes and as much more as
//! its kind and its count of members say; types have no index but their order,
//! so that the whole section is gone through once for all questions. Building
//! a map of all names would take many times as long.
//!
//! Format: `Documentation/bpf/btf.rst` in the kernel's sources.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;

use super::netlink::Reader;

/// Where the kernel describes its own types.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_FUNCTION: u32 = 12;

/// The description of a kernel's types.
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

/// A question, and its answer when it was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// The number of the function of this name.
    Function(&'a str, Option<u32>),
    /// The offset in bytes of a member of a structure.
    Member(&'a str, &'a str, Option<u16>),
}

impl<'a> Btf<'a> {
    /// Reads the header; none if this is not BTF.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u16()? != MAGIC {
            return None;
        }
        let _version_and_flags = reader.u16()?;
        let mut number = || usize::try_from(reader.u32()?).ok();
        let header = number()?;
        let [type_start, type_length] = [number()?, number()?];
        let [name_start, name_length] = [number()?, number()?];
        let body = bytes.get(header..)?;
        Some(Self {
            types: body.get(type_start..)?.get(..type_length)?,
            names: body.get(name_start..)?.get(..name_length)?,
        })
    }

    /// Answers all questions that have an answer. Of several types of one name
    /// the first counts, as everywhere in the kernel.
    pub(crate) fn find(&self, wanted: &mut [Wanted<'_>]) {
        let mut reader = Reader::new(self.types);
        let mut open = wanted.len();
        for id in 1.. {
            let Some((name, kind, details)) = next_type(&mut reader) else {
                return;
            };
            if kind != KIND_STRUCT && kind != KIND_FUNCTION {
                continue;
            }
            for wanted in &mut *wanted {
                let answered = match wanted {
                    Wanted::Function(function, found @ None)
                        if kind == KIND_FUNCTION && self.is_named(name, function) =>
                    {
                        *found = Some(id);
                        true
                    }
                    Wanted::Member(structure, member, found @ None)
                        if kind == KIND_STRUCT && self.is_named(name, structure) =>
                    {
                        *found = self.offset(details, member);
                        found.is_some()
                    }
                    _ => false,
                };
                open -= usize::from(answered);
            }
            if open == 0 {
                return;
            }
        }
    }

    /// The offset of a member that begins at a byte.
    fn offset(&self, members: &[u8], wanted: &str) -> Option<u16> {
        let mut reader = Reader::new(members);
        loop {
            let name = reader.u32()?;
            let _type = reader.u32()?;
            // The upper byte is the width of a bit field, if there are any.
            let bits = reader.u32()? & 0x00ff_ffff;
            if self.is_named(name, wanted) {
                return u16::try_from(bits / 8).ok().filter(|_| bits % 8 == 0);
            }
        }
    }

    /// Is this what is written at that place among the names?
    fn is_named(&self, place: u32, name: &str) -> bool {
        usize::try_from(place)
            .ok()
            .and_then(|place| self.names.get(place..))
            .and_then(|names| names.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// The bytes of the kernel's own description, some megabytes.
pub(crate) struct KernelTypes(Bytes);

enum Bytes {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl KernelTypes {
    /// Maps the description (kernel 6.16 and later), which costs next to
    /// nothing, or else reads it.
    pub(crate) fn open() -> io::Result<Self> {
        let mut file = File::open(KERNEL_TYPES)?;
        if let Some(mapping) = Mapping::new(&file) {
            return Ok(Self(Bytes::Mapped(mapping)));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self(Bytes::Read(bytes)))
    }
}

impl Deref for KernelTypes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(mapping) => mapping,
            Bytes::Read(bytes) => bytes,
        }
    }
}

/// The kernel's description, mapped into our memory.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(file: &File) -> Option<Self> {
        let length = usize::try_from(file.metadata().ok()?.len()).ok()?;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = NonNull::new(start.cast())?;
        Some(Self { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped as long as `self` lives, and nobody
        // writes to them: it is a constant of the kernel.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Name, kind and what follows of the next type.
fn next_type<'a>(reader: &mut Reader<'a>) -> Option<(u32, u32, &'a [u8])> {
    let name = reader.u32()?;
    let info = reader.u32()?;
    let _size_or_type = reader.u32()?;
    let kind = info >> 24 & 0x1f;
    let count = usize::try_from(info & 0xffff).ok()?;
    let length = match kind {
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, section, 64-bit enumeration.
        4 | 5 | 15 | 19 => count * 12,
        // Enumeration, function prototype.
        6 | 13 => count * 8,
        // Pointer, forward, typedef, qualifiers, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Unknown: of unknown length.
        _ => return None,
    };
    Some((name, kind, reader.take(length)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// `int`, `struct socket { int sk_; int sk; }`, function `socket`.
    fn sample() -> Vec<u8> {
        let names = b"\0int\0socket\0sk_\0sk\0";
        let mut types = words(&[1, 1 << 24, 4, 32]);
        types.extend(words(&[5, KIND_STRUCT << 24 | 2, 16]));
        types.extend(words(&[12, 1, 0, 16, 1, 64]));
        types.extend(words(&[5, KIND_FUNCTION << 24, 1]));
        // Others of the same names, later.
        types.extend(words(&[5, KIND_STRUCT << 24 | 1, 16]));
        types.extend(words(&[16, 1, 32]));
        types.extend(words(&[5, KIND_FUNCTION << 24, 1]));
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(words(&[
            24,
            0,
            length(&types),
            length(&types),
            length(names),
        ]));
        bytes.extend(types);
        bytes.extend_from_slice(names);
        bytes
    }

    #[test]
    fn finds_functions_and_members() {
        let bytes = sample();
        let mut wanted = [
            Wanted::Function("socket", None),
            Wanted::Member("socket", "sk", None),
            Wanted::Member("socket", "s", None),
            Wanted::Function("int", None),
        ];
        Btf::new(&bytes).unwrap().find(&mut wanted);
        assert_eq!(
            wanted,
            [
                Wanted::Function("socket", Some(3)),
                Wanted::Member("socket", "sk", Some(8)),
                Wanted::Member("socket", "s", None),
                Wanted::Function("int", None),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(at in 0_usize..120, value: u8, length in 0_usize..120) {
            let mut bytes = sample();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(length);
            if let Some(btf) = Btf::new(&bytes) {
                btf.find(&mut [Wanted::Member("socket", "sk", None)]);
            }
        }
    }
}
