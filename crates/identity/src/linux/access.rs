//! What this machine does not let us see of processes, found out by trying.

use std::io;
use std::path::Path;

use event::Degradation;

use super::Roots;
use super::file;
use super::parse;

/// The capability to look into the processes of others (`CAP_SYS_PTRACE`).
const SYS_PTRACE: u64 = 1 << 19;
/// What `ns/pid` of a process in the machine's first PID namespace points to.
const FIRST_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";
/// The type of file system that cgroup2 reports (`CGROUP2_SUPER_MAGIC`).
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// A mount table of a machine with thousands of containers.
const MOUNTS_LIMIT: usize = 16 * 1024 * 1024;

/// Where cgroup2 is mounted, whole: a mount of a part of it would give wrong
/// paths. Of several the last one, if it can be reached.
pub(super) fn cgroup2_mount(proc: &Path) -> Option<std::path::PathBuf> {
    let table = file::read(&proc.join("self/mountinfo"), MOUNTS_LIMIT).ok()?;
    parse::mounts(&table)
        .filter(|mount| mount.kind == b"cgroup2" && mount.root == b"/")
        .map(|mount| mount.point)
        .filter(|point| {
            rustix::fs::statfs(point)
                .is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2_MAGIC))
        })
        .last()
}

/// Everything about `/proc` and cgroup2 that keeps owners from being known.
pub(super) fn degradations(roots: &Roots) -> Vec<Degradation> {
    let mut found = Vec::new();
    if roots.cgroup2.is_none() {
        found.push(Degradation {
            what: "cgroup2".to_owned(),
            why: "no cgroup2 hierarchy is mounted".to_owned(),
            consequence: "unit and container of processes that end quickly are not known"
                .to_owned(),
            remedy: Some("mount -t cgroup2 none /sys/fs/cgroup/unified".to_owned()),
        });
    }
    let Ok(status) = file::read(&roots.proc.join("self/status"), 1 << 20) else {
        found.push(Degradation {
            what: "proc".to_owned(),
            why: format!("{} cannot be read", roots.proc.display()),
            consequence: "processes that were there before have no name, user or service"
                .to_owned(),
            remedy: Some("mount -t proc proc /proc".to_owned()),
        });
        return found;
    };
    found.extend(hidden(&roots.proc));
    found.extend(unprivileged(&roots.proc, &status));
    found.extend(other_namespace(&roots.proc));
    found
}

/// `/proc` that shows each user only the user's own processes.
fn hidden(proc: &Path) -> Option<Degradation> {
    let table = file::read(&proc.join("self/mountinfo"), MOUNTS_LIMIT).ok()?;
    let option = parse::mounts(&table)
        .filter(|mount| mount.kind == b"proc" && mount.point == proc)
        .last()?
        .options
        .split(|&byte| byte == b',')
        .find_map(|option| option.strip_prefix(b"hidepid=").map(<[u8]>::to_vec))?;
    // Whom the option does not concern sees process 1 all the same.
    let is_hidden = !matches!(option.as_slice(), b"0" | b"off")
        && file::read(&proc.join("1/stat"), 16).is_err();
    is_hidden.then(|| Degradation {
        what: "proc hidepid".to_owned(),
        why: format!(
            "{} is mounted with hidepid={}",
            proc.display(),
            event::text::from_bytes(&option)
        ),
        consequence: "processes of other users cannot be seen".to_owned(),
        remedy: Some("run with all capabilities, as root outside of any container".to_owned()),
    })
}

/// A caller that may not look into the processes of other users.
fn unprivileged(proc: &Path, own_status: &[u8]) -> Option<Degradation> {
    let capabilities = parse::status(own_status).capabilities;
    let lacks = capabilities.is_some_and(|held| held & SYS_PTRACE == 0);
    let denied = rustix::fs::readlink(proc.join("1/exe"), Vec::new())
        .is_err_and(|error| io::Error::from(error).kind() == io::ErrorKind::PermissionDenied);
    (lacks || denied).then(|| Degradation {
        what: "processes of other users".to_owned(),
        why: if lacks {
            "the capability CAP_SYS_PTRACE is missing".to_owned()
        } else {
            "the system denies a look into process 1".to_owned()
        },
        consequence: "their executables and modules are not known".to_owned(),
        remedy: Some("run with all capabilities, as root outside of any container".to_owned()),
    })
}

/// A `/proc` whose numbers are not those of the kernel's events.
fn other_namespace(proc: &Path) -> Option<Degradation> {
    let namespace = rustix::fs::readlink(proc.join("1/ns/pid"), Vec::new()).ok()?;
    (namespace.as_bytes() != FIRST_PID_NAMESPACE).then(|| Degradation {
        what: "PID namespace".to_owned(),
        why: format!("{} shows a PID namespace of its own", proc.display()),
        consequence: "processes outside it, and numbers that the kernel reports, cannot be matched"
            .to_owned(),
        remedy: Some("run in the host's PID namespace".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(roots: &Roots) -> Vec<String> {
        degradations(roots)
            .into_iter()
            .map(|found| found.what)
            .collect()
    }

    fn tree(options: &str, capabilities: &str, namespace: &str) -> (tempfile::TempDir, Roots) {
        let tree = tempfile::tempdir().unwrap();
        let proc = tree.path().to_owned();
        std::fs::create_dir_all(proc.join("self")).unwrap();
        std::fs::create_dir_all(proc.join("1/ns")).unwrap();
        std::fs::write(
            proc.join("self/mountinfo"),
            format!(
                "22 27 0:21 / {} rw - proc proc rw{options}\n",
                proc.display()
            ),
        )
        .unwrap();
        std::fs::write(
            proc.join("self/status"),
            format!("CapEff:\t{capabilities}\n"),
        )
        .unwrap();
        symlink(namespace, proc.join("1/ns/pid")).unwrap();
        let roots = Roots {
            proc: proc.clone(),
            cgroup2: Some(proc.clone()),
            passwd: proc.join("passwd"),
            unit_dirs: Vec::new(),
            name_service: false,
        };
        (tree, roots)
    }

    #[test]
    fn an_ordinary_machine_hides_nothing() {
        let (_tree, roots) = tree("", "000001ffffffffff", "pid:[4026531836]");
        assert_eq!(names(&roots), [""; 0]);
    }

    #[test]
    fn each_obstacle_is_named() {
        let (_tree, mut roots) = tree(",hidepid=invisible", "0000000000000000", "pid:[4026532000]");
        roots.cgroup2 = None;
        assert_eq!(
            names(&roots),
            [
                "cgroup2",
                "proc hidepid",
                "processes of other users",
                "PID namespace"
            ]
        );
    }

    #[test]
    fn hidepid_does_not_matter_to_whom_it_does_not_concern() {
        let (tree, roots) = tree(",hidepid=2", "000001ffffffffff", "pid:[4026531836]");
        std::fs::write(tree.path().join("1/stat"), "1 (init) S 0").unwrap();
        assert_eq!(names(&roots), [""; 0]);
    }

    #[test]
    fn no_proc_is_one_obstacle_not_many() {
        let (tree, roots) = tree("", "0", "pid:[4026531836]");
        std::fs::remove_dir_all(tree.path().join("self")).unwrap();
        assert_eq!(names(&roots), ["proc"]);
    }
}
