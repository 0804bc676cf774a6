//! Numbers that nobody off the path can guess.
//!
//! An identifier that comes back in a reply shows that the reply was made by
//! someone who saw the question. It need not be secret, only unexpected; no key
//! is ever made here.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// `N` bytes from the keys with which the standard library seeds its hash maps.
pub(super) fn nonce<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(size_of::<u64>()) {
        let number = RandomState::new().build_hasher().finish().to_ne_bytes();
        chunk.copy_from_slice(&number[..chunk.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_each_time_and_within() {
        let [first, second]: [[u8; 16]; 2] = [nonce(), nonce()];
        assert_ne!(first, second);
        assert_ne!(first[..8], first[8..]);
    }
}
