//! UDP: every way in which a port is taken.

use super::record;
use crate::harness::expect::{BOUND, CREATOR};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    ("udp_bind", Needs::Root, || bind("4", "127.0.0.1")),
    ("udp_bind_ipv6", Needs::Root, || bind("6", "::1")),
    ("udp_autobind_by_sendto", Needs::Root, || {
        autobind("4", "sendto");
    }),
    ("udp_autobind_by_sendto_ipv6", Needs::Root, || {
        autobind("6", "sendto");
    }),
    ("udp_autobind_by_sendmsg", Needs::Root, || {
        autobind("4", "sendmsg");
    }),
    ("udp_autobind_by_sendmsg_ipv6", Needs::Root, || {
        autobind("6", "sendmsg");
    }),
    ("udp_autobind_by_connect", Needs::Root, || {
        autobind("4", "connect");
    }),
    ("udp_autobind_by_connect_ipv6", Needs::Root, || {
        autobind("6", "connect");
    }),
    ("udp_receive_only", Needs::Root, receive_only),
];

fn bind(family: &str, address: &str) {
    let (facts, log) = record(&["udp-bind", family]);
    log.about(&facts.one("udp"))
        .tell(BOUND, CREATOR, "closed")
        .since(facts.began)
        .value("bind", "local_ip", address)
        .value("bind", "remote_ip", serde_json::Value::Null)
        .value("bind", "state", serde_json::Value::Null);
}

fn autobind(family: &str, by: &str) {
    let (facts, log) = record(&["udp-autobind", family, by]);
    log.about(&facts.one("udp"))
        .tell(BOUND, CREATOR, "closed")
        .since(facts.began);
}

fn receive_only() {
    let (facts, log) = record(&["udp-receive"]);
    for role in ["server", "sender"] {
        log.about(&facts.one(role)).tell(BOUND, CREATOR, "closed");
    }
}
