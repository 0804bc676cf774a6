//! The consumer's side of the kernel's ring buffer (`kernel/bpf/ringbuf.c`).
//!
//! The kernel lays out one page that the consumer writes (its position), one
//! page that the kernel writes (its position), and the data. Usually the data
//! is mapped twice in a row, so that a record that runs over the end can be
//! read in one piece; that doubles what the process appears to use, so here it
//! is mapped once and such a record is put together. And the position is given
//! back once for many records, not for each: every store of it makes the CPUs
//! that produce fetch the line again.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{io, ptr, slice};

/// The record is not finished yet (`BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// The record is to be passed over (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARD: u32 = 1 << 30;
/// Each record has a length and a page offset before it (`BPF_RINGBUF_HDR_SZ`).
const HEADER: u64 = 8;
/// After so many bytes the kernel is given its room back.
const GIVE_BACK: u64 = 64 * 1024;

/// A mapped ring buffer, of which there is one consumer.
pub(super) struct Ring {
    map: OwnedFd,
    page: usize,
    size: usize,
    consumer: *mut libc::c_void,
    producer: *mut libc::c_void,
    /// A record that runs over the end, put together.
    joined: Vec<u8>,
}

// SAFETY: the two mappings belong to this value alone and are valid in every
// thread of the process until it is dropped.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring buffer `map`, whose data area is of `size` bytes (a power
    /// of two and a multiple of the page size, as the kernel demands).
    pub(super) fn new(map: OwnedFd, size: u32) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let size = size as usize;
        if !size.is_power_of_two() || !size.is_multiple_of(page) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let consumer = map_pages(&map, page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let producer = match map_pages(&map, page + size, libc::PROT_READ, page) {
            Ok(producer) => producer,
            Err(error) => {
                // SAFETY: it was mapped just above with this length.
                unsafe { libc::munmap(consumer, page) };
                return Err(error);
            }
        };
        Ok(Self {
            map,
            page,
            size,
            consumer,
            producer,
            joined: Vec::new(),
        })
    }

    /// Hands over at most `most` finished records, in order. Returns how many.
    pub(super) fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut position = self.consumer().load(Ordering::Relaxed);
        let mut given_back = position;
        let mut end = self.end();
        let mut taken = 0;
        while taken < most {
            if position >= end {
                end = self.end();
                if position >= end {
                    break;
                }
            }
            let length = self.header(position).load(Ordering::Acquire);
            if length & BUSY != 0 {
                break;
            }
            let size = u64::from(length & !DISCARD);
            if length & DISCARD == 0 {
                self.read(position + HEADER, size, &mut take);
                taken += 1;
            }
            position += (size + HEADER).next_multiple_of(8);
            if position - given_back >= GIVE_BACK {
                self.consumer().store(position, Ordering::Release);
                given_back = position;
            }
        }
        if position != given_back {
            self.consumer().store(position, Ordering::Release);
        }
        taken
    }

    fn read(&mut self, position: u64, size: u64, take: &mut impl FnMut(&[u8])) {
        let start = self.offset(position);
        let size = usize::try_from(size).unwrap_or(0).min(self.size);
        let until_end = size.min(self.size - start);
        // SAFETY: both parts lie within the data area, which is mapped and
        // which the kernel does not write again before the position of the
        // consumer has passed it.
        let (first, rest) = unsafe {
            let data = self.producer.cast::<u8>().add(self.page);
            (
                slice::from_raw_parts(data.add(start), until_end),
                slice::from_raw_parts(data, size - until_end),
            )
        };
        if rest.is_empty() {
            take(first);
        } else {
            self.joined.clear();
            self.joined.extend_from_slice(first);
            self.joined.extend_from_slice(rest);
            take(&self.joined);
        }
    }

    fn end(&self) -> u64 {
        // SAFETY: the first word of the mapped page is the kernel's position,
        // aligned, and written by it atomically.
        unsafe { AtomicU64::from_ptr(self.producer.cast()) }.load(Ordering::Acquire)
    }

    fn consumer(&self) -> &AtomicU64 {
        // SAFETY: the first word of the mapped page is our position, aligned,
        // and written by nobody else.
        unsafe { AtomicU64::from_ptr(self.consumer.cast()) }
    }

    /// The length of the record at a position. Records are aligned to eight
    /// bytes and the size is a multiple of that, so a header never runs over
    /// the end.
    fn header(&self, position: u64) -> &AtomicU32 {
        let offset = self.page + self.offset(position);
        // SAFETY: within the data area and aligned, as said above; the kernel
        // writes it atomically.
        unsafe { AtomicU32::from_ptr(self.producer.cast::<u8>().add(offset).cast()) }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is masked to the size of the area"
    )]
    fn offset(&self, position: u64) -> usize {
        position as usize & (self.size - 1)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both were mapped with these lengths, and nothing borrows from
        // them any more.
        unsafe {
            libc::munmap(self.consumer, self.page);
            libc::munmap(self.producer, self.page + self.size);
        }
    }
}

fn map_pages(
    map: &OwnedFd,
    length: usize,
    protection: libc::c_int,
    offset: usize,
) -> io::Result<*mut libc::c_void> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a new mapping at an address of the kernel's choice touches no
    // memory of ours.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            protection,
            libc::MAP_SHARED,
            map.as_raw_fd(),
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use proptest::prelude::*;

    use super::*;

    const SIZE: u32 = 4096;

    /// A file laid out as the kernel lays out a ring, and what writes to it.
    struct Kernel {
        file: File,
        page: u64,
        end: u64,
    }

    impl Kernel {
        fn new() -> (Self, Ring) {
            let file = tempfile::tempfile().unwrap();
            let page = rustix::param::page_size() as u64;
            file.set_len(2 * page + u64::from(SIZE)).unwrap();
            let ring = Ring::new(file.try_clone().unwrap().into(), SIZE).unwrap();
            (Self { file, page, end: 0 }, ring)
        }

        fn write(&mut self, bytes: &[u8], flags: u32) {
            let length = u32::try_from(bytes.len()).unwrap() | flags;
            let mut record = length.to_ne_bytes().to_vec();
            record.extend_from_slice(&[0; 4]);
            record.extend_from_slice(bytes);
            for (at, byte) in (self.end..).zip(&record) {
                let offset = 2 * self.page + at % u64::from(SIZE);
                self.file.write_all_at(&[*byte], offset).unwrap();
            }
            self.end += (record.len() as u64).next_multiple_of(8);
            self.file
                .write_all_at(&self.end.to_ne_bytes(), self.page)
                .unwrap();
        }

        fn given_back(&self) -> u64 {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, 0).unwrap();
            u64::from_ne_bytes(bytes)
        }
    }

    fn drained(ring: &mut Ring) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        ring.drain(usize::MAX, |record| records.push(record.to_vec()));
        records
    }

    #[test]
    fn unfinished_records_stop_and_discarded_ones_are_passed_over() {
        let (mut kernel, mut ring) = Kernel::new();
        kernel.write(b"one", 0);
        kernel.write(b"gone", DISCARD);
        kernel.write(b"two", 0);
        let finished = kernel.end;
        kernel.write(b"three", BUSY);
        kernel.write(b"four", 0);
        assert_eq!(drained(&mut ring), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(kernel.given_back(), finished);
    }

    #[test]
    fn at_most_as_many_as_wanted() {
        let (mut kernel, mut ring) = Kernel::new();
        for _ in 0..5 {
            kernel.write(b"x", 0);
        }
        assert_eq!(ring.drain(3, |_| {}), 3);
        assert_eq!(drained(&mut ring).len(), 2);
    }

    #[test]
    fn a_size_that_the_kernel_would_refuse_is_refused() {
        for size in [0, 100, 4096 + 1, 3 * 4096] {
            assert!(Ring::new(tempfile::tempfile().unwrap().into(), size).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_also_over_the_end(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 1..40),
        ) {
            let (mut kernel, mut ring) = Kernel::new();
            for pair in records.chunks(2) {
                for record in pair {
                    kernel.write(record, 0);
                }
                prop_assert_eq!(drained(&mut ring), pair);
                prop_assert_eq!(kernel.given_back(), kernel.end);
            }
        }
    }
}
