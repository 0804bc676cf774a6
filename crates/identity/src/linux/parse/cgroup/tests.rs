use proptest::prelude::*;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn container(path: &str) -> Option<String> {
    place(&path.replace("ID", ID), "").container
}

fn unit_of(path: &str) -> Option<(String, Manager)> {
    place(&path.replace("ID", ID), "")
        .unit
        .map(|unit| (unit.name, unit.manager))
}

#[test]
fn each_runtime_is_known_by_its_path() {
    let docker = "docker:0123456789ab";
    let podman = "podman:0123456789ab";
    let containerd = "containerd:0123456789ab";
    let kubernetes = "kubernetes:0123456789ab";
    for (path, expected) in [
        ("/docker/ID", docker),
        ("/docker/ID/init.scope", docker),
        ("/system.slice/docker-ID.scope", docker),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            docker,
        ),
        ("/system.slice:docker:ID", docker),
        (
            "/kubepods.slice/kubepods-pod1.slice/docker-ID.scope",
            docker,
        ),
        ("/machine.slice/libpod-ID.scope/container", podman),
        ("/libpod_parent/libpod-ID", podman),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            podman,
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ID.scope",
            containerd,
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID",
            containerd,
        ),
        ("/system.slice/nerdctl-ID.scope", containerd),
        (
            "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
            "cri-o:0123456789ab",
        ),
        ("/kubepods/burstable/pod1/ID", kubernetes),
        ("/kubepods.slice/kubepods-besteffort.slice/ID", kubernetes),
        ("/lxc/web", "lxc:web"),
        ("/lxc/web/system.slice/ssh.service", "lxc:web"),
        ("/lxc.payload/web", "lxc:web"),
        ("/lxc.payload.web-1/init.scope", "lxc:web-1"),
        (
            "/machine.slice/machine-my\\x2dbox.scope/payload/init.scope",
            "systemd-nspawn:my-box",
        ),
        (
            "/machine.slice/systemd-nspawn@box.service/payload",
            "systemd-nspawn:box",
        ),
        // The machine's own container, not the one that runs inside it.
        ("/docker/ID/kubelet/kubepods/pod1/crio-ID.scope", docker),
        ("/lxc.payload.web/system.slice/docker-ID.scope", "lxc:web"),
    ] {
        assert_eq!(container(path).as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn what_only_looks_like_a_container() {
    for path in [
        "/",
        "",
        "/docker",
        "/docker/buildx",
        "/docker/0123456789ab",
        "/ID",
        "/actions_job/ID",
        "/system.slice/docker.service",
        "/system.slice/docker-short.scope",
        "/machine.slice/libpod-conmon-ID.scope",
        "/kubepods.slice/crio-conmon-ID.scope",
        "/lxc.monitor.web",
        "/lxc.monitor/web",
        "/lxc",
        "/lxc.payload.",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
        "/machine.slice/machine-lxc\\x2d99\\x2dvm.scope",
        "/system.slice/machine-x.scope",
        "/kubepodsx/ID",
    ] {
        assert_eq!(container(path), None, "{path}");
    }
}

#[test]
fn units_are_found_from_the_top() {
    use Manager::{Container, System, User};
    for (path, name, manager) in [
        ("/init.scope", "init.scope", System),
        ("/system.slice/ssh.service", "ssh.service", System),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            "getty@tty1.service",
            System,
        ),
        (
            "/user.slice/user-1000.slice/session-3.scope",
            "session-3.scope",
            System,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service",
            "user@1000.service",
            System,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "init.scope",
            User,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-foo.service",
            "app-foo.service",
            User,
        ),
        (
            "/system.slice/docker-ID.scope",
            &format!("docker-{ID}.scope"),
            System,
        ),
        (
            "/system.slice/containerd.service/x.slice:cri-containerd:ID",
            "containerd.service",
            System,
        ),
        ("/system.slice/a\\x2db.service", "a\\x2db.service", System),
        ("/_cgroup.service", "cgroup.service", System),
        // A delegated subtree cannot pretend to be another unit.
        (
            "/system.slice/evil.service/ssh.service",
            "evil.service",
            System,
        ),
        (
            "/user.slice/user-1000.slice/session-3.scope/ssh.service",
            "session-3.scope",
            System,
        ),
        // A manager inside a container.
        (
            "/docker/ID/system.slice/nginx.service",
            "nginx.service",
            Container,
        ),
        (
            "/machine.slice/libpod-ID.scope/container/system.slice/nginx.service",
            "nginx.service",
            Container,
        ),
        ("/lxc.payload.web/init.scope", "init.scope", Container),
        (
            "/lxc.payload.web/user.slice/user-0.slice/user@0.service/a.scope",
            "a.scope",
            Container,
        ),
    ] {
        assert_eq!(unit_of(path), Some((name.to_owned(), manager)), "{path}");
    }
    for path in [
        "/",
        "/system.slice",
        "/docker/ID",
        "/foo/bar.service",
        "/cgroup.procs",
    ] {
        assert_eq!(unit_of(path), None, "{path}");
    }
}

#[test]
fn a_machine_in_a_container_counts_from_its_own_root() {
    let root = manager_root(b"1:name=systemd:/lxc/web/init.scope\n0::/lxc/web/init.scope\n");
    assert_eq!(root, "/lxc/web");
    let inside = place("/lxc/web/system.slice/ssh.service", &root);
    assert_eq!(inside.unit.map(|unit| unit.manager), Some(Manager::System));
    assert_eq!(inside.container, None);
    let other = place("/lxc/web2/init.scope", &root);
    assert_eq!(other.container.as_deref(), Some("lxc:web2"));
    assert_eq!(manager_root(b"0::/init.scope\n"), "");
    assert_eq!(manager_root(b"0::/\n"), "");
}

#[test]
fn all_hierarchies_are_asked() {
    let v1 = format!("5:memory:/docker/{ID}\n1:name=systemd:/system.slice/docker.service\n0::/\n");
    let place = places(v1.as_bytes(), "");
    assert_eq!(place.container.as_deref(), Some("docker:0123456789ab"));
    assert_eq!(place.unit.unwrap().name, "docker.service");

    let v2_first = b"1:name=systemd:/a.service\n4:cpu:/c.service\n0::/b.service (deleted)\n";
    assert_eq!(places(v2_first, "").unit.unwrap().name, "b.service");

    let not_systemd = b"4:cpu:/c.service\n";
    assert_eq!(places(not_systemd, ""), Place::default());
}

#[test]
fn lines_may_hold_colons_in_the_path_only() {
    let lines: Vec<_> = cgroup_lines(b"0::/a:b\nx\n3:cpu,cpuacct:/c\n:::\n-1::/\n").collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].path, b"/a:b");
    assert_eq!(lines[1].controllers, b"cpu,cpuacct");
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = places(&bytes, "/x");
        let _ = manager_root(&bytes);
        let _ = place(&text::from_bytes(&bytes), "");
    }

    #[test]
    fn near_misses_do_not_panic(
        path in "(/|docker|-|:|\\.scope|\\.slice|\\.service|user@1|lxc|kubepods|machine|[0-9a-f]{64}|é){0,20}",
    ) {
        let found = place(&path, "");
        if let Some(unit) = found.unit {
            prop_assert!(UnitName::new(&unit.name).is_some());
        }
        if let Some(container) = found.container {
            prop_assert!(container.contains(':'));
        }
    }
}
