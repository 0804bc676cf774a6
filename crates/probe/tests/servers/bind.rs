//! BIND (bind9): a server that has an answer for the root, and one that refuses.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage::{self, Server};

const NAMED: &str = "/usr/sbin/named";

pub(crate) fn scenes() -> Vec<Scene> {
    let needs: &[(&str, &str)] = &[(NAMED, "bind9")];
    vec![
        Scene {
            name: "bind_answers_for_the_root",
            needs,
            play: answers_for_the_root,
        },
        Scene {
            name: "bind_refuses",
            needs,
            play: refuses,
        },
    ]
}

fn start(directory: &Path, options: &str, zones: &str) -> Result<Server, Failed> {
    let configuration = directory.join("named.conf");
    let directory_text = directory.display();
    fs::write(
        &configuration,
        format!(
            "options {{\n\
                 directory \"{directory_text}\";\n\
                 pid-file none;\n\
                 session-keyfile none;\n\
                 listen-on {{ 127.0.0.1; }};\n\
                 listen-on-v6 {{ ::1; }};\n\
                 dnssec-validation no;\n\
                 recursion no;\n\
                 {options}\n\
             }};\n\
             controls {{}};\n\
             {zones}\n"
        ),
    )?;
    let mut command = Command::new(NAMED);
    command.args(["-g", "-n", "1", "-c"]).arg(&configuration);
    let mut server = Server::start(&mut command, directory)?;
    server.listens("127.0.0.1:53")?;
    Ok(server)
}

fn answers_for_the_root() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    fs::write(
        directory.path().join("root"),
        "$TTL 300\n\
         @ SOA ns.scene. host.scene. 1 2 3 4 5\n\
         @ NS ns.scene.\n\
         @ NS second.scene.\n\
         ns.scene. A 192.0.2.53\n\
         second.scene. A 192.0.2.54\n",
    )?;
    let _server = start(
        directory.path(),
        "server-id \"the server of the scene\";",
        "zone \".\" { type primary; file \"root\"; };",
    )?;
    let version = stage::run(Command::new(NAMED).arg("-v"))?;
    let version = version.split_whitespace().nth(1).ok_or("no version")?;
    for answer in [
        stage::over_udp("domain", "127.0.0.1:53")?,
        stage::over_tcp("dns", "127.0.0.1:53")?,
        stage::over_udp("dns", "[::1]:53")?,
    ] {
        stage::expect(&answer, "rcode", "NOERROR")?;
        stage::expect(&answer, "flags", "qr aa rd")?;
        stage::expect(&answer, "answers", "2")?;
        stage::expect(&answer, "records", ". 300 IN NS second.scene.")?;
        stage::expect(&answer, "nsid", "the server of the scene")?;
        // Debian adds to it what `named -v` says, or the other way round.
        let told = version.trim_start_matches("BIND").trim_start();
        stage::expect(&answer, "version.bind", told)?;
    }
    Ok(())
}

fn refuses() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(
        directory.path(),
        "version \"none of \\\"your\\\" business\";",
        "",
    )?;
    for answer in [
        stage::over_udp("dns", "127.0.0.1:53")?,
        stage::over_tcp("dns", "127.0.0.1:53")?,
    ] {
        stage::expect(&answer, "error", "REFUSED")?;
        stage::expect(&answer, "version.bind", "none of \\\"your\\\" business")?;
    }
    Ok(())
}
