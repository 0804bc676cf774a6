//! The negotiation in SMB 1 (MS-CIFS §2.2.4.52, MS-SMB §2.2.4.5).

use event::text;

use super::super::guid::Guid;
use super::{file_time, mechanisms, names};
use crate::{Answer, Fault, Reader};

/// How each message begins.
pub(super) const MAGIC: [u8; 4] = *b"\xffSMB";

const NEGOTIATE: u8 = 0x72;

/// What is offered, the best last: the newest of SMB 1, SMB 2.0.2, and whatever
/// is newer.
const DIALECTS: [&[u8]; 3] = [b"NT LM 0.12", b"SMB 2.002", b"SMB 2.???"];

const EXTENDED_SECURITY: u32 = 0x8000_0000;

/// The server's capabilities.
const CAPABILITIES: [(u32, &str); 17] = [
    (0x0000_0001, "RAW_MODE"),
    (0x0000_0002, "MPX_MODE"),
    (0x0000_0004, "UNICODE"),
    (0x0000_0008, "LARGE_FILES"),
    (0x0000_0010, "NT_SMBS"),
    (0x0000_0020, "RPC_REMOTE_APIS"),
    (0x0000_0040, "STATUS32"),
    (0x0000_0080, "LEVEL_II_OPLOCKS"),
    (0x0000_0100, "LOCK_AND_READ"),
    (0x0000_0200, "NT_FIND"),
    (0x0000_1000, "DFS"),
    (0x0000_2000, "INFOLEVEL_PASSTHRU"),
    (0x0000_4000, "LARGE_READX"),
    (0x0000_8000, "LARGE_WRITEX"),
    (0x0080_0000, "UNIX"),
    (0x2000_0000, "BULK_TRANSFER"),
    (EXTENDED_SECURITY, "EXTENDED_SECURITY"),
];

/// A negotiate request that offers SMB 1 and 2.
pub(super) fn request() -> Vec<u8> {
    /// Names without case, in their canonical form.
    const FLAGS: u8 = 0x18;
    /// Unicode, NT status, extended security, long names.
    const FLAGS_2: u16 = 0xc843;
    let mut request = MAGIC.to_vec();
    request.push(NEGOTIATE);
    request.extend([0; 4]); // status
    request.push(FLAGS);
    request.extend(FLAGS_2.to_le_bytes());
    request.extend([0; 12]); // process (high), signature, reserved
    request.extend([0xff, 0xff]); // tree
    request.extend([0; 6]); // process, user, multiplex
    request.push(0); // no words
    let length: usize = DIALECTS.iter().map(|dialect| dialect.len() + 2).sum();
    request.extend(u16::try_from(length).unwrap_or_default().to_le_bytes());
    for dialect in DIALECTS {
        request.push(2); // a dialect's name follows
        request.extend(dialect);
        request.push(0);
    }
    request
}

/// Reads a negotiate response of the dialect `NT LM 0.12`.
pub(super) fn read(message: &[u8], answer: &mut Answer) -> Result<(), Fault> {
    let mut reader = Reader::new(message);
    reader.bytes(4, "a header")?;
    if reader.u8("a command")? != NEGOTIATE {
        return Err(reader.malformed("a negotiate response"));
    }
    let status = reader.u32_le("a status")?;
    reader.bytes(23, "a header")?;
    let words = reader.u8("a number of words")?;
    let mut parameters = Reader::new(reader.bytes(2 * usize::from(words), "words")?);
    let length = reader.u16_le("a number of bytes")?;
    // Some servers count wrong here; what is there is there.
    let data = reader.rest();
    let data = &data[..data.len().min(length.into())];
    if status != 0 {
        refuse(answer, format!("status {status:#010x}"));
        return Ok(());
    }
    let index = parameters.u16_le("a dialect")?;
    if index != 0 || words < 17 {
        refuse(answer, "no dialect in common".to_owned());
        return Ok(());
    }
    answer.add("Dialect", "NT LM 0.12");
    let mode = parameters.u8("a security mode")?;
    let signing = match mode & 0x0c {
        0 => "disabled",
        0x04 => "enabled",
        _ => "required",
    };
    answer.add("Signing", signing);
    answer.add("UserLevelSecurity", mode & 0x01 != 0);
    parameters.bytes(4, "limits")?;
    answer.add("MaxBufferSize", parameters.u32_le("a limit")?);
    parameters.bytes(8, "limits")?;
    let capabilities = parameters.u32_le("capabilities")?;
    answer.add("Capabilities", names(capabilities, &CAPABILITIES));
    let low = parameters.u32_le("a time")?;
    let high = parameters.u32_le("a time")?;
    let time = file_time(u64::from(high) << 32 | u64::from(low));
    if let Some(time) = &time {
        answer.add("SystemTime", time.as_str());
    }
    let west = parameters.u16_le("a time zone")?.cast_signed();
    answer.add("ServerTimeZone", i64::from(west));
    let challenge = parameters.u8("the length of a challenge")?;
    let mut data = Reader::new(data);
    if capabilities & EXTENDED_SECURITY == 0 {
        data.bytes(challenge.into(), "a challenge")?;
        let rest = data.rest();
        for (name, text) in ["DomainName", "ServerName"].into_iter().zip(strings(rest)) {
            answer.add(name, text);
        }
    } else {
        answer.add("ServerGuid", Guid::read(&mut data)?.to_string());
        if let Some(mechanisms) = mechanisms(data.rest()) {
            answer.add("Mechanisms", mechanisms);
        }
    }
    let time = time.map(|time| format!(", time {time}"));
    let time = time.unwrap_or_default();
    answer.summary = format!("SMB 1 only, signing {signing}{time}");
    Ok(())
}

fn refuse(answer: &mut Answer, error: String) {
    answer.summary = format!("SMB 1: {error}");
    answer.add("error", error);
}

/// The strings in UTF-16, each with the zero that ends it.
fn strings(bytes: &[u8]) -> Vec<String> {
    let (units, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let strings = units
        .split(|unit| *unit == 0)
        .filter(|text| !text.is_empty());
    strings.map(utf16).collect()
}

fn utf16(units: &[u16]) -> String {
    // What is no text is shown as such.
    text::from_bytes(String::from_utf16_lossy(units).as_bytes())
}
