//! The hash chain over the sets.
//!
//! Two hashes tie PR-EVENTS together, both SHA-256 over uncompressed bytes:
//! that in `seal`, over every byte before that line, and `previous_sha256` in
//! the next file's `open`, over the whole closed file, its `seal` included. The
//! first is there to check a file alone. The second makes the chain: whoever
//! changes, cuts or removes a closed file must change every file after it, and
//! the hash that event 102 carried out of the directory.
//!
//! What is deliberately absent is a signature: a recorder that runs unattended
//! would have to keep its key where an intruder finds it.

use std::fmt::Write as _;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::dir::Dir;
use crate::names::{FileName, Form};
use crate::stamp::Stamp;

/// A set as the one after it names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) stamp: Stamp,
    /// The hash of its whole PR-EVENTS; none if that cannot be read.
    pub(crate) sha256: Option<String>,
}

/// A hash of what was written so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of what was written so far, in lower-case hexadecimal.
    pub(crate) fn hex(&self) -> String {
        let hash = self.0.clone().finalize();
        let mut hex = String::with_capacity(2 * hash.len());
        for byte in hash {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

/// Opens a file of ours to read what was written to it, compressed or not.
pub(crate) fn read_uncompressed(dir: &Dir, name: FileName) -> io::Result<Box<dyn Read>> {
    let file = dir.read(&name.to_string())?;
    match name.form {
        Form::Plain | Form::Draft => Ok(Box::new(file)),
        Form::Compressed | Form::CompressedDraft => {
            Ok(Box::new(zstd::stream::read::Decoder::new(file)?))
        }
    }
}

/// The hash of everything that was written to a file.
pub(crate) fn hash_file(dir: &Dir, name: FileName) -> io::Result<String> {
    let mut reader = read_uncompressed(dir, name)?;
    let mut digest = Digest::default();
    let mut chunk = vec![0; 128 * 1024];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(digest.hex()),
            Ok(n) => digest.update(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_pieces_is_the_hash_of_the_whole() {
        let mut digest = Digest::default();
        digest.update(b"a");
        let first = digest.hex();
        digest.update(b"bc");
        // FIPS 180-4, example of one block.
        assert_eq!(
            digest.hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_ne!(first, digest.hex());
    }
}
