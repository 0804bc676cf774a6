//! Where the parts of an ELF file lie in memory, one to the other.
//!
//! A linker may place the code at another distance from the beginning in memory
//! than in the file. So from the address of the code alone it does not follow
//! where the beginning is; the program headers tell.

/// More than this of the file is not needed: it holds the header and more
/// program headers than any file has.
pub const ELF_LIMIT: usize = 16 * 1024;

const LOAD: u32 = 1;

/// Where the file begins in memory if the part of it at `offset` was mapped at
/// `address`; the lowest address of the parts that are to be loaded. `start` is
/// the beginning of the file, `page` the size of a page. None if the file is
/// not of this kind or has no such part.
pub fn base(start: &[u8], address: u64, offset: u64, page: u64) -> Option<u64> {
    let down = |number: u64| {
        number
            .checked_next_multiple_of(page)
            .map(|up| if up == number { up } else { up - page })
    };
    let parts = parts(start)?;
    let mut lowest = None;
    let mut mapped = None;
    for part in parts {
        let memory = down(part.memory)?;
        lowest = Some(lowest.map_or(memory, |lowest: u64| lowest.min(memory)));
        if part.is_code && down(part.offset)? == offset {
            mapped = mapped.or(Some(memory));
        }
    }
    address.checked_sub(mapped?.checked_sub(lowest?)?)
}

struct Part {
    offset: u64,
    memory: u64,
    is_code: bool,
}

/// The parts that are to be loaded.
fn parts(start: &[u8]) -> Option<Vec<Part>> {
    const OF_64_BITS: u8 = 2;
    const OF_32_BITS: u8 = 1;
    const EXECUTE: u32 = 1;
    const ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };

    let identification = start.get(..6)?;
    let is_wide = match identification {
        [0x7f, b'E', b'L', b'F', OF_64_BITS, ORDER] => true,
        [0x7f, b'E', b'L', b'F', OF_32_BITS, ORDER] => false,
        _ => return None,
    };
    let (table, size) = if is_wide {
        (u64_at(start, 32)?, 54)
    } else {
        (u64::from(u32_at(start, 28)?), 42)
    };
    let (size, count) = (u16_at(start, size)?, u16_at(start, size + 2)?);
    let table = start.get(usize::try_from(table).ok()?..)?;
    let mut parts = Vec::new();
    for header in table
        .chunks_exact(usize::from(size).max(1))
        .take(usize::from(count))
    {
        if u32_at(header, 0)? != LOAD {
            continue;
        }
        let (flags, offset, memory) = if is_wide {
            (u32_at(header, 4)?, u64_at(header, 8)?, u64_at(header, 16)?)
        } else {
            let (offset, memory) = (u32_at(header, 4)?, u32_at(header, 8)?);
            (u32_at(header, 24)?, offset.into(), memory.into())
        };
        parts.push(Part {
            offset,
            memory,
            is_code: flags & EXECUTE != 0,
        });
    }
    Some(parts)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|&part| u16::from_ne_bytes(part))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|&part| u32::from_ne_bytes(part))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|&part| u64::from_ne_bytes(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    /// A file of 64 bits with parts of (flags, offset, place in memory).
    fn wide(parts: &[(u32, u64, u64)]) -> Vec<u8> {
        let order = if cfg!(target_endian = "little") { 1 } else { 2 };
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, order];
        file.resize(64, 0);
        file[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        file[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        file[56..58].copy_from_slice(&u16::try_from(parts.len()).unwrap().to_ne_bytes());
        for &(flags, offset, memory) in parts {
            file.extend(LOAD.to_ne_bytes());
            file.extend(flags.to_ne_bytes());
            file.extend(offset.to_ne_bytes());
            file.extend(memory.to_ne_bytes());
            file.resize(file.len() + 32, 0);
        }
        file
    }

    #[test]
    fn the_code_may_lie_elsewhere_in_memory_than_in_the_file() {
        let file = wide(&[(4, 0, 0), (5, 0x4_d3a0, 0x4_e3a0), (6, 0xf_f810, 0x10_1810)]);
        assert_eq!(
            base(&file, 0x55_0004_e000, 0x4_d000, PAGE),
            Some(0x55_0000_0000)
        );
        assert_eq!(
            base(&file, 0x55_0004_e000, 0x4_e000, PAGE),
            None,
            "no such part"
        );
        assert_eq!(base(&file, 0x1000, 0x4_d000, PAGE), None, "below zero");
        // Not to be moved: the lowest part has an address of its own.
        let file = wide(&[(4, 0, 0x40_0000), (5, 0x1000, 0x40_1000)]);
        assert_eq!(base(&file, 0x40_1000, 0x1000, PAGE), Some(0x40_0000));
    }

    #[test]
    fn files_of_32_bits_are_read_too() {
        let mut file = wide(&[]);
        file[4] = 1;
        file.truncate(52);
        file[28..32].copy_from_slice(&52_u32.to_ne_bytes());
        file[42..44].copy_from_slice(&32_u16.to_ne_bytes());
        file[44..46].copy_from_slice(&2_u16.to_ne_bytes());
        for part in [
            [LOAD, 0, 0, 0, 0, 0, 4, 0],
            [LOAD, 0x1234, 0x3234, 0, 0, 0, 5, 0],
        ] {
            file.extend(part.iter().flat_map(|word| word.to_ne_bytes()));
        }
        assert_eq!(base(&file, 0x9000, 0x1000, PAGE), Some(0x6000));
    }

    #[test]
    fn other_files_say_nothing() {
        let file = wide(&[(5, 0, 0)]);
        assert_eq!(base(&file, 0x9000, 0, PAGE), Some(0x9000));
        for end in 0..file.len() {
            let found = base(&file[..end], 0x9000, 0, PAGE);
            assert_eq!(found, None, "{end}");
        }
        assert_eq!(base(b"#!/bin/sh", 0x9000, 0, PAGE), None);
    }

    proptest! {
        #[test]
        fn any_headers_are_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            parts in proptest::collection::vec(any::<(u32, u64, u64)>(), 0..4),
            address: u64,
            offset: u64,
        ) {
            let mut file = wide(&parts);
            let _ = base(&file, address, offset, PAGE);
            file.truncate(58);
            file.extend(bytes);
            let _ = base(&file, address, offset, PAGE);
        }
    }
}
