//! TLS: which version, which certificate, and what answers inside.
//!
//! One question for each service of which the services database says that it
//! is TLS from the first byte. Where this program knows what is spoken inside,
//! that question is asked too; the certificate is told in the fact `tls`
//! beside its answer. The questions of SMTP, IMAP and others that begin in the
//! clear come here when the service has agreed to change over ([`started`]),
//! so the fact looks the same everywhere.

mod hello;
mod session;

use event::Protocol;
use jiff::Timestamp;
use jiff::tz::Offset;

use self::session::Handshake;
use super::{Asked, Question};
use crate::{Answer, Fault, Stream, Value};

/// Asks a service that is TLS from the first byte.
#[derive(Debug)]
pub(super) struct Tls {
    name: &'static str,
    aliases: &'static [&'static str],
    /// The question that is asked inside.
    inside: Option<&'static str>,
    /// The protocols that are offered by name (ALPN, RFC 7301).
    alpn: &'static [&'static [u8]],
}

/// Services of which this program does not speak what is inside.
pub(super) const TLS: Tls = Tls {
    aliases: &[
        "ssl",
        "amqps",
        "ftps-data",
        "ircs-u",
        "ircs",
        "nntps",
        "snntp",
        "syslog-tls",
        "telnets",
        "secure-mqtt",
    ],
    ..Tls::around("tls", None)
};

/// HTTP over TLS.
pub(super) const HTTPS: Tls = Tls {
    aliases: &["https-alt", "wsmans", "ipps"],
    alpn: &[b"http/1.1"],
    ..Tls::around("https", Some("http"))
};

/// LDAP over TLS, and the Global Catalog's.
pub(super) const LDAPS: Tls = Tls {
    aliases: &["msft-gc-ssl", "globalcatldapssl"],
    ..Tls::around("ldaps", Some("ldap"))
};

/// Mail over TLS: what SMTP is on port 465 (RFC 8314).
pub(super) const SUBMISSIONS: Tls = Tls {
    aliases: &["smtps", "ssmtp", "urd"],
    ..Tls::around("submissions", Some("smtp"))
};

/// POP3 over TLS.
pub(super) const POP3S: Tls = Tls::around("pop3s", Some("pop3"));

/// IMAP over TLS.
pub(super) const IMAPS: Tls = Tls {
    aliases: &["imap4-ssl"],
    ..Tls::around("imaps", Some("imap"))
};

/// FTP over TLS.
pub(super) const FTPS: Tls = Tls::around("ftps", Some("ftp"));

/// DNS over TLS (RFC 7858).
pub(super) const DNS_OVER_TLS: Tls = Tls {
    alpn: &[b"dot"],
    ..Tls::around("domain-s", Some("domain"))
};

/// SIP over TLS.
pub(super) const SIPS: Tls = Tls {
    aliases: &["sips"],
    ..Tls::around("sip-tls", Some("sip"))
};

/// Redis over TLS.
pub(super) const REDISS: Tls = Tls::around("rediss", Some("redis"));

impl Tls {
    const fn around(name: &'static str, inside: Option<&'static str>) -> Self {
        Self {
            name,
            aliases: &[],
            inside,
            alpn: &[],
        }
    }
}

impl Question for Tls {
    fn name(&self) -> &'static str {
        self.name
    }

    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let mut answer = Answer::of(self.name);
        let question = self
            .inside
            .and_then(|name| super::find(name, Protocol::Tcp));
        let outside = change_over(&mut answer, asked, stream, self.alpn, |answer, stream| {
            let Some(question) = question else { return };
            match question.ask_stream(asked, stream) {
                Ok(reply) => {
                    answer.summary = reply.summary;
                    answer.facts.extend(reply.facts);
                    answer.text = reply.text;
                }
                Err(fault) => answer.broke_off(&fault),
            }
        })?;
        if let Some(error) = error_of(&answer).cloned() {
            // Here it is the reply of the service itself.
            answer.add("error", error);
        }
        if answer.summary.is_empty() {
            answer.summary = outside;
        } else {
            answer.summary = format!("{} ({outside})", answer.summary);
        }
        Ok(answer)
    }
}

/// Goes on in TLS after the service has agreed to it, and adds the fact `tls`
/// to `answer`; ends with `farewell`. A fault is told in the answer: the
/// service has said enough before to be one.
pub(super) fn started(
    answer: &mut Answer,
    asked: &Asked<'_>,
    stream: &mut Stream<'_>,
    farewell: &[u8],
) {
    within(answer, asked, stream, |_, stream| {
        // Nothing more is asked; it may be gone by now.
        let _ = stream.send(farewell);
    });
}

/// The same, with more to ask `inside`.
pub(super) fn within(
    answer: &mut Answer,
    asked: &Asked<'_>,
    stream: &mut Stream<'_>,
    inside: impl FnOnce(&mut Answer, &mut Stream<'_>),
) {
    if let Err(fault) = change_over(answer, asked, stream, &[], inside) {
        answer.broke_off(&fault);
    }
}

/// Shakes hands, adds the fact `tls`, and goes on `inside` if it came to that.
/// Gives what one line can tell of it.
fn change_over(
    answer: &mut Answer,
    asked: &Asked<'_>,
    stream: &mut Stream<'_>,
    alpn: &[&[u8]],
    inside: impl FnOnce(&mut Answer, &mut Stream<'_>),
) -> Result<String, Fault> {
    let now = Offset::UTC.to_datetime(Timestamp::now());
    let Handshake {
        facts,
        summary,
        session,
    } = session::shake(asked, stream, alpn, now)?;
    answer.add("tls", facts);
    if let Some(mut session) = session {
        let left = session.remaining()?;
        inside(answer, &mut Stream::new(&mut session, left).in_tls());
        session.close();
    }
    Ok(summary)
}

/// Why there is no session, if there is none.
fn error_of(answer: &Answer) -> Option<&Value> {
    let Some(Value::Facts(facts)) = answer.get("tls") else {
        return None;
    };
    let error = facts.iter().find(|fact| fact.name == "error")?;
    Some(&error.value)
}

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;

    #[test]
    fn an_alert_is_an_answer() {
        // RFC 5246, section 7.2: fatal, handshake_failure.
        let script = Script::of(&[b"\x15\x03\x03\0\x02\x02\x28"]);
        let answer = trial::stream(&HTTPS, script.clone()).unwrap();
        let error = "the alert handshake_failure (40)";
        assert_eq!(error_of(&answer), Some(&error.into()));
        assert_eq!(answer.get("error"), Some(&error.into()));
        assert_eq!(answer.summary, "TLS: the alert handshake_failure (40)");
        let sent = script.sent();
        // A ClientHello with the name of the host and of the protocol inside.
        assert!(sent.starts_with(b"\x16\x03\x01"));
        for part in [&b"\x0chost.example"[..], b"\x08http/1.1"] {
            assert!(sent.windows(part.len()).any(|window| window == part));
        }
    }

    #[test]
    fn what_is_not_tls_is_malformed() {
        for reply in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"220 mail.example ESMTP\r\n",
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            &[0; 100],
        ] {
            let fault = trial::stream(&TLS, Script::of(&[reply])).unwrap_err();
            assert!(matches!(fault, Fault::Malformed { .. }), "{fault}");
        }
        let fault = trial::stream(&TLS, Script::of(&[])).unwrap_err();
        assert!(matches!(fault, Fault::Closed));
        let fault = trial::stream(&TLS, Script::silent(&[])).unwrap_err();
        assert!(matches!(fault, Fault::Silent(_)));
    }

    #[test]
    fn careless_and_hostile_replies_come_to_an_end() {
        // What OpenSSL 3.0 sends up to ServerHelloDone, in version 1.2.
        let good = include_bytes!("../../../tests/data/tls12-server-flight.bin");
        let answer = trial::stream(&TLS, Script::of(&[good]));
        // It cannot go on: the flight was meant for somebody else.
        assert!(matches!(answer, Err(Fault::Closed)));
        for reply in trial::altered(&good[..200]) {
            let reply = [&reply, &good[200..]].concat();
            let _ = trial::stream(&TLS, Script::of(&[&reply]));
        }
        for piece in trial::cut(good).step_by(7) {
            assert!(trial::stream(&TLS, Script::of(&[piece])).is_err());
        }
    }
}
