//! What the heads of the log files say about the machine.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use event::text;

/// The computer's name.
pub(crate) fn name() -> String {
    text::from_bytes(rustix::system::uname().nodename().to_bytes())
}

/// The distribution and the kernel, such as
/// `Debian GNU/Linux 12 (bookworm), Linux 6.1.0-18-amd64 x86_64`.
pub(crate) fn system() -> String {
    let uname = rustix::system::uname();
    let [kernel, release, machine] = [uname.sysname(), uname.release(), uname.machine()]
        .map(|part| text::from_bytes(part.to_bytes()));
    let kernel = format!("{kernel} {release} {machine}");
    let distribution = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|path| pretty_name(&fs::read(path).ok()?));
    match distribution {
        Some(distribution) => format!("{distribution}, {kernel}"),
        None => kernel,
    }
}

/// A command as it was typed: of the program's path only the name.
pub(crate) fn command(words: &[OsString]) -> String {
    let program = words.first().map(|program| {
        let name = Path::new(program).file_name();
        name.unwrap_or(program).as_encoded_bytes()
    });
    let rest = words.iter().skip(1).map(|word| word.as_encoded_bytes());
    text::join_arguments(program.into_iter().chain(rest))
}

/// The kernel's number for this boot.
pub(crate) fn boot_id() -> String {
    random_id("boot_id")
}

/// A fresh number for this run.
pub(crate) fn run_id() -> String {
    random_id("uuid")
}

fn random_id(name: &str) -> String {
    let path = format!("/proc/sys/kernel/random/{name}");
    fs::read_to_string(path)
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// `PRETTY_NAME` of os-release(5).
fn pretty_name(file: &[u8]) -> Option<String> {
    let file = text::from_bytes(file);
    let value = file
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_by_name() {
        let words = ["/usr/bin/portqry", "-n", "a b"].map(OsString::from);
        assert_eq!(command(&words), "portqry -n 'a b'");
        assert_eq!(command(&[]), "");
    }

    #[test]
    fn the_distribution_is_named_without_quotes() {
        let file = b"NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(
            pretty_name(file).as_deref(),
            Some("Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!(pretty_name(b"PRETTY_NAME=\n"), None);
    }
}
