//! What the path of a control group says: which unit, which container.
//!
//! The path is the only thing that every container runtime and systemd leave
//! behind for each process, and it outlives the process in our tables. But a
//! part of it is not the machine's to vouch for: whoever was given a subtree,
//! a user or the root of a container, names the groups in it. So the path is
//! read from the top, as systemd reads it:
//!
//! * below the slices, the first component is the unit of the system's
//!   manager; if it is a `user@UID.service`, the same again below it finds the
//!   unit of that user's manager;
//! * the first component that has the form of a container is the container
//!   that this machine runs; containers within it are its own affair;
//! * below the container a manager of its own may have made units. Such a unit
//!   tells more than the container's scope, so it is reported, but no file of
//!   this machine describes it ([`Manager::Container`]).

use event::text;

use super::names::{self, UnitName};
use super::process::number;

/// One line of `/proc/PID/cgroup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLine<'a> {
    /// The hierarchy; 0 is cgroup2.
    pub hierarchy: u32,
    /// The controllers of the hierarchy or its name, as `name=systemd`.
    pub controllers: &'a [u8],
    /// The path below the root of the hierarchy, as the reader sees it.
    pub path: &'a [u8],
}

impl CgroupLine<'_> {
    /// Does systemd build this hierarchy?
    fn is_systemd(&self) -> bool {
        self.hierarchy == 0 || self.controllers == b"name=systemd"
    }
}

/// Whose unit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manager {
    /// The system's.
    System,
    /// A user's own.
    User,
    /// One inside a container.
    Container,
}

/// A unit that a path names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Its name, valid for [`UnitName::new`].
    pub name: String,
    /// Who runs it.
    pub manager: Manager,
}

/// What a path says. Either may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The unit.
    pub unit: Option<Unit>,
    /// The container, as `docker:0123456789ab`.
    pub container: Option<String>,
}

/// Reads `/proc/PID/cgroup`.
pub fn cgroup_lines(bytes: &[u8]) -> impl Iterator<Item = CgroupLine<'_>> {
    bytes.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let hierarchy = number(fields.next()?)?;
        let controllers = fields.next()?;
        let mut path = fields.next()?;
        if hierarchy == 0 {
            // A group that was removed while it still had processes.
            path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        }
        path.starts_with(b"/").then_some(CgroupLine {
            hierarchy,
            controllers,
            path,
        })
    })
}

/// What all hierarchies of `/proc/PID/cgroup` together say. cgroup2 is asked
/// first; a unit is believed only in a hierarchy that systemd builds.
pub fn places(bytes: &[u8], manager_root: &str) -> Place {
    let mut lines: Vec<CgroupLine<'_>> = cgroup_lines(bytes).collect();
    lines.sort_by_key(|line| (line.hierarchy != 0, !line.is_systemd()));
    let mut sum = Place::default();
    for line in lines {
        let found = place(&text::from_bytes(line.path), manager_root);
        if line.is_systemd() {
            sum.unit = sum.unit.or(found.unit);
        }
        sum.container = sum.container.or(found.container);
    }
    sum
}

/// Where the system's manager begins to count: the path of process 1 without
/// its own `init.scope`, given the content of `/proc/1/cgroup`. Empty on an
/// ordinary machine; something else where all of it runs inside a container
/// and sees its own groups from outside.
pub fn manager_root(bytes: &[u8]) -> String {
    cgroup_lines(bytes)
        .filter(CgroupLine::is_systemd)
        .find_map(|line| {
            let path = text::from_bytes(line.path);
            path.strip_suffix("/init.scope").map(str::to_owned)
        })
        .unwrap_or_default()
}

/// What one path says. `manager_root` is what [`manager_root`] found.
pub fn place(path: &str, manager_root: &str) -> Place {
    let below = path
        .strip_prefix(manager_root)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path);
    let components: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
    let container =
        (0..components.len()).find_map(|at| container_at(&components, at).map(|value| (at, value)));
    let unit = match &container {
        Some((at, _)) => unit_in_container(components.get(at + 1..).unwrap_or_default())
            .or_else(|| unit(components.get(..=*at).unwrap_or_default())),
        None => unit(&components),
    };
    Place {
        unit,
        container: container.map(|(_, value)| value),
    }
}

fn unit(components: &[&str]) -> Option<Unit> {
    let (name, below) = unit_below_slices(components)?;
    let is_user_manager = name.kind == "service"
        && name.prefix == "user"
        && name
            .instance
            .is_some_and(|uid| number::<u32>(uid.as_bytes()).is_some());
    if is_user_manager && let Some((inner, _)) = unit_below_slices(below) {
        return Some(Unit {
            name: inner.full.to_owned(),
            manager: Manager::User,
        });
    }
    Some(Unit {
        name: name.full.to_owned(),
        manager: Manager::System,
    })
}

fn unit_in_container(components: &[&str]) -> Option<Unit> {
    // Runtimes put one more group of theirs before the container's own root.
    let own = match components {
        ["payload" | "container" | "ns", rest @ ..] => rest,
        all => all,
    };
    unit(own).map(|unit| Unit {
        manager: Manager::Container,
        ..unit
    })
}

fn unit_below_slices<'a, 'b>(components: &'b [&'a str]) -> Option<(UnitName<'a>, &'b [&'a str])> {
    let first = components
        .iter()
        .position(|component| component.strip_suffix(".slice").is_none())?;
    let name = UnitName::in_cgroup(components.get(first)?)?;
    Some((name, components.get(first + 1..).unwrap_or_default()))
}

/// The container whose root is the component at that place.
fn container_at(components: &[&str], at: usize) -> Option<String> {
    let component = *components.get(at)?;
    let above = components.get(..at).unwrap_or_default();
    let parent = above.last().copied().unwrap_or_default();

    if let Some(id) = full_id(component) {
        // cgroupfs drivers: nothing but the ID, the runtime stands above it.
        return if parent == "docker" {
            Some(format!("docker:{id}"))
        } else if above.iter().any(|part| is_kubepods(part)) {
            Some(format!("kubernetes:{id}"))
        } else {
            None
        };
    }
    if let Some((rest, id)) = component.rsplit_once(':') {
        // A path for systemd (slice:prefix:ID) that cgroupfs took literally.
        let prefix = rest.rsplit_once(':')?.1;
        return Some(format!("{}:{}", runtime(prefix)?, full_id(id)?));
    }
    let stem = component.strip_suffix(".scope").unwrap_or(component);
    if let Some((prefix, id)) = stem.rsplit_once('-')
        && let (Some(runtime), Some(id)) = (runtime(prefix), full_id(id))
    {
        return Some(format!("{runtime}:{id}"));
    }
    if matches!(parent, "lxc" | "lxc.payload") {
        return Some(format!("lxc:{component}"));
    }
    if let Some(name) = component.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then(|| format!("lxc:{name}"));
    }
    machine(component, above).map(|name| format!("systemd-nspawn:{name}"))
}

/// The runtime that puts this before the ID of its containers.
fn runtime(prefix: &str) -> Option<&'static str> {
    Some(match prefix {
        "docker" => "docker",
        "libpod" => "podman",
        "cri-containerd" | "nerdctl" => "containerd",
        "crio" => "cri-o",
        _ => return None,
    })
}

fn is_kubepods(component: &str) -> bool {
    component
        .strip_prefix("kubepods")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
}

/// The first 12 digits of a container's ID of 64.
fn full_id(text: &str) -> Option<&str> {
    let is_id = text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_id { text.get(..12) } else { None }
}

/// The name of a machine that systemd-nspawn runs.
fn machine(component: &str, above: &[&str]) -> Option<String> {
    let unit = UnitName::in_cgroup(component)?;
    let escaped = match (unit.kind, unit.prefix, unit.instance) {
        ("service", "systemd-nspawn", Some(instance)) => instance,
        ("scope", prefix, None) if above.contains(&"machine.slice") => {
            prefix.strip_prefix("machine-")?
        }
        _ => return None,
    };
    let name = names::unescape_bytes(escaped);
    // libvirt registers its virtual machines and containers here too.
    let is_libvirt = name.starts_with("qemu-") || name.starts_with("lxc-");
    (!name.is_empty() && !is_libvirt).then_some(name)
}

#[cfg(test)]
mod tests;
