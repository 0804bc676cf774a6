//! HTTP: status, who serves it, where it leads, and the page's title
//! (RFC 9110; RFC 9112).
//!
//! One `GET /`. The body is looked at only where it is HTML and only up to its
//! title; nothing else is fetched, and no redirection is followed: it may lead
//! to another host, which nobody asked for.

use std::net::IpAddr;
use std::time::Duration;

use event::Protocol;
use event::text::from_bytes;

use super::{Asked, Question};
use crate::{Answer, Fact, Fault, Stream, Value};

/// Asks for the root page.
#[derive(Debug)]
pub(super) struct Http;

/// How many bytes a line of the head may have.
const LINE: usize = 16 << 10;

/// How many lines the head may have.
const LINES: usize = 256;

/// How many bytes of the body are searched for a title.
const BODY: usize = 64 << 10;

/// How many characters a title may have.
const TITLE: usize = 256;

/// How many interim responses may come before the final one.
const INTERIM: usize = 8;

/// How long a pause ends a body that has no other end.
const PAUSE: Duration = Duration::from_secs(1);

/// The fields that are told, of those that the response has.
const FIELDS: [&str; 7] = [
    "Server",
    "Location",
    "Content-Type",
    "WWW-Authenticate",
    "X-Powered-By",
    "Via",
    "Upgrade",
];

impl Question for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["http-alt", "www", "www-http", "webcache", "ipp", "wsman"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        stream.send(&request(asked, stream.is_in_tls()))?;
        let mut head = Head::read(stream)?;
        for _ in 0..INTERIM {
            // 101 is final: what follows is another protocol.
            if !(100..200).contains(&head.status) || head.status == 101 {
                break;
            }
            head = Head::read(stream)?;
        }
        let mut answer = head.answer();
        if head.has_html() {
            let title = title_of(&body(&head, stream));
            answer
                .facts
                .extend(title.map(|title| Fact::of("title", title)));
        }
        Ok(answer)
    }
}

/// The request for the root page.
fn request(asked: &Asked<'_>, in_tls: bool) -> Vec<u8> {
    let host = host(asked, if in_tls { 443 } else { 80 });
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: PortReporter/{version}\r\n\
         Accept: text/html, */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// The value of `Host`: as the user named it, with the port where it is not
/// the usual one.
fn host(asked: &Asked<'_>, usual: u16) -> String {
    // A zone means nothing on the other side (RFC 6874).
    let name = asked.host.split('%').next().unwrap_or_default();
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    let host = match name.parse::<IpAddr>() {
        Err(_) if fits => name.to_owned(),
        address => match address.unwrap_or(asked.address.ip()) {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        },
    };
    if asked.address.port() == usual {
        return host;
    }
    format!("{host}:{}", asked.address.port())
}

/// What comes before the body.
#[derive(Debug)]
struct Head {
    version: String,
    status: u16,
    reason: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn read(stream: &mut Stream<'_>) -> Result<Self, Fault> {
        let line = from_bytes(&stream.line(LINE)?);
        let mut head = Self::of(&line).ok_or(Fault::Malformed {
            what: "no HTTP status line",
            at: 0,
        })?;
        for _ in 0..LINES {
            let line = from_bytes(&stream.line(LINE)?);
            if line.is_empty() {
                return Ok(head);
            }
            if let Some((name, value)) = line.split_once(':') {
                let field = (name.trim().to_owned(), value.trim().to_owned());
                head.fields.push(field);
            }
        }
        Err(Fault::Malformed {
            what: "too many header fields",
            at: 0,
        })
    }

    /// Reads `HTTP/1.1 200 OK`.
    fn of(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let version = words.next()?;
        let status = words.next()?;
        if !version.starts_with("HTTP/")
            || status.len() != 3
            || !status.bytes().all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        Some(Self {
            version: version.to_owned(),
            status: status.parse().ok()?,
            reason: words.next().unwrap_or_default().trim().to_owned(),
            fields: Vec::new(),
        })
    }

    /// The first value of that field.
    fn get(&self, name: &str) -> Option<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .find(same)
            .map(|(_, value)| value.as_str())
    }

    fn has_html(&self) -> bool {
        let kind = self.get("Content-Type").unwrap_or_default();
        kind.to_ascii_lowercase().contains("html")
    }

    fn answer(&self) -> Answer {
        let mut answer = Answer::of("http");
        answer.summary = self.status.to_string();
        if !self.reason.is_empty() {
            answer.summary.push(' ');
            answer.summary.push_str(&self.reason);
        }
        if let Some(server) = self.get("Server") {
            answer.summary.push_str(", ");
            answer.summary.push_str(server);
        }
        answer.add("version", self.version.as_str());
        answer.add("status", u32::from(self.status));
        answer.add("reason", self.reason.as_str());
        for name in FIELDS {
            for (field, value) in &self.fields {
                if field.eq_ignore_ascii_case(name) {
                    answer.add(name, Value::from(value.as_str()));
                }
            }
        }
        answer
    }
}

/// The body's beginning: up to the end of a title, of the body, or of what is
/// read of one.
fn body(head: &Head, stream: &mut Stream<'_>) -> Vec<u8> {
    let length = head.get("Content-Length");
    let length = length.and_then(|length| length.parse().ok());
    let length = length.unwrap_or(usize::MAX).min(BODY);
    let mut body = vec![0; BODY];
    let mut end = 0;
    while end < length {
        match stream.read_within(&mut body[end..length], PAUSE) {
            // A title that has come is one, whatever becomes of the rest.
            Ok(0) | Err(_) => break,
            Ok(more) => {
                // An end may have come in two pieces, and is looked for once.
                let new = end.saturating_sub(8);
                end += more;
                if ends(&body[new..end]) {
                    break;
                }
            }
        }
    }
    body.truncate(end);
    body
}

/// Whether a body need not be read any further: its title is complete, or its
/// last chunk has come.
fn ends(body: &[u8]) -> bool {
    body.ends_with(b"\r\n0\r\n\r\n") || find(body, b"</title").is_some()
}

/// What stands between `<title>` and `</title>`, in one line.
fn title_of(body: &[u8]) -> Option<String> {
    let start = find(body, b"<title")?;
    let rest = &body[start..];
    let start = rest.iter().position(|byte| *byte == b'>')? + 1;
    let end = find(rest, b"</title")?;
    let title = from_bytes(rest.get(start..end)?);
    let words: Vec<_> = title.split_whitespace().collect();
    let title: String = words.join(" ").chars().take(TITLE).collect();
    Some(title).filter(|title| !title.is_empty())
}

/// Where `part` begins, in any case.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len())
        .position(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Script, trial};
    use super::*;

    const GOOD: &[u8] = b"HTTP/1.1 301 Moved Permanently\r\nServer: nginx\r\n\
        Content-Type: text/html\r\nContent-Length: 48\r\nlocation: https://foo.example/\r\n\r\n\
        <html>\n<TITLE lang=en>\n Moved  away </Title>\n<p>..";

    fn ask(reply: &[u8]) -> Result<Answer, Fault> {
        trial::stream(&Http, Script::of(&[reply]))
    }

    fn host_of(host: &str, address: &str) -> String {
        let address = address.parse::<SocketAddr>().unwrap();
        let asked = Asked {
            host,
            address,
            community: "",
            secret: "",
        };
        super::host(&asked, 80)
    }

    #[test]
    fn the_host_is_the_one_that_was_named() {
        assert_eq!(host_of("www.example", "192.0.2.1:80"), "www.example");
        assert_eq!(host_of("www.example", "192.0.2.1:8080"), "www.example:8080");
        assert_eq!(host_of("fe80::1%eth0", "[fe80::1]:81"), "[fe80::1]:81");
        assert_eq!(host_of("x\r\nA: b", "192.0.2.1:80"), "192.0.2.1");
        assert_eq!(host_of("", "[2001:db8::1]:80"), "[2001:db8::1]");
        let text = String::from_utf8(request(&trial::asked(443), true)).unwrap();
        assert!(text.starts_with("GET / HTTP/1.1\r\nHost: host.example\r\n"));
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn status_fields_and_title_are_told() {
        let answer = ask(GOOD).unwrap();
        assert_eq!(answer.summary, "301 Moved Permanently, nginx");
        assert_eq!(answer.get("status"), Some(&Value::Number(301)));
        assert_eq!(answer.get("Location"), Some(&"https://foo.example/".into()));
        assert_eq!(answer.get("title"), Some(&"Moved away".into()));
        let answer = ask(b"HTTP/1.0 401\n\n").unwrap();
        assert_eq!(answer.summary, "401");
        assert_eq!(answer.get("version"), Some(&"HTTP/1.0".into()));
    }

    #[test]
    fn interim_responses_are_passed_over() {
        let answer = ask(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 x\r\n\r\n").unwrap();
        assert_eq!(answer.get("status"), Some(&Value::Number(204)));
        let answer = ask(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n").unwrap();
        assert_eq!(answer.get("Upgrade"), Some(&"h2c".into()));
    }

    #[test]
    fn a_body_without_end_is_left() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n";
        let endless = vec![b'x'; 4 * BODY];
        assert!(ask(&[head, &endless[..]].concat()).is_ok());
        // One that is held open does not use up the time for the whole answer.
        let script = Script::silent(&[head, b"<title>a</title"]);
        let answer = trial::stream(&Http, script).unwrap();
        assert_eq!(answer.get("title"), Some(&"a".into()));
        let script = Script::silent(&[head, b"<title>a"]);
        let answer = trial::stream(&Http, script).unwrap();
        assert_eq!(answer.get("title"), None);
        for body in [&b"</title><title>"[..], b"<title", b"<title></title>"] {
            assert_eq!(title_of(body), None);
        }
        let long = [b"<title>", &[b'x'; 999][..], b"</title>"].concat();
        assert_eq!(title_of(&long).unwrap().len(), TITLE);
    }

    #[test]
    fn careless_and_hostile_replies_come_to_an_end() {
        let head = GOOD.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        for piece in trial::cut(GOOD) {
            assert_eq!(ask(piece).is_ok(), piece.len() >= head);
        }
        for reply in trial::altered(GOOD) {
            let _ = ask(&reply);
        }
        for reply in [
            &b"SSH-2.0-x\r\n"[..],
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 2000 x\r\n\r\n",
            b"HTTP/1.1 +20 x\r\n",
            &[&b"HTTP/1.1 200 x\r\n"[..], &b"a: b\r\n".repeat(1000)].concat(),
        ] {
            assert!(matches!(ask(reply), Err(Fault::Malformed { .. })));
        }
        let endless = b"HTTP/1.1 100 x\r\n\r\n".repeat(1000);
        assert_eq!(
            ask(&endless).unwrap().get("status"),
            Some(&Value::Number(100))
        );
    }
}
