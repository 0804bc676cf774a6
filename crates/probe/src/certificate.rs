//! What a certificate says (X.509; RFC 5280).
//!
//! It is read, not judged: whether somebody trusts who signed it depends on
//! whom that somebody trusts, and no signature is checked here. What can be
//! said without that is said: when it is valid, and whether it names itself as
//! its issuer.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::civil::DateTime;
use sha2::{Digest as _, Sha256};

use crate::ber::{Ber, Name, Oid, Tag};
use crate::{Fact, Fault, Value};

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: Name,
    /// For which hosts, addresses and other names it is: `subjectAltName`.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: Name,
    /// From when it is valid, in UTC.
    pub not_before: DateTime,
    /// Until when it is valid, in UTC.
    pub not_after: DateTime,
    /// Its number among those of its issuer, in hexadecimal digits.
    pub serial_number: String,
    /// Its key: `RSA 2048`, `EC P-256`, `Ed25519`.
    pub public_key: String,
    /// How it is signed: `sha256WithRSAEncryption`.
    pub signature_algorithm: String,
    /// Whether issuer and subject, and their keys where those are named, are
    /// the same.
    pub self_signed: bool,
    /// The SHA-256 of all its bytes, by which it can be told from others.
    pub sha256: [u8; 32],
}

const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

/// Curves and keys without parameters, by the contents of their identifiers.
const KEYS: [(&[u8], &str); 6] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], "P-256"),
    (&[0x2b, 0x81, 4, 0, 0x22], "P-384"),
    (&[0x2b, 0x81, 4, 0, 0x23], "P-521"),
    (&[0x2b, 0x81, 4, 0, 0x0a], "secp256k1"),
    (&[0x2b, 0x65, 0x70], "Ed25519"),
    (&[0x2b, 0x65, 0x71], "Ed448"),
];

/// Signature algorithms, by the contents of their identifiers.
const SIGNATURES: [(&[u8], &str); 11] = [
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4],
        "md5WithRSAEncryption",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5],
        "sha1WithRSAEncryption",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0a],
        "rsassaPss",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b],
        "sha256WithRSAEncryption",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0c],
        "sha384WithRSAEncryption",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0d],
        "sha512WithRSAEncryption",
    ),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], "ecdsa-with-SHA1"),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        "ecdsa-with-SHA256",
    ),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
        "ecdsa-with-SHA384",
    ),
    (&[0x2b, 0x65, 0x70], "Ed25519"),
    (&[0x2b, 0x65, 0x71], "Ed448"),
];

impl Certificate {
    /// Reads a certificate in DER.
    pub fn read(der: &[u8]) -> Result<Self, Fault> {
        let mut outside = Ber::new(der).enter(Tag::SEQUENCE, "a certificate")?;
        let mut signed = outside.enter(Tag::SEQUENCE, "what is signed")?;
        let signature_algorithm = algorithm(&mut outside)?;

        signed.optional(Tag::context(0), "a version")?;
        let serial = signed.element(Tag::INTEGER, "a serial number")?.contents();
        signed.element(Tag::SEQUENCE, "an algorithm")?;
        let mut again = signed.clone();
        let issuer_bytes = again.element(Tag::SEQUENCE, "an issuer")?.raw();
        again.element(Tag::SEQUENCE, "a validity")?;
        let subject_bytes = again.element(Tag::SEQUENCE, "a subject")?.raw();
        let issuer = signed.name("an issuer")?;
        let mut validity = signed.enter(Tag::SEQUENCE, "a validity")?;
        let not_before = validity.time("a time of beginning")?;
        let not_after = validity.time("a time of ending")?;
        let subject = signed.name("a subject")?;
        let public_key = public_key(signed.enter(Tag::SEQUENCE, "a public key")?)?;
        let extensions = Extensions::read(signed)?;
        Ok(Self {
            subject,
            names: extensions.names,
            issuer,
            not_before,
            not_after,
            serial_number: hexadecimal(match serial {
                [0, rest @ ..] if !rest.is_empty() => rest,
                all => all,
            }),
            public_key,
            signature_algorithm,
            self_signed: issuer_bytes == subject_bytes
                && (extensions.authority_key.is_none()
                    || extensions.subject_key.is_none()
                    || extensions.authority_key == extensions.subject_key),
            sha256: Sha256::digest(der).into(),
        })
    }

    /// Whether its time is over, or has not come, at `now` in UTC.
    pub fn is_valid(&self, now: DateTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// What it says, and whether it is valid at `now` in UTC.
    pub fn facts(&self, now: DateTime) -> Vec<Fact> {
        let names = self.names.iter().map(|name| name.as_str().into());
        let mut facts = vec![Fact::of("subject", self.subject.to_string())];
        if !self.names.is_empty() {
            facts.push(Fact::of("names", Value::List(names.collect())));
        }
        facts.extend([
            Fact::of("issuer", self.issuer.to_string()),
            Fact::of("notBefore", format!("{}Z", self.not_before)),
            Fact::of("notAfter", format!("{}Z", self.not_after)),
            Fact::of("expired", now > self.not_after),
        ]);
        if now < self.not_before {
            facts.push(Fact::of("notYetValid", true));
        }
        facts.extend([
            Fact::of("selfSigned", self.self_signed),
            Fact::of("serialNumber", self.serial_number.as_str()),
            Fact::of("publicKey", self.public_key.as_str()),
            Fact::of("signatureAlgorithm", self.signature_algorithm.as_str()),
            Fact::of("sha256", hexadecimal(&self.sha256)),
        ]);
        facts
    }
}

/// What the extensions say that is of interest here.
#[derive(Debug, Default)]
struct Extensions<'a> {
    names: Vec<String>,
    subject_key: Option<&'a [u8]>,
    authority_key: Option<&'a [u8]>,
}

impl<'a> Extensions<'a> {
    /// Reads what follows the public key.
    fn read(mut signed: Ber<'a>) -> Result<Self, Fault> {
        let mut extensions = Self::default();
        // Two identifiers that nobody uses may come before.
        let wrapper = loop {
            match signed.peek() {
                None => return Ok(extensions),
                Some(tag) if tag == Tag::context(3) => break signed.any("extensions")?,
                Some(_) => signed.any("an identifier")?,
            };
        };
        let mut list = wrapper.enter("extensions")?;
        let mut list = list.enter(Tag::SEQUENCE, "extensions")?;
        while !list.is_empty() {
            let mut extension = list.enter(Tag::SEQUENCE, "an extension")?;
            let kind = extension.oid("the kind of an extension")?;
            extension.optional(Tag::BOOLEAN, "whether it is critical")?;
            let value = extension.element(Tag::OCTET_STRING, "an extension's value")?;
            if kind.is(SUBJECT_ALT_NAME) {
                let names = value.elements()?.enter(Tag::SEQUENCE, "names")?;
                extensions.names = general_names(names)?;
            } else if kind.is(SUBJECT_KEY_IDENTIFIER) {
                extensions.subject_key = Some(value.elements()?.octets("a key identifier")?);
            } else if kind.is(AUTHORITY_KEY_IDENTIFIER) {
                let mut parts = value.elements()?.enter(Tag::SEQUENCE, "a key identifier")?;
                let key = parts.optional(Tag::context_value(0), "a key identifier")?;
                extensions.authority_key = key.map(|key| key.contents());
            }
        }
        Ok(extensions)
    }
}

/// `GeneralNames`: each as one would write it. Of kinds that have no common
/// form the identifier is told.
fn general_names(mut names: Ber<'_>) -> Result<Vec<String>, Fault> {
    let mut texts = Vec::new();
    while !names.is_empty() {
        let name = names.any("a name")?;
        let number = name.tag().0 & 0x1f;
        texts.push(match number {
            0 => {
                let kind = name.enter("another name")?.oid("the kind of a name")?;
                format!("otherName:{kind}")
            }
            // A mail address, a host, a URI.
            1 | 2 | 6 => name.text("a name")?,
            4 => name
                .enter("a directory name")?
                .name("a directory name")?
                .to_string(),
            7 => address(name.contents()).ok_or_else(|| name.malformed("an address"))?,
            8 => name.oid("a registered name")?.to_string(),
            _ => format!("[{number}]"),
        });
    }
    Ok(texts)
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_string())
}

/// The name of an `AlgorithmIdentifier`.
fn algorithm(ber: &mut Ber<'_>) -> Result<String, Fault> {
    let mut identifier = ber.enter(Tag::SEQUENCE, "an algorithm")?;
    let kind = identifier.oid("an algorithm")?;
    Ok(name_of(&kind, &SIGNATURES))
}

/// Kind and size of a `SubjectPublicKeyInfo`.
fn public_key(mut key: Ber<'_>) -> Result<String, Fault> {
    let mut identifier = key.enter(Tag::SEQUENCE, "an algorithm")?;
    let kind = identifier.oid("an algorithm")?;
    let bits = key.element(Tag::BIT_STRING, "a public key")?;
    if kind.is(RSA) {
        let (_, bytes) = bits.bits("a public key")?;
        let mut numbers = Ber::new(bytes).enter(Tag::SEQUENCE, "an RSA key")?;
        let modulus = numbers.element(Tag::INTEGER, "a modulus")?.contents();
        return Ok(format!("RSA {}", size(modulus)));
    }
    if kind.is(EC) {
        // Parameters may be written out as well, which nobody does.
        let curve = match identifier.optional(Tag::OID, "a curve")? {
            Some(curve) => name_of(&curve.oid("a curve")?, &KEYS),
            None => "explicit".to_owned(),
        };
        return Ok(format!("EC {curve}"));
    }
    Ok(name_of(&kind, &KEYS))
}

fn name_of(kind: &Oid, names: &[(&[u8], &str)]) -> String {
    match names.iter().find(|(contents, _)| kind.is(contents)) {
        Some((_, name)) => (*name).to_owned(),
        None => kind.to_string(),
    }
}

/// How many bits a positive number has.
fn size(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let unused = number.first().map_or(0, |byte| byte.leading_zeros());
    number.len() * 8 - usize::try_from(unused).unwrap_or(0)
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ber::Writer;

    // Made by `openssl req -x509` and `openssl x509 -req`.
    const OWN: &[u8] = include_bytes!("../tests/data/certificate-rsa.der");
    const SIGNED: &[u8] = include_bytes!("../tests/data/certificate-ec.der");

    fn date(year: i16) -> DateTime {
        DateTime::constant(year, 1, 1, 0, 0, 0, 0)
    }

    #[test]
    fn a_certificate_of_its_own() {
        let certificate = Certificate::read(OWN).unwrap();
        let subject = "CN=mail.example.test,O=Example\\, Inc.,C=DE";
        assert_eq!(certificate.subject.to_string(), subject);
        assert_eq!(certificate.issuer, certificate.subject);
        assert!(certificate.self_signed);
        assert_eq!(certificate.serial_number, "0123456789abcdef");
        assert_eq!(certificate.public_key, "RSA 2048");
        assert_eq!(certificate.signature_algorithm, "sha256WithRSAEncryption");
        assert_eq!(
            certificate.names,
            [
                "mail.example.test",
                "*.example.test",
                "192.0.2.7",
                "2001:db8::7",
                "root@example.test",
                "https://example.test/",
                "CN=dir name",
                "otherName:1.3.6.1.4.1.311.20.2.3",
                "1.2.3.4",
            ]
        );
        let facts = certificate.facts(date(2030));
        assert!(facts.contains(&Fact::of("notBefore", "2026-11-22T18:34:53Z")));
        assert!(facts.contains(&Fact::of("expired", false)));
        let facts = certificate.facts(date(2037));
        assert!(facts.contains(&Fact::of("expired", true)));
        let facts = certificate.facts(date(2020));
        assert!(facts.contains(&Fact::of("notYetValid", true)));
        // As `openssl x509 -fingerprint -sha256` tells it.
        assert_eq!(hexadecimal(&certificate.sha256), FINGERPRINT);
    }

    const FINGERPRINT: &str = "662b563c3721ac8328dc69d7ff02f682caad0b5d39e73db2ff0071d9e85559e6";

    #[test]
    fn a_certificate_that_another_signed() {
        let certificate = Certificate::read(SIGNED).unwrap();
        let subject = "CN=dc1,DC=example,DC=test";
        assert_eq!(certificate.subject.to_string(), subject);
        assert_eq!(certificate.issuer.common_name(), Some("mail.example.test"));
        assert!(!certificate.self_signed);
        assert_eq!(certificate.public_key, "EC P-256");
        assert!(certificate.names.is_empty());
        // Beyond 2049 the time is written in another way.
        assert_eq!(certificate.not_after.year(), 2126);
    }

    #[test]
    fn careless_and_hostile_certificates_are_refused() {
        for length in 0..OWN.len() {
            assert!(Certificate::read(&OWN[..length]).is_err());
        }
        for at in 0..OWN.len() {
            for byte in [0, 0x7f, 0x80, 0xff] {
                let mut der = OWN.to_vec();
                der[at] = byte;
                let _ = Certificate::read(&der);
            }
        }
        let mut deep = vec![0x30, 0];
        while deep.len() < 60_000 {
            let mut writer = Writer::new();
            writer.element(Tag::SEQUENCE, &deep);
            deep = writer.into_bytes();
        }
        assert!(Certificate::read(&deep).is_err());
    }

    #[test]
    fn sizes_are_those_of_the_number() {
        assert_eq!(size(&[]), 0);
        assert_eq!(size(&[0, 0]), 0);
        assert_eq!(size(&[0, 0x80, 0]), 16);
        assert_eq!(size(&[0x01, 0xff]), 9);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Certificate::read(&bytes);
        }
    }
}
