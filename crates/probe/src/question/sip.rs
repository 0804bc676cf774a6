//! SIP (RFC 3261): OPTIONS, the question what a server can do.
//!
//! The request is for the server itself, not for anybody behind it, and asks
//! for nothing that rings (§11). Its own address is not known here, so `Via`
//! names a host that cannot exist and asks for the reply to come back the way
//! the request came (`rport`, RFC 3581).
//!
//! It is not asked over TLS (`sips`).

use std::fmt::Write as _;
use std::net::SocketAddr;

use event::{Protocol, text};

use super::nonce::nonce;
use super::{Asked, Question};
use crate::{Answer, Datagrams, Fault, Stream, Value};

/// Asks for a server's options.
#[derive(Debug)]
pub(super) struct Sip;

/// The longest line, and how many there may be.
const LINE: usize = 8 << 10;
const LINES: usize = 256;

/// The headers that are told, by their names and short forms.
const TOLD: [(&str, Option<&str>); 10] = [
    ("Server", None),
    ("User-Agent", None),
    ("Allow", None),
    ("Accept", None),
    ("Supported", Some("k")),
    ("Require", None),
    ("Contact", Some("m")),
    ("Warning", None),
    ("WWW-Authenticate", None),
    ("Organization", None),
];

impl Question for Sip {
    fn name(&self) -> &'static str {
        "sip"
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Udp, Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        stream.send(request(asked, "TCP", &identifier()).as_bytes())?;
        loop {
            let reply = Reply::read(|| stream.line(LINE))?;
            // A provisional reply is followed by the one that counts.
            let length = reply.length()?;
            stream.exact(length)?;
            if !reply.is_provisional() {
                return Ok(reply.answer());
            }
        }
    }

    fn ask_datagrams(
        &self,
        asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let identifier = identifier();
        let request = request(asked, "UDP", &identifier);
        let is_ours = |reply: &[u8]| {
            reply.starts_with(b"SIP/2.0 ")
                && read(reply).is_ok_and(|reply| reply.is_of(&identifier))
        };
        let mut reply = read(&datagrams.exchange(request.as_bytes(), is_ours)?)?;
        while reply.is_provisional() {
            match datagrams.next(is_ours) {
                Ok(next) => reply = read(&next)?,
                Err(_) => break,
            }
        }
        Ok(reply.answer())
    }
}

/// What the request and its reply have in common: hexadecimal digits.
fn identifier() -> String {
    let number = u128::from_be_bytes(nonce());
    format!("{number:032x}")
}

fn request(asked: &Asked<'_>, transport: &str, identifier: &str) -> String {
    // The address, because the host as the user named it may hold anything.
    // Without the zone of a link-local one, which is of this machine alone.
    let target = SocketAddr::new(asked.address.ip(), asked.address.port());
    let (branch, tag) = identifier.split_at(16);
    let mut request = String::new();
    for line in [
        format_args!(
            "OPTIONS sip:{target};transport={} SIP/2.0",
            transport.to_lowercase()
        ),
        // The cookie that RFC 3261 §8.1.1.7 puts before a branch.
        format_args!("Via: SIP/2.0/{transport} portreporter.invalid;rport;branch=z9hG4bK{branch}"),
        format_args!("Max-Forwards: 70"),
        format_args!("From: <sip:portreporter@portreporter.invalid>;tag={tag}"),
        format_args!("To: <sip:{target}>"),
        format_args!("Call-ID: {identifier}@portreporter.invalid"),
        format_args!("CSeq: 1 OPTIONS"),
        format_args!("Contact: <sip:portreporter@portreporter.invalid>"),
        format_args!("Accept: application/sdp"),
        format_args!("User-Agent: portreporter"),
        format_args!("Content-Length: 0"),
        format_args!(""),
    ] {
        // Writing to a string cannot fail.
        let _ = write!(request, "{line}\r\n");
    }
    request
}

/// The head of a reply.
#[derive(Debug)]
struct Reply {
    code: u16,
    reason: String,
    headers: Vec<(String, String)>,
    head: String,
}

/// The head of a reply in one datagram, whose end may stand for the empty line.
fn read(datagram: &[u8]) -> Result<Reply, Fault> {
    let mut lines = datagram.split(|byte| *byte == b'\n');
    Reply::read(|| {
        let line = lines.next().unwrap_or_default();
        Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
    })
}

impl Reply {
    /// Reads lines until an empty one.
    fn read(mut line: impl FnMut() -> Result<Vec<u8>, Fault>) -> Result<Self, Fault> {
        let status = text::from_bytes(&line()?);
        let malformed = |what| Fault::Malformed { what, at: 0 };
        let rest = status
            .strip_prefix("SIP/2.0 ")
            .ok_or(malformed("a reply of SIP/2.0"))?;
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let code = code
            .parse()
            .ok()
            .filter(|code| (100..700).contains(code))
            .ok_or(malformed("a status code"))?;
        let mut reply = Self {
            code,
            reason: reason.to_owned(),
            headers: Vec::new(),
            head: status.clone(),
        };
        for _ in 0..LINES {
            let line = text::from_bytes(&line()?);
            if line.is_empty() {
                return Ok(reply);
            }
            reply.head.push('\n');
            reply.head.push_str(&line);
            if line.starts_with([' ', '\t']) {
                // It goes on with the line before (§7.3.1).
                if let Some((_, value)) = reply.headers.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                let header = (name.trim().to_owned(), value.trim().to_owned());
                reply.headers.push(header);
            }
        }
        Err(malformed("an end of the headers"))
    }

    fn header(&self, name: &str, short: Option<&str>) -> Option<String> {
        let named = |header: &str| {
            header.eq_ignore_ascii_case(name)
                || short.is_some_and(|short| header.eq_ignore_ascii_case(short))
        };
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(header, _)| named(header))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Whether it is the reply to that request; one that does not say is.
    fn is_of(&self, identifier: &str) -> bool {
        let id = self.header("Call-ID", Some("i"));
        id.is_none_or(|id| id.starts_with(identifier))
    }

    fn is_provisional(&self) -> bool {
        self.code < 200
    }

    /// How many bytes follow the head.
    fn length(&self) -> Result<usize, Fault> {
        match self.header("Content-Length", Some("l")) {
            None => Ok(0),
            Some(length) => length.parse().map_err(|_| Fault::Malformed {
                what: "a number as Content-Length",
                at: 0,
            }),
        }
    }

    fn answer(self) -> Answer {
        let mut answer = Answer::of("sip");
        let status = format!("{} {}", self.code, self.reason);
        answer.add("status", u32::from(self.code));
        answer.add("reason", self.reason.as_str());
        if self.code >= 300 {
            answer.add("error", status.as_str());
        }
        for (name, short) in TOLD {
            if let Some(value) = self.header(name, short) {
                answer.add(name, value);
            }
        }
        let software = answer.get("Server").or_else(|| answer.get("User-Agent"));
        answer.summary = match software {
            Some(Value::Text(software)) => format!("{software} ({status})"),
            _ => status,
        };
        answer.text = Some(self.head);
        answer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::question::{Script, trial};

    const OK: &[u8] = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP portreporter.invalid\r\n\
        Server: made up\r\n (in two lines)\r\nk: path\r\nSupported: rel100\r\n\
        Content-Length: 4\r\n\r\nbody";

    #[test]
    fn asks_as_rfc_3261_says() {
        let asked = trial::asked(5060);
        let identifier = "0123456789abcdeffedcba9876543210";
        assert_eq!(
            request(&asked, "UDP", identifier),
            "OPTIONS sip:192.0.2.1:5060;transport=udp SIP/2.0\r\n\
             Via: SIP/2.0/UDP portreporter.invalid;rport;branch=z9hG4bK0123456789abcdef\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:portreporter@portreporter.invalid>;tag=fedcba9876543210\r\n\
             To: <sip:192.0.2.1:5060>\r\n\
             Call-ID: 0123456789abcdeffedcba9876543210@portreporter.invalid\r\n\
             CSeq: 1 OPTIONS\r\n\
             Contact: <sip:portreporter@portreporter.invalid>\r\n\
             Accept: application/sdp\r\n\
             User-Agent: portreporter\r\n\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(self::identifier().len(), 32);
    }

    #[test]
    fn tells_what_the_server_is() {
        let answers = [
            trial::datagrams(&Sip, Script::of(&[OK])).unwrap(),
            trial::stream(&Sip, Script::of(&OK.chunks(7).collect::<Vec<_>>())).unwrap(),
        ];
        for answer in answers {
            assert_eq!(answer.summary, "made up (in two lines) (200 OK)");
            assert_eq!(answer.get("Supported"), Some(&"path, rel100".into()));
            assert_eq!(answer.get("error"), None);
        }
    }

    #[test]
    fn waits_for_the_reply_that_counts() {
        let trying = b"SIP/2.0 100 Trying\r\n\r\n".as_slice();
        let refused = b"SIP/2.0 403 No\r\n\r\n".as_slice();
        for result in [
            trial::datagrams(&Sip, Script::of(&[trying, refused])),
            trial::stream(&Sip, Script::of(&[trying, refused])),
        ] {
            assert_eq!(result.unwrap().get("error"), Some(&"403 No".into()));
        }
        let answer = trial::datagrams(&Sip, Script::of(&[trying])).unwrap();
        assert_eq!(answer.get("status"), Some(&Value::from(100_u32)));
    }

    #[test]
    fn the_reply_to_somebody_else_is_passed_over() {
        let other = b"SIP/2.0 200 OK\r\nCall-ID: other\r\n\r\n".as_slice();
        let answer = trial::datagrams(&Sip, Script::of(&[other, OK])).unwrap();
        assert_eq!(answer.get("Server"), Some(&"made up (in two lines)".into()));
    }

    #[test]
    fn hostile_replies_are_refused() {
        for cut in trial::cut(OK) {
            let fault = trial::stream(&Sip, Script::of(&[cut])).unwrap_err();
            assert!(matches!(fault, Fault::Closed));
        }
        let endless = b"SIP/2.0 200 OK\r\n".repeat(Stream::LIMIT / 16 + 1);
        let fault = trial::stream(&Sip, Script::of(&[&endless])).unwrap_err();
        assert!(matches!(fault, Fault::Malformed { .. }));
        let huge = b"SIP/2.0 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n";
        let fault = trial::stream(&Sip, Script::of(&[huge])).unwrap_err();
        assert!(matches!(fault, Fault::Long(_)));
        for status in ["HTTP/1.1 200 OK", "SIP/2.0 OK", "SIP/2.0 99999 x", ""] {
            assert!(read(status.as_bytes()).is_err(), "{status}");
        }
    }

    proptest! {
        #[test]
        fn any_datagram_can_be_read(
            code in 100_u16..700,
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut datagram = format!("SIP/2.0 {code} ").into_bytes();
            datagram.extend(rest);
            let reply = read(&datagram).unwrap();
            prop_assert_eq!(reply.code, code);
        }
    }
}
