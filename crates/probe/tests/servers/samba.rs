//! Samba: as an Active Directory domain controller, which answers to nearly
//! everything that a Windows one does, and as an old file server.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;
use probe::{Answer, Value};

use super::Scene;
use super::stage::{self, Server, expect};

const SAMBA: (&str, &str) = ("/usr/sbin/samba", "samba");
const SMBD: (&str, &str) = ("/usr/sbin/smbd", "samba");
const SAMBA_TOOL: (&str, &str) = ("/usr/bin/samba-tool", "samba-common-bin");
/// The program is there without its templates.
const TEMPLATES: (&str, &str) = (
    "/usr/share/samba/setup/provision.ldif",
    "samba-ad-provision",
);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene {
            name: "samba_domain_controller",
            needs: &[SAMBA, SMBD, SAMBA_TOOL, TEMPLATES],
            play: domain_controller,
        },
        Scene {
            name: "samba_smb1_only",
            needs: &[SMBD],
            play: smb1_only,
        },
    ]
}

/// One provision serves for all questions, since it takes most of the time.
fn domain_controller() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    provision(directory.path())?;
    let mut command = Command::new(SAMBA.0);
    command
        .args(["--interactive", "--model=single", "--debug-stdout"])
        .arg("--configfile")
        .arg(directory.path().join("etc/smb.conf"));
    let mut server = Server::start(&mut command, directory.path())?;
    for port in [88, 135, 139, 389, 445, 636, 3268] {
        server.listens(&format!("127.0.0.1:{port}"))?;
    }
    for port in [88, 137, 389] {
        server.binds(port)?;
    }
    directory_service()?;
    kerberos()?;
    endpoint_mapper(&mut server)?;
    file_server()?;
    netbios(&mut server)
}

/// Makes a domain `PORTS` in `directory`. Samba passes over loopback unless its
/// interfaces are named.
fn provision(directory: &Path) -> Result<(), Failed> {
    stage::run(
        Command::new(SAMBA_TOOL.0)
            .args(["domain", "provision", "--quiet"])
            .args(["--realm=PORTS.EXAMPLE", "--domain=PORTS"])
            .args(["--host-name=dc1", "--host-ip=127.0.0.1"])
            .args(["--server-role=dc", "--dns-backend=SAMBA_INTERNAL"])
            .args(["--adminpass=Not.a.secret.1", "--targetdir"])
            .arg(directory)
            .args(["--option=interfaces=127.0.0.1/8"])
            .args(["--option=bind interfaces only=yes"])
            .arg(format!("--option=pid directory={}", directory.display()))
            .arg(format!(
                "--option=ncalrpc dir={0}/ncalrpc",
                directory.display()
            ))
            .args(["--option=printcap name=/dev/null", "--option=log level=0"]),
    )?;
    Ok(())
}

fn directory_service() -> Result<(), Failed> {
    let answers = [
        stage::over_tcp("ldap", "127.0.0.1:389")?,
        stage::over_tcp("msft-gc", "127.0.0.1:3268")?,
        stage::over_tcp("ldaps", "127.0.0.1:636")?,
        stage::over_udp("ldap", "127.0.0.1:389")?,
    ];
    for answer in &answers {
        expect(answer, "dnsHostName", "dc1.ports.example")?;
        expect(answer, "defaultNamingContext", "DC=ports,DC=example")?;
        expect(answer, "vendorName", "Samba Team")?;
        expect(answer, "supportedCapabilities", "1.2.840.113556.1.4.800")?;
        expect(
            answer,
            "ldapServiceName",
            "ports.example:dc1$@PORTS.EXAMPLE",
        )?;
        let summary = "dc1.ports.example, Active Directory, DC=ports,DC=example";
        if !answer.summary.starts_with(summary) {
            return Err(format!("expected {summary:?} in {answer:#?}").into());
        }
    }
    expect(&answers[2], "tls", "Samba Administration")?;
    expect(&answers[3], "netlogon", "DnsForestName")?;
    expect(&answers[3], "netlogon", "Default-First-Site-Name")?;
    expect(&answers[3], "netlogon", "TIMESERV")
}

fn kerberos() -> Result<(), Failed> {
    for answer in [
        stage::over_tcp("kerberos", "127.0.0.1:88")?,
        stage::over_udp("kerberos-sec", "127.0.0.1:88")?,
    ] {
        expect(&answer, "error", "KDC_ERR_C_PRINCIPAL_UNKNOWN")?;
        expect(&answer, "stime", "Z")?;
        if answer.get("realm").is_some() {
            return Err(format!("only repeats the realm: {answer:#?}").into());
        }
    }
    Ok(())
}

/// The services register one after the other, the directory's among the last.
fn endpoint_mapper(server: &mut Server) -> Result<(), Failed> {
    let mut answer = Answer::default();
    server.until(|| {
        answer = stage::over_tcp("epmap", "127.0.0.1:135")?;
        let list = format!("{answer:?}");
        Ok(list.contains("e3514235-4b06-11d1-ab04-00c04fc2dcd2") && list.contains("netlogon"))
    })?;
    let endpoints = answer.facts.iter().filter(|fact| fact.name == "endpoint");
    let count = i64::try_from(endpoints.count())?;
    if count < 40 || answer.get("total") != Some(&Value::Number(count)) {
        return Err(format!("expected all endpoints in {answer:#?}").into());
    }
    let list = format!("{answer:?}");
    for part in [
        "ncacn_http:0.0.0.0[593]",
        "ncacn_ip_tcp:0.0.0.0[135]",
        r"ncacn_np:[\\pipe\\lsass]",
        "ncalrpc:[EPMAPPER]",
        "12345678-1234-abcd-ef00-01234567cffb",
    ] {
        if !list.contains(part) {
            return Err(format!("expected {part:?} in {list}").into());
        }
    }
    if answer.get("error").is_some() {
        return Err(format!("unexpected error in {answer:#?}").into());
    }
    Ok(())
}

/// Names are claimed by asking whether anybody else has them, which takes time.
fn netbios(server: &mut Server) -> Result<(), Failed> {
    let mut answer = Answer::default();
    server.until(|| {
        answer = stage::over_udp("netbios-ns", "127.0.0.1:137")?;
        let list = format!("{answer:?}");
        let parts = ["\"DC1\"", "\"PORTS\"", "domain controllers", "file server"];
        Ok(parts.iter().all(|part| list.contains(part)))
    })?;
    if !answer
        .summary
        .starts_with("DC1, domain PORTS, MAC address ")
    {
        return Err(format!("unexpected summary in {answer:#?}").into());
    }
    expect(&answer, "mac", ":")
}

fn file_server() -> Result<(), Failed> {
    for answer in [
        stage::over_tcp("microsoft-ds", "127.0.0.1:445")?,
        stage::over_tcp("netbios-ssn", "127.0.0.1:139")?,
    ] {
        expect(&answer, "DialectRevision", "3.1.1")?;
        // What a domain controller insists on.
        expect(&answer, "Signing", "required")?;
        expect(&answer, "Mechanisms", "Kerberos")?;
        expect(&answer, "Cipher", "AES")?;
    }
    Ok(())
}

/// A file server as they were before SMB 2.
fn smb1_only() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let place = directory.path();
    let config = place.join("smb.conf");
    fs::write(
        &config,
        format!(
            "[global]
             netbios name = OLDBOX
             workgroup = PORTS
             server min protocol = NT1
             server max protocol = NT1
             interfaces = 127.0.0.1/8
             bind interfaces only = yes
             disable spoolss = yes
             load printers = no
             printcap name = /dev/null
             private dir = {0}
             lock directory = {0}
             state directory = {0}
             cache directory = {0}
             pid directory = {0}
             ncalrpc dir = {0}/ncalrpc
             log level = 0
            ",
            place.display()
        ),
    )?;
    let mut command = Command::new(SMBD.0);
    command
        .args(["--foreground", "--no-process-group", "--debug-stdout"])
        .arg("--configfile")
        .arg(&config);
    let mut server = Server::start(&mut command, place)?;
    server.listens("127.0.0.1:445")?;
    let answer = stage::over_tcp("smb", "127.0.0.1:445")?;
    expect(&answer, "Dialect", "NT LM 0.12")?;
    expect(&answer, "Capabilities", "NT_SMBS")?;
    expect(&answer, "SystemTime", "Z")?;
    if !answer.summary.starts_with("SMB 1 only") {
        return Err(format!("expected SMB 1 only in {answer:#?}").into());
    }
    Ok(())
}
