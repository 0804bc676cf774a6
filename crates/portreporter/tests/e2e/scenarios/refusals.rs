//! What is refused: the contract's exit code, and one clear message.

use std::path::Path;

use crate::harness::{Launch, set_mode};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        "refused_directory_is_a_file",
        Needs::Nothing,
        directory_is_a_file,
    ),
    (
        "refused_directory_is_a_link",
        Needs::Nothing,
        directory_is_a_link,
    ),
    (
        "refused_directory_is_world_writable",
        Needs::Nothing,
        directory_is_world_writable,
    ),
    (
        "refused_directory_is_read_only",
        Needs::Root,
        directory_is_read_only,
    ),
    ("refused_options", Needs::Nothing, options),
    ("refused_configuration", Needs::Nothing, configuration),
];

fn directory_is_a_file() {
    let launch = Launch::new();
    let file = launch.home().join("file");
    std::fs::write(&file, "keep me").expect("a file");
    refused(launch.in_directory(&file), &[73], &file);
}

fn directory_is_a_link() {
    let launch = Launch::new();
    let target = launch.home().join("target");
    std::fs::create_dir(&target).expect("a directory");
    let link = launch.home().join("link");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    refused(launch.in_directory(&link), &[73, 77], &link);
}

fn directory_is_world_writable() {
    let launch = Launch::new();
    let directory = launch.home().join("open-to-all");
    std::fs::create_dir(&directory).expect("a directory");
    set_mode(&directory, 0o777);
    refused(launch.in_directory(&directory), &[73, 77], &directory);
}

fn directory_is_read_only() {
    let launch = Launch::new();
    let directory = launch.home().join("read-only");
    std::fs::create_dir(&directory).expect("a directory");
    set_mode(&directory, 0o750);
    let path = directory.display();
    let script = format!(
        "mount --bind {path} {path} && mount -o remount,bind,ro {path} || exit 99; exec \"$0\" \"$@\""
    );
    let launch = launch
        .in_directory(&directory)
        .wrapped_by(&["unshare", "--mount", "sh", "-c", &script]);
    refused(launch, &[73], &directory);
}

/// Ends with one of these codes, names the directory and writes nothing.
fn refused(launch: Launch, codes: &[i32], directory: &Path) {
    let before = contents(directory);
    // Where the launch's own directory goes, what lies in it goes, too.
    let name = directory
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let kept = directory.to_path_buf();
    let (status, stderr, after) = launch.run_and_look(move || contents(&kept));
    assert!(
        status.code().is_some_and(|code| codes.contains(&code))
            && stderr.starts_with("portreporter: ")
            && stderr.contains(&name),
        "one of {codes:?} and a message about {name} were expected, not {status}: {stderr}"
    );
    assert!(
        before == after,
        "nothing was to be written: {before:?} became {after:?}"
    );
}

fn contents(path: &Path) -> Vec<String> {
    std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn options() {
    const KILOBYTES: &str = "KB from 1000 to 102400, such as 5120";
    for (wrong, expected) in [
        (["-ls", "5"], KILOBYTES),
        (["-ls", "102401"], KILOBYTES),
        (["-ls", "abc"], KILOBYTES),
        (["-ls", "-5"], KILOBYTES),
        (["--log-size", "many"], KILOBYTES),
        (["--events-size", "999"], "KB from 1000 to 1048576"),
        (["--events-size", "1048577"], "KB from 1000 to 1048576"),
        (["--engine", "steam"], "auto, ebpf, sock-diag and proc"),
        (["--reconcile", "-1"], ""),
        (["--keep-days", "x"], "days from 1 to 36500"),
        (["--compress", "maybe"], "on or off"),
    ] {
        let (status, stderr) = Launch::new().args(&wrong).run_to_the_end();
        assert!(
            status.code() == Some(64)
                && stderr.starts_with("portreporter: ")
                && stderr.contains(expected),
            "{wrong:?}: 64 and {expected:?} were expected, not {status}: {stderr}"
        );
    }
}

fn configuration() {
    for (text, expected) in [
        ("\n\nengine = 'steam'\n", "line 3: engine"),
        ("log-dirr = '/x'\n", "line 1: unknown key `log-dirr`"),
    ] {
        let launch = Launch::new();
        let file = launch.home().join("configuration.toml");
        std::fs::write(&file, text).expect("a file");
        let path = file.display().to_string();
        let (status, stderr) = launch.args(&["--config", &path]).run_to_the_end();
        assert!(
            status.code() == Some(65)
                && stderr.starts_with(&format!("portreporter: {path}, {expected}")),
            "65 and {expected:?} were expected, not {status}: {stderr}"
        );
    }
}
