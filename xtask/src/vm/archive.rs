//! The first file system of a virtual machine, as the kernel unpacks it: a
//! `cpio` archive in the format `newc`.
//!
//! Only what such a file system needs is here: directories, files and symbolic
//! links, all root's. Directories above an entry are made on the way. It is
//! not compressed: what is saved on disk is lost many times over by an emulated
//! processor that has to unpack it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

/// What is at a path.
enum Entry {
    Directory,
    File { contents: Vec<u8>, executable: bool },
    Link(PathBuf),
}

/// A tree of files that is going to be an archive.
#[derive(Default)]
pub(super) struct Archive {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Archive {
    /// Adds a directory.
    pub(super) fn directory(&mut self, path: impl AsRef<Path>) -> anyhow::Result<()> {
        self.insert(path.as_ref(), Entry::Directory)
    }

    /// Adds a file with these contents.
    pub(super) fn file(
        &mut self,
        path: impl AsRef<Path>,
        contents: impl Into<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let contents = contents.into();
        let entry = Entry::File {
            contents,
            executable: false,
        };
        self.insert(path.as_ref(), entry)
    }

    /// Adds a file that may be executed.
    pub(super) fn program(
        &mut self,
        path: impl AsRef<Path>,
        contents: impl Into<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let contents = contents.into();
        let entry = Entry::File {
            contents,
            executable: true,
        };
        self.insert(path.as_ref(), entry)
    }

    /// Adds a symbolic link.
    pub(super) fn link(
        &mut self,
        path: impl AsRef<Path>,
        target: impl Into<PathBuf>,
    ) -> anyhow::Result<()> {
        self.insert(path.as_ref(), Entry::Link(target.into()))
    }

    /// Is there something at this path?
    pub(super) fn contains(&self, path: &Path) -> bool {
        relative(path).is_ok_and(|path| self.entries.contains_key(&path))
    }

    /// Writes the archive. A kernel unpacks several that follow each other in
    /// one file.
    pub(super) fn write(&self, output: &mut impl Write) -> anyhow::Result<()> {
        // Parents sort before what is in them.
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (mode, contents): (u32, &[u8]) = match entry {
                Entry::Directory => (0o040_755, &[]),
                Entry::File {
                    contents,
                    executable: false,
                } => (0o100_644, contents),
                Entry::File { contents, .. } => (0o100_755, contents),
                Entry::Link(target) => (0o120_777, target.as_os_str().as_encoded_bytes()),
            };
            let name = path.as_os_str().as_encoded_bytes();
            write_entry(output, number, mode, name, contents)
                .with_context(|| format!("{}: cannot be archived", path.display()))?;
        }
        write_entry(output, 0, 0, b"TRAILER!!!", &[])
    }

    fn insert(&mut self, path: &Path, entry: Entry) -> anyhow::Result<()> {
        let path = relative(path)?;
        for parent in path.ancestors().skip(1) {
            if parent == Path::new("") {
                break;
            }
            match self.entries.get(parent) {
                Some(Entry::Directory) => break,
                Some(_) => bail!("{}: not a directory", parent.display()),
                None => self.entries.insert(parent.to_path_buf(), Entry::Directory),
            };
        }
        self.entries.insert(path, entry);
        Ok(())
    }
}

/// The path without its root.
fn relative(path: &Path) -> anyhow::Result<PathBuf> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let plain = relative
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if !plain || relative == Path::new("") {
        bail!("{}: not a plain path", path.display());
    }
    Ok(relative.to_path_buf())
}

fn write_entry(
    output: &mut impl Write,
    number: u32,
    mode: u32,
    name: &[u8],
    contents: &[u8],
) -> anyhow::Result<()> {
    let links = 1;
    let length = u32::try_from(contents.len()).context("larger than 4 GiB")?;
    let name_length = u32::try_from(name.len())? + 1;
    write!(output, "070701")?;
    // Number, mode, user, group, links, time, length, the two halves of the
    // device it is on and of the one it is, length of the name, checksum.
    for field in [
        number,
        mode,
        0,
        0,
        links,
        0,
        length,
        0,
        0,
        0,
        0,
        name_length,
        0,
    ] {
        write!(output, "{field:08X}")?;
    }
    output.write_all(name)?;
    output.write_all(&[0])?;
    // Of the header 110 bytes stand before the name.
    pad(output, 110 + name.len() + 1)?;
    output.write_all(contents)?;
    pad(output, contents.len())
}

/// Everything begins at a multiple of four.
fn pad(output: &mut impl Write, written: usize) -> anyhow::Result<()> {
    let missing = written.next_multiple_of(4) - written;
    Ok(output.write_all(&[0; 3][..missing])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let mut archive = Archive::default();
        archive.file("/a/b", *b"12345").unwrap();
        archive.link("/c", "a/b").unwrap();
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap().replace('\0', "~");
        let entry = |number: &str, mode: &str, length: &str, name_length: &str| {
            format!(
                "070701{number:0>8}{mode:0>8}{0}{0}00000001{0}{length:0>8}{0}{0}{0}{0}{name_length:0>8}{0}",
                "00000000"
            )
        };
        let expected = [
            entry("1", "41ED", "0", "2"),
            "a~".to_owned(),
            entry("2", "81A4", "5", "4"),
            "a/b~~~12345~~~".to_owned(),
            entry("3", "A1FF", "3", "2"),
            "c~a/b~".to_owned(),
            entry("0", "0", "0", "B"),
            "TRAILER!!!~~~~".to_owned(),
        ];
        assert_eq!(text, expected.concat());
    }

    #[test]
    fn a_path_stays_inside() {
        let mut archive = Archive::default();
        assert!(archive.file("/../etc/passwd", "").is_err());
        assert!(archive.directory("/").is_err());
        archive.file("/etc", "").unwrap();
        assert!(archive.file("/etc/passwd", "").is_err());
        assert!(archive.contains(Path::new("/etc")));
        assert!(!archive.contains(Path::new("/etc/passwd")));
    }
}
