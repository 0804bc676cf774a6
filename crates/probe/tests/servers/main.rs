//! Every question put to the server it is meant for: Debian's packages, each
//! in a network namespace of its own, on its well-known ports.
//!
//! A server that is not installed makes its tests ignored, and says which
//! package brings it. One file for each server or family of servers.

mod bind;
mod certificate;
mod dovecot;
mod exim;
mod freeradius;
mod kamailio;
mod krb5;
mod libreswan;
mod mariadb;
mod nginx;
mod ntpsec;
mod openssh;
mod openssl;
mod postgresql;
mod redis;
mod samba;
mod slapd;
mod snmpd;
mod sql_server;
mod stage;
mod tftpd;
mod vsftpd;
mod xl2tpd;
mod xrdp;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test of one server.
struct Scene {
    name: &'static str,
    /// The programs that it starts, as absolute paths, each with the Debian
    /// package that brings it.
    needs: &'static [(&'static str, &'static str)],
    play: fn() -> Result<(), Failed>,
}

/// All scenes; one line for each file.
fn scenes() -> Vec<Scene> {
    [
        bind::scenes(),
        dovecot::scenes(),
        exim::scenes(),
        freeradius::scenes(),
        kamailio::scenes(),
        krb5::scenes(),
        libreswan::scenes(),
        mariadb::scenes(),
        nginx::scenes(),
        ntpsec::scenes(),
        openssh::scenes(),
        openssl::scenes(),
        postgresql::scenes(),
        redis::scenes(),
        samba::scenes(),
        slapd::scenes(),
        snmpd::scenes(),
        sql_server::scenes(),
        tftpd::scenes(),
        vsftpd::scenes(),
        xl2tpd::scenes(),
        xrdp::scenes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() {
    let arguments = Arguments::from_args();
    let trials = scenes().iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(scene: &Scene) -> Trial {
    let missing: Vec<_> = scene
        .needs
        .iter()
        .filter(|(program, _)| !std::path::Path::new(program).exists())
        .map(|(_, package)| *package)
        .collect();
    let why = if !rustix::process::geteuid().is_root() {
        Some("needs root for a network namespace".to_owned())
    } else if !missing.is_empty() {
        Some(format!("not installed: {}", missing.join(" ")))
    } else {
        None
    };
    match why {
        Some(why) => {
            Trial::test(format!("{} [{why}]", scene.name), || Ok(())).with_ignored_flag(true)
        }
        None => Trial::test(scene.name, {
            let play = scene.play;
            move || stage::alone(play)
        }),
    }
}
