//! The server of `OpenLDAP`.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;

use super::stage::{self, Server, expect};
use super::{Scene, certificate};

const SLAPD: (&str, &str) = ("/usr/sbin/slapd", "slapd");

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "slapd",
        needs: &[SLAPD, certificate::NEEDS],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let place = directory.path();
    let config = place.join("slapd.conf");
    fs::create_dir(place.join("data"))?;
    fs::write(
        &config,
        format!(
            "include /etc/ldap/schema/core.schema\n\
             modulepath /usr/lib/ldap\n\
             moduleload back_mdb\n\
             pidfile {0}/slapd.pid\n\
             sizelimit unlimited\n\
             database mdb\n\
             suffix \"dc=ports,dc=example\"\n\
             directory {0}/data\n",
            place.display()
        ),
    )?;
    let mut command = Command::new(SLAPD.0);
    command
        .args(["-d", "0", "-f"])
        .arg(&config)
        .args(["-h", "ldap://127.0.0.1/"]);
    let mut server = Server::start(&mut command, place)?;
    server.listens("127.0.0.1:389")?;
    let answer = stage::over_tcp("ldap", "127.0.0.1:389")?;
    expect(&answer, "namingContexts", "dc=ports,dc=example")?;
    expect(&answer, "structuralObjectClass", "OpenLDAProotDSE")?;
    expect(&answer, "supportedLDAPVersion", "3")?;
    if answer.summary != "OpenLDAP, dc=ports,dc=example" {
        return Err(format!("unexpected summary in {answer:#?}").into());
    }
    refuses(place)?;
    in_tls(place)
}

/// In TLS the same is asked, and the certificate told beside it.
fn in_tls(place: &Path) -> Result<(), Failed> {
    let files = certificate::make(place, "dc1.ports.example")?;
    let config = place.join("tls.conf");
    fs::write(
        &config,
        format!(
            "include /etc/ldap/schema/core.schema\n\
             pidfile {}/tls.pid\n\
             TLSCertificateFile {}\n\
             TLSCertificateKeyFile {}\n",
            place.display(),
            files.certificate.display(),
            files.key.display()
        ),
    )?;
    let mut command = Command::new(SLAPD.0);
    command
        .args(["-d", "0", "-f"])
        .arg(&config)
        .args(["-h", "ldaps://127.0.0.1/"]);
    let mut server = Server::start(&mut command, place)?;
    server.listens("127.0.0.1:636")?;
    let answer = stage::over_tcp("ldaps", "127.0.0.1:636")?;
    expect(&answer, "tls", "CN=dc1.ports.example,O=Scene")?;
    expect(&answer, "structuralObjectClass", "OpenLDAProotDSE")?;
    let end = "(TLSv1.3, certificate of dc1.ports.example)";
    if !answer.summary.ends_with(end) {
        return Err(format!("unexpected summary in {answer:#?}").into());
    }
    Ok(())
}

/// A server that shows nothing to those it does not know refuses in LDAP.
fn refuses(place: &Path) -> Result<(), Failed> {
    let config = place.join("strict.conf");
    fs::write(
        &config,
        format!(
            "include /etc/ldap/schema/core.schema\n\
             pidfile {0}/strict.pid\n\
             require bind\n",
            place.display()
        ),
    )?;
    let mut command = Command::new(SLAPD.0);
    command
        .args(["-d", "0", "-f"])
        .arg(&config)
        .args(["-h", "ldap://127.0.0.1:1389/"]);
    let mut server = Server::start(&mut command, place)?;
    server.listens("127.0.0.1:1389")?;
    let answer = stage::over_tcp("ldap", "127.0.0.1:1389")?;
    expect(&answer, "error", "operationsError: BIND required")
}
