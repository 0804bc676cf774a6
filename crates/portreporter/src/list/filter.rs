//! Which sockets are to be shown.
//!
//! Filters come in two kinds: those that the socket alone answers, and those
//! for which its holders must be known, which are asked last because getting
//! to know a process is dear.

use std::fmt;

use event::Protocol;
use sensor::FoundSocket;

use super::{ListArgs, Person};

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// This port alone.
    pub(crate) fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Reads `N` or `A-B`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.trim()
                .parse::<u16>()
                .map_err(|_| "a port is a number from 0 to 65535".to_owned())
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err("the first port of a range is the lower one".to_owned());
        }
        Ok(Self { first, last })
    }

    pub(crate) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Filter {
    args: ListArgs,
}

impl Filter {
    pub(super) fn new(args: ListArgs) -> Self {
        Self { args }
    }

    /// Is nothing asked for in particular?
    pub(super) fn admits_everything(&self) -> bool {
        let args = &self.args;
        !self.asks_for_people()
            && !args.listening
            && args.tcp == args.udp
            && args.state.is_empty()
            && args.port.is_empty()
    }

    /// Does the socket pass, as far as it can tell by itself?
    pub(super) fn admits_socket(&self, found: &FoundSocket) -> bool {
        let args = &self.args;
        let socket = &found.socket;
        let protocol = match socket.protocol {
            _ if args.tcp == args.udp => true,
            Protocol::Tcp => args.tcp,
            Protocol::Udp => args.udp,
            _ => false,
        };
        let listening = !args.listening
            || socket.is_listener()
            || socket.protocol == Protocol::Udp && socket.remote.is_none();
        let state = args.state.is_empty()
            || socket
                .state
                .is_some_and(|state| args.state.contains(&state));
        let port = args.port.is_empty()
            || args.port.iter().any(|range| {
                range.contains(socket.local.port)
                    || socket
                        .remote
                        .is_some_and(|remote| range.contains(remote.port))
            });
        let pid = args.pid.is_empty() || found.holders.iter().any(|pid| args.pid.contains(pid));
        protocol && listening && state && port && pid
    }

    /// Must the holders be known?
    pub(super) fn asks_for_people(&self) -> bool {
        let args = &self.args;
        !(args.pid.is_empty() && args.process.is_empty() && args.user.is_empty())
    }

    /// Does this holder pass?
    pub(super) fn admits_holder(&self, pid: u32, person: Option<&Person>) -> bool {
        let args = &self.args;
        let process = args.process.is_empty()
            || person.is_some_and(|person| {
                args.process.iter().any(|wanted| {
                    if wanted.contains('/') {
                        person.exe.as_ref() == Some(wanted)
                    } else {
                        person.name.as_ref() == Some(wanted)
                    }
                })
            });
        let user = args.user.is_empty()
            || person.is_some_and(|person| {
                args.user.iter().any(|wanted| {
                    person.user.as_ref() == Some(wanted)
                        || person.uid.is_some_and(|uid| wanted.parse() == Ok(uid))
                })
            });
        (args.pid.is_empty() || args.pid.contains(&pid)) && process && user
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use event::TcpState;
    use proptest::prelude::*;

    use super::super::tests::{connection, datagram, listener};
    use super::*;

    fn admits(args: ListArgs) -> Vec<usize> {
        let sockets = [
            listener("0.0.0.0:22", &[1]),
            connection(
                "10.0.0.1:40000",
                "10.0.0.2:22",
                TcpState::Established,
                &[2, 3],
            ),
            datagram("0.0.0.0:53", None, &[1]),
            datagram("10.0.0.1:5353", Some("10.0.0.2:53"), &[]),
        ];
        let filter = Filter::new(args);
        (0..)
            .zip(&sockets)
            .filter(|(_, found)| filter.admits_socket(found))
            .map(|(n, _)| n)
            .collect()
    }

    #[test]
    fn each_filter_alone() {
        let none = ListArgs::default;
        assert_eq!(admits(none()), [0, 1, 2, 3]);
        assert_eq!(
            admits(ListArgs {
                tcp: true,
                ..none()
            }),
            [0, 1]
        );
        assert_eq!(
            admits(ListArgs {
                udp: true,
                ..none()
            }),
            [2, 3]
        );
        assert_eq!(
            admits(ListArgs {
                tcp: true,
                udp: true,
                ..none()
            }),
            [0, 1, 2, 3]
        );
        assert_eq!(
            admits(ListArgs {
                listening: true,
                ..none()
            }),
            [0, 2]
        );
        assert_eq!(
            admits(ListArgs {
                pid: vec![3],
                ..none()
            }),
            [1]
        );
        let state = vec![TcpState::Established];
        assert_eq!(admits(ListArgs { state, ..none() }), [1]);
        let port = vec![PortRange::parse("50-60").unwrap()];
        assert_eq!(admits(ListArgs { port, ..none() }), [2, 3]);
    }

    #[test]
    fn holders_by_name_path_and_user() {
        let person = Person {
            name: Some("nginx".to_owned()),
            exe: Some("/usr/sbin/nginx".to_owned()),
            user: Some("www-data".to_owned()),
            uid: Some(33),
            ..Person::default()
        };
        let admits = |process: &[&str], user: &[&str]| {
            let args = ListArgs {
                process: process.iter().map(ToString::to_string).collect(),
                user: user.iter().map(ToString::to_string).collect(),
                ..ListArgs::default()
            };
            let filter = Filter::new(args);
            assert!(filter.asks_for_people() && !filter.admits_holder(5, None));
            filter.admits_holder(5, Some(&person))
        };
        assert!(admits(&["nginx"], &[]));
        assert!(admits(&["apache", "/usr/sbin/nginx"], &["www-data"]));
        assert!(admits(&[], &["33"]));
        assert!(!admits(&["ngin"], &[]));
        assert!(!admits(&["nginx"], &["root"]));
    }

    proptest! {
        #[test]
        fn a_range_holds_its_ends_and_nothing_outside(a: u16, b: u16, port: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let range = PortRange::parse(&format!("{first}-{last}")).unwrap();
            prop_assert_eq!(range.contains(port), first <= port && port <= last);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,12}") {
            let _ = PortRange::parse(&text);
        }
    }
}
