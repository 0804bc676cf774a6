//! Certificates for the servers, made on the spot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;

use crate::stage;

/// What makes them.
pub(crate) const NEEDS: (&str, &str) = ("/usr/bin/openssl", "openssl");

/// A certificate and its key, both of which every user may read: servers do so
/// after they have put down their privileges.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A self-signed certificate of `host` in `directory`, also for 192.0.2.7.
pub(crate) fn make(directory: &Path, host: &str) -> Result<Files, Failed> {
    let files = paths(directory)?;
    stage::run(
        Command::new(NEEDS.0)
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "7"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-subj", &format!("/O=Scene/CN={host}")])
            .args([
                "-addext",
                &format!("subjectAltName=DNS:{host},IP:192.0.2.7"),
            ])
            .arg("-keyout")
            .arg(&files.key)
            .arg("-out")
            .arg(&files.certificate),
    )?;
    make_readable(&files.key)?;
    Ok(files)
}

/// The same with an RSA key, valid in the year 2020 alone.
pub(crate) fn make_old(directory: &Path, host: &str) -> Result<Files, Failed> {
    let files = paths(directory)?;
    let request = directory.join("request.pem");
    stage::run(
        Command::new(NEEDS.0)
            .args(["req", "-newkey", "rsa:2048", "-nodes"])
            .args(["-subj", &format!("/CN={host}")])
            .arg("-keyout")
            .arg(&files.key)
            .arg("-out")
            .arg(&request),
    )?;
    let database = directory.join("database");
    fs::write(&database, "")?;
    let config = directory.join("ca.conf");
    fs::write(
        &config,
        format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {}\nnew_certs_dir = {}\nrand_serial = yes\n\
             default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n",
            database.display(),
            directory.display()
        ),
    )?;
    stage::run(
        Command::new(NEEDS.0)
            .args(["ca", "-batch", "-notext", "-selfsign"])
            .args(["-startdate", "20200101000000Z"])
            .args(["-enddate", "20201231235959Z"])
            .arg("-config")
            .arg(&config)
            .arg("-keyfile")
            .arg(&files.key)
            .arg("-in")
            .arg(&request)
            .arg("-out")
            .arg(&files.certificate),
    )?;
    make_readable(&files.key)?;
    Ok(files)
}

fn paths(directory: &Path) -> Result<Files, Failed> {
    // A temporary directory is its owner's alone.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    Ok(Files {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
    })
}

fn make_readable(key: &Path) -> Result<(), Failed> {
    Ok(fs::set_permissions(key, fs::Permissions::from_mode(0o644))?)
}
