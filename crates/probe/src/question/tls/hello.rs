//! The first record of a server, read without the library: what remains to be
//! told when the two have nothing in common (RFC 5246; RFC 8446).

use crate::{Fault, Reader};

/// What a server said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// An alert, by its number.
    Alert(u8),
    /// A `ServerHello` with the version and the cipher suite that it chose.
    Hello { version: u16, suite: u16 },
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;

impl First {
    /// Reads what a server sent, as far as it has come.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("a record")?;
        if reader.u8("a version")? != 3 {
            return Err(reader.malformed("no TLS record"));
        }
        reader.u8("a version")?;
        reader.u16("a length")?;
        match kind {
            ALERT => {
                reader.u8("how bad it is")?;
                Ok(Self::Alert(reader.u8("an alert")?))
            }
            HANDSHAKE => hello(&mut reader),
            _ => Err(reader.malformed("neither an alert nor a handshake")),
        }
    }
}

fn hello(reader: &mut Reader<'_>) -> Result<First, Fault> {
    if reader.u8("a message")? != SERVER_HELLO {
        return Err(reader.malformed("no ServerHello"));
    }
    reader.bytes(3, "a length")?;
    let mut version = reader.u16("a version")?;
    reader.bytes(32, "random bytes")?;
    let session = reader.u8("a length")?;
    reader.bytes(usize::from(session), "a session")?;
    let suite = reader.u16("a cipher suite")?;
    // Version 1.3 calls itself 1.2 and says better in an extension. Older ones
    // may have none.
    if let Ok(later) = supported_version(&mut reader.clone()) {
        version = later;
    }
    Ok(First::Hello { version, suite })
}

fn supported_version(reader: &mut Reader<'_>) -> Result<u16, Fault> {
    reader.u8("a compression method")?;
    let length = reader.u16("a length")?;
    let mut extensions = Reader::new(reader.bytes(usize::from(length), "extensions")?);
    loop {
        let kind = extensions.u16("an extension")?;
        let length = extensions.u16("a length")?;
        let mut contents = Reader::new(extensions.bytes(usize::from(length), "an extension")?);
        if kind == SUPPORTED_VERSIONS {
            return contents.u16("a version");
        }
    }
}

/// A version as one writes it.
pub(super) fn version_name(version: u16) -> String {
    match version {
        0x0300 => "SSLv3".to_owned(),
        0x0301 => "TLSv1".to_owned(),
        0x0302..=0x0304 => format!("TLSv1.{}", version - 0x0301),
        other => format!("{other:#06x}"),
    }
}

/// An alert by its name in RFC 8446, section 6, with its number.
pub(super) fn alert_name(alert: u8) -> String {
    let name = match alert {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => return format!("the alert {alert}"),
    };
    format!("the alert {name} ({alert})")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `ServerHello` of that version with an empty session and `extensions`.
    fn hello(version: u16, extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend([0, 0xc0, 0x2f, 0]);
        body.extend(extensions);
        let length = u8::try_from(body.len()).unwrap();
        let mut record = vec![HANDSHAKE, 3, 3, 0, length + 4, SERVER_HELLO, 0, 0, length];
        record.extend(body);
        record
    }

    #[test]
    fn versions_are_told_apart() {
        let of = |version| First::Hello {
            version,
            suite: 0xc02f,
        };
        let first = First::read(&hello(0x0301, &[])).unwrap();
        assert_eq!(first, of(0x0301));
        let later = [0, 10, 0, 51, 0, 0, 0, 43, 0, 2, 3, 4];
        let first = First::read(&hello(0x0303, &later)).unwrap();
        assert_eq!(first, of(0x0304));
        let lies = [0, 10, 0, 51, 0xff, 0xff, 0, 43, 0, 2, 3, 4];
        let first = First::read(&hello(0x0303, &lies)).unwrap();
        assert_eq!(first, of(0x0303));
        assert_eq!(version_name(0x0300), "SSLv3");
        assert_eq!(version_name(0x0301), "TLSv1");
        assert_eq!(version_name(0x0304), "TLSv1.3");
        assert_eq!(version_name(0x7f1c), "0x7f1c");
    }

    #[test]
    fn what_has_not_come_is_not_read() {
        let whole = hello(0x0302, &[]);
        for length in 0..whole.len() - 1 {
            assert!(First::read(&whole[..length]).is_err());
        }
        let alert = First::read(&[ALERT, 3, 1, 0, 2, 2, 70]).unwrap();
        assert_eq!(alert, First::Alert(70));
        assert_eq!(alert_name(70), "the alert protocol_version (70)");
        assert!(First::read(b"HTTP/1.1 400").is_err());
        assert!(First::read(&[ALERT, 2, 0, 0, 0, 0, 0]).is_err());
    }
}
