//! The operation `ept_lookup` (C706 appendix O): one page of the table.

use event::text;

use super::super::guid::Guid;
use super::ndr::Ndr;
use super::tower::Tower;
use crate::Fault;

/// The status of a page.
pub(super) const OK: u32 = 0;

/// `ept_s_not_registered`: there was nothing left for this page.
pub(super) const NO_MORE: u32 = 0x16c9_a0d6;

/// Where the next page begins; the server's own, passed back as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    attributes: u32,
    uuid: Guid,
}

impl Handle {
    /// The beginning, and the end.
    pub(super) const NONE: Self = Self {
        attributes: 0,
        uuid: Guid([0; 16]),
    };
}

/// The arguments of a call, in little-endian: at most `count` entries of the
/// table from `handle` on, whatever their object, interface and version.
pub(super) fn request(handle: &Handle, count: u32) -> Vec<u8> {
    let mut stub = Vec::with_capacity(40);
    stub.extend(0_u32.to_le_bytes()); // inquiry: all elements
    stub.extend(0_u32.to_le_bytes()); // no object
    stub.extend(0_u32.to_le_bytes()); // no interface
    stub.extend(1_u32.to_le_bytes()); // all versions
    stub.extend(handle.attributes.to_le_bytes());
    stub.extend(handle.uuid.0);
    stub.extend(count.to_le_bytes());
    stub
}

/// The results of a call.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) handle: Handle,
    pub(super) entries: Vec<Entry>,
    pub(super) status: u32,
}

/// One registered endpoint.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) object: Guid,
    pub(super) annotation: String,
    pub(super) tower: Tower,
}

impl Page {
    pub(super) fn read(stub: &[u8], big_endian: bool) -> Result<Self, Fault> {
        let mut ndr = Ndr::new(stub, big_endian);
        let handle = Handle {
            attributes: ndr.u32("a handle")?,
            uuid: ndr.guid("a handle")?,
        };
        let count = ndr.u32("a number of entries")?;
        // A conformant and varying array: its room, where it begins, its length.
        ndr.u32("an array")?;
        ndr.u32("an array")?;
        if ndr.u32("an array")? != count {
            return Err(ndr.malformed("an array of as many entries as were told"));
        }
        // The structures come first, what they point to comes after them all.
        let mut heads = Vec::new();
        for _ in 0..count {
            let object = ndr.guid("an entry")?;
            let tower = ndr.u32("an entry")?;
            heads.push((object, tower != 0, annotation(&mut ndr)?));
        }
        let mut entries = Vec::new();
        for (object, has_tower, annotation) in heads {
            let tower = if has_tower {
                ndr.u32("a tower")?;
                let length = ndr.u32("the length of a tower")?;
                Tower::read(ndr.bytes(length, "a tower")?)?
            } else {
                Tower::default()
            };
            entries.push(Entry {
                object,
                annotation,
                tower,
            });
        }
        let status = ndr.u32("a status")?;
        Ok(Self {
            handle,
            entries,
            status,
        })
    }
}

/// A string of at most 64 bytes, with the zero that ends it.
fn annotation(ndr: &mut Ndr<'_>) -> Result<String, Fault> {
    ndr.u32("an annotation")?;
    let length = ndr.u32("an annotation")?;
    let bytes = ndr.bytes(length, "an annotation")?;
    let end = bytes.iter().position(|byte| *byte == 0);
    Ok(text::from_bytes(&bytes[..end.unwrap_or(bytes.len())]))
}
