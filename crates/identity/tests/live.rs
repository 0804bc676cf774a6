//! Against this machine's own kernel and processes.
#![cfg(target_os = "linux")]

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use event::{BootTime, ProcessKey};
use identity::{Identifier, ModulesError, Roots};
use rustix::process::{Pid, WaitId, WaitIdOptions};

fn identifier() -> Identifier {
    Identifier::new(Roots::system())
}

fn unverified(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start: BootTime(0),
    }
}

/// A child that is killed whatever becomes of the test.
struct Running(Child);

impl Running {
    fn new(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).spawn();
        let child = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        // Whoever forked goes on as soon as the new program's memory is there,
        // and its arguments come after that.
        let arguments = format!("/proc/{}/cmdline", child.0.id());
        while std::fs::read(&arguments).expect("a process").is_empty() {
            std::thread::yield_now();
        }
        child
    }

    fn key(&self) -> ProcessKey {
        unverified(self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies a program in a process of its own. Were the copy ever open for
/// writing in this one, a child that another test forks at that moment would
/// keep it so, and running it would fail with ETXTBSY.
fn copy_program(from: &str, to: &Path) {
    let status = Command::new("cp")
        .arg("--")
        .args([Path::new(from), to])
        .status();
    let copied = status.expect("cp runs").success();
    assert!(copied, "cp {from} {}", to.display());
}

#[test]
fn this_process() {
    let pid = std::process::id();
    let mut identifier = identifier();
    let me = identifier.process(unverified(pid)).unwrap();
    let exe = std::env::current_exe().unwrap();
    assert_eq!(me.exe.as_deref(), exe.to_str());
    assert_eq!(me.name.as_deref(), exe.file_name().unwrap().to_str());
    assert_eq!(me.uid, Some(rustix::process::geteuid().as_raw()));
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
    assert_eq!(me.ppid, u32::try_from(parent).ok());

    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(
        now.tv_sec.try_into().unwrap(),
        now.tv_nsec.try_into().unwrap(),
    );
    let start = Duration::from_nanos(me.start.unwrap().0);
    let age = now.checked_sub(start);
    assert!(age.is_some_and(|age| age < Duration::from_hours(1)));

    // The key that was found is good for the next question, and no other is.
    assert_eq!(identifier.process(me.key()).as_ref(), Some(&me));
    let other = ProcessKey {
        start: BootTime(me.key().start.0 + 10_000_000),
        ..me.key()
    };
    assert_eq!(identifier.process(other), None);
    assert!(matches!(
        identifier.modules(other),
        Err(ModulesError::Gone { .. })
    ));
}

#[test]
fn modules_of_this_process() {
    let exe = std::env::current_exe().unwrap();
    let modules = identifier()
        .modules(unverified(std::process::id()))
        .unwrap();
    assert_eq!(Some(modules[0].path.as_str()), exe.to_str());
    assert!(modules[1..].is_sorted_by_key(|module| module.base));
    let here = modules_of_this_process as fn() as usize as u64;
    assert!(modules[0].base <= here);
    #[cfg(not(target_env = "musl"))]
    assert!(modules.iter().any(|module| module.path.contains("libc")));
}

#[test]
fn a_deleted_executable_is_marked() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("sleep");
    copy_program("/bin/sleep", &copy);
    let child = Running::new(Command::new(&copy).arg("1000"));
    std::fs::remove_file(&copy).unwrap();

    let mut identifier = identifier();
    let process = identifier.process(child.key()).unwrap();
    let marked = format!("{} (deleted)", copy.display());
    assert_eq!(process.exe.as_deref(), Some(marked.as_str()));
    assert_eq!(process.name.as_deref(), Some("sleep"));
    assert_eq!(process.cmdline, Some(format!("{} 1000", copy.display())));
    assert_eq!(process.ppid, Some(std::process::id()));
    assert_eq!(identifier.modules(child.key()).unwrap()[0].path, marked);
}

#[test]
fn a_process_can_call_itself_what_it_wants() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("a) S 1 2\n\u{1b}[2J,\"");
    copy_program("/bin/sleep", &copy);
    let child = Running::new(Command::new(&copy).arg0("sleep").arg("1000"));
    let mut identifier = identifier();
    let process = identifier.process(child.key()).unwrap();
    assert_eq!(process.exe.as_deref(), copy.to_str());
    assert_eq!(process.ppid, Some(std::process::id()));
    assert_eq!(process.cmdline.as_deref(), Some("sleep 1000"));
    let modules = identifier.modules(child.key()).unwrap();
    assert_eq!(Some(modules[0].path.as_str()), copy.to_str());
}

#[test]
fn a_long_command_line_is_cut() {
    let child = Running::new(Command::new("/bin/cat").arg("-").arg("x".repeat(10_000)));
    let process = identifier().process(child.key()).unwrap();
    let cmdline = process.cmdline.unwrap();
    assert!(cmdline.ends_with("xxx…"));
    assert!(cmdline.len() < 4200);
}

#[test]
fn a_process_that_has_ended_is_known_as_long_as_it_has_a_number() {
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let key = unverified(child.id());
    let pid = Pid::from_child(&child);
    rustix::process::waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )
    .unwrap();
    let mut identifier = identifier();
    let ended = identifier.process(key).unwrap();
    assert_eq!(ended.name.as_deref(), Some("true"));
    assert_eq!((ended.exe, ended.cmdline), (None, None));

    child.wait().unwrap();
    assert_eq!(identifier.process(key), None);
    assert!(matches!(
        identifier.modules(key),
        Err(ModulesError::Gone { .. })
    ));
}

#[test]
fn a_kernel_thread_has_a_name_and_no_modules() {
    let mut identifier = identifier();
    // Process 2 is the kernel's, except in a PID namespace of our own.
    if let Some(thread) = identifier
        .process(unverified(2))
        .filter(|thread| thread.name.as_deref() == Some("kthreadd"))
    {
        assert_eq!((thread.exe, thread.cmdline), (None, None));
        assert_eq!(thread.service, None);
        if rustix::process::geteuid().is_root() {
            assert_eq!(identifier.modules(unverified(2)).unwrap(), []);
        }
    }
}

#[test]
fn the_modules_of_process_1_are_known_or_denied() {
    let answer = identifier().modules(unverified(1));
    match identifier()
        .process(unverified(1))
        .and_then(|first| first.exe)
    {
        Some(exe) => assert_eq!(answer.unwrap()[0].path, exe),
        None => assert!(matches!(answer, Err(ModulesError::Denied { pid: 1 }))),
    }
}

#[test]
#[ignore = "makes a control group, which takes root and a mounted cgroup2 hierarchy"]
fn groups_are_found_by_their_numbers() {
    let roots = Roots::system();
    let mount = roots.cgroup2.clone().expect("cgroup2");
    let mut identifier = Identifier::new(roots);
    let root = std::fs::metadata(&mount).unwrap().ino();
    assert_eq!(identifier.cgroup_path(root).as_deref(), Some("/"));

    let name = format!("identity-test-{}.service", std::process::id());
    let group = mount.join(&name);
    std::fs::create_dir(&group).unwrap();
    let found = check_group(&mut identifier, &group);
    std::fs::remove_dir(&group).unwrap();
    assert_eq!(found, Some(format!("/{name}")));
    let (service, container) = identifier.belongs(&found.unwrap());
    assert_eq!(service.map(|service| service.name), Some(name));
    assert_eq!(container, None);
}

fn check_group(identifier: &mut Identifier, group: &Path) -> Option<String> {
    let id = std::fs::metadata(group).ok()?.ino();
    identifier
        .cgroup_path(id)
        .map(|path| path.as_ref().to_owned())
}

#[test]
fn the_name_service_knows_this_user() {
    let uid = rustix::process::geteuid().as_raw();
    let output = Command::new("id").arg("-un").output().unwrap();
    let expected = output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    assert_eq!(identifier().user(uid).as_deref(), expected.as_deref());
}
