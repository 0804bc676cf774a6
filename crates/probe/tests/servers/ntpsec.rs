//! ntpd of `NTPsec`, with nobody above it (orphan mode). It has not got the right
//! to set the clock.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage::{self, Server};

const NTPD: &str = "/usr/sbin/ntpd";
const SETPRIV: &str = "/usr/bin/setpriv";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "ntpsec",
        needs: &[(NTPD, "ntpsec"), (SETPRIV, "util-linux")],
        play: tells_the_time,
    }]
}

fn tells_the_time() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let configuration = directory.path().join("ntp.conf");
    fs::write(
        &configuration,
        "tos orphan 5 orphanwait 1\n\
         restrict 127.0.0.1\n\
         setvar scene = \"the server of the scene\" default\n",
    )?;
    let mut command = Command::new(SETPRIV);
    command.args(["--bounding-set=-sys_time", "--inh-caps=-sys_time", NTPD]);
    command.args(["-n", "-N", "-c"]).arg(&configuration);
    let mut server = Server::start(&mut command, directory.path())?;
    server.binds(123)?;
    let mut answer = stage::over_udp("ntp", "127.0.0.1:123")?;
    // It waits a moment before it trusts itself.
    server.until(|| {
        answer = stage::over_udp("ntp", "127.0.0.1:123")?;
        Ok(stage::expect(&answer, "stratum", "5").is_ok())
    })?;
    stage::expect(&answer, "version", "4")?;
    stage::expect(&answer, "reference id", "127.0.0.1")?;
    stage::expect(&answer, "readvar", "ntpd ntpsec-")?;
    stage::expect(&answer, "readvar", "the server of the scene")
}
