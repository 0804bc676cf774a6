//! Every question put to the server it is meant for: Debian's packages, each
//! in a network namespace of its own, on its well-known ports.
//!
//! A server that is not installed makes its tests ignored, and says which
//! package brings it. One file for each server or family of servers.

mod krb5;
mod samba;
mod slapd;
mod snmpd;
mod bind;
mod freeradius;
mod kamailio;
mod libreswan;
mod ntpsec;
mod sql_server;
mod stage;
mod tftpd;
mod xl2tpd;
mod xrdp;
mod certificate;
mod dovecot;
mod exim;
mod mariadb;
mod nginx;
mod openssh;
mod openssl;
mod postgresql;
mod redis;
mod vsftpd;

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
    let files = [
        krb5::scenes(),
        samba::scenes(),
        slapd::scenes(),
        snmpd::scenes(),
    let files: [Vec<Scene>; 9] = [
        bind::scenes(),
        freeradius::scenes(),
        kamailio::scenes(),
        libreswan::scenes(),
        ntpsec::scenes(),
        sql_server::scenes(),
        tftpd::scenes(),
        xl2tpd::scenes(),
        xrdp::scenes(),
        dovecot::scenes(),
        exim::scenes(),
        mariadb::scenes(),
        nginx::scenes(),
        openssh::scenes(),
        openssl::scenes(),
        postgresql::scenes(),
        redis::scenes(),
        vsftpd::scenes(),
    ];
    files.into_iter().flatten().collect()
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
