//! The memory into which the kernel writes the records of one CPU.
//!
//! A page with two positions (the kernel's and ours), then the data. The memory
//! is shared with the kernel, so what has been written is copied out in one go,
//! and only then is its room given back and the copy read.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, ptr, slice};

/// Offset of `data_head` in `struct perf_event_mmap_page`; `data_tail` follows.
const HEAD: usize = 1024;
const TAIL: usize = HEAD + 8;

/// The records of one CPU.
pub(super) struct Ring {
    page: usize,
    size: usize,
    start: *mut libc::c_void,
}

// SAFETY: the mapping belongs to this value alone and is valid in every thread
// of the process until it is dropped.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of an event, with `size` bytes for records: a power of two
    /// and a multiple of the page size.
    pub(super) fn new(event: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        if !size.is_power_of_two() || !size.is_multiple_of(page) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                page + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { page, size, start })
    }

    /// Replaces `bytes` by what was written since the last time, and gives the
    /// room back. False if the positions cannot be right.
    pub(super) fn drain(&mut self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        let head = self.position(HEAD).load(Ordering::Acquire);
        let tail = self.position(TAIL).load(Ordering::Relaxed);
        let waiting = usize::try_from(head.wrapping_sub(tail)).unwrap_or(usize::MAX);
        let is_right = waiting <= self.size;
        if is_right && waiting > 0 {
            let from = self.offset(tail);
            let first = waiting.min(self.size - from);
            // SAFETY: both parts lie within the data area, which is mapped; the
            // kernel does not write there before our position has passed it.
            let (first, rest) = unsafe {
                let data = self.start.cast::<u8>().add(self.page);
                (
                    slice::from_raw_parts(data.add(from), first),
                    slice::from_raw_parts(data, waiting - first),
                )
            };
            bytes.extend_from_slice(first);
            bytes.extend_from_slice(rest);
        }
        if head != tail {
            self.position(TAIL).store(head, Ordering::Release);
        }
        is_right
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both positions lie in the first page, are aligned, and are
        // written atomically by the kernel and by us.
        unsafe { AtomicU64::from_ptr(self.start.cast::<u8>().add(offset).cast()) }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is masked to the size of the area"
    )]
    fn offset(&self, position: u64) -> usize {
        position as usize & (self.size - 1)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from it.
        unsafe { libc::munmap(self.start, self.page + self.size) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// A file laid out as the kernel lays out a ring.
    fn ring(size: usize) -> (File, Ring) {
        let file = tempfile::tempfile().unwrap();
        let page = rustix::param::page_size();
        file.set_len((page + size) as u64).unwrap();
        let ring = Ring::new(file.as_fd(), size).unwrap();
        (file, ring)
    }

    fn set(file: &File, offset: usize, value: u64) {
        file.write_all_at(&value.to_ne_bytes(), offset as u64)
            .unwrap();
    }

    #[test]
    fn what_goes_in_comes_out_also_over_the_end() {
        let page = rustix::param::page_size();
        let (file, mut ring) = ring(page);
        let mut bytes = vec![1, 2, 3];
        assert!(ring.drain(&mut bytes) && bytes.is_empty());
        let start = page as u64 * 5 - 3;
        set(&file, TAIL, start);
        set(&file, HEAD, start + 7);
        file.write_all_at(b"abc", (2 * page - 3) as u64).unwrap();
        file.write_all_at(b"defg", page as u64).unwrap();
        assert!(ring.drain(&mut bytes));
        assert_eq!(bytes, b"abcdefg");
        assert!(ring.drain(&mut bytes) && bytes.is_empty());
    }

    #[test]
    fn positions_that_cannot_be_right_are_said_to_be_wrong() {
        let page = rustix::param::page_size();
        let (file, mut ring) = ring(page);
        let mut bytes = Vec::new();
        set(&file, HEAD, page as u64 + 1);
        assert!(!ring.drain(&mut bytes) && bytes.is_empty());
        // And then goes on from there.
        set(&file, HEAD, page as u64 + 2);
        assert!(ring.drain(&mut bytes));
        assert_eq!(bytes.len(), 1);
        set(&file, HEAD, 0);
        assert!(!ring.drain(&mut bytes));
    }

    #[test]
    fn a_size_that_the_kernel_would_refuse_is_refused() {
        let file = tempfile::tempfile().unwrap();
        for size in [0, 100, rustix::param::page_size() * 3] {
            assert!(Ring::new(file.as_fd(), size).is_err());
        }
    }
}
