//! Net-SNMP's agent.

use std::fs;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use probe::{Answer, Fault};

use super::Scene;
use super::stage::{self, Server, expect};

const SNMPD: (&str, &str) = ("/usr/sbin/snmpd", "snmpd");

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "snmpd",
        needs: &[SNMPD],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let place = directory.path();
    let config = place.join("snmpd.conf");
    fs::write(
        &config,
        "agentaddress udp:127.0.0.1:161\n\
         sysDescr Agent of a test\n\
         sysName agent.ports.example\n\
         sysLocation behind the mirror\n\
         sysContact nobody <nobody@ports.example>\n\
         sysServices 72\n\
         com2sec both default both\n\
         com2sec old default old-only\n\
         group all v1 both\n\
         group all v2c both\n\
         group all v1 old\n\
         view everything included .1\n\
         access all \"\" any noauth exact everything none none\n",
    )?;
    let mut command = Command::new(SNMPD.0);
    command
        // In the foreground, its own configuration only, words to the output.
        .args(["-f", "-C", "-Lo", "-I", "-smux,mteTrigger,mteTriggerConf"])
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(place.join("pid"))
        .env("SNMP_PERSISTENT_DIR", place);
    let mut server = Server::start(&mut command, place)?;
    server.binds(161)?;
    let answer = ask("both")?;
    expect(&answer, "version", "2c")?;
    shows_all(&answer)?;
    // Version 2c is not allowed with this community, so the agent ignores it.
    let answer = ask("old-only")?;
    expect(&answer, "version", "1")?;
    shows_all(&answer)?;
    match stage::try_over_udp("snmp", "127.0.0.1:161", "wrong", Duration::from_secs(1))? {
        Err(Fault::Silent(_)) => Ok(()),
        other => Err(format!("expected silence, not {other:#?}").into()),
    }
}

fn ask(community: &str) -> Result<Answer, Failed> {
    let wait = Duration::from_secs(20);
    Ok(stage::try_over_udp(
        "snmp",
        "127.0.0.1:161",
        community,
        wait,
    )??)
}

fn shows_all(answer: &Answer) -> Result<(), Failed> {
    expect(answer, "sysDescr", "Agent of a test")?;
    expect(answer, "sysName", "agent.ports.example")?;
    expect(answer, "sysLocation", "behind the mirror")?;
    expect(answer, "sysContact", "nobody@ports.example")?;
    expect(answer, "sysServices", "72")?;
    // Net-SNMP on Linux.
    expect(answer, "sysObjectID", "1.3.6.1.4.1.8072.3.2.10")?;
    expect(answer, "sysUpTime", "Number")?;
    let text = format!("{answer:?}");
    if text.contains("both") || text.contains("old-only") {
        return Err(format!("the community is part of {answer:#?}").into());
    }
    Ok(())
}
