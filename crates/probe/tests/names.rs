//! The names of all questions together: no service may mean two of them.

use std::collections::HashMap;

use event::Protocol;
use probe::question::{self, Question};

#[test]
fn a_name_means_one_question() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut meant = HashMap::new();
        for question in question::all() {
            if !question.over().contains(&protocol) {
                continue;
            }
            for name in [question.name()].iter().chain(question.aliases()) {
                assert_eq!(*name, name.to_ascii_lowercase());
                let other = meant.insert(*name, question.name());
                assert_eq!(other, None, "{name} over {protocol:?}");
                let found = question::find(&name.to_ascii_uppercase(), protocol);
                assert_eq!(found.map(Question::name), Some(question.name()));
            }
        }
    }
}

#[test]
fn services_in_tls_are_known() {
    for name in [
        "https",
        "ldaps",
        "msft-gc-ssl",
        "imaps",
        "pop3s",
        "smtps",
        "submissions",
        "ftps",
        "domain-s",
        "telnets",
        "nntps",
        "ircs-u",
    ] {
        assert!(question::find(name, Protocol::Tcp).is_some(), "{name}");
        assert!(question::find(name, Protocol::Udp).is_none(), "{name}");
    }
}
