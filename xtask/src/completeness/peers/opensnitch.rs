//! The application firewall opensnitch.
//!
//! It asks a graphical program about each new connection and writes none of
//! them down where nobody watches that program. And it queues the packets of
//! the whole machine to itself, which nobody else on the machine has agreed
//! to. So it is not run here, and nothing is said about it.

use crate::completeness::watcher::{NotHere, Watcher};

/// Says why it is not run.
pub(in crate::completeness) fn start() -> anyhow::Result<Box<dyn Watcher>> {
    super::lines::installed(&["opensnitchd"], "opensnitch")?;
    Err(NotHere(
        "puts itself between the whole machine and its network (NFQUEUE), and logs only to its \
         graphical program"
            .to_owned(),
    )
    .into())
}
