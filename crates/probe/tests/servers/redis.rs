//! Redis: open, with a password, protected, and in TLS.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::stage::{Server, expect, over_tcp, run};
use crate::{Scene, certificate};

const REDIS: &str = "/usr/bin/redis-server";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "redis",
        needs: &[(REDIS, "redis-server"), certificate::NEEDS],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    // An address from which it takes nobody for local.
    run(Command::new("ip").args(["address", "add", "192.0.2.1/32", "dev", "lo"]))?;
    let directory = tempfile::tempdir()?;
    let files = certificate::make(directory.path(), "redis.example.test")?;
    let start = |port: &str, more: &[&str]| {
        let own = directory.path().join(port);
        fs::create_dir(&own)?;
        let mut server = Server::start(
            Command::new(REDIS)
                .args(["--port", port, "--save", "", "--dir"])
                .arg(&own)
                .args(more),
            &own,
        )?;
        server.listens(&format!("127.0.0.1:{port}"))?;
        Ok::<_, Failed>(server)
    };
    let certificate = files.certificate.display().to_string();
    let key = files.key.display().to_string();
    let tls = [
        "--bind",
        "127.0.0.1",
        "--tls-port",
        "6380",
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &certificate,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
    ];
    let _open = start("6379", &tls)?;
    let _locked = start("6390", &["--bind", "127.0.0.1", "--requirepass", "scene"])?;
    let _protected = start("6391", &["--bind", "*"])?;

    let answer = over_tcp("redis", "127.0.0.1:6379")?;
    assert!(answer.summary.starts_with("Redis "), "{answer:?}");
    expect(&answer, "PING", "PONG")?;
    expect(&answer, "tcp_port", "6379")?;
    expect(&answer, "executable", REDIS)?;
    let again = over_tcp("rediss", "127.0.0.1:6380")?;
    assert_eq!(again.get("run_id"), answer.get("run_id"));
    expect(&again, "tls", "CN=redis.example.test,O=Scene")?;

    let answer = over_tcp("redis", "127.0.0.1:6390")?;
    expect(&answer, "error", "NOAUTH Authentication required.")?;
    let answer = over_tcp("redis", "192.0.2.1:6391")?;
    expect(
        &answer,
        "error",
        "DENIED Redis is running in protected mode",
    )?;
    Ok(())
}
