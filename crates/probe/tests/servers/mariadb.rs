//! MariaDB.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;
use probe::Value;

use crate::stage::{Server, expect, over_tcp, run};
use crate::{Scene, certificate};

const MARIADBD: &str = "/usr/sbin/mariadbd";
const INSTALL: &str = "/usr/bin/mariadb-install-db";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "mariadb",
        needs: &[
            (MARIADBD, "mariadb-server"),
            (INSTALL, "mariadb-server"),
            certificate::NEEDS,
        ],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let files = certificate::make(directory.path(), "db.example.test")?;
    let data = directory.path().join("data");
    run(Command::new(INSTALL)
        .args(["--no-defaults", "--user=root", "--skip-test-db"])
        .args(["--auth-root-authentication-method=normal"])
        .arg(format!("--datadir={}", data.display())))?;
    // Nobody may come from ::1.
    let users = directory.path().join("users.sql");
    fs::write(
        &users,
        "DELETE FROM mysql.global_priv WHERE Host NOT IN ('127.0.0.1');\n\
         FLUSH PRIVILEGES;\n",
    )?;
    let mut server = Server::start(
        Command::new(MARIADBD)
            .args(["--no-defaults", "--user=root", "--bind-address=*"])
            .args(["--skip-name-resolve", "--character-set-server=latin1"])
            .args(["--version=10.7391-scene-MariaDB"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}/socket", directory.path().display()))
            .arg(format!("--pid-file={}/pid", directory.path().display()))
            .arg(format!("--init-file={}", users.display()))
            .arg(format!("--ssl-cert={}", files.certificate.display()))
            .arg(format!("--ssl-key={}", files.key.display())),
        directory.path(),
    )?;
    server.listens("127.0.0.1:3306")?;

    let answer = over_tcp("mysql", "127.0.0.1:3306")?;
    assert!(answer.get("incomplete").is_none(), "{answer:?}");
    assert_eq!(answer.summary, "MariaDB 10.7391-scene-MariaDB");
    assert_eq!(answer.get("protocol version"), Some(&Value::Number(10)));
    // latin1_swedish_ci
    assert_eq!(answer.get("character set"), Some(&Value::Number(8)));
    expect(&answer, "authentication plugin", "mysql_native_password")?;
    expect(&answer, "capabilities", "STMT_BULK_OPERATIONS")?;
    expect(&answer, "tls", "CN=db.example.test,O=Scene")?;

    let answer = over_tcp("mysql", "[::1]:3306")?;
    assert_eq!(answer.get("error code"), Some(&Value::Number(1130)));
    expect(&answer, "error", "Host '::1' is not allowed to connect")?;
    Ok(())
}
