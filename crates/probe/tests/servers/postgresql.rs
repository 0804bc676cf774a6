//! PostgreSQL.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;

use crate::stage::{Server, expect, over_tcp, run};
use crate::{Scene, certificate};

const INITDB: &str = "/usr/lib/postgresql/15/bin/initdb";
const POSTGRES: &str = "/usr/lib/postgresql/15/bin/postgres";

/// `nobody`: it runs as any user but root.
const USER: u32 = 65_534;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "postgresql",
        needs: &[
            (INITDB, "postgresql-15"),
            (POSTGRES, "postgresql-15"),
            certificate::NEEDS,
        ],
        play,
    }]
}

/// `program`, to be run by that user in a directory of its own.
fn command(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(USER).gid(USER).current_dir(directory);
    command
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let files = certificate::make(directory.path(), "sql.example.test")?;
    // It wants its key for itself, and a place for its data.
    fs::set_permissions(
        &files.key,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )?;
    std::os::unix::fs::chown(&files.key, Some(USER), Some(USER))?;
    let own = directory.path().join("own");
    fs::create_dir(&own)?;
    std::os::unix::fs::chown(&own, Some(USER), Some(USER))?;
    let data = own.join("data");
    run(command(INITDB, &own)
        .args(["--no-sync", "--no-locale", "--username=portreporter"])
        .arg("--pgdata")
        .arg(&data))?;
    fs::write(
        data.join("pg_hba.conf"),
        "hostssl all all 127.0.0.1/32 trust\n\
         hostssl all all ::1/128 scram-sha-256\n",
    )?;
    let start = |port: u16, ssl: &str| {
        let mut server = Server::start(
            command(POSTGRES, &own)
                .arg("-D")
                .arg(&data)
                .args(["-p", &port.to_string(), "-c", &format!("ssl={ssl}")])
                .args(["-c", "listen_addresses=127.0.0.1,::1"])
                .args(["-c", &format!("unix_socket_directories={}", own.display())])
                .args([
                    "-c",
                    &format!("ssl_cert_file={}", files.certificate.display()),
                ])
                .args(["-c", &format!("ssl_key_file={}", files.key.display())]),
            &own,
        )?;
        // It listens before it lets anyone in.
        server.until(|| {
            let answer = over_tcp("postgresql", &format!("127.0.0.1:{port}"));
            Ok(answer.is_ok_and(|answer| !format!("{answer:?}").contains("57P03")))
        })?;
        Ok::<_, Failed>(server)
    };

    let server = start(5432, "on")?;
    let answer = over_tcp("postgresql", "127.0.0.1:5432")?;
    assert!(answer.get("incomplete").is_none(), "{answer:?}");
    assert!(answer.summary.starts_with("PostgreSQL 15."), "{answer:?}");
    expect(&answer, "SSLRequest", "S")?;
    expect(&answer, "authentication", "trust")?;
    expect(&answer, "server_version", "15.")?;
    expect(&answer, "application_name", "portreporter")?;
    expect(&answer, "tls", "CN=sql.example.test,O=Scene")?;
    let answer = over_tcp("postgresql", "[::1]:5432")?;
    expect(&answer, "authentication", "SCRAM-SHA-256-PLUS")?;
    drop(server);

    let _server = start(5433, "off")?;
    let answer = over_tcp("postgresql", "127.0.0.1:5433")?;
    expect(&answer, "SSLRequest", "N")?;
    expect(&answer, "error code", "28000")?;
    expect(
        &answer,
        "error",
        "no pg_hba.conf entry for host \\\"127.0.0.1\\\"",
    )?;
    Ok(())
}
