//! Libreswan's pluto: both versions of IKE, and refusals.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;
use probe::{Fault, Status};

use crate::Scene;
use crate::stage::{self, Server};

const PLUTO: &str = "/usr/libexec/ipsec/pluto";
const CERTUTIL: &str = "/usr/bin/certutil";

pub(crate) fn scenes() -> Vec<Scene> {
    let needs: &[(&str, &str)] = &[(PLUTO, "libreswan"), (CERTUTIL, "libnss3-tools")];
    vec![
        Scene {
            name: "libreswan_agrees_to_version_2",
            needs,
            play: agrees_to_version_2,
        },
        Scene {
            name: "libreswan_agrees_to_version_1",
            needs,
            play: agrees_to_version_1,
        },
        Scene {
            name: "libreswan_survives_its_own_machine",
            needs,
            play: survives,
        },
        Scene {
            name: "libreswan_refuses",
            needs,
            play: refuses,
        },
    ]
}

/// Where it listens.
const ADDRESS: &str = "192.0.2.9";

fn start(directory: &Path, connection: &str) -> Result<Server, Failed> {
    // Pluto aborts when somebody at one of its own addresses begins to talk. So
    // it listens on one, and what is sent to that comes from another.
    let address = format!("{ADDRESS}/32");
    stage::run(Command::new("ip").args(["address", "add", &address, "dev", "lo"]))?;
    let mut route = Command::new("ip");
    route.args(["route", "replace", "table", "local", "local", ADDRESS]);
    stage::run(route.args(["dev", "lo", "src", "127.0.0.1"]))?;

    let path = |name| directory.join(name);
    fs::write(
        path("ipsec.conf"),
        format!(
            "config setup\n  ikev1-policy=accept\n\
             conn scene\n  left={ADDRESS}\n  right=%any\n  authby=secret\n  auto=add\n  \
             send-vendorid=yes\n{connection}"
        ),
    )?;
    fs::write(
        path("ipsec.secrets"),
        ": PSK \"not used by anybody here\"\n",
    )?;
    for name in ["nss", "run", "ipsec.d"] {
        fs::create_dir(path(name))?;
    }
    let database = format!("sql:{}", path("nss").display());
    stage::run(Command::new(CERTUTIL).args(["-N", "--empty-password", "-d", &database]))?;
    let mut command = Command::new(PLUTO);
    command.args(["--nofork", "--stderrlog", "--no-dnssec", "--nhelpers", "1"]);
    command.args(["--listen", ADDRESS, "--vendorid", "the server of the scene"]);
    for (option, name) in [
        ("--config", "ipsec.conf"),
        ("--secretsfile", "ipsec.secrets"),
        ("--nssdir", "nss"),
        ("--rundir", "run"),
        ("--dumpdir", "run"),
        ("--ipsecdir", "ipsec.d"),
    ] {
        command.arg(option).arg(path(name));
    }
    let mut server = Server::start(&mut command, directory)?;
    // It learns its connections first and listens then.
    server.binds(500)?;
    server.binds(4500)?;
    Ok(server)
}

fn agrees_to_version_2() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(
        directory.path(),
        "  ikev2=yes\n  ike=aes128-sha2_512;modp2048\n",
    )?;
    for (service, port) in [("isakmp", 500), ("ipsec-nat-t", 4500)] {
        let answer = stage::over_udp(service, &format!("{ADDRESS}:{port}"))?;
        stage::expect(&answer, "version", "2.0")?;
        stage::expect(
            &answer,
            "proposal",
            "AES_CBC_128 PRF_HMAC_SHA2_512 AUTH_HMAC_SHA2_512_256 MODP_2048",
        )?;
        stage::expect(&answer, "vendor ids", "the server of the scene")?;
        stage::expect(&answer, "notifications", "NAT_DETECTION_SOURCE_IP")?;
    }
    Ok(())
}

fn agrees_to_version_1() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(
        directory.path(),
        "  ikev2=no\n  ike=aes256-sha2_256;modp2048\n",
    )?;
    let answer = stage::over_udp("ike", &format!("{ADDRESS}:500"))?;
    stage::expect(&answer, "error", "NO_PROPOSAL_CHOSEN")?;
    stage::expect(&answer, "version 1", "AES_CBC_256 SHA2_256 MODP_2048 PSK")?;
    stage::expect(&answer, "version 1", "the server of the scene")?;
    stage::expect(&answer, "version 1", "Dead Peer Detection")
}

/// From its own address it is not asked, and says so by being there afterwards.
fn survives() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(
        directory.path(),
        "  ikev2=yes\n  ike=aes128-sha2_512;modp2048\n",
    )?;
    // Now what is sent to that address comes from it, too.
    let mut route = Command::new("ip");
    route.args(["route", "replace", "table", "local", "local", ADDRESS]);
    stage::run(route.args(["dev", "lo", "src", ADDRESS]))?;
    for port in [500, 4500] {
        let verdict = stage::judge(ADDRESS, port, "isakmp 500/udp\nipsec-nat-t 4500/udp")?;
        if verdict.status != Status::ListeningOrFiltered
            || !matches!(verdict.answer, Some(Err(Fault::Withheld(_))))
        {
            return Err(format!("{verdict:?}").into());
        }
    }
    route = Command::new("ip");
    route.args(["route", "replace", "table", "local", "local", ADDRESS]);
    stage::run(route.args(["dev", "lo", "src", "127.0.0.1"]))?;
    let answer = stage::over_udp("isakmp", &format!("{ADDRESS}:500"))?;
    stage::expect(&answer, "version", "2.0")
}

fn refuses() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let _server = start(
        directory.path(),
        "  ikev2=yes\n  ike=chacha20_poly1305-sha2_256;dh31\n",
    )?;
    let answer = stage::over_udp("ike", &format!("{ADDRESS}:500"))?;
    stage::expect(&answer, "error", "NO_PROPOSAL_CHOSEN")
}
