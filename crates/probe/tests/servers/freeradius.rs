//! `FreeRADIUS`, for logins and for accounting; and its silence to a wrong
//! secret.

use std::fs;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use probe::{Settings, Status};

use crate::Scene;
use crate::stage::{self, Server};

const FREERADIUS: &str = "/usr/sbin/freeradius";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "freeradius",
        needs: &[(FREERADIUS, "freeradius")],
        play: is_there,
    }]
}

fn is_there() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    fs::write(
        directory.path().join("radiusd.conf"),
        r#"
        prefix = /usr
        localstatedir = ${confdir}
        name = freeradius
        logdir = ${confdir}
        run_dir = ${confdir}
        pidfile = ${confdir}/pid
        security { status_server = yes }
        log { destination = stdout }
        client scene {
            ipaddr = 127.0.0.1
            secret = testing123
        }
        modules {
            always ok {
                rcode = ok
            }
        }
        server scene {
            listen {
                type = auth
                ipaddr = 127.0.0.1
                port = 1812
            }
            listen {
                type = acct
                ipaddr = 127.0.0.1
                port = 1813
            }
            authorize {
                Autz-Type Status-Server {
                    update reply {
                        Reply-Message := "the server of the scene"
                    }
                    ok
                }
            }
            accounting {
                Acct-Type Status-Server {
                    ok
                }
            }
        }
        "#,
    )?;
    let mut command = Command::new(FREERADIUS);
    command.arg("-fxd").arg(directory.path());
    let mut server = Server::start(&mut command, directory.path())?;
    server.binds(1812)?;
    server.binds(1813)?;
    let answer = stage::over_udp("radius", "127.0.0.1:1812")?;
    stage::expect(&answer, "packet", "Access-Accept")?;
    stage::expect(&answer, "authentic", "true")?;
    stage::expect(&answer, "Reply-Message", "the server of the scene")?;
    let answer = stage::over_udp("radius-acct", "127.0.0.1:1813")?;
    stage::expect(&answer, "packet", "Accounting-Response")?;
    stage::expect(&answer, "authentic", "true")?;

    // Who signs wrongly hears nothing, which says nothing.
    let settings = |secret: &str| Settings {
        secret: secret.to_owned(),
        reply_wait: Duration::from_millis(600),
        ..Settings::default()
    };
    for (secret, status) in [
        ("testing123", Status::Listening),
        ("wrong", Status::ListeningOrFiltered),
    ] {
        let services = "radius 1812/udp";
        let verdict = stage::judge_with("127.0.0.1", 1812, services, &settings(secret))?;
        if verdict.status != status {
            return Err(format!("{secret}: {verdict:?}").into());
        }
    }
    Ok(())
}
