//! vsftpd: FTP with `AUTH TLS`, and in TLS from the first byte.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;

use crate::stage::{Server, expect, over_tcp};
use crate::{Scene, certificate};

const VSFTPD: &str = "/usr/sbin/vsftpd";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "vsftpd",
        needs: &[(VSFTPD, "vsftpd"), certificate::NEEDS],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let files = certificate::make(directory.path(), "ftp.example.test")?;
    let root = directory.path().join("root");
    fs::create_dir(&root)?;
    let start = |port: u16, more: &str| {
        let own = directory.path().join(port.to_string());
        fs::create_dir(&own)?;
        let config = own.join("vsftpd.conf");
        fs::write(
            &config,
            format!(
                "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\n\
                 anonymous_enable=YES\nanon_root={root}\nsecure_chroot_dir={root}\n\
                 ftpd_banner=scene-7391\nssl_enable=YES\nallow_anon_ssl=YES\n\
                 rsa_cert_file={certificate}\nrsa_private_key_file={key}\n{more}\n",
                root = root.display(),
                certificate = files.certificate.display(),
                key = files.key.display(),
            ),
        )?;
        let mut server = Server::start(Command::new(VSFTPD).arg(&config), &own)?;
        server.listens(&format!("127.0.0.1:{port}"))?;
        Ok::<_, Failed>(server)
    };
    let _explicit = start(21, "")?;
    let _implicit = start(990, "implicit_ssl=YES")?;

    for (question, address) in [("ftp", "127.0.0.1:21"), ("ftps", "127.0.0.1:990")] {
        let answer = over_tcp(question, address)?;
        assert!(answer.get("incomplete").is_none(), "{answer:?}");
        assert_eq!(
            answer.text.as_deref(),
            Some("220 scene-7391\n\n331 Please specify the password.")
        );
        expect(&answer, "USER", "331 Please specify the password.")?;
        expect(&answer, "FEAT", "EPSV")?;
        expect(&answer, "FEAT", "AUTH TLS")?;
        expect(&answer, "tls", "CN=ftp.example.test,O=Scene")?;
    }
    Ok(())
}
