//! tftpd-hpa, which answers from a port of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage::{self, Server};

const TFTPD: &str = "/usr/sbin/in.tftpd";

pub(crate) fn scenes() -> Vec<Scene> {
    let needs: &[(&str, &str)] = &[(TFTPD, "tftpd-hpa")];
    vec![
        Scene {
            name: "tftpd_has_no_such_file",
            needs,
            play: has_no_such_file,
        },
        Scene {
            name: "tftpd_has_the_file",
            needs,
            play: has_the_file,
        },
    ]
}

fn start(directory: &tempfile::TempDir) -> Result<Server, Failed> {
    // It reads as a user without rights.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let mut command = Command::new(TFTPD);
    // Without an address: it cannot resolve one where only loopback is up.
    command.args(["-L", "--secure"]);
    let mut server = Server::start(command.arg(directory.path()), directory.path())?;
    server.binds(69)?;
    Ok(server)
}

fn has_no_such_file() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(&directory)?;
    let answer = stage::over_udp("tftp", "127.0.0.1:69")?;
    stage::expect(&answer, "code", "1")?;
    stage::expect(&answer, "error", "File not found")
}

fn has_the_file() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("portreporter-query");
    fs::write(&file, [b'x'; 2000])?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    let _server = start(&directory)?;
    let answer = stage::over_udp("tftp", "127.0.0.1:69")?;
    stage::expect(&answer, "block", "1")
}
