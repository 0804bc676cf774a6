//! What Linux writes, as pure functions from bytes.
//!
//! Each function takes the content of one file and answers with what it
//! understood. None of them opens anything, none panics on any input; what is
//! malformed is left out. They are public so that a fuzzer can reach them.

mod cgroup;
mod elf;
mod maps;
mod names;
mod process;
mod system;
mod unit_file;

pub use self::cgroup::{
    CgroupLine, Manager, Place, Unit, cgroup_lines, manager_root, place, places,
};
pub use self::elf::{ELF_LIMIT, base};
pub(super) use self::maps::is_file;
pub use self::maps::{Mapping, Modules, mapping, modules};
pub use self::names::UnitName;
pub use self::process::{Stat, Status, command_line, image_name, stat, status};
pub use self::system::{Mount, boottime_offset, mounts, user_name};
pub use self::unit_file::{description, expand};
