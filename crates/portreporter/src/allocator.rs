//! What the allocator keeps of memory that is not used any more.
//!
//! Each look at the kernel's sockets is tens of megabytes on a machine with many
//! of them, in a few large blocks, and is over in a moment. glibc's malloc asks
//! the system for such blocks one by one and gives each back as it is freed; but
//! the first that is freed teaches it to take the next ones from its heap, where
//! whatever small thing lies behind them keeps them for good.

/// Blocks from this size on come from the system and go back to it.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Makes it give large blocks back for as long as the process runs.
pub(crate) fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) sets two numbers under the allocator's own lock. Should
    // it refuse, all stays as it is.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        // The default, 128 KB, would be asked back and forth.
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}
