//! What is asked for wrongly: the contract's exit code, and a clear word.

use std::net::TcpListener;

use crate::Case;
use crate::stage::{query, ran};

pub(super) const CASES: &[Case] = &[
    ("ports_given_wrongly", ports),
    ("options_given_wrongly", options),
    ("names_that_do_not_resolve", unresolved),
];

fn ports() {
    for (text, part) in [
        ("127.0.0.1:0", "\"0\""),
        ("127.0.0.1:65536", "\"65536\""),
        ("127.0.0.1:80,9-3", "\"9-3\""),
        ("127.0.0.1:80,", "no port is named"),
        ("127.0.0.1:", "no port is named"),
        ("127.0.0.1:no-such-service", "no-such-service"),
        ("127.0.0.1:80\u{1b}[2J", "\\u{1b}"),
        ("127.0.0.1", "--ports"),
        ("[::1]", "--ports"),
        ("::1", "--ports"),
    ] {
        let refused = ran(&mut query(&[text])).ended(64);
        assert!(refused.errors.contains(part), "{text}: {}", refused.errors);
        assert!(
            refused.errors.starts_with("portreporter: "),
            "{}",
            refused.errors
        );
        assert!(!refused.errors.contains('\u{1b}'));
        assert_eq!(refused.out, "");
    }
}

fn options() {
    for options in [
        &["--wait", "0"][..],
        &["--wait", "nan"],
        &["--tries", "0"],
        &["--rate", "0"],
        &["--concurrency", "0"],
        &["--source-port", "65536"],
        &["--json", "-v"],
        &["--no-ask", "--as", "http"],
        &["-4", "-6"],
    ] {
        let mut command = query(&["127.0.0.1:1"]);
        ran(command.args(options)).ended(64);
    }
    ran(&mut query(&[])).ended(64);
    let missing = ["127.0.0.1:1", "--services", "/nonexistent/services"];
    let refused = ran(&mut query(&missing)).ended(74);
    assert!(refused.errors.contains("/nonexistent/services"));
    let missing = ["127.0.0.1:1", "--sets", "/nonexistent/sets"];
    ran(&mut query(&missing)).ended(74);
}

fn unresolved() {
    for name in ["no-such-host.invalid:80", "a b:80", "10.0.0.0/8:80", ":80"] {
        let refused = ran(&mut query(&[name])).ended(99);
        assert!(
            refused.errors.starts_with("portreporter: "),
            "{}",
            refused.errors
        );
    }
    // The others are asked all the same.
    let listener = TcpListener::bind("127.0.0.1:1000").expect("a listener");
    let both = ["no-such-host.invalid:80", "127.0.0.1:1000", "--no-ask"];
    let ran = ran(&mut query(&both)).ended(99);
    assert!(ran.out.contains("LISTENING"), "{}", ran.out);
    assert!(
        ran.errors.contains("no-such-host.invalid"),
        "{}",
        ran.errors
    );
    drop(listener);
}
