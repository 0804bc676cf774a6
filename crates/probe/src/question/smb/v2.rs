//! The negotiation in SMB 2 and 3 (MS-SMB2 §2.2.3 and §2.2.4).

use super::super::guid::Guid;
use super::super::nonce::nonce;
use super::{file_time, mechanisms, names};
use crate::{Answer, Fault, Reader, Value};

/// How each message begins.
const MAGIC: [u8; 4] = *b"\xfeSMB";

const HEADER: u16 = 64;

/// What is offered.
const DIALECTS: [u16; 5] = [0x0202, 0x0210, 0x0300, 0x0302, 0x0311];

/// The dialect of an answer that means: ask in the new form.
const ANY_NEWER: u16 = 0x02ff;

/// The newest one, whose messages have further contexts.
const NEWEST: u16 = 0x0311;

/// The kinds of context (§2.2.3.1).
mod context {
    pub(super) const INTEGRITY: u16 = 1;
    pub(super) const ENCRYPTION: u16 = 2;
    pub(super) const COMPRESSION: u16 = 3;
    pub(super) const SIGNING: u16 = 8;
}

/// More contexts than there are kinds of.
const CONTEXTS: u16 = 32;

const CAPABILITIES: [(u32, &str); 8] = [
    (0x01, "DFS"),
    (0x02, "LEASING"),
    (0x04, "LARGE_MTU"),
    (0x08, "MULTI_CHANNEL"),
    (0x10, "PERSISTENT_HANDLES"),
    (0x20, "DIRECTORY_LEASING"),
    (0x40, "ENCRYPTION"),
    (0x80, "NOTIFICATIONS"),
];

const CIPHERS: [(u16, &str); 4] = [
    (1, "AES-128-CCM"),
    (2, "AES-128-GCM"),
    (3, "AES-256-CCM"),
    (4, "AES-256-GCM"),
];

const SIGNATURES: [(u16, &str); 3] = [(0, "HMAC-SHA256"), (1, "AES-CMAC"), (2, "AES-GMAC")];

const COMPRESSIONS: [(u16, &str); 6] = [
    (0, "none"),
    (1, "LZNT1"),
    (2, "LZ77"),
    (3, "LZ77+Huffman"),
    (4, "Pattern_V1"),
    (5, "LZ4"),
];

/// A negotiate request with every dialect, the second message of a connection
/// (the first one was in the old form).
pub(super) fn request() -> Vec<u8> {
    let salt: [u8; 32] = nonce();
    let contexts = [
        // One hash, SHA-512, with salt.
        (
            context::INTEGRITY,
            [&[1, 0, 32, 0, 1, 0][..], &salt].concat(),
        ),
        (context::ENCRYPTION, list(&[2, 1, 4, 3])),
        (context::COMPRESSION, compressions(&[5, 2, 3, 1])),
        (context::SIGNING, list(&[2, 1, 0])),
    ];
    let mut message = MAGIC.to_vec();
    message.extend(HEADER.to_le_bytes());
    message.extend([0; 8]); // credit charge, status, command: negotiate
    message.extend(1_u16.to_le_bytes()); // credits
    message.extend([0; 8]); // flags, next command
    message.extend(1_u64.to_le_bytes());
    message.extend([0; 32]); // process, tree, session, signature
    // The first part of the body takes 36 bytes, and says so.
    let offset = usize::from(HEADER) + 36 + 2 * DIALECTS.len();
    let offset = offset.next_multiple_of(8);
    message.extend(36_u16.to_le_bytes());
    message.extend(count(DIALECTS.len()));
    message.extend(1_u16.to_le_bytes()); // security mode: signing enabled
    message.extend([0; 2]);
    message.extend(0x7f_u32.to_le_bytes()); // capabilities: all up to encryption
    message.extend(nonce::<16>()); // the client's GUID
    message.extend(u32::try_from(offset).unwrap_or_default().to_le_bytes());
    message.extend(count(contexts.len()));
    message.extend([0; 2]);
    for dialect in DIALECTS {
        message.extend(dialect.to_le_bytes());
    }
    for (kind, data) in contexts {
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(kind.to_le_bytes());
        message.extend(count(data.len()));
        message.extend([0; 4]);
        message.extend(data);
    }
    message
}

fn count(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes()
}

/// Numbers with their count before them.
fn list(numbers: &[u16]) -> Vec<u8> {
    let mut data = count(numbers.len()).to_vec();
    data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    data
}

/// The same with padding and flags between (§2.2.3.1.3).
fn compressions(numbers: &[u16]) -> Vec<u8> {
    let mut data = list(numbers);
    data.splice(2..2, [0; 6]);
    data
}

/// What a server agreed to.
#[derive(Debug)]
pub(super) struct Agreed {
    mode: u16,
    dialect: u16,
    guid: Guid,
    capabilities: u32,
    /// Of a transaction, a read and a write.
    limits: [u32; 3],
    time: Option<String>,
    started: Option<String>,
    mechanisms: Option<Vec<Value>>,
    /// Facts of the contexts.
    chosen: Vec<(&'static str, String)>,
}

/// An answer to a negotiate request.
#[derive(Debug)]
pub(super) enum Reply {
    Agreed(Agreed),
    /// With an NT status.
    Refused(u32),
}

impl Reply {
    /// Reads a negotiate response.
    pub(super) fn read(message: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(message);
        if reader.array("a header")? != MAGIC {
            return Err(Fault::Malformed {
                what: "an SMB message",
                at: 0,
            });
        }
        reader.bytes(4, "a header")?;
        let status = reader.u32_le("a status")?;
        if reader.u16_le("a command")? != 0 {
            return Err(reader.malformed("a negotiate response"));
        }
        reader.seek(HEADER.into(), "a header")?;
        if status != 0 {
            return Ok(Self::Refused(status));
        }
        Agreed::read(&mut reader).map(Self::Agreed)
    }

    /// Whether it has to be asked in the new form which dialect it is.
    pub(super) fn asks_again(&self) -> bool {
        matches!(self, Self::Agreed(agreed) if agreed.dialect == ANY_NEWER)
    }

    pub(super) fn tell(self, answer: &mut Answer) {
        match self {
            Self::Agreed(agreed) => agreed.tell(answer),
            Self::Refused(status) => {
                let error = format!("status {status:#010x}");
                answer.summary = format!("SMB 2: {error}");
                answer.add("error", error);
            }
        }
    }
}

impl Agreed {
    /// Reads the body, which follows the header.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.u16_le("a size")?;
        let mode = reader.u16_le("a security mode")?;
        let dialect = reader.u16_le("a dialect")?;
        let contexts = reader.u16_le("a number of contexts")?;
        let guid = Guid::read(reader)?;
        let capabilities = reader.u32_le("capabilities")?;
        let limits = [
            reader.u32_le("a limit")?,
            reader.u32_le("a limit")?,
            reader.u32_le("a limit")?,
        ];
        let time = file_time(u64_le(reader)?);
        let started = file_time(u64_le(reader)?);
        let offset = reader.u16_le("an offset")?;
        let length = reader.u16_le("a length")?;
        let further = reader.u32_le("an offset")?;
        reader.seek(offset.into(), "a security token")?;
        let token = reader.bytes(length.into(), "a security token")?;
        let mut chosen = Vec::new();
        if dialect == NEWEST {
            let further = usize::try_from(further).unwrap_or(usize::MAX);
            reader.seek(further, "contexts")?;
            for _ in 0..contexts.min(CONTEXTS) {
                chosen.extend(read_context(reader)?);
            }
        }
        Ok(Self {
            mode,
            dialect,
            guid,
            capabilities,
            limits,
            time,
            started,
            mechanisms: mechanisms(token),
            chosen,
        })
    }

    fn tell(self, answer: &mut Answer) {
        let dialect = dialect(self.dialect);
        let signing = match self.mode & 3 {
            0 => "disabled",
            1 => "enabled",
            _ => "required",
        };
        let time = self.time.as_ref().map(|time| format!(", time {time}"));
        let time = time.unwrap_or_default();
        answer.summary = format!("SMB {dialect}, signing {signing}{time}");
        answer.add("DialectRevision", dialect);
        answer.add("Signing", signing);
        answer.add("ServerGuid", self.guid.to_string());
        answer.add("Capabilities", names(self.capabilities, &CAPABILITIES));
        let limits = ["MaxTransactSize", "MaxReadSize", "MaxWriteSize"];
        for (name, limit) in limits.into_iter().zip(self.limits) {
            answer.add(name, limit);
        }
        if let Some(time) = self.time {
            answer.add("SystemTime", time);
        }
        if let Some(started) = self.started {
            answer.add("ServerStartTime", started);
        }
        if let Some(mechanisms) = self.mechanisms {
            answer.add("Mechanisms", mechanisms);
        }
        for (name, choice) in self.chosen {
            answer.add(name, choice);
        }
    }
}

/// `0x0311` is 3.1.1.
fn dialect(revision: u16) -> String {
    let (major, minor, patch) = (revision >> 8, revision >> 4 & 15, revision & 15);
    match patch {
        _ if revision == ANY_NEWER => "2.???".to_owned(),
        0 => format!("{major}.{minor}"),
        patch => format!("{major}.{minor}.{patch}"),
    }
}

/// What a context tells, if it is known.
fn read_context(reader: &mut Reader<'_>) -> Result<Option<(&'static str, String)>, Fault> {
    let to = reader.at().next_multiple_of(8);
    reader.seek(to, "a context")?;
    let kind = reader.u16_le("a context")?;
    let length = reader.u16_le("a context")?;
    reader.u32_le("a context")?;
    let mut data = Reader::new(reader.bytes(length.into(), "a context")?);
    let (name, known): (_, &[(u16, &str)]) = match kind {
        context::ENCRYPTION => ("Cipher", &CIPHERS),
        context::SIGNING => ("SigningAlgorithm", &SIGNATURES),
        context::COMPRESSION => ("CompressionAlgorithm", &COMPRESSIONS),
        _ => return Ok(None),
    };
    let count = data.u16_le("a number of algorithms")?;
    if kind == context::COMPRESSION {
        data.bytes(6, "padding and flags")?;
    }
    let mut chosen = Vec::new();
    for _ in 0..count {
        let number = data.u16_le("an algorithm")?;
        let name = known.iter().find(|(known, _)| *known == number);
        chosen.push(name.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned()));
    }
    Ok(Some((name, chosen.join(" "))))
}

fn u64_le(reader: &mut Reader<'_>) -> Result<u64, Fault> {
    reader.array("a time").map(u64::from_le_bytes)
}
