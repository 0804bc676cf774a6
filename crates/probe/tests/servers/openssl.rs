//! OpenSSL's own server, for what no honest service does any more.

use std::process::Command;

use libtest_mimic::Failed;

use crate::stage::{Server, expect, over_tcp, over_tcp_of};
use crate::{Scene, certificate};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "openssl",
        needs: &[certificate::NEEDS],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let files = certificate::make_old(directory.path(), "old.example.test")?;
    let start = |port: u16, more: &[&str]| {
        let address = format!("127.0.0.1:{port}");
        let mut server = Server::start(
            Command::new(certificate::NEEDS.0)
                .args(["s_server", "-www", "-accept", &address])
                .arg("-cert")
                .arg(&files.certificate)
                .arg("-key")
                .arg(&files.key)
                .args(more),
            directory.path(),
        )?;
        server.listens(&address)?;
        Ok::<_, Failed>(server)
    };

    // An expired certificate is told as any other.
    let _plain = start(443, &[])?;
    let answer = over_tcp_of("https", "127.0.0.1:443", "old.example.test", "")?;
    expect(&answer, "status", "200")?;
    for part in [
        "CN=old.example.test",
        "RSA 2048",
        "2020-12-31T23:59:59Z",
        "\"expired\", value: Truth(true)",
        "sha256WithRSAEncryption",
    ] {
        expect(&answer, "tls", part)?;
    }
    assert!(answer.summary.contains("not valid now"), "{answer:?}");
    let answer = over_tcp("tls", "127.0.0.1:443")?;
    assert_eq!(
        answer.summary,
        "TLSv1.3, certificate of old.example.test, not valid now"
    );

    // A key exchange or a version that is spoken here no more.
    let _rsa = start(444, &["-tls1_2", "-cipher", "AES128-SHA"])?;
    let answer = over_tcp("https", "127.0.0.1:444")?;
    expect(&answer, "tls", "the alert handshake_failure (40)")?;
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let _old = start(445, &old)?;
    let answer = over_tcp("https", "127.0.0.1:445")?;
    expect(&answer, "tls", "the alert protocol_version (70)")?;

    // One who does not let in everyone.
    let _strict = start(446, &["-Verify", "1", "-verify_return_error"])?;
    let answer = over_tcp("https", "127.0.0.1:446")?;
    expect(&answer, "tls", "CN=old.example.test")?;
    expect(
        &answer,
        "tls",
        "\"clientCertificate\", value: Text(\"requested\")",
    )?;
    expect(&answer, "incomplete", "certificate_required (116)")?;
    Ok(())
}
