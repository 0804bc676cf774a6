//! Dovecot: IMAP and POP3, in the clear, with `STARTTLS` and `STLS`, and in TLS
//! from the first byte.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::stage::{Server, expect, over_tcp};
use crate::{Scene, certificate};

const DOVECOT: &str = "/usr/sbin/dovecot";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "dovecot",
        needs: &[
            (DOVECOT, "dovecot-core"),
            ("/usr/lib/dovecot/imap-login", "dovecot-imapd"),
            ("/usr/lib/dovecot/pop3-login", "dovecot-pop3d"),
            certificate::NEEDS,
        ],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().display();
    let files = certificate::make(directory.path(), "imap.example.test")?;
    let config = directory.path().join("dovecot.conf");
    fs::write(
        &config,
        format!(
            "protocols = imap pop3\n\
             listen = 127.0.0.1\n\
             base_dir = {path}/run\n\
             state_dir = {path}/state\n\
             log_path = /dev/stderr\n\
             login_greeting = scene-7391 greets\n\
             ssl = required\n\
             ssl_cert = <{}\n\
             ssl_key = <{}\n\
             mail_location = maildir:{path}/mail\n\
             passdb {{\n driver = static\n args = password=none\n}}\n",
            files.certificate.display(),
            files.key.display()
        ),
    )?;
    let mut server = Server::start(
        Command::new(DOVECOT).arg("-F").arg("-c").arg(&config),
        directory.path(),
    )?;
    for port in [110, 143, 993, 995] {
        server.listens(&format!("127.0.0.1:{port}"))?;
    }

    for (question, port) in [("imap", 143), ("pop3", 110), ("imaps", 993), ("pop3s", 995)] {
        let answer = over_tcp(question, &format!("127.0.0.1:{port}"))?;
        assert!(answer.get("incomplete").is_none(), "{answer:?}");
        assert!(answer.summary.starts_with("scene-7391 greets"));
        expect(&answer, "tls", "CN=imap.example.test,O=Scene")?;
        expect(&answer, "tls", "\"selfSigned\", value: Truth(true)")?;
        if question.starts_with("imap") {
            expect(&answer, "CAPABILITY", "IMAP4rev1")?;
        } else {
            expect(&answer, "CAPA", "UIDL")?;
        }
        // What is in TLS offers it no more.
        let in_clear = ["imap", "pop3"].contains(&question);
        let offers = format!("{:?}", answer.facts);
        let offers_tls = offers.contains("STLS") || offers.contains("STARTTLS");
        assert_eq!(offers_tls, in_clear, "{answer:?}");
    }
    Ok(())
}
