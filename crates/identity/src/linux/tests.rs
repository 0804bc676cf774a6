//! A whole process in a made-up tree.

use std::os::unix::fs::symlink;
use std::path::Path;

use event::BootTime;

use super::*;

const STAT: &[u8] = b"42 (ng) \xffinx) S 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0 0\n";
const STATUS: &str = "Name:\tnginx\nTgid:\t42\nUid:\t0\t33\t0\t0\nCapEff:\t0\n";

struct Machine {
    tree: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            tree: tempfile::tempdir().unwrap(),
        };
        machine.write("proc/42/stat", STAT);
        machine.write("proc/42/status", STATUS.as_bytes());
        machine.write("proc/42/cmdline", b"nginx\0-g\0daemon off;\0");
        machine.write("proc/42/cgroup", b"0::/system.slice/nginx.service\n");
        machine.write("passwd", b"www-data:x:33:33:::\n");
        machine.write(
            "units/system/nginx.service",
            b"[Unit]\nDescription=A web server\n",
        );
        symlink(
            "/usr/sbin/nginx (deleted)",
            machine.tree.path().join("proc/42/exe"),
        )
        .unwrap();
        machine
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.tree.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.tree.path().join(path)).unwrap();
    }

    fn identifier(&self) -> Identifier {
        let root: &Path = self.tree.path();
        Identifier::new(Roots {
            proc: root.join("proc"),
            cgroup2: None,
            passwd: root.join("passwd"),
            unit_dirs: vec![root.join("units/system")],
            name_service: false,
        })
    }
}

fn key(pid: u32, start: u64) -> ProcessKey {
    ProcessKey {
        pid,
        start: BootTime(start),
    }
}

#[test]
fn everything_about_a_process() {
    let machine = Machine::new();
    let process = machine.identifier().process(key(42, 2_509_999_999));
    assert_eq!(
        process,
        Some(Process {
            pid: 42,
            ppid: Some(1),
            start: Some(BootTime(2_509_999_999)),
            name: Some("nginx".to_owned()),
            exe: Some("/usr/sbin/nginx (deleted)".to_owned()),
            cmdline: Some("nginx -g 'daemon off;'".to_owned()),
            uid: Some(33),
            user: Some("www-data".to_owned()),
            service: Some(Service {
                name: "nginx.service".to_owned(),
                description: Some("A web server".to_owned()),
                kind: Some(ServiceKind::Own),
            }),
            container: None,
        })
    );
}

#[test]
fn the_start_time_tells_one_process_from_the_next() {
    let machine = Machine::new();
    let mut identifier = machine.identifier();
    assert!(identifier.process(key(42, 2_500_000_000)).is_some());
    assert!(identifier.process(key(42, 2_499_999_999)).is_none());
    assert!(identifier.process(key(42, 2_510_000_000)).is_none());
    assert!(identifier.process(key(43, 0)).is_none());
    let unverified = identifier.process(key(42, 0)).unwrap();
    assert_eq!(unverified.start, Some(BootTime(2_500_000_000)));
}

#[test]
fn the_number_of_a_thread_is_no_process() {
    let machine = Machine::new();
    machine.write("proc/42/status", b"Tgid:\t41\nUid:\t0\t0\t0\t0\n");
    assert!(machine.identifier().process(key(42, 0)).is_none());
}

#[test]
fn what_cannot_be_read_is_unknown_and_the_rest_is_not() {
    let machine = Machine::new();
    for file in ["exe", "cmdline", "status", "cgroup"] {
        machine.remove(&format!("proc/42/{file}"));
    }
    let process = machine.identifier().process(key(42, 0)).unwrap();
    assert_eq!(process.name.as_deref(), Some("ng) \\xffinx"));
    let known = Process {
        pid: 42,
        ppid: Some(1),
        start: process.start,
        name: process.name.clone(),
        ..Process::default()
    };
    assert_eq!(process, known);

    machine.write("proc/42/stat", b"42 (torn");
    assert!(machine.identifier().process(key(42, 0)).is_none());
}

#[test]
fn a_user_without_a_table_has_no_name() {
    let machine = Machine::new();
    machine.remove("passwd");
    let mut identifier = machine.identifier();
    let process = identifier.process(key(42, 0)).unwrap();
    assert_eq!((process.uid, process.user), (Some(33), None));
    let named = identifier
        .degradations()
        .iter()
        .any(|found| found.what == "user table");
    assert!(named);
}

#[test]
fn a_process_that_the_kernel_described_is_completed_from_its_group() {
    let machine = Machine::new();
    let id = "0123456789ab".repeat(6)[..64].to_owned();
    let mut identifier = machine.identifier();
    identifier.note_cgroup(9, format!("/system.slice/docker-{id}.scope"));
    let path = identifier.cgroup_path(9).unwrap();
    for _ in 0..2 {
        let (service, container) = identifier.belongs(&path);
        let service = service.unwrap();
        assert_eq!(service.name, format!("docker-{id}.scope"));
        assert_eq!(service.kind, None);
        assert_eq!(container.as_deref(), Some("docker:0123456789ab"));
    }
    assert_eq!(identifier.cgroup_path(10), None);
    assert_eq!(identifier.belongs("/"), (None, None));
}

#[test]
fn a_description_is_read_again_after_its_time() {
    let machine = Machine::new();
    let mut identifier = machine.identifier();
    let unit = || Unit {
        name: "new.service".to_owned(),
        manager: parse::Manager::System,
    };
    let start = Instant::now();
    assert_eq!(identifier.service(unit(), start).description, None);
    machine.write("units/system/new.service", b"[Unit]\nDescription=New\n");
    assert_eq!(identifier.service(unit(), start).description, None);
    let later = start + KEEP_NO_DESCRIPTION;
    assert_eq!(
        identifier.service(unit(), later).description.as_deref(),
        Some("New")
    );
}

#[test]
fn modules_of_a_made_up_process() {
    let machine = Machine::new();
    machine.write(
        "proc/42/maps",
        b"1000-2000 r-xp 00000000 00:00 1  /usr/lib/a.so\n\
          3000-4000 r-xp 00000000 00:00 2  /usr/sbin/nginx (deleted)\n",
    );
    let identifier = machine.identifier();
    let paths: Vec<String> = identifier
        .modules(key(42, 2_500_000_000))
        .unwrap()
        .into_iter()
        .map(|module| module.path)
        .collect();
    assert_eq!(paths, ["/usr/sbin/nginx (deleted)", "/usr/lib/a.so"]);
    for wrong in [key(42, 1), key(43, 0)] {
        assert!(matches!(
            identifier.modules(wrong),
            Err(ModulesError::Gone { .. })
        ));
    }
}
