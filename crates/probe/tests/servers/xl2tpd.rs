//! xl2tpd, in whose log it can be seen that the tunnel is given up again.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage::{self, Server};

const XL2TPD: &str = "/usr/sbin/xl2tpd";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "xl2tpd",
        needs: &[(XL2TPD, "xl2tpd")],
        play: tells_who_it_is,
    }]
}

fn tells_who_it_is() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = |name| directory.path().join(name);
    fs::write(
        path("xl2tpd.conf"),
        "[global]\n\
         listen-addr = 127.0.0.1\n\
         [lns default]\n\
         ip range = 192.0.2.10-192.0.2.20\n\
         local ip = 192.0.2.1\n\
         hostname = lns.scene\n",
    )?;
    fs::write(path("secrets"), "")?;
    let mut command = Command::new(XL2TPD);
    command.arg("-D");
    for (option, name) in [
        ("-c", "xl2tpd.conf"),
        ("-s", "secrets"),
        ("-p", "pid"),
        ("-C", "control"),
    ] {
        command.arg(option).arg(path(name));
    }
    let mut server = Server::start(&mut command, directory.path())?;
    server.binds(1701)?;
    let answer = stage::over_udp("l2f", "127.0.0.1:1701")?;
    stage::expect(&answer, "Host Name", "lns.scene")?;
    stage::expect(&answer, "Vendor Name", "xelerance.com")?;
    stage::expect(&answer, "Protocol Version", "1.0")?;
    let output = directory.path().join("output");
    server.until(|| Ok(fs::read_to_string(&output)?.contains("Connection closed")))
}
