//! Kamailio, over UDP and TCP.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage::{self, Server};

const KAMAILIO: &str = "/usr/sbin/kamailio";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "kamailio",
        needs: &[(KAMAILIO, "kamailio")],
        play: tells_its_options,
    }]
}

fn tells_its_options() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let configuration = directory.path().join("kamailio.cfg");
    fs::write(
        &configuration,
        r#"#!KAMAILIO
children=1
tcp_children=1
listen=udp:127.0.0.1:5060
listen=tcp:127.0.0.1:5060
loadmodule "sl.so"
loadmodule "textops.so"
request_route {
    append_to_reply("Organization: the server of the scene\r\n");
    sl_send_reply("200", "Keepalive");
}
"#,
    )?;
    let mut command = Command::new(KAMAILIO);
    command.args(["-DD", "-E", "-m", "16", "-M", "2", "-f"]);
    command.arg(&configuration).arg("-Y").arg(directory.path());
    let mut server = Server::start(&mut command, directory.path())?;
    server.listens("127.0.0.1:5060")?;
    for answer in [
        stage::over_udp("sip", "127.0.0.1:5060")?,
        stage::over_tcp("sip", "127.0.0.1:5060")?,
    ] {
        stage::expect(&answer, "status", "200")?;
        stage::expect(&answer, "Server", "kamailio (")?;
        stage::expect(&answer, "Organization", "the server of the scene")?;
    }
    Ok(())
}
