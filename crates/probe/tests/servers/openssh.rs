//! OpenSSH's server.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage::{Server, expect, over_tcp, run};

const SSHD: &str = "/usr/sbin/sshd";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "openssh",
        needs: &[
            (SSHD, "openssh-server"),
            ("/usr/bin/ssh-keygen", "openssh-client"),
        ],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("key");
    run(Command::new("/usr/bin/ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key))?;
    let config = directory.path().join("sshd.conf");
    fs::write(
        &config,
        "ListenAddress 127.0.0.1\nPort 22\nVersionAddendum scene-7391\nUsePAM no\nPidFile none\n\
         KexAlgorithms curve25519-sha256,ecdh-sha2-nistp384\nCiphers aes192-ctr\n",
    )?;
    // Where it confines those who have not logged on. The package makes it when
    // the service starts.
    fs::create_dir_all("/run/sshd")?;
    let mut server = Server::start(
        Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .arg("-h")
            .arg(&key),
        directory.path(),
    )?;
    server.listens("127.0.0.1:22")?;

    let answer = over_tcp("ssh", "127.0.0.1:22")?;
    expect(&answer, "protoversion", "2.0")?;
    expect(&answer, "softwareversion", "OpenSSH_")?;
    expect(&answer, "comments", "scene-7391")?;
    expect(&answer, "kex_algorithms", "ecdh-sha2-nistp384")?;
    expect(&answer, "server_host_key_algorithms", "ssh-ed25519")?;
    expect(&answer, "encryption_algorithms", "aes192-ctr")?;

    // Unasked it says the first line all the same.
    let banner = over_tcp("banner", "127.0.0.1:22")?;
    assert_eq!(banner.summary, format!("SSH-2.0-{}", answer.summary));
    Ok(())
}
