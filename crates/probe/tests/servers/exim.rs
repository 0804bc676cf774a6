//! Exim: SMTP in the clear, with `STARTTLS`, and in TLS from the first byte.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::stage::{Server, expect, over_tcp, run};
use crate::{Scene, certificate};

const EXIM: &str = "/usr/sbin/exim4";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "exim",
        needs: &[(EXIM, "exim4-daemon-light"), certificate::NEEDS],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let files = certificate::make(directory.path(), "mail.example.test")?;
    // What it writes, it writes as its own user.
    let own = directory.path().join("own");
    fs::create_dir(&own)?;
    run(Command::new("chown").arg("Debian-exim").arg(&own))?;
    let path = own.display();
    let config = directory.path().join("exim.conf");
    fs::write(
        &config,
        format!(
            "keep_environment =\n\
             primary_hostname = mail.example.test\n\
             local_interfaces = 127.0.0.1\n\
             daemon_smtp_ports = 25 : 465 : 587\n\
             tls_on_connect_ports = 465\n\
             tls_advertise_hosts = *\n\
             tls_certificate = {}\n\
             tls_privatekey = {}\n\
             smtp_banner = $primary_hostname scene-7391 $version_number\n\
             message_size_limit = 7391K\n\
             spool_directory = {path}/spool\n\
             log_file_path = {path}/%slog\n\
             pid_file_path = {path}/pid\n\
             begin acl\nbegin routers\nbegin transports\n",
            files.certificate.display(),
            files.key.display()
        ),
    )?;
    let mut server = Server::start(
        Command::new(EXIM).arg("-C").arg(&config).arg("-bdf"),
        directory.path(),
    )?;
    server.listens("127.0.0.1:25")?;
    server.listens("127.0.0.1:465")?;

    for (question, address) in [("smtp", "127.0.0.1:25"), ("submissions", "127.0.0.1:465")] {
        let answer = over_tcp(question, address)?;
        assert!(answer.get("incomplete").is_none(), "{answer:?}");
        assert!(
            answer
                .summary
                .starts_with("mail.example.test scene-7391 4.")
        );
        expect(&answer, "domain", "mail.example.test")?;
        expect(&answer, "EHLO", &format!("SIZE {}", 7391 << 10))?;
        expect(&answer, "tls", "CN=mail.example.test,O=Scene")?;
        expect(&answer, "tls", "TLSv1.3")?;
    }
    Ok(())
}
