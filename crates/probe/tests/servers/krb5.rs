//! MIT's key distribution centre.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use super::Scene;
use super::stage::{self, Server, expect};

const KDC: (&str, &str) = ("/usr/sbin/krb5kdc", "krb5-kdc");
const DATABASE: (&str, &str) = ("/usr/sbin/kdb5_util", "krb5-kdc");

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "krb5_kdc",
        needs: &[KDC, DATABASE],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let place = directory.path();
    let client = place.join("krb5.conf");
    let centre = place.join("kdc.conf");
    fs::write(
        &client,
        "[libdefaults]\n\
         default_realm = PORTS.EXAMPLE\n\
         dns_lookup_realm = false\n\
         dns_lookup_kdc = false\n",
    )?;
    fs::write(
        &centre,
        format!(
            "[kdcdefaults]\n\
             kdc_listen = 127.0.0.1:88\n\
             kdc_tcp_listen = 127.0.0.1:88\n\
             [realms]\n\
             PORTS.EXAMPLE = {{\n\
             database_name = {0}/principal\n\
             key_stash_file = {0}/stash\n\
             }}\n\
             [logging]\n\
             kdc = STDERR\n",
            place.display()
        ),
    )?;
    let command = |program: &str| {
        let mut command = Command::new(program);
        command
            .env("KRB5_CONFIG", &client)
            .env("KRB5_KDC_PROFILE", &centre);
        command
    };
    stage::run(command(DATABASE.0).args(["create", "-s", "-P", "not a secret"]))?;
    let mut server = Server::start(command(KDC.0).arg("-n"), place)?;
    server.listens("127.0.0.1:88")?;
    server.binds(88)?;
    for answer in [
        stage::over_tcp("kerberos", "127.0.0.1:88")?,
        stage::over_udp("kerberos", "127.0.0.1:88")?,
    ] {
        expect(&answer, "error", "KDC_ERR_C_PRINCIPAL_UNKNOWN")?;
        // As MIT's centre words it.
        expect(&answer, "e-text", "CLIENT_NOT_FOUND")?;
        expect(&answer, "stime", "Z")?;
        if answer.get("realm").is_some() {
            return Err(format!("only repeats the realm: {answer:#?}").into());
        }
    }
    Ok(())
}
