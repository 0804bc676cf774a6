//! tftpd-hpa, which answers from a port of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use libtest_mimic::Failed;
use probe::Status;

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
            name: "tftpd_is_listening",
            needs,
            play: is_listening,
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

fn is_listening() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(&directory)?;
    let verdict = stage::judge("127.0.0.1", 69, "tftp 69/udp")?;
    match (verdict.status, verdict.answer) {
        (Status::Listening, Some(Ok(answer))) => stage::expect(&answer, "code", "1")?,
        other => return Err(format!("an answer was expected: {other:?}").into()),
    }
    // The socket that hears every port still hears that there is none.
    let verdict = stage::judge("127.0.0.1", 70, "tftp 70/udp")?;
    if verdict.status == Status::NotListening {
        return Ok(());
    }
    Err(format!("nothing is there: {verdict:?}").into())
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
