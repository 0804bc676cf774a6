//! What can be typed.

use super::super::arguments::{self, ArgumentError, Ports, Protocols};

/// A line that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Exit,
    /// Another host, or the one that is set.
    Node(Option<String>),
    /// A service, or the port that is set.
    Query(Option<&'static Shortcut>),
    Set(Setting),
    /// `set all`.
    Show,
}

/// An option and its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Ports(Ports),
    Protocol(Protocols),
    SourcePort(u16),
    Community(String),
    /// The other of on and off.
    NoReverse,
    /// The other of on and off.
    SlowLink,
}

/// A usual question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shortcut {
    pub(super) name: &'static str,
    pub(super) asks: &'static [(u16, Protocols)],
}

/// The original's shortcuts.
pub(super) const SHORTCUTS: [Shortcut; 14] = {
    use Protocols::{Both, Tcp, Udp};
    [
        Shortcut {
            name: "dns",
            asks: &[(53, Both)],
        },
        Shortcut {
            name: "ftp",
            asks: &[(21, Tcp)],
        },
        Shortcut {
            name: "imap",
            asks: &[(143, Tcp)],
        },
        Shortcut {
            name: "ipsec",
            asks: &[(500, Udp)],
        },
        Shortcut {
            name: "isa",
            asks: &[(1745, Both)],
        },
        Shortcut {
            name: "ldap",
            asks: &[(389, Both)],
        },
        Shortcut {
            name: "l2tp",
            asks: &[(1701, Udp)],
        },
        Shortcut {
            name: "mail",
            asks: &[(25, Tcp), (110, Tcp), (143, Tcp)],
        },
        Shortcut {
            name: "pop3",
            asks: &[(110, Tcp)],
        },
        Shortcut {
            name: "rpc",
            asks: &[(135, Both)],
        },
        Shortcut {
            name: "smtp",
            asks: &[(25, Tcp)],
        },
        Shortcut {
            name: "snmp",
            asks: &[(161, Udp)],
        },
        Shortcut {
            name: "sql",
            asks: &[(1433, Tcp), (1434, Udp)],
        },
        Shortcut {
            name: "tftp",
            asks: &[(69, Udp)],
        },
    ]
};

/// The commands, for completion.
pub(super) const COMMANDS: [&str; 5] = ["node ", "query ", "set ", "help", "exit"];
/// What can be set, for completion.
pub(super) const SETTINGS: [&str; 7] = ["all", "port=", "protocol=", "sport=", "cn=", "nr", "sl"];

/// A line that makes no sense: the user's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommandError {
    #[error("'{0}' is not a command; type 'help' for a list")]
    Unknown(String),
    #[error("'{0}' has no query of its own; type 'help' for a list")]
    Shortcut(String),
    #[error("'{0}' cannot be set; type 'help' for a list")]
    Setting(String),
    #[error(transparent)]
    Value(#[from] ArgumentError),
}

/// Makes sense of a line; none if it is empty.
pub(super) fn parse(line: &str) -> Result<Option<Command>, CommandError> {
    let line = line.trim();
    let (word, rest) = line
        .split_once(char::is_whitespace)
        .map_or((line, ""), |(word, rest)| (word, rest.trim()));
    let command = match (word.to_lowercase().as_str(), rest) {
        ("", _) => return Ok(None),
        ("help" | "?" | "h", _) => Command::Help,
        ("exit" | "quit", _) => Command::Exit,
        ("node" | "n", "") => Command::Node(None),
        ("node" | "n", name) => Command::Node(Some(arguments::node(name)?)),
        ("query" | "q", "") => Command::Query(None),
        ("query" | "q", name) => {
            let known = SHORTCUTS
                .iter()
                .find(|shortcut| shortcut.name.eq_ignore_ascii_case(name));
            Command::Query(Some(
                known.ok_or_else(|| CommandError::Shortcut(name.to_owned()))?,
            ))
        }
        ("set" | "s", setting) => set(setting)?,
        _ => return Err(CommandError::Unknown(word.to_owned())),
    };
    Ok(Some(command))
}

fn set(text: &str) -> Result<Command, CommandError> {
    let (option, value) = match text.split_once('=') {
        Some((option, value)) => (option.trim(), Some(value.trim())),
        None => (text, None),
    };
    let setting = match (option.to_lowercase().as_str(), value) {
        ("all" | "", None) => return Ok(Command::Show),
        ("port" | "e", Some(value)) => Setting::Ports(arguments::ports(value)?),
        ("protocol" | "p", Some(value)) => Setting::Protocol(arguments::protocols(value)?),
        ("sport" | "sp", Some(value)) => Setting::SourcePort(arguments::source_port(value)?),
        ("cn", Some(value)) if !value.is_empty() => {
            let marked = arguments::community(value);
            Setting::Community(marked.unwrap_or_else(|_| value.to_owned()))
        }
        ("nr", None) => Setting::NoReverse,
        ("sl", None) => Setting::SlowLink,
        _ => return Err(CommandError::Setting(text.to_owned())),
    };
    Ok(Command::Set(setting))
}

/// What a line that is being typed may become: where the word begins, and the
/// words.
pub(super) fn completions(line: &str) -> (usize, Vec<&'static str>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |at| {
        at + line[at..].chars().next().map_or(1, char::len_utf8)
    });
    let typed = line[start..].to_lowercase();
    let mut before = line[..start].split_whitespace();
    let words: Vec<&'static str> = match (before.next(), before.next()) {
        (None, _) => COMMANDS.to_vec(),
        (Some(word), None) if is(word, &["query", "q"]) => {
            SHORTCUTS.iter().map(|shortcut| shortcut.name).collect()
        }
        (Some(word), None) if is(word, &["set", "s"]) => SETTINGS.to_vec(),
        _ => Vec::new(),
    };
    let fits = words.into_iter().filter(|word| word.starts_with(&typed));
    (start, fits.collect())
}

fn is(word: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        parse(line).unwrap().unwrap()
    }

    fn asks(name: &str) -> &'static [(u16, Protocols)] {
        match parsed(&format!("q {name}")) {
            Command::Query(Some(shortcut)) => shortcut.asks,
            command => panic!("{command:?}"),
        }
    }

    #[test]
    fn commands_and_their_short_forms() {
        assert_eq!(parse("  ").unwrap(), None);
        for line in ["node srv1", "N srv1", " n\tsrv1 "] {
            assert_eq!(parsed(line), Command::Node(Some("srv1".to_owned())));
        }
        assert_eq!(parsed("q"), Command::Query(None));
        assert_eq!(parsed("HELP"), Command::Help);
        assert_eq!(parsed("exit"), Command::Exit);
        assert_eq!(parsed("set all"), Command::Show);
        assert_eq!(asks("DNS"), [(53, Protocols::Both)]);
        assert_eq!(
            asks("sql"),
            [(1433, Protocols::Tcp), (1434, Protocols::Udp)]
        );
        assert_eq!(asks("mail").len(), 3);
    }

    #[test]
    fn settings() {
        let set = |line: &str| match parsed(line) {
            Command::Set(setting) => setting,
            command => panic!("{command:?}"),
        };
        assert_eq!(set("set port=445"), Setting::Ports(Ports::One(445)));
        assert_eq!(set("SET E = 445"), Setting::Ports(Ports::One(445)));
        assert_eq!(set("set e=1:9"), Setting::Ports(Ports::Range(1, 9)));
        assert_eq!(set("set p=both"), Setting::Protocol(Protocols::Both));
        assert_eq!(set("set sport=2030"), Setting::SourcePort(2030));
        assert_eq!(set("set sp=0"), Setting::SourcePort(0));
        assert_eq!(set("set cn=!a!"), Setting::Community("a".to_owned()));
        assert_eq!(set("set cn=a"), Setting::Community("a".to_owned()));
        assert_eq!(set("set nr"), Setting::NoReverse);
        assert_eq!(set("set sl"), Setting::SlowLink);
    }

    #[test]
    fn nonsense_is_named() {
        for (line, said) in [
            ("foo", "'foo' is not a command; type 'help' for a list"),
            (
                "q foo",
                "'foo' has no query of its own; type 'help' for a list",
            ),
            ("set foo=1", "'foo=1' cannot be set; type 'help' for a list"),
            ("set port", "'port' cannot be set; type 'help' for a list"),
            ("set port=0", "0 is not a port: ports go from 1 to 65535"),
            (
                "set p=icmp",
                "icmp is not a protocol: there are TCP, UDP and BOTH",
            ),
            (
                "n two words",
                "two words is not a name: it is empty or has spaces",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn what_is_typed_is_completed() {
        assert_eq!(completions("q"), (0, vec!["query "]));
        assert_eq!(completions("q s"), (2, vec!["smtp", "snmp", "sql"]));
        assert_eq!(completions("set p"), (4, vec!["port=", "protocol="]));
        assert_eq!(completions("node s").1, Vec::<&str>::new());
        assert_eq!(completions("").1.len(), COMMANDS.len());
        assert_eq!(completions("q\u{3000}d"), (4, vec!["dns"]));
    }
}
