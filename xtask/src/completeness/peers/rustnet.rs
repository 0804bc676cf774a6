//! rustnet, which captures packets and draws them on a terminal.

use crate::completeness::watcher::{NotHere, Watcher};

/// Says why it is not run.
pub(in crate::completeness) fn start() -> anyhow::Result<Box<dyn Watcher>> {
    if crate::bench::peer::find("rustnet").is_none() {
        return Err(NotHere("not installed (crate rustnet-monitor)".to_owned()).into());
    }
    Err(NotHere("needs a terminal".to_owned()).into())
}
