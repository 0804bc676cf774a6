//! xrdp, with TLS and without.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage::{self, Server};

const XRDP: &str = "/usr/sbin/xrdp";
const OPENSSL: &str = "/usr/bin/openssl";

pub(crate) fn scenes() -> Vec<Scene> {
    let needs: &[(&str, &str)] = &[(XRDP, "xrdp"), (OPENSSL, "openssl")];
    vec![
        Scene {
            name: "xrdp_with_tls",
            needs,
            play: with_tls,
        },
        Scene {
            name: "xrdp_without_tls",
            needs,
            play: without_tls,
        },
    ]
}

fn start(directory: &Path, security: &str) -> Result<Server, Failed> {
    let path = |name| directory.join(name).display().to_string();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let mut command = Command::new(OPENSSL);
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj"]);
    command.args(["/CN=scene", "-keyout", &key, "-out", &certificate]);
    stage::run(&mut command)?;
    let configuration = path("xrdp.ini");
    let log = path("log");
    fs::write(
        &configuration,
        format!(
            "[Globals]\n\
             ini_version=1\n\
             fork=false\n\
             port=tcp://127.0.0.1:3389\n\
             security_layer={security}\n\
             certificate={certificate}\n\
             key_file={key}\n\
             [Logging]\n\
             LogFile={log}\n\
             LogLevel=INFO\n"
        ),
    )?;
    let mut command = Command::new(XRDP);
    command.args(["--nodaemon", "--config", &configuration]);
    let mut server = Server::start(&mut command, directory)?;
    server.listens("127.0.0.1:3389")?;
    Ok(server)
}

fn with_tls() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(directory.path(), "tls")?;
    let answer = stage::over_tcp("ms-wbt-server", "127.0.0.1:3389")?;
    stage::expect(&answer, "protocol", "TLS")
}

fn without_tls() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(directory.path(), "rdp")?;
    let answer = stage::over_tcp("rdp", "127.0.0.1:3389")?;
    stage::expect(&answer, "protocol", "RDP")
}
