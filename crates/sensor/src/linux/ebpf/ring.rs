//! The reader's side of the ring of `bpf/ring.bpf.h`.
//!
//! Three maps of the kernel's: the slots, which it writes and this reads; the
//! two ends, of which each side writes its own; and a ring buffer of the
//! kernel's own kind that carries nothing but the alarm, for a process can wait
//! for that. A record that takes several slots is put together. The position is
//! given back once for many records, not for each: every store of it makes the
//! CPUs that write fetch the line again.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::{io, ptr, slice};

/// A slot: its head, and what it holds of a record (`struct ring_slot`).
const SLOT: usize = 64;
/// What a slot holds of a record.
const SLOT_DATA: usize = 56;
/// So many bits of a head are the size of the record, the others its position
/// plus one.
const SIZE_BITS: u32 = 16;
/// After so many slots the kernel is given its room back.
const GIVE_BACK: u64 = 1024;

/// The members of `struct ring_ends`.
const CLAIMED: usize = 0;
const TAKEN: usize = 64;
const SLOTS: usize = 72;
const IS_WEAKLY_ORDERED: usize = 76;
const IS_SLEEPING: usize = 80;

/// The maps that are the ring.
pub(super) struct Maps {
    /// `ring_slots`
    pub(super) slots: OwnedFd,
    /// `ring_ends`
    pub(super) ends: OwnedFd,
    /// `ring_alarm`
    pub(super) alarm: OwnedFd,
}

/// How many slots so many bytes are.
pub(super) const fn capacity(bytes: u32) -> u32 {
    bytes / 64
}

/// A mapped ring, of which there is one reader.
pub(super) struct Ring {
    slots: Mapping,
    ends: Mapping,
    alarm: Alarm,
    /// How many slots there are, a power of two.
    count: u64,
    /// Where the next record is.
    position: u64,
    /// A record of several slots, put together.
    joined: Vec<u8>,
}

impl Ring {
    /// Maps the ring, whose slots are `size` bytes in all (a power of two and a
    /// multiple of the page size), and opens it for the kernel side: before,
    /// that finds no room in it.
    pub(super) fn new(maps: Maps, size: u32) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = size as usize;
        if !length.is_power_of_two() || !length.is_multiple_of(page) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let slots = Mapping::new(&maps.slots, length, libc::PROT_READ, 0)?;
        let ends = Mapping::new(&maps.ends, page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let alarm = Alarm::new(maps.alarm)?;
        let is_strongly_ordered = cfg!(any(target_arch = "x86_64", target_arch = "x86"));
        ends.u32(IS_WEAKLY_ORDERED)
            .store(u32::from(!is_strongly_ordered), Ordering::Relaxed);
        let count = capacity(size);
        ends.u32(SLOTS).store(count, Ordering::Release);
        let position = ends.u64(TAKEN).load(Ordering::Relaxed);
        Ok(Self {
            slots,
            ends,
            alarm,
            count: count.into(),
            position,
            joined: Vec::new(),
        })
    }

    /// Hands over at most `most` finished records, in order. Returns how many.
    pub(super) fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut given_back = self.position;
        let mut taken = 0;
        while taken < most {
            let slot = self.offset(self.position);
            let head = self.slots.u64(slot).load(Ordering::Acquire);
            if head >> SIZE_BITS != (self.position + 1) & (u64::MAX >> SIZE_BITS) {
                break;
            }
            let size = (head & ((1 << SIZE_BITS) - 1)) as usize;
            self.read(size, &mut take);
            taken += 1;
            self.position += slots(size);
            if self.position - given_back >= GIVE_BACK {
                self.ends.u64(TAKEN).store(self.position, Ordering::Release);
                given_back = self.position;
            }
        }
        if self.position != given_back {
            self.ends.u64(TAKEN).store(self.position, Ordering::Release);
        }
        taken
    }

    /// Hands over the record at the position.
    fn read(&mut self, size: usize, take: &mut impl FnMut(&[u8])) {
        if size <= SLOT_DATA {
            take(self.data(self.position, size));
            return;
        }
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        // No more than the ring has: what the kernel says is not trusted further
        // than that.
        for slot in 0..slots(size).min(self.count) {
            let part = SLOT_DATA.min(size - joined.len());
            joined.extend_from_slice(self.data(self.position + slot, part));
        }
        take(&joined);
        self.joined = joined;
    }

    /// What a slot holds.
    fn data(&self, position: u64, size: usize) -> &[u8] {
        let start = self.offset(position) + (SLOT - SLOT_DATA);
        self.slots.bytes(start, size.min(SLOT_DATA))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is less than the number of slots"
    )]
    fn offset(&self, position: u64) -> usize {
        (position & (self.count - 1)) as usize * SLOT
    }

    /// Says that the reader is going to sleep until [`Self::as_fd`] is readable.
    /// Returns false if there is something to be read, or will be in a moment.
    pub(super) fn may_sleep(&self) -> bool {
        self.ends.u32(IS_SLEEPING).store(1, Ordering::Relaxed);
        // The kernel side takes its place and then looks whether we sleep; so
        // either it sees that we do, or we see its place.
        fence(Ordering::SeqCst);
        let may = self.ends.u64(CLAIMED).load(Ordering::Relaxed) == self.position;
        if !may {
            self.wake();
        }
        may
    }

    /// Says that the reader does not sleep any more.
    pub(super) fn wake(&self) {
        self.ends.u32(IS_SLEEPING).store(0, Ordering::Relaxed);
        self.alarm.clear();
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.alarm.map.as_fd()
    }
}

/// How many slots a record of this size takes.
fn slots(size: usize) -> u64 {
    size.div_ceil(SLOT_DATA).max(1) as u64
}

/// The kernel's own ring buffer (`kernel/bpf/ringbuf.c`): a page that the
/// reader writes (its position), then one that the kernel writes. What it
/// carries is not read.
struct Alarm {
    map: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
}

impl Alarm {
    fn new(map: OwnedFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let consumer = Mapping::new(&map, page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let producer = Mapping::new(&map, page, libc::PROT_READ, page)?;
        Ok(Self {
            map,
            consumer,
            producer,
        })
    }

    fn clear(&self) {
        let end = self.producer.u64(0).load(Ordering::Acquire);
        self.consumer.u64(0).store(end, Ordering::Release);
    }
}

/// Mapped memory that the kernel writes, too.
struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone and is valid in every thread
// of the process until it is dropped.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(
        map: &OwnedFd,
        length: usize,
        protection: libc::c_int,
        offset: usize,
    ) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, length })
    }

    fn u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: within the mapping and aligned; both sides write it atomically,
        // or only the other one does.
        unsafe { AtomicU64::from_ptr(self.start.cast::<u8>().add(offset).cast()) }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.start.cast::<u8>().add(offset).cast()) }
    }

    /// What the kernel has finished, and does not write again before it is told
    /// that it was taken.
    fn bytes(&self, offset: usize, size: usize) -> &[u8] {
        assert!(offset + size <= self.length);
        // SAFETY: within the mapping, and not written meanwhile, as said above.
        unsafe { slice::from_raw_parts(self.start.cast::<u8>().add(offset), size) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from it
        // any more.
        unsafe {
            libc::munmap(self.start, self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use proptest::prelude::*;

    use super::*;

    const SIZE: u32 = 4096;
    const COUNT: u64 = SIZE as u64 / SLOT as u64;

    /// Files laid out as the kernel lays out the maps, and what writes to them.
    struct Kernel {
        slots: File,
        ends: File,
        alarm: File,
        claimed: u64,
    }

    impl Kernel {
        fn new() -> (Self, Ring) {
            let page = rustix::param::page_size() as u64;
            let file = |length| {
                let file = tempfile::tempfile().unwrap();
                file.set_len(length).unwrap();
                file
            };
            let kernel = Self {
                slots: file(SIZE.into()),
                ends: file(page),
                alarm: file(2 * page),
                claimed: 0,
            };
            let maps = Maps {
                slots: kernel.slots.try_clone().unwrap().into(),
                ends: kernel.ends.try_clone().unwrap().into(),
                alarm: kernel.alarm.try_clone().unwrap().into(),
            };
            let ring = Ring::new(maps, SIZE).unwrap();
            (kernel, ring)
        }

        /// Takes a place for a record and writes it; it is there with its head.
        fn begin(&mut self, bytes: &[u8]) -> u64 {
            let position = self.claimed;
            for (slot, part) in (position..).zip(bytes.chunks(SLOT_DATA)) {
                let offset = slot % COUNT * SLOT as u64 + 8;
                self.slots.write_all_at(part, offset).unwrap();
            }
            self.claimed += slots(bytes.len());
            self.ends
                .write_all_at(&self.claimed.to_ne_bytes(), CLAIMED as u64)
                .unwrap();
            position
        }

        fn publish(&self, position: u64, size: usize) {
            let head = (position + 1) << SIZE_BITS | size as u64;
            self.slots
                .write_all_at(&head.to_ne_bytes(), position % COUNT * SLOT as u64)
                .unwrap();
        }

        fn write(&mut self, bytes: &[u8]) {
            let position = self.begin(bytes);
            self.publish(position, bytes.len());
        }

        fn word(file: &File, offset: usize) -> u64 {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, offset as u64).unwrap();
            u64::from_ne_bytes(bytes)
        }

        fn is_asked_to_wake(&self) -> bool {
            let mut bytes = [0; 4];
            self.ends
                .read_exact_at(&mut bytes, IS_SLEEPING as u64)
                .unwrap();
            u32::from_ne_bytes(bytes) != 0
        }
    }

    fn drained(ring: &mut Ring) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        ring.drain(usize::MAX, |record| records.push(record.to_vec()));
        records
    }

    #[test]
    fn layout_is_that_of_the_kernel_side() {
        let header = include_str!("../../../../../bpf/records.h");
        let offset = |member: &str, offset: usize| {
            let line = format!("OFFSET(ring_ends, {member}, {offset});");
            assert!(header.contains(&line), "{line}");
        };
        offset("claimed", CLAIMED);
        offset("taken", TAKEN);
        offset("slots", SLOTS);
        offset("is_weakly_ordered", IS_WEAKLY_ORDERED);
        offset("is_sleeping", IS_SLEEPING);
        for line in [
            format!("SIZE(ring_slot, {SLOT});"),
            format!("OFFSET(ring_slot, data, {});", SLOT - SLOT_DATA),
            format!("#define SLOT_WORDS {}\n", SLOT_DATA / 8),
            format!("#define RING_SIZE_BITS {SIZE_BITS}\n"),
        ] {
            assert!(header.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_record_that_is_not_finished_stops_the_reader() {
        let (mut kernel, mut ring) = Kernel::new();
        kernel.write(b"one");
        let second = kernel.begin(b"two");
        kernel.write(b"three");
        assert_eq!(drained(&mut ring), [b"one".to_vec()]);
        assert_eq!(Kernel::word(&kernel.ends, TAKEN), second);
        kernel.publish(second, 3);
        assert_eq!(drained(&mut ring), [b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(Kernel::word(&kernel.ends, TAKEN), kernel.claimed);
    }

    /// What is left in the slots of earlier records, whatever it says, is not
    /// taken for a record.
    #[test]
    fn data_is_never_taken_for_a_head() {
        let (mut kernel, mut ring) = Kernel::new();
        let forged = |position: u64| (position + 1) << SIZE_BITS | 8;
        for lap in 1..4 {
            while kernel.claimed < lap * COUNT {
                let words: Vec<u8> = (0..21)
                    .flat_map(|word| forged(kernel.claimed + COUNT + word).to_ne_bytes())
                    .collect();
                kernel.write(&words);
                assert_eq!(drained(&mut ring), [words]);
            }
        }
    }

    #[test]
    fn at_most_as_many_as_wanted() {
        let (mut kernel, mut ring) = Kernel::new();
        for _ in 0..5 {
            kernel.write(b"x");
        }
        assert_eq!(ring.drain(3, |_| {}), 3);
        assert_eq!(drained(&mut ring).len(), 2);
    }

    #[test]
    fn who_is_about_to_get_something_does_not_sleep() {
        let (mut kernel, mut ring) = Kernel::new();
        assert!(ring.may_sleep());
        assert!(kernel.is_asked_to_wake());
        let position = kernel.begin(b"x");
        assert!(!ring.may_sleep());
        assert!(!kernel.is_asked_to_wake());
        kernel.publish(position, 1);
        drained(&mut ring);
        assert!(ring.may_sleep());
        ring.wake();
        assert!(!kernel.is_asked_to_wake());
    }

    #[test]
    fn the_alarm_is_taken_note_of() {
        let (kernel, ring) = Kernel::new();
        let page = rustix::param::page_size();
        kernel
            .alarm
            .write_all_at(&48_u64.to_ne_bytes(), page as u64)
            .unwrap();
        ring.wake();
        assert_eq!(Kernel::word(&kernel.alarm, 0), 48);
    }

    #[test]
    fn a_size_that_fits_no_pages_is_refused() {
        for size in [0, 100, 4096 + 1, 3 * 4096] {
            let file = || tempfile::tempfile().unwrap().into();
            let maps = Maps {
                slots: file(),
                ends: file(),
                alarm: file(),
            };
            assert!(Ring::new(maps, size).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_also_over_the_end(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1700), 1..40),
        ) {
            let (mut kernel, mut ring) = Kernel::new();
            for pair in records.chunks(2) {
                for record in pair {
                    kernel.write(record);
                }
                prop_assert_eq!(drained(&mut ring), pair);
                prop_assert_eq!(Kernel::word(&kernel.ends, TAKEN), kernel.claimed);
            }
        }
    }
}
