//! Where a process lives: other namespaces, another root, a container's
//! control group.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::fact::{Fact, Kind};
use super::stage::{
    ANY_V4, ANY_V6, Ignored, Pair, accepted, connected, forked, ip, joined, listener, needs,
    number, own_network, part, read_to_the_end, udp_at,
};

/// Two namespaces at once, each with a connection between the same ends.
pub(super) fn two_networks() -> anyhow::Result<()> {
    let at = "127.0.0.1:47001".parse()?;
    let from = "127.0.0.1:47002".parse()?;
    let children = [(); 2]
        .map(|()| {
            forked(|| {
                own_network()?;
                let listener = listener(at)?;
                let client = super::stage::tcp(from)?;
                rustix::net::bind(&client, &from)?;
                rustix::net::connect(&client, &at)?;
                let server = accepted(&listener)?;
                let pair = Pair {
                    listener,
                    client,
                    server,
                };
                pair.tell(0, 0)?;
                pair.close()
            })
        })
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    children.into_iter().try_for_each(joined)
}

/// Sockets whose namespace has no process any more, and goes with them.
pub(super) fn deleted_network() -> anyhow::Result<()> {
    let home = std::fs::File::open("/proc/thread-self/ns/net")?;
    own_network()?;
    let pair = Pair::new(ANY_V4)?;
    pair.tell(0, 0)?;
    let port = udp_at(ANY_V6)?;
    Fact::bind("udp", &port)?.tell()?;
    rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&home),
        Some(LinkNameSpaceType::Network),
    )?;
    drop(port);
    pair.close()
}

/// A process that has another number inside than outside.
pub(super) fn pid_namespace() -> anyhow::Result<()> {
    // SAFETY: CLONE_NEWPID does not touch the table of file descriptors.
    needs("a PID namespace", unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWPID).map_err(std::io::Error::from)
    })?;
    let (mut here, mut there) = UnixStream::pair()?;
    let child = forked(|| {
        // What it is called outside only the parent knows.
        let mut outside = [0; 4];
        there.read_exact(&mut outside)?;
        let outside = u32::from_ne_bytes(outside);
        let pair = Pair::new(ANY_V4)?;
        Fact::listen("listener", &pair.listener)?
            .by(outside)
            .tell()?;
        Fact::connect("client", &pair.client)?.by(outside).tell()?;
        Fact::accept("server", &pair.server)?.by(outside).tell()?;
        pair.close()
    })?;
    here.write_all(&number(child)?.to_ne_bytes())?;
    joined(child)
}

/// A process without privileges that is root inside.
pub(super) fn user_namespace() -> anyhow::Result<()> {
    const NOBODY: u32 = 65_534;
    let child = forked(|| {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY))?;
        let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET;
        // SAFETY: neither flag touches the table of file descriptors.
        needs("a user namespace", unsafe {
            rustix::thread::unshare_unsafe(flags).map_err(std::io::Error::from)
        })?;
        // Who gave root up may not write to its own files in /proc.
        // SAFETY: sets a flag of this process.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        std::fs::write("/proc/self/uid_map", format!("0 {NOBODY} 1\n"))?;
        ip(&["link", "set", "lo", "up"])?;
        let pair = Pair::new(ANY_V4)?;
        for (kind, role, socket) in [
            (Kind::Listen, "listener", &pair.listener),
            (Kind::Connect, "client", &pair.client),
            (Kind::Accept, "server", &pair.server),
        ] {
            let mut fact = Fact::of(kind, role, socket)?;
            // Inside it is 0.
            fact.uid = Some(NOBODY);
            fact.tell()?;
        }
        pair.close()
    })?;
    joined(child)
}

/// A process with another root, without `/proc`.
pub(super) fn other_root() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let child = forked(|| {
        rustix::process::chroot(root.path())?;
        std::env::set_current_dir("/")?;
        let pair = Pair::new(ANY_V4)?;
        pair.tell(0, 0)?;
        pair.close()
    })?;
    joined(child)
}

/// A process in a container of docker without systemd.
pub(super) fn docker() -> anyhow::Result<()> {
    let id = fresh_id();
    contained("docker", &format!("docker/{id}"), &id)
}

/// A process in a container of docker with systemd.
pub(super) fn docker_systemd() -> anyhow::Result<()> {
    let id = fresh_id();
    contained("docker", &format!("system.slice/docker-{id}.scope"), &id)
}

/// A process in a container of podman.
pub(super) fn podman() -> anyhow::Result<()> {
    let id = fresh_id();
    let path = format!("machine.slice/libpod-{id}.scope/container");
    contained("podman", &path, &id)
}

/// A process in a container of a Kubernetes pod, run by containerd.
pub(super) fn kubernetes() -> anyhow::Result<()> {
    let id = fresh_id();
    let pod = &id[..32];
    let path = format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/\
         cri-containerd-{id}.scope"
    );
    contained("containerd", &path, &id)
}

/// Plays [`contained_part`] as a program that is executed in that group.
fn contained(runtime: &str, group: &str, id: &str) -> anyhow::Result<()> {
    let group = Group::new(&cgroup2()?, group)?;
    let inside = group.path.join("cgroup.procs");
    let name = format!("{runtime}:{}", &id[..12]);
    let child = forked(|| {
        std::fs::write(&inside, "0\n")?;
        Err(part("part-contained", &[name])?.exec().into())
    })?;
    joined(child)
}

/// The program in the container.
pub(super) fn contained_part(arguments: &[String]) -> anyhow::Result<()> {
    let name = arguments.first().context("no container is named")?;
    let pair = Pair::new(ANY_V4)?;
    for (kind, role, socket) in [
        (Kind::Listen, "listener", &pair.listener),
        (Kind::Connect, "client", &pair.client),
        (Kind::Accept, "server", &pair.server),
    ] {
        let mut fact = Fact::of(kind, role, socket)?;
        fact.container = Some(name.clone());
        fact.tell()?;
    }
    pair.close()
}

/// Link-local addresses, which need a scope to mean anything.
pub(super) fn link_local() -> anyhow::Result<()> {
    own_network()?;
    ip(&["link", "add", "one", "type", "veth", "peer", "name", "two"])?;
    ip(&["link", "set", "one", "up"])?;
    ip(&["link", "set", "two", "up"])?;
    ip(&["address", "add", "fe80::47/64", "dev", "one", "nodad"])?;
    let index = interface_index("one")?;
    let at = std::net::SocketAddrV6::new("fe80::47".parse()?, 0, 0, index).into();
    let pair = Pair::new(at)?;
    pair.tell(0, 0)?;
    let port = udp_at(at)?;
    Fact::bind("udp", &port)?.tell()?;
    pair.close()
}

/// Two hosts, as two namespaces with a cable between them.
pub(super) fn across_a_cable() -> anyhow::Result<()> {
    own_network()?;
    let (mut here, mut there) = UnixStream::pair()?;
    let server = forked(|| {
        own_network()?;
        there.write_all(&[1])?;
        there.read_exact(&mut [0])?;
        ip(&["address", "add", "10.47.0.2/24", "dev", "two"])?;
        ip(&["link", "set", "two", "up"])?;
        let listener = listener("10.47.0.2:4747".parse()?)?;
        Fact::listen("listener", &listener)?.tell()?;
        there.write_all(&[1])?;
        let server = accepted(&listener)?;
        Fact::accept("server", &server)?.tell()?;
        read_to_the_end(&server)?;
        Ok(())
    })?;
    here.read_exact(&mut [0])?;
    let away = number(server)?.to_string();
    ip(&["link", "add", "one", "type", "veth", "peer", "name", "two"])?;
    ip(&["link", "set", "two", "netns", &away])?;
    ip(&["address", "add", "10.47.0.1/24", "dev", "one"])?;
    ip(&["link", "set", "one", "up"])?;
    here.write_all(&[1])?;
    here.read_exact(&mut [0])?;
    let client = connected("10.47.0.2:4747".parse()?)?;
    Fact::connect("client", &client)?.tell()?;
    drop(client);
    joined(server)
}

/// The index of an interface: `/sys` shows another namespace's.
fn interface_index(name: &str) -> anyhow::Result<u32> {
    let socket = super::stage::udp(ANY_V4)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// A control group; removed with all above it that it made, when dropped.
struct Group {
    root: PathBuf,
    path: PathBuf,
}

impl Group {
    fn new(root: &Path, below: &str) -> anyhow::Result<Self> {
        let path = root.join(below);
        needs("a control group", std::fs::create_dir_all(&path))?;
        Ok(Self {
            root: root.to_owned(),
            path,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut path = self.path.as_path();
        // One that is not empty is somebody else's too, and stays.
        while path != self.root && std::fs::remove_dir(path).is_ok() {
            let Some(above) = path.parent() else { return };
            path = above;
        }
    }
}

/// Where cgroup2 is mounted.
fn cgroup2() -> anyhow::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ');
            let path = fields.nth(1)?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
        })
        .ok_or_else(|| Ignored("no cgroup2 file system is mounted".to_owned()).into())
}

/// An ID as container engines make them.
fn fresh_id() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    let word = u64::from(now).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id());
    format!("{word:016x}").repeat(4)
}
