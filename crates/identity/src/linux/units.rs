//! The description of a unit, from the files that systemd reads.
//!
//! systemd itself is not asked: that would be a message to another process and
//! back, from a thread that must not wait. The files say the same, save for
//! units that systemd makes up (`init.scope`) or that were changed on disk
//! since it read them.
//!
//! A unit of a user's manager is described by the directories of the system
//! only. The user's own files are the user's to write, and this program may
//! be root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file;
use super::parse::{self, Manager, UnitName};

/// No unit file is longer than that.
const LIMIT: usize = 256 * 1024;
/// More drop-ins for one unit are not read.
const MAX_DROP_INS: usize = 64;

/// Finds the description of a unit.
pub(super) fn description(
    system_dirs: &[PathBuf],
    name: &UnitName<'_>,
    manager: Manager,
) -> Option<String> {
    let user_dirs: Vec<PathBuf>;
    let dirs = match manager {
        Manager::System => system_dirs,
        Manager::User => {
            user_dirs = system_dirs
                .iter()
                .filter_map(|dir| for_users(dir))
                .collect();
            &user_dirs
        }
        Manager::Container => return None,
    };
    let mut text = unit_file(dirs, name.full)
        .or_else(|| unit_file(dirs, &name.template()?))
        .and_then(|content| parse::description(&content));
    for drop_in in drop_ins(dirs, name) {
        let assigned = file::read_regular(&drop_in, LIMIT)
            .ok()
            .flatten()
            .and_then(|content| parse::description(&content));
        text = assigned.or(text);
    }
    text.map(|text| parse::expand(&text, name))
        .filter(|text| !text.is_empty())
}

/// The directory for units of users beside one for units of the system.
fn for_users(dir: &Path) -> Option<PathBuf> {
    (dir.file_name()? == "system").then(|| dir.with_file_name("user"))
}

/// The content of the first file of that name. A file that is there but is not
/// a regular one (a masked unit is a link to `/dev/null`) ends the search.
fn unit_file(dirs: &[PathBuf], name: &str) -> Option<Vec<u8>> {
    dirs.iter().find_map(|dir| {
        file::read_regular(&dir.join(name), LIMIT)
            .ok()
            .map(Option::unwrap_or_default)
    })
}

/// The drop-ins of a unit in the order in which they apply: by file name, over
/// all directories; of two with one name the more specific, then the one in
/// the more important directory, hides the other.
fn drop_ins(dirs: &[PathBuf], name: &UnitName<'_>) -> Vec<PathBuf> {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in drop_in_folders(name) {
        for dir in dirs {
            let Ok(entries) = std::fs::read_dir(dir.join(&folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                let file = entry.file_name();
                let is_conf = Path::new(&file)
                    .extension()
                    .is_some_and(|kind| kind == "conf");
                if is_conf && found.len() < MAX_DROP_INS {
                    found.entry(file).or_insert_with(|| entry.path());
                }
            }
        }
    }
    found.into_values().collect()
}

/// `a-b@c.service.d`, `a-b@.service.d`, `a-.service.d`, `service.d`.
fn drop_in_folders(name: &UnitName<'_>) -> Vec<String> {
    let mut folders = vec![format!("{}.d", name.full)];
    folders.extend(name.template().map(|template| format!("{template}.d")));
    let mut prefix = name.prefix;
    while let Some((shorter, _)) = prefix.rsplit_once('-') {
        if !shorter.is_empty() {
            folders.push(format!("{shorter}-.{}.d", name.kind));
        }
        prefix = shorter;
    }
    folders.push(format!("{}.d", name.kind));
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    struct Tree {
        root: TempDir,
    }

    impl Tree {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
            }
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        fn ask(&self, unit: &str, manager: Manager) -> Option<String> {
            let dirs = ["etc/system", "lib/system"].map(|dir| self.root.path().join(dir));
            description(&dirs, &UnitName::new(unit).unwrap(), manager)
        }

        fn system(&self, unit: &str) -> Option<String> {
            self.ask(unit, Manager::System)
        }
    }

    #[test]
    fn the_more_important_directory_wins() {
        let tree = Tree::new();
        tree.write("lib/system/a.service", "[Unit]\nDescription=vendor\n");
        assert_eq!(tree.system("a.service").as_deref(), Some("vendor"));
        tree.write("etc/system/a.service", "[Unit]\nDescription=admin\n");
        assert_eq!(tree.system("a.service").as_deref(), Some("admin"));
        tree.write("etc/system/a.service", "[Service]\nExecStart=/bin/true\n");
        assert_eq!(tree.system("a.service"), None);
        assert_eq!(tree.system("b.service"), None);
    }

    #[test]
    fn an_instance_is_described_by_its_template() {
        let tree = Tree::new();
        tree.write(
            "lib/system/getty@.service",
            "[Unit]\nDescription=Getty on %I\n",
        );
        assert_eq!(
            tree.system("getty@tty1.service").as_deref(),
            Some("Getty on tty1")
        );
        tree.write("lib/system/getty@tty1.service", "[Unit]\nDescription=Own\n");
        assert_eq!(tree.system("getty@tty1.service").as_deref(), Some("Own"));
    }

    #[test]
    fn drop_ins_override_in_the_order_of_their_names() {
        let tree = Tree::new();
        tree.write("lib/system/a-b.service", "[Unit]\nDescription=unit\n");
        tree.write(
            "lib/system/service.d/10-x.conf",
            "[Unit]\nDescription=all\n",
        );
        assert_eq!(tree.system("a-b.service").as_deref(), Some("all"));
        tree.write(
            "lib/system/a-.service.d/20-x.conf",
            "[Unit]\nDescription=family\n",
        );
        assert_eq!(tree.system("a-b.service").as_deref(), Some("family"));
        tree.write(
            "lib/system/a-b.service.d/30-x.conf",
            "[Unit]\nDescription=own\n",
        );
        tree.write(
            "lib/system/a-b.service.d/90-x.txt",
            "[Unit]\nDescription=no\n",
        );
        tree.write("lib/system/a-b.service.d/40-x.conf", "[Service]\nNice=1\n");
        assert_eq!(tree.system("a-b.service").as_deref(), Some("own"));
        tree.write(
            "etc/system/a-b.service.d/30-x.conf",
            "[Unit]\nDescription=\n",
        );
        assert_eq!(tree.system("a-b.service"), None);
    }

    #[test]
    fn a_masked_unit_has_no_description() {
        let tree = Tree::new();
        tree.write("lib/system/a.service", "[Unit]\nDescription=vendor\n");
        std::fs::create_dir_all(tree.root.path().join("etc/system")).unwrap();
        symlink("/dev/null", tree.root.path().join("etc/system/a.service")).unwrap();
        assert_eq!(tree.system("a.service"), None);
    }

    #[test]
    fn units_of_users_and_of_containers_are_not_those_of_the_system() {
        let tree = Tree::new();
        tree.write("lib/system/dbus.service", "[Unit]\nDescription=system\n");
        assert_eq!(tree.ask("dbus.service", Manager::User), None);
        tree.write("lib/user/dbus.service", "[Unit]\nDescription=user\n");
        assert_eq!(
            tree.ask("dbus.service", Manager::User).as_deref(),
            Some("user")
        );
        assert_eq!(tree.ask("dbus.service", Manager::Container), None);
    }
}
