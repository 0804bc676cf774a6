//! The engines of Linux.

mod btf;
mod changes;
mod destroy;
mod ebpf;
mod firewall;
pub mod fuzzing;
mod holders;
mod mappings;
mod misses;
mod netlink;
mod netns;
mod others;
mod polling;
mod privileges;
mod proc_connector;
mod procfs;
mod programs;
mod snapshot;
mod sock_diag;
mod subscription;
mod supplement;
mod task_file;

use std::path::Path;
use std::time::Duration;

use event::{Degradation, Engine};

pub use self::ebpf::record;
pub use self::firewall::{Fate, Filtering, Obstacle, Packet, filtering};
use self::privileges::Missing;
pub use self::snapshot::{snapshot, snapshot_while};
pub use self::sock_diag::{Backlog, backlogs};
use crate::{Error, Sensor};

/// How a sensor is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The engine to use; none: the best that works.
    pub engine: Option<Engine>,
    /// The size of the ring buffer between the kernel and us, in bytes; a power
    /// of two and a multiple of the page size. Only the engine `ebpf` has one.
    pub ring_bytes: u32,
    /// How often the engines without a part in the kernel look.
    pub interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: None,
            ring_bytes: 8 << 20,
            interval: Duration::from_millis(250),
        }
    }
}

/// Opens the engine that is asked for, or the best that works. An engine that
/// is better than the one in use is a [`Degradation`] that says why it is not
/// used and what would help.
pub fn open(options: &Options) -> Result<Sensor, Error> {
    match options.engine {
        Some(Engine::Ebpf) => match ebpf::open(options.ring_bytes) {
            Ok(sensor) => Ok(supplement::with_udp(sensor, options)),
            Err(error) => {
                let Degradation { why, remedy, .. } = instead_of_ebpf(&error);
                Err(Error::Unavailable {
                    engine: Engine::Ebpf,
                    reason: match remedy {
                        Some(remedy) => format!("{why}; {remedy}"),
                        None => why,
                    },
                })
            }
        },
        Some(engine) => polling::polling(engine, options),
        None => {
            let reason = match ebpf::open(options.ring_bytes) {
                Ok(sensor) => return Ok(supplement::with_udp(sensor, options)),
                Err(reason) => reason,
            };
            let without_ebpf = instead_of_ebpf(&reason);
            let (mut sensor, better) = match polling::polling(Engine::SockDiag, options) {
                Ok(sensor) => (sensor, vec![without_ebpf]),
                Err(reason) => (
                    polling::polling(Engine::Proc, options)?,
                    vec![without_ebpf, instead_of_sock_diag(&reason)],
                ),
            };
            sensor.degradations.splice(0..0, better);
            Ok(sensor)
        }
    }
}

fn instead_of_ebpf(reason: &Error) -> Degradation {
    let cause = why(reason);
    // A kernel that lacks something lacks it for root, too.
    let missing = ebpf::has_types()
        .then(|| Missing::of_this_process(Path::new("/proc")))
        .flatten();
    Degradation {
        what: "engine ebpf".to_owned(),
        why: match &missing {
            Some(missing) => format!("{} ({cause})", missing.why()),
            None => cause,
        },
        consequence: "it would tell of every socket as it begins, and who made it".to_owned(),
        remedy: missing.map(|_| Missing::remedy()),
    }
}

fn instead_of_sock_diag(reason: &Error) -> Degradation {
    Degradation {
        what: "engine sock-diag".to_owned(),
        why: why(reason),
        consequence: "it would number sockets, and tell of the end of each".to_owned(),
        remedy: Some("load the modules tcp_diag, udp_diag and inet_diag".to_owned()),
    }
}

fn why(reason: &Error) -> String {
    match reason {
        Error::Unavailable { reason, .. } => reason.clone(),
        other => ebpf::explain(other),
    }
}
