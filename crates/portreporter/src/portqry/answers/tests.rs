//! The documented lines, one service after the other.

use std::time::Duration;

use event::Protocol::{Tcp, Udp};
use probe::Reason;

use super::*;
use crate::tee::Memory;

fn verdict(protocol: Protocol, port: u16, service: Option<&str>, status: Status) -> Verdict {
    Verdict {
        address: ([10, 0, 0, 1], port).into(),
        protocol,
        service: service.map(str::to_owned),
        first: status,
        status,
        reason: Reason::Silence,
        attempts: 1,
        round_trip: None,
        asked: None,
        answer: None,
        ephemeral: false,
    }
}

/// A port that answered its service's question.
fn answered(
    (protocol, port): (Protocol, u16),
    service: &str,
    question: &'static str,
    answer: Answer,
) -> Verdict {
    Verdict {
        first: match protocol {
            Tcp => Status::Listening,
            _ => Status::ListeningOrFiltered,
        },
        asked: Some(question),
        answer: Some(Ok(answer)),
        ..verdict(protocol, port, Some(service), Status::Listening)
    }
}

fn told(verdict: &Verdict) -> String {
    let memory = Memory::default();
    tell(&mut Tee::into_memory(&memory), verdict, "secret123");
    memory.text()
}

fn group(facts: &[(&str, &str)]) -> Value {
    let fact = |&(name, value): &(&str, &str)| Fact {
        name: name.to_owned(),
        value: value.into(),
    };
    Value::Facts(facts.iter().map(fact).collect())
}

#[test]
fn the_status_line() {
    for (protocol, port, service, status, line) in [
        (
            Tcp,
            80,
            Some("http"),
            Status::Listening,
            "TCP port 80 (http service): LISTENING\n",
        ),
        (
            Tcp,
            135,
            Some("epmap"),
            Status::Filtered,
            "TCP port 135 (epmap service): FILTERED\n",
        ),
        (
            Tcp,
            1433,
            Some("ms-sql-s"),
            Status::NotListening,
            "TCP port 1433 (ms-sql-s service): NOT LISTENING\n",
        ),
        (
            Udp,
            21,
            None,
            Status::ListeningOrFiltered,
            "UDP port 21 (unknown service): LISTENING or FILTERED\n",
        ),
    ] {
        assert_eq!(told(&verdict(protocol, port, service, status)), line);
    }
}

#[test]
fn ldap_in_the_original_order() {
    let mut answer = Answer::of("ldap");
    answer.add("objectClass", "top");
    answer.add("domainFunctionality", "0");
    answer.add(
        "namingContexts",
        vec![Value::from("DC=a"), Value::from("DC=b")],
    );
    answer.add("dnsHostName", "dc1.example.com\u{1b}]0;x\u{7}");
    answer.add("currentTime", "20040916103503.0Z");
    answer.add("netlogon", group(&[("user", "x")]));
    let verdict = answered((Udp, 389), "ldap", "ldap", answer);
    assert_eq!(
        told(&verdict),
        "\
UDP port 389 (ldap service): LISTENING or FILTERED

Sending LDAP query to UDP port 389...

LDAP query response:

currentdate: 09/16/2004 10:35:03 (unadjusted GMT)
namingContexts: DC=a
dnsHostName: dc1.example.com\\x1b]0;x\\x07
domainFunctionality: 0
objectClass: top

======== End of LDAP query response ========

UDP port 389 is LISTENING
"
    );
}

#[test]
fn a_query_that_is_not_answered() {
    let silent = Verdict {
        status: Status::Filtered,
        answer: Some(Err(Fault::Silent(Duration::from_secs(3)))),
        ephemeral: true,
        ..answered((Udp, 389), "ldap", "ldap", Answer::default())
    };
    assert_eq!(
        told(&silent),
        "\
UDP port 389 (ldap service): LISTENING or FILTERED

Using ephemeral source port
Sending LDAP query to UDP port 389...

Server did not respond to LDAP query

UDP port 389 is FILTERED
"
    );
    let torn = Verdict {
        answer: Some(Err(Fault::Closed)),
        ..answered((Tcp, 389), "ldap", "ldap", Answer::default())
    };
    assert_eq!(
        told(&torn),
        "\
TCP port 389 (ldap service): LISTENING

Sending LDAP query to TCP port 389...

LDAP query to port 389 failed: the connection was closed before the answer was complete
"
    );
}

#[test]
fn a_query_that_is_held_back() {
    let withheld = Verdict {
        status: Status::ListeningOrFiltered,
        answer: Some(Err(Fault::Withheld("it would break"))),
        ..answered((Udp, 500), "isakmp", "ike", Answer::default())
    };
    assert_eq!(
        told(&withheld),
        "\
UDP port 500 (isakmp service): LISTENING or FILTERED

ISAKMP query not asked: it would break
"
    );
}

#[test]
fn what_is_not_there_is_not_told_to_be_asked() {
    let gone = Verdict {
        first: Status::NotListening,
        status: Status::NotListening,
        answer: Some(Err(Fault::Silent(Duration::from_secs(3)))),
        ..answered((Udp, 69), "tftp", "tftp", Answer::default())
    };
    assert_eq!(told(&gone), "UDP port 69 (tftp service): NOT LISTENING\n");
}

#[test]
fn endpoints_of_rpc() {
    let mut answer = Answer::of("epmap");
    answer.add(
        "endpoint",
        group(&[
            ("uuid", "e3514235-4b06-11d1-ab04-00c04fc2dcd2"),
            ("version", "4.0"),
            ("annotation", "MS NT Directory DRS Interface"),
            ("binding", "ncacn_ip_tcp:169.254.12.191[1030]"),
        ]),
    );
    answer.add(
        "endpoint",
        group(&[
            ("uuid", "12345678-1234-abcd-ef00-01234567cffb"),
            ("annotation", ""),
            ("binding", r"ncacn_np:\\MYSERVER[\PIPE\lsass]"),
        ]),
    );
    let verdict = answered((Udp, 135), "epmap", "epmap", answer.clone());
    assert_eq!(
        told(&verdict),
        r"UDP port 135 (epmap service): LISTENING or FILTERED

Querying Endpoint Mapper Database...
Server's response:

UUID: e3514235-4b06-11d1-ab04-00c04fc2dcd2 MS NT Directory DRS Interface
ncacn_ip_tcp:169.254.12.191[1030]

UUID: 12345678-1234-abcd-ef00-01234567cffb
ncacn_np:\\MYSERVER[\PIPE\lsass]

Total endpoints found: 2

==== End of RPC Endpoint Mapper query response ====

UDP port 135 is LISTENING
"
    );
    let tcp = told(&answered((Tcp, 135), "epmap", "epmap", answer));
    let begin = "TCP port 135 (epmap service): LISTENING\n\nUsing ephemeral source port\n\
                 Querying Endpoint Mapper Database...\nServer's response:\n";
    assert!(tcp.starts_with(begin), "{tcp}");
    assert!(!tcp.contains("is LISTENING"), "{tcp}");
}

#[test]
fn services_whose_answer_is_a_status() {
    let snmp = answered((Udp, 161), "snmp", "snmp", Answer::of("snmp"));
    assert_eq!(
        told(&snmp),
        "\
UDP port 161 (snmp service): LISTENING or FILTERED

community name for query:
secret123
Sending SNMP query to UDP port 161...

UDP port 161 is LISTENING
"
    );
    for (port, service, name) in [
        (69, "tftp", "TFTP"),
        (1701, "l2tp", "L2TP"),
        (1745, "winsock-proxy", "ISA"),
        (500, "isakmp", "ISAKMP"),
    ] {
        let verdict = answered((Udp, port), service, service, Answer::default());
        let wanted = format!(
            "UDP port {port} ({service} service): LISTENING or FILTERED\n\n\
             Sending {name} query to UDP port {port}...\n\nUDP port {port} is LISTENING\n"
        );
        assert_eq!(told(&verdict), wanted);
    }
    let dns = answered((Udp, 53), "domain", "domain", Answer::default());
    assert_eq!(told(&dns), "UDP port 53 (domain service): LISTENING\n");
}

#[test]
fn an_sql_server_browser() {
    let mut answer = Answer::of("ms-sql-m");
    answer.add("instances", 1_i64);
    answer.add(
        "instance",
        group(&[
            ("ServerName", "SQL-Server1"),
            ("InstanceName", "MSSQLSERVER"),
            ("IsClustered", "No"),
            ("Version", "8.00.194"),
            ("tcp", "1433"),
            ("np", r"\SQL-Server1\pipe\sql\query"),
        ]),
    );
    assert_eq!(
        told(&answered((Udp, 1434), "ms-sql-m", "ms-sql-m", answer)),
        r"UDP port 1434 (ms-sql-m service): LISTENING or FILTERED

Sending SQL Server query to UDP port 1434...

Server's response:

ServerName SQL-Server1
InstanceName MSSQLSERVER
IsClustered No
Version 8.00.194
tcp 1433
np \SQL-Server1\pipe\sql\query

==== End of SQL Server query response ====

UDP port 1434 is LISTENING
"
    );
}

#[test]
fn an_adapter_status() {
    let mut answer = Answer::of("netbios-ns");
    answer.add("mac", "00:03:ff:01:02:03");
    answer.add(
        "name",
        group(&[("name", "DC1"), ("suffix", "20"), ("kind", "unique")]),
    );
    assert_eq!(
        told(&answered((Udp, 137), "netbios-ns", "netbios-ns", answer)),
        "\
UDP port 137 (netbios-ns service): LISTENING or FILTERED

Using ephemeral source port
Attempting NETBIOS adapter status query to UDP port 137...

Server's response: MAC address 0003ff010203
 DC1             <20> unique
UDP port: LISTENING
"
    );
}

#[test]
fn what_a_service_says_by_itself() {
    let mut answer = Answer::of("ftp");
    answer.text = Some(
        "220 Microsoft FTP Service\r\n\r\n331 Anonymous access allowed, \
         send identity (e-mail name) as password.\u{1b}[31m\r\n"
            .to_owned(),
    );
    assert_eq!(
        told(&answered((Tcp, 21), "ftp", "ftp", answer)),
        "\
TCP port 21 (ftp service): LISTENING

Data returned from port:
220 Microsoft FTP Service

331 Anonymous access allowed, send identity (e-mail name) as password.\\x1b[31m
"
    );
    let silent = Verdict {
        answer: Some(Err(Fault::Silent(Duration::from_secs(3)))),
        ..answered((Tcp, 9999), "unknown", "banner", Answer::default())
    };
    assert_eq!(
        told(&silent),
        "TCP port 9999 (unknown service): LISTENING\n"
    );
}

#[test]
fn a_service_that_the_original_did_not_know() {
    let mut answer = Answer::of("ntp");
    answer.add("stratum", 2_i64);
    answer.add("leap", vec![Value::from("none"), Value::from(true)]);
    assert_eq!(
        told(&answered((Udp, 123), "ntp", "ntp", answer)),
        "\
UDP port 123 (ntp service): LISTENING or FILTERED

Sending NTP query to UDP port 123...

NTP query response:

stratum: 2
leap: none
leap: yes

======== End of NTP query response ========

UDP port 123 is LISTENING
"
    );
}

#[test]
fn the_isa_server_over_tcp() {
    let mut answer = Answer::of("winsock-proxy");
    answer.text = Some("[Master Config]\nPath1=\\\\isa\\mspclnt\\\n".to_owned());
    assert_eq!(
        told(&answered(
            (Tcp, 1745),
            "remote-winsock",
            "winsock-proxy",
            answer
        )),
        r"TCP port 1745 (remote-winsock service): LISTENING

Sending ISA query to TCP port 1745...

ISA query response:

[Master Config]
Path1=\\isa\mspclnt\

======== End of ISA query response ========
"
    );
}
