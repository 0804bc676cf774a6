//! Kerberos 5 (RFC 4120): a request for a ticket, in the name of an account that
//! no realm has. The refusal proves a key distribution centre and tells what time
//! it is there; nobody's account is touched.
//!
//! The realm that is served is told where the centre names another than it was
//! asked for. Most (MIT's and Heimdal's) only repeat the realm of the request, be
//! it theirs or not, and what was merely repeated is not passed off as learnt.
//!
//! Over TCP each message has its length before it (§7.2.2).

use event::Protocol;

use super::nonce::nonce;
use super::{Asked, Question};
use crate::ber::{Ber, Element, Tag, Writer};
use crate::{Answer, Datagrams, Fault, Stream};

/// Asks for a ticket that nobody gets.
pub(super) struct Kerberos;

/// The account in whose name is asked. RFC 6111 keeps names that begin so from
/// being given to anybody.
const ACCOUNT: &str = "WELLKNOWN:PORT-REPORTER";

/// The realm that is asked for where the host's name tells none.
const NO_REALM: &str = "REALM.INVALID";

const AS_REQ: Tag = Tag::application(10);
const AS_REP: Tag = Tag::application(11);
const KRB_ERROR: Tag = Tag::application(30);

/// What a message may hold. A refusal has some hundred bytes; the rest is for
/// centres that add their policy.
const MESSAGE: usize = 64 << 10;

impl Question for Kerberos {
    fn name(&self) -> &'static str {
        "kerberos"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["kerberos5", "krb5", "kerberos-sec", "kdc"]
    }

    fn over(&self) -> &'static [Protocol] {
        &[Protocol::Tcp, Protocol::Udp]
    }

    fn ask_stream(&self, asked: &Asked<'_>, stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        let realm = realm_of(asked.host);
        let request = request(&realm, u32::from_be_bytes(nonce()) >> 1);
        let length = u32::try_from(request.len()).map_err(|_| Fault::Long(request.len()))?;
        stream.send(&[&length.to_be_bytes(), &request[..]].concat())?;
        let length = stream.exact(4)?;
        let length = length
            .iter()
            .fold(0, |all, byte| all << 8 | usize::from(*byte));
        if length > MESSAGE {
            return Err(Fault::Long(MESSAGE));
        }
        read(&stream.exact(length)?, &realm)
    }

    fn ask_datagrams(
        &self,
        asked: &Asked<'_>,
        datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        let realm = realm_of(asked.host);
        let request = request(&realm, u32::from_be_bytes(nonce()) >> 1);
        // An error carries nothing of the request by which to know it again.
        let reply = datagrams.exchange(&request, |reply| {
            matches!(Ber::new(reply).peek(), Some(AS_REP | KRB_ERROR))
        })?;
        read(&reply, &realm)
    }
}

/// By custom a realm is the domain of its hosts in capitals (§6.1). A wrong
/// realm is refused as well as a wrong name.
fn realm_of(host: &str) -> String {
    let domain = host.trim_end_matches('.').split_once('.');
    match domain {
        Some((_, domain)) if host.parse::<std::net::IpAddr>().is_err() => {
            domain.to_ascii_uppercase()
        }
        _ => NO_REALM.to_owned(),
    }
}

/// An AS-REQ (§5.4.1) without pre-authentication.
fn request(realm: &str, nonce: u32) -> Vec<u8> {
    /// NT-PRINCIPAL and NT-SRV-INST (§6.2).
    const PERSON: i64 = 1;
    const SERVICE: i64 = 2;
    /// AES with SHA-1 (RFC 3962), AES with SHA-2 (RFC 8009), RC4 (RFC 4757).
    const CIPHERS: [i64; 5] = [18, 17, 20, 19, 23];

    let general = |writer: &mut Writer, text: &str| {
        writer.element(Tag::GENERAL_STRING, text.as_bytes());
    };
    let principal = |writer: &mut Writer, kind: i64, names: &[&str]| {
        writer.wrap(Tag::SEQUENCE, |writer| {
            writer.wrap(Tag::context(0), |writer| writer.integer(kind));
            writer.wrap(Tag::context(1), |writer| {
                writer.wrap(Tag::SEQUENCE, |writer| {
                    for name in names {
                        general(writer, name);
                    }
                });
            });
        });
    };
    let body = |writer: &mut Writer| {
        // Of the 32 options one, `canonicalize` (RFC 6806 §3): a centre may refer
        // to the right realm.
        writer.wrap(Tag::context(0), |writer| {
            writer.element(Tag::BIT_STRING, &[0, 0, 0x01, 0, 0]);
        });
        writer.wrap(Tag::context(1), |writer| {
            principal(writer, PERSON, &[ACCOUNT]);
        });
        writer.wrap(Tag::context(2), |writer| general(writer, realm));
        writer.wrap(Tag::context(3), |writer| {
            principal(writer, SERVICE, &["krbtgt", realm]);
        });
        // Until when: as long as may be.
        writer.wrap(Tag::context(5), |writer| {
            writer.element(Tag::GENERALIZED_TIME, b"20370913024805Z");
        });
        writer.wrap(Tag::context(7), |writer| writer.integer(nonce.into()));
        writer.wrap(Tag::context(8), |writer| {
            writer.wrap(Tag::SEQUENCE, |writer| {
                for cipher in CIPHERS {
                    writer.integer(cipher);
                }
            });
        });
    };
    let mut writer = Writer::new();
    writer.wrap(AS_REQ, |writer| {
        writer.wrap(Tag::SEQUENCE, |writer| {
            writer.wrap(Tag::context(1), |writer| writer.integer(5));
            writer.wrap(Tag::context(2), |writer| writer.integer(10));
            writer.wrap(Tag::context(4), |writer| writer.wrap(Tag::SEQUENCE, body));
        });
    });
    writer.into_bytes()
}

/// Reads a KRB-ERROR (§5.9.1), or the AS-REP of a centre that knows the account.
fn read(message: &[u8], asked: &str) -> Result<Answer, Fault> {
    let mut message = Ber::new(message);
    match message.peek() {
        Some(KRB_ERROR) => read_error(&mut message, asked),
        Some(AS_REP) => read_ticket(&mut message),
        _ => Err(message.malformed("a Kerberos error")),
    }
}

fn read_error(message: &mut Ber<'_>, asked: &str) -> Result<Answer, Fault> {
    let mut fields = Fields::of(message, KRB_ERROR)?;
    let mut seconds = None;
    let mut microseconds = 0;
    let mut code = None;
    let mut realms = Vec::new();
    let mut words = None;
    while let Some((number, field)) = fields.next()? {
        let value = inner(&field)?;
        match number {
            0 if value.integer("a version")? != 5 => return Err(value.malformed("version 5")),
            4 => seconds = Some(value.time("the time of the server")?),
            5 => microseconds = value.integer("microseconds")?,
            6 => code = Some(value.integer("an error code")?),
            // Of the client and of the server.
            7 | 9 => realms.push(value.text("a realm")?),
            11 => words = Some(value.text("the text of an error")?),
            _ => {}
        }
    }
    let (Some(seconds), Some(code)) = (seconds, code) else {
        return Err(message.malformed("an error with its code and time"));
    };
    let mut answer = Answer::of("kerberos");
    realms.retain(|realm| !realm.is_empty() && realm != asked);
    answer.summary = match realms.first() {
        Some(realm) => {
            answer.add("realm", realm.as_str());
            format!("realm {realm}, time {seconds}Z")
        }
        None => format!("Kerberos 5, time {seconds}Z"),
    };
    let nanoseconds = i32::try_from(microseconds)
        .ok()
        .and_then(|number| number.checked_mul(1000));
    let precise = nanoseconds.and_then(|number| {
        let time = seconds.with().subsec_nanosecond(number).build();
        time.ok()
    });
    answer.add("stime", format!("{}Z", precise.unwrap_or(seconds)));
    answer.add("error-code", code);
    let name = ERRORS.iter().find(|(number, _)| *number == code);
    let name = name.map_or_else(|| code.to_string(), |(_, name)| (*name).to_owned());
    answer.add("error", name);
    if let Some(words) = words {
        answer.add("e-text", words.trim_end_matches('\0'));
    }
    Ok(answer)
}

fn read_ticket(message: &mut Ber<'_>) -> Result<Answer, Fault> {
    let mut fields = Fields::of(message, AS_REP)?;
    let mut realm = None;
    while let Some((number, field)) = fields.next()? {
        if number == 3 {
            realm = Some(inner(&field)?.text("a realm")?);
        }
    }
    let realm = realm.ok_or_else(|| message.malformed("a ticket with its realm"))?;
    let mut answer = Answer::of("kerberos");
    answer.summary = format!("realm {realm}");
    answer.add("realm", realm);
    Ok(answer)
}

/// The numbered fields of a message.
struct Fields<'a>(Ber<'a>);

impl<'a> Fields<'a> {
    fn of(message: &mut Ber<'a>, tag: Tag) -> Result<Self, Fault> {
        let mut inside = message.enter(tag, "a Kerberos message")?;
        inside.enter(Tag::SEQUENCE, "a Kerberos message").map(Self)
    }

    fn next(&mut self) -> Result<Option<(u8, Element<'a>)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let field = self.0.any("a field")?;
        let number = (0..31).find(|number| Tag::context(*number) == field.tag());
        let number = number.ok_or_else(|| field.malformed("a numbered field"))?;
        Ok(Some((number, field)))
    }
}

/// What a field holds.
fn inner<'a>(field: &Element<'a>) -> Result<Element<'a>, Fault> {
    field.enter("a field")?.any("the value of a field")
}

/// The error codes (§7.5.9) that a ticket can be refused with.
const ERRORS: [(i64, &str); 26] = [
    (1, "KDC_ERR_NAME_EXP"),
    (2, "KDC_ERR_SERVICE_EXP"),
    (3, "KDC_ERR_BAD_PVNO"),
    (6, "KDC_ERR_C_PRINCIPAL_UNKNOWN"),
    (7, "KDC_ERR_S_PRINCIPAL_UNKNOWN"),
    (8, "KDC_ERR_PRINCIPAL_NOT_UNIQUE"),
    (9, "KDC_ERR_NULL_KEY"),
    (10, "KDC_ERR_CANNOT_POSTDATE"),
    (11, "KDC_ERR_NEVER_VALID"),
    (12, "KDC_ERR_POLICY"),
    (13, "KDC_ERR_BADOPTION"),
    (14, "KDC_ERR_ETYPE_NOSUPP"),
    (15, "KDC_ERR_SUMTYPE_NOSUPP"),
    (16, "KDC_ERR_PADATA_TYPE_NOSUPP"),
    (18, "KDC_ERR_CLIENT_REVOKED"),
    (19, "KDC_ERR_SERVICE_REVOKED"),
    (21, "KDC_ERR_CLIENT_NOTYET"),
    (23, "KDC_ERR_KEY_EXPIRED"),
    (24, "KDC_ERR_PREAUTH_FAILED"),
    (25, "KDC_ERR_PREAUTH_REQUIRED"),
    (29, "KDC_ERR_SVC_UNAVAILABLE"),
    (37, "KRB_AP_ERR_SKEW"),
    (52, "KRB_ERR_RESPONSE_TOO_BIG"),
    (60, "KRB_ERR_GENERIC"),
    (61, "KRB_ERR_FIELD_TOOLONG"),
    (68, "KDC_ERR_WRONG_REALM"),
];

#[cfg(test)]
mod tests {
    use super::super::{Script, trial};
    use super::*;

    /// Refusals of Samba 4.17 (Heimdal) and of MIT's centre 1.20.
    const SAMBA: &[u8] = include_bytes!("../../tests/data/kerberos-samba.bin");
    const MIT: &[u8] = include_bytes!("../../tests/data/kerberos-mit-udp.bin");

    /// A refusal with these fields, each with its contents written.
    fn refusal(fields: &[(u8, Tag, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.wrap(KRB_ERROR, |writer| {
            writer.wrap(Tag::SEQUENCE, |writer| {
                for (number, tag, value) in fields {
                    writer.wrap(Tag::context(*number), |writer| {
                        writer.element(*tag, value);
                    });
                }
            });
        });
        writer.into_bytes()
    }

    const TIME: (u8, Tag, &[u8]) = (4, Tag::GENERALIZED_TIME, b"20260102030405Z");
    const WRONG_REALM: (u8, Tag, &[u8]) = (6, Tag::INTEGER, &[68]);

    #[test]
    fn the_request_can_be_read() {
        let request = request("PORTS.EXAMPLE", 0x7654_3210);
        let mut fields = Fields::of(&mut Ber::new(&request), AS_REQ).unwrap();
        let mut numbers = Vec::new();
        let mut body = None;
        while let Some((number, field)) = fields.next().unwrap() {
            numbers.push(number);
            body = Some(inner(&field).unwrap());
        }
        assert_eq!(numbers, [1, 2, 4]);
        let mut fields = Fields(body.unwrap().enter("body").unwrap());
        let mut numbers = Vec::new();
        while let Some((number, field)) = fields.next().unwrap() {
            numbers.push(number);
            let value = inner(&field).unwrap();
            match number {
                2 => assert_eq!(value.text("realm").unwrap(), "PORTS.EXAMPLE"),
                7 => assert_eq!(value.integer("nonce").unwrap(), 0x7654_3210),
                _ => {}
            }
        }
        assert_eq!(numbers, [0, 1, 2, 3, 5, 7, 8]);
    }

    #[test]
    fn realms_of_hosts() {
        assert_eq!(realm_of("dc1.ports.example"), "PORTS.EXAMPLE");
        assert_eq!(realm_of("dc1.ports.example."), "PORTS.EXAMPLE");
        assert_eq!(realm_of("dc1"), NO_REALM);
        assert_eq!(realm_of("192.0.2.1"), NO_REALM);
        assert_eq!(realm_of("fe80::1"), NO_REALM);
    }

    #[test]
    fn real_centres() {
        let answer = trial::stream(&Kerberos, Script::of(&[SAMBA])).unwrap();
        // It was asked for another one than in the tests.
        assert_eq!(
            answer.summary,
            "realm REALM.INVALID, time 2026-11-22T18:33:10Z"
        );
        assert_eq!(
            answer.get("error"),
            Some(&"KDC_ERR_C_PRINCIPAL_UNKNOWN".into())
        );
        let time = "2026-11-22T18:33:10.930339Z";
        assert_eq!(answer.get("stime"), Some(&time.into()));
        let answer = trial::datagrams(&Kerberos, Script::of(&[b"noise", MIT])).unwrap();
        assert_eq!(answer.get("e-text"), Some(&"CLIENT_NOT_FOUND".into()));
    }

    #[test]
    fn a_realm_is_told_only_where_it_is_news() {
        let answer = read(&SAMBA[4..], NO_REALM).unwrap();
        assert_eq!(answer.get("realm"), None);
        assert_eq!(answer.summary, "Kerberos 5, time 2026-11-22T18:33:10Z");
        let realm = (7, Tag::GENERAL_STRING, &b"PORTS.EXAMPLE"[..]);
        let answer = read(&refusal(&[TIME, WRONG_REALM, realm]), NO_REALM).unwrap();
        assert_eq!(answer.get("realm"), Some(&"PORTS.EXAMPLE".into()));
        assert_eq!(answer.get("error"), Some(&"KDC_ERR_WRONG_REALM".into()));
        assert_eq!(
            answer.summary,
            "realm PORTS.EXAMPLE, time 2026-01-02T03:04:05Z"
        );
    }

    #[test]
    fn an_account_that_gets_a_ticket() {
        let mut writer = Writer::new();
        writer.wrap(AS_REP, |writer| {
            writer.wrap(Tag::SEQUENCE, |writer| {
                writer.wrap(Tag::context(3), |writer| {
                    writer.element(Tag::GENERAL_STRING, b"PORTS.EXAMPLE");
                });
            });
        });
        let answer = trial::datagrams(&Kerberos, Script::of(&[&writer.into_bytes()])).unwrap();
        assert_eq!(answer.summary, "realm PORTS.EXAMPLE");
    }

    #[test]
    fn what_is_no_refusal() {
        for fields in [
            &[][..],
            &[TIME],
            &[WRONG_REALM],
            &[TIME, WRONG_REALM, (0, Tag::INTEGER, &[4])],
            &[TIME, WRONG_REALM, (5, Tag::INTEGER, &[1; 9])],
        ] {
            assert!(read(&refusal(fields), NO_REALM).is_err(), "{fields:x?}");
        }
        // Microseconds that are none do not spoil the time.
        let odd = (5, Tag::INTEGER, &[0x7f; 8][..]);
        let answer = read(&refusal(&[TIME, WRONG_REALM, odd]), NO_REALM).unwrap();
        assert_eq!(answer.get("stime"), Some(&"2026-01-02T03:04:05Z".into()));
    }

    #[test]
    fn hostile_replies() {
        for reply in trial::cut(&SAMBA[4..]) {
            assert!(read(reply, NO_REALM).is_err());
        }
        for reply in trial::cut(SAMBA) {
            assert!(trial::stream(&Kerberos, Script::of(&[reply])).is_err());
        }
        for reply in trial::altered(MIT) {
            let _ = read(&reply, NO_REALM);
        }
        let endless = b"\xff\xff\xff\xff";
        let fault = trial::stream(&Kerberos, Script::of(&[endless])).unwrap_err();
        assert!(matches!(fault, Fault::Long(MESSAGE)));
    }
}
