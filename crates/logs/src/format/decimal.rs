//! Numbers and addresses as bytes.
//!
//! `write!` does the same, several times slower; these few functions are most
//! of what the hot path of PR-EVENTS does. They are tested against it.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Every number below 100, two digits each.
const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a number without padding.
#[inline]
pub(super) fn push_u64(out: &mut Vec<u8>, mut number: u64) {
    // 18,446,744,073,709,551,615 has 20 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    while number >= 100 {
        let pair = pair(number % 100);
        number /= 100;
        start -= 2;
        digits[start] = pair[0];
        digits[start + 1] = pair[1];
    }
    let pair = pair(number);
    start -= 1;
    digits[start] = pair[1];
    if number >= 10 {
        start -= 1;
        digits[start] = pair[0];
    }
    out.extend_from_slice(&digits[start..]);
}

/// Two digits; only the last two of a greater number.
#[inline]
pub(super) fn pair(number: u64) -> [u8; 2] {
    let at = (number % 100) as usize * 2;
    [PAIRS[at], PAIRS[at + 1]]
}

/// Appends a number in lower-case hexadecimal without padding.
#[inline]
pub(super) fn push_hex(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 16];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = HEX[(number & 0xf) as usize];
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends an address, IPv6 as in RFC 5952.
#[inline]
pub(super) fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => push_ipv4(out, ip),
        IpAddr::V6(ip) => push_ipv6(out, ip),
    }
}

#[inline]
fn push_ipv4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    let mut text = [b'.'; 16];
    let mut length = 0;
    for octet in ip.octets() {
        let pair = pair(u64::from(octet));
        if octet >= 100 {
            text[length] = b'0' + octet / 100;
            length += 1;
        }
        if octet >= 10 {
            text[length] = pair[0];
            length += 1;
        }
        text[length] = pair[1];
        text[length + 1] = b'.';
        length += 2;
    }
    out.extend_from_slice(&text[..length - 1]);
}

fn push_ipv6(out: &mut Vec<u8>, ip: Ipv6Addr) {
    if ip.to_ipv4_mapped().is_some() {
        // Not met on the hot path: endpoints hold such an address as IPv4.
        // Writing to a vector cannot fail.
        let _ = write!(out, "{ip}");
        return;
    }
    let groups = ip.segments();
    let zeros = longest_zeros(groups);
    // Eight groups of four digits and seven colons.
    let mut text = [b':'; 40];
    let mut length = 0;
    let mut at = 0;
    while at < groups.len() {
        if at == zeros.start && !zeros.is_empty() {
            // The colon before is there unless the address begins here.
            length += if at == 0 { 2 } else { 1 };
            at = zeros.end;
            continue;
        }
        let group = groups[at];
        for shift in [12, 8, 4, 0] {
            if shift == 0 || group >> shift != 0 {
                text[length] = HEX[usize::from(group >> shift & 0xf)];
                length += 1;
            }
        }
        at += 1;
        if at < groups.len() {
            length += 1;
        }
    }
    out.extend_from_slice(&text[..length]);
}

/// The groups that `::` stands for (RFC 5952 §4.2): the first of the longest
/// runs of zeros, if it is longer than one.
fn longest_zeros(groups: [u16; 8]) -> Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for (at, group) in groups.into_iter().enumerate() {
        if group != 0 {
            start = at + 1;
        } else if at + 1 - start > longest.len().max(1) {
            longest = start..at + 1;
        }
    }
    longest
}

/// Appends `1 row` or `2 rows`.
pub(super) fn push_count(out: &mut Vec<u8>, count: u64, [one, many]: [&str; 2]) {
    push_u64(out, count);
    out.push(b' ');
    out.extend_from_slice(if count == 1 { one } else { many }.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_edges() {
        for number in [0, 9, 10, 99, 100, 999, 1000, u64::MAX] {
            assert_eq!(text(|out| push_u64(out, number)), number.to_string());
            assert_eq!(text(|out| push_hex(out, number)), format!("{number:x}"));
        }
        for ip in [
            "0.0.0.0",
            "255.255.255.255",
            "1.20.100.9",
            "::",
            "2001:db8::1",
            "::1",
            "fe80::",
            "0:1::",
            "::1:0:0:1:0",
            "1:0:2:3:4:5:6:7",
            "::ffff:192.0.2.1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(text(|out| push_ip(out, ip.parse().unwrap())), ip);
        }
    }

    proptest! {
        #[test]
        fn as_the_standard_library_writes_them(number: u64, ip: IpAddr) {
            prop_assert_eq!(text(|out| push_u64(out, number)), number.to_string());
            prop_assert_eq!(text(|out| push_hex(out, number)), format!("{number:x}"));
            prop_assert_eq!(text(|out| push_ip(out, ip)), ip.to_string());
        }

        #[test]
        fn zeros_are_cut_as_the_standard_library_cuts_them(
            groups in proptest::array::uniform8(prop_oneof![Just(0), 0..=0x100_u16]),
        ) {
            let ip = IpAddr::from(groups);
            prop_assert_eq!(text(|out| push_ip(out, ip)), ip.to_string());
        }
    }
}
