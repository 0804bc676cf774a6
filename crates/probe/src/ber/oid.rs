//! Object identifiers (X.690, 8.19).

use std::fmt;
use std::str::FromStr;

/// An object identifier: `1.3.6.1.2.1.1.1.0`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Oid(Vec<u8>);

impl Oid {
    /// Of its contents octets; none if they are not those of an identifier of
    /// arcs of at most 128 bits (a UUID is the longest in use).
    pub fn read(contents: &[u8]) -> Option<Self> {
        if contents.last()? & 0x80 != 0 {
            return None;
        }
        let mut arc: u128 = 0;
        let mut begins = true;
        for byte in contents {
            // Zeros before an arc would write one identifier in several ways.
            if begins && *byte == 0x80 || arc > u128::MAX >> 7 {
                return None;
            }
            arc = arc << 7 | u128::from(byte & 0x7f);
            begins = byte & 0x80 == 0;
            if begins {
                arc = 0;
            }
        }
        Some(Self(contents.to_vec()))
    }

    /// Of its arcs, of which there are at least two, the first at most 2.
    pub fn of(arcs: &[u128]) -> Option<Self> {
        let [first @ 0..=2, second, rest @ ..] = arcs else {
            return None;
        };
        if *first < 2 && *second > 39 {
            return None;
        }
        let mut contents = Vec::new();
        push(&mut contents, second.checked_add(first * 40)?);
        for arc in rest {
            push(&mut contents, *arc);
        }
        Self::read(&contents)
    }

    /// Its contents octets.
    pub fn contents(&self) -> &[u8] {
        &self.0
    }

    /// Whether it has these contents octets: a comparison with a constant.
    pub fn is(&self, contents: &[u8]) -> bool {
        self.0 == contents
    }

    /// Its arcs.
    pub fn arcs(&self) -> Vec<u128> {
        let mut arcs = Vec::new();
        let mut arc: u128 = 0;
        for byte in &self.0 {
            arc = arc << 7 | u128::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                if arcs.is_empty() {
                    let first = (arc / 40).min(2);
                    arcs.push(first);
                    arc -= first * 40;
                }
                arcs.push(arc);
                arc = 0;
            }
        }
        arcs
    }
}

/// In groups of seven bits, the highest first, all but the last marked.
fn push(contents: &mut Vec<u8>, arc: u128) {
    let groups = (128 - arc.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let bits = (arc >> (7 * group)) & 0x7f;
        let more = if group == 0 { 0 } else { 0x80 };
        contents.push(bits.to_le_bytes()[0] | more);
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, arc) in self.arcs().iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            write!(f, "{arc}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({self})")
    }
}

/// It is not an object identifier in dots.
#[derive(Debug, thiserror::Error)]
#[error("not an object identifier")]
pub struct NotAnOid;

impl FromStr for Oid {
    type Err = NotAnOid;

    fn from_str(dotted: &str) -> Result<Self, NotAnOid> {
        let arcs: Result<Vec<u128>, _> = dotted.split('.').map(str::parse).collect();
        arcs.ok().and_then(|arcs| Self::of(&arcs)).ok_or(NotAnOid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_identifiers() {
        // commonName, and the example of X.690, 8.19.5.
        assert_eq!(Oid::read(&[0x55, 4, 3]).unwrap().to_string(), "2.5.4.3");
        let oid = Oid::read(&[0x88, 0x37, 0x03]).unwrap();
        assert_eq!(oid.to_string(), "2.999.3");
        assert_eq!("2.999.3".parse::<Oid>().unwrap(), oid);
    }

    #[test]
    fn what_is_no_identifier() {
        assert!(Oid::read(&[]).is_none());
        assert!(Oid::read(&[0x55, 0x84]).is_none());
        assert!(Oid::read(&[0x55, 0x80, 0x04]).is_none());
        assert!(Oid::read(&[[0xff; 30].as_slice(), &[1]].concat()).is_none());
        for text in ["", "1", "1.40", "3.1", "1..2", "1.2.x", "1.2.-3"] {
            assert!(text.parse::<Oid>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arcs_come_back(first in 0_u128..3, second in 0_u128..40, rest: Vec<u128>) {
            let mut arcs = vec![first, second];
            arcs.extend(rest);
            let oid = Oid::of(&arcs).unwrap();
            prop_assert_eq!(oid.arcs(), arcs);
            prop_assert_eq!(oid.to_string().parse::<Oid>().unwrap(), oid);
        }
    }
}
