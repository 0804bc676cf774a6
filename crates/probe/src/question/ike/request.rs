//! The first message of each version.

use super::message::{VERSION_1, VERSION_2, payload};
use super::names;

/// `IKE_SA_INIT` (RFC 7296 §1.2) with two proposals: ciphers with an integrity
/// check beside them, and ciphers that bring their own.
pub(super) fn version2(spi: [u8; 8], public: [u8; 256], nonce: [u8; 32]) -> Vec<u8> {
    const ENCRYPTION: u8 = 1;
    const PRF: u8 = 2;
    const INTEGRITY: u8 = 3;
    const GROUP: u8 = 4;
    let aes_cbc = [
        (ENCRYPTION, 12, 256),
        (ENCRYPTION, 12, 128),
        (ENCRYPTION, 3, 0),
    ];
    let aes_gcm = [(ENCRYPTION, 20, 256), (ENCRYPTION, 20, 128)];
    let prf = [(PRF, 5, 0), (PRF, 7, 0), (PRF, 2, 0)];
    let integrity = [(INTEGRITY, 12, 0), (INTEGRITY, 14, 0), (INTEGRITY, 2, 0)];
    // The first is the one that our public value is of.
    let groups = [14, 19, 20, 31, 15, 16, 5, 2].map(|group| (GROUP, group, 0));

    let mut proposals = Vec::new();
    let sets = [
        [aes_cbc.as_slice(), &prf, &integrity, &groups].concat(),
        [aes_gcm.as_slice(), &prf, &groups].concat(),
    ];
    for (at, set) in sets.iter().enumerate() {
        let mut transforms = Vec::new();
        for (at, (kind, id, bits)) in set.iter().enumerate() {
            let more = if at + 1 < set.len() { 3 } else { 0 };
            let mut body = vec![*kind, 0];
            body.extend(u16::to_be_bytes(*id));
            if *bits != 0 {
                body.extend(names::KEY_LENGTH_V2.to_be_bytes());
                body.extend(u16::to_be_bytes(*bits));
            }
            transforms.extend(payload(more, &body));
        }
        let more = if at + 1 < sets.len() { 2 } else { 0 };
        let [number, count] = [at + 1, set.len()].map(|n| u8::try_from(n).unwrap_or(u8::MAX));
        // For IKE itself, whose name is in the header and not here.
        let mut body = vec![number, 1, 0, count];
        body.extend(transforms);
        proposals.extend(payload(more, &body));
    }

    // A number below the group's prime, and above 1.
    let mut public = public;
    public[0] = 0;
    public[255] |= 2;
    let mut exchange = 14_u16.to_be_bytes().to_vec();
    exchange.extend([0, 0]);
    exchange.extend(public);

    let mut body = payload(names::V2_KEY_EXCHANGE, &proposals);
    body.extend(payload(names::V2_NONCE, &exchange));
    body.extend(payload(0, &nonce));
    // From the initiator.
    header(
        spi,
        names::V2_SA,
        VERSION_2,
        names::IKE_SA_INIT,
        0x08,
        &body,
    )
}

/// Main Mode (RFC 2409 §5) with one proposal of many transforms, and the ids
/// that make the other side tell what it knows of NAT and dead peers.
pub(super) fn version1(spi: [u8; 8]) -> Vec<u8> {
    let mut choices = Vec::new();
    for (cipher, bits) in [(7, 256), (7, 128), (5, 0)] {
        for hash in [4, 2] {
            for group in [14, 2] {
                for authentication in [1, 3] {
                    choices.push((cipher, bits, hash, group, authentication));
                }
            }
        }
    }
    let mut transforms = Vec::new();
    for (at, (cipher, bits, hash, group, authentication)) in choices.iter().enumerate() {
        let number = u8::try_from(at + 1).unwrap_or(u8::MAX);
        // Number, KEY_IKE, reserved.
        let mut body = vec![number, 1, 0, 0];
        // Encryption, hash, authentication, group; a life of 28800 seconds.
        let attributes: [(u16, u16); 6] = [
            (1, *cipher),
            (2, *hash),
            (3, *authentication),
            (4, *group),
            (11, 1),
            (12, 28_800),
        ];
        let length = (*bits != 0).then_some((14, *bits));
        for (kind, value) in attributes.into_iter().chain(length) {
            body.extend((0x8000 | kind).to_be_bytes());
            body.extend(u16::to_be_bytes(value));
        }
        let more = if at + 1 < choices.len() { 3 } else { 0 };
        transforms.extend(payload(more, &body));
    }
    let count = u8::try_from(choices.len()).unwrap_or(u8::MAX);
    let mut proposal = vec![1, 1, 0, count];
    proposal.extend(transforms);
    // The domain is IPsec, the situation identity only (RFC 2407 §4.2).
    let mut association = vec![0, 0, 0, 1, 0, 0, 0, 1];
    association.extend(payload(0, &proposal));

    let mut body = payload(names::V1_VENDOR, &association);
    body.extend(payload(names::V1_VENDOR, &names::nat_traversal()));
    body.extend(payload(0, &names::DEAD_PEER_DETECTION));
    header(spi, names::V1_SA, VERSION_1, names::MAIN_MODE, 0, &body)
}

/// The header of both versions before `body`.
fn header(spi: [u8; 8], first: u8, version: u8, exchange: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut message = spi.to_vec();
    message.extend([0; 8]);
    message.extend([first, version, exchange, flags]);
    message.extend([0; 4]);
    let length = u32::try_from(28 + body.len()).unwrap_or(u32::MAX);
    message.extend(length.to_be_bytes());
    message.extend_from_slice(body);
    message
}
