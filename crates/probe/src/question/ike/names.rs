//! Numbers of IKE and their names (IANA: "Internet Key Exchange (IKE)
//! Attributes" and "Internet Key Exchange Version 2 Parameters").

use std::fmt::Write as _;

use md5::{Digest as _, Md5};

/// Payloads of version 1 (RFC 2408 §3.1).
pub(super) const V1_SA: u8 = 1;
pub(super) const V1_NOTIFY: u8 = 11;
pub(super) const V1_VENDOR: u8 = 13;
/// Payloads of version 2 (RFC 7296 §3.2).
pub(super) const V2_SA: u8 = 33;
pub(super) const V2_KEY_EXCHANGE: u8 = 34;
pub(super) const V2_NONCE: u8 = 40;
pub(super) const V2_NOTIFY: u8 = 41;
pub(super) const V2_VENDOR: u8 = 43;
pub(super) const V2_ENCRYPTED: u8 = 46;

/// Exchanges.
pub(super) const MAIN_MODE: u8 = 2;
pub(super) const INFORMATIONAL: u8 = 5;
pub(super) const IKE_SA_INIT: u8 = 34;

/// The length of a key as an attribute that is a short number.
pub(super) const KEY_LENGTH_V2: u16 = 0x800e;

pub(super) const INVALID_KE_PAYLOAD: u16 = 17;

/// "I know dead peer detection" (RFC 3706 §5.1).
pub(super) const DEAD_PEER_DETECTION: [u8; 16] = [
    0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00,
];

/// `XAUTH` (draft-beaulieu-ike-xauth-02).
const XAUTH: [u8; 8] = [0x09, 0x00, 0x26, 0x89, 0xdf, 0xd6, 0xb7, 0x12];

/// Texts whose MD5 is a vendor id. Some have a version behind it, or in its
/// last two bytes.
const HASHED: [&str; 14] = [
    "RFC 3947",
    "draft-ietf-ipsec-nat-t-ike-00",
    "draft-ietf-ipsec-nat-t-ike-02",
    "draft-ietf-ipsec-nat-t-ike-02\n",
    "draft-ietf-ipsec-nat-t-ike-03",
    "FRAGMENTATION",
    "strongSwan",
    "MS NT5 ISAKMPOAKLEY",
    "MS-Negotiation Discovery Capable",
    "MS-MamieExists",
    "Vid-Initial-Contact",
    "IKE CGA version 1",
    "GSSAPI",
    "CISCO-UNITY",
];

/// How many bytes of a hash have to be right.
const RIGHT: usize = 14;

/// "I know NAT traversal" (RFC 3947 §3.1).
pub(super) fn nat_traversal() -> [u8; 16] {
    Md5::digest("RFC 3947").into()
}

/// What a vendor id stands for; its text, or its bytes if that is not known.
pub(super) fn vendor(id: &[u8]) -> String {
    if id.starts_with(&DEAD_PEER_DETECTION[..RIGHT]) {
        return "Dead Peer Detection".to_owned();
    }
    if id == XAUTH {
        return "XAUTH".to_owned();
    }
    let hashed = HASHED.iter().find(|text| {
        let hash: [u8; 16] = Md5::digest(text).into();
        id.starts_with(&hash[..RIGHT])
    });
    if let Some(text) = hashed {
        return text.trim_end().to_owned();
    }
    if !id.is_empty() && id.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return String::from_utf8_lossy(id).into_owned();
    }
    id.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn exchange(exchange: u8) -> String {
    match exchange {
        MAIN_MODE => "Main Mode".to_owned(),
        INFORMATIONAL => "Informational".to_owned(),
        IKE_SA_INIT => "IKE_SA_INIT".to_owned(),
        37 => "INFORMATIONAL".to_owned(),
        other => other.to_string(),
    }
}

/// The spelling is that of each version's RFC.
pub(super) fn notification(major: u8, kind: u16) -> String {
    let name = match (major, kind) {
        (2, 1) => "UNSUPPORTED_CRITICAL_PAYLOAD",
        (2, 4) => "INVALID_IKE_SPI",
        (2, 5) => "INVALID_MAJOR_VERSION",
        (2, 7) => "INVALID_SYNTAX",
        (2, 9) => "INVALID_MESSAGE_ID",
        (2, 14) => "NO_PROPOSAL_CHOSEN",
        (2, INVALID_KE_PAYLOAD) => "INVALID_KE_PAYLOAD",
        (2, 24) => "AUTHENTICATION_FAILED",
        (2, 43) => "TEMPORARY_FAILURE",
        (2, 16_388) => "NAT_DETECTION_SOURCE_IP",
        (2, 16_389) => "NAT_DETECTION_DESTINATION_IP",
        (2, 16_390) => "COOKIE",
        (2, 16_404) => "MULTIPLE_AUTH_SUPPORTED",
        (2, 16_406) => "REDIRECT_SUPPORTED",
        (2, 16_407) => "REDIRECT",
        (2, 16_418) => "CHILDLESS_IKEV2_SUPPORTED",
        (2, 16_430) => "IKEV2_FRAGMENTATION_SUPPORTED",
        (2, 16_431) => "SIGNATURE_HASH_ALGORITHMS",
        (2, 16_435) => "USE_PPK",
        (2, 16_438) => "INTERMEDIATE_EXCHANGE_SUPPORTED",
        (1, 1) => "INVALID-PAYLOAD-TYPE",
        (1, 2) => "DOI-NOT-SUPPORTED",
        (1, 3) => "SITUATION-NOT-SUPPORTED",
        (1, 4) => "INVALID-COOKIE",
        (1, 5) => "INVALID-MAJOR-VERSION",
        (1, 6) => "INVALID-MINOR-VERSION",
        (1, 7) => "INVALID-EXCHANGE-TYPE",
        (1, 8) => "INVALID-FLAGS",
        (1, 9) => "INVALID-MESSAGE-ID",
        (1, 13) => "ATTRIBUTES-NOT-SUPPORTED",
        (1, 14) => "NO-PROPOSAL-CHOSEN",
        (1, 15) => "BAD-PROPOSAL-SYNTAX",
        (1, 16) => "PAYLOAD-MALFORMED",
        (1, 24) => "AUTHENTICATION-FAILED",
        _ => return format!("notification {kind}"),
    };
    name.to_owned()
}

/// A transform of version 2 by its type and id.
pub(super) fn transform2(kind: u8, id: u16) -> String {
    let name = match (kind, id) {
        (1, 3) => "3DES",
        (1, 12) => "AES_CBC",
        (1, 13) => "AES_CTR",
        (1, 20) => "AES_GCM_16",
        (1, 28) => "CHACHA20_POLY1305",
        (2, 1) => "PRF_HMAC_MD5",
        (2, 2) => "PRF_HMAC_SHA1",
        (2, 5) => "PRF_HMAC_SHA2_256",
        (2, 6) => "PRF_HMAC_SHA2_384",
        (2, 7) => "PRF_HMAC_SHA2_512",
        (3, 0) => "AUTH_NONE",
        (3, 1) => "AUTH_HMAC_MD5_96",
        (3, 2) => "AUTH_HMAC_SHA1_96",
        (3, 12) => "AUTH_HMAC_SHA2_256_128",
        (3, 13) => "AUTH_HMAC_SHA2_384_192",
        (3, 14) => "AUTH_HMAC_SHA2_512_256",
        (4, id) => return group(id),
        _ => return format!("transform {kind}/{id}"),
    };
    name.to_owned()
}

/// A Diffie-Hellman group; both versions count alike.
pub(super) fn group(id: u16) -> String {
    let name = match id {
        1 => "MODP_768",
        2 => "MODP_1024",
        5 => "MODP_1536",
        14 => "MODP_2048",
        15 => "MODP_3072",
        16 => "MODP_4096",
        17 => "MODP_6144",
        18 => "MODP_8192",
        19 => "ECP_256",
        20 => "ECP_384",
        21 => "ECP_521",
        31 => "CURVE25519",
        32 => "CURVE448",
        _ => return format!("group {id}"),
    };
    name.to_owned()
}

/// Encryption of version 1.
pub(super) fn cipher1(id: u16) -> String {
    match id {
        1 => "DES".to_owned(),
        5 => "3DES".to_owned(),
        7 => "AES_CBC".to_owned(),
        other => format!("cipher {other}"),
    }
}

/// Hashes of version 1.
pub(super) fn hash1(id: u16) -> String {
    match id {
        1 => "MD5".to_owned(),
        2 => "SHA1".to_owned(),
        4 => "SHA2_256".to_owned(),
        5 => "SHA2_384".to_owned(),
        6 => "SHA2_512".to_owned(),
        other => format!("hash {other}"),
    }
}

/// Authentication of version 1.
pub(super) fn authentication1(id: u16) -> String {
    match id {
        1 => "PSK".to_owned(),
        3 => "RSA".to_owned(),
        other => format!("authentication {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_are_known_by_their_hash() {
        // RFC 3947 §3.1 gives it in full.
        assert_eq!(
            u128::from_be_bytes(nat_traversal()),
            0x4a13_1c81_0703_5845_5c57_28f2_0e95_452f
        );
        // Windows puts its version behind.
        let mut windows: [u8; 20] = [0; 20];
        windows[..16]
            .copy_from_slice(&0x1e2b_5169_0599_1c7d_7c96_fcbf_b587_e461_u128.to_be_bytes());
        windows[19] = 9;
        assert_eq!(vendor(&windows), "MS NT5 ISAKMPOAKLEY");
        // Cisco puts it into the last two bytes.
        let unity = 0x12f5_f28c_4571_68a9_702d_9fe2_74cc_0100_u128.to_be_bytes();
        assert_eq!(vendor(&unity), "CISCO-UNITY");
        assert_eq!(vendor(&XAUTH), "XAUTH");
        assert_eq!(vendor(&DEAD_PEER_DETECTION), "Dead Peer Detection");
        assert_eq!(vendor(b"OE-Libreswan-4.10"), "OE-Libreswan-4.10");
        assert_eq!(vendor(b"\x01\xff"), "01ff");
        assert_eq!(vendor(b""), "");
    }
}
