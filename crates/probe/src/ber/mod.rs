//! ASN.1 in its Basic Encoding Rules (X.690): what LDAP, SNMP, Kerberos and
//! certificates are made of. DER is a part of it and is read with the same code.
//!
//! [`Ber`] stands in a row of elements and takes one after the other; an
//! [`Element`] can be entered or taken as a value. Nothing here calls itself, a
//! length is believed only as far as the enclosing element goes, and depth ends
//! at [`Ber::DEPTH`], so neither time nor memory can exceed the message's size.
//!
//! Deliberately left out, because the protocols that are spoken here forbid it:
//! indefinite lengths, tag numbers above 30 and strings in pieces. What DER
//! demands beyond BER (shortest lengths, sorted sets) is not checked: this crate
//! tells what a service says and signs or verifies nothing.

mod name;
mod oid;
mod tag;
mod text;
mod writer;

use jiff::civil::DateTime;

pub use self::name::{Attribute, Name};
pub use self::oid::{NotAnOid, Oid};
pub use self::tag::Tag;
pub use self::writer::Writer;
use crate::{Fault, Reader, Stream};

/// A place in a row of elements. See the module's words.
#[derive(Debug, Clone)]
pub struct Ber<'a> {
    reader: Reader<'a>,
    depth: usize,
}

impl<'a> Ber<'a> {
    /// How deep elements may lie in each other; honest messages of the
    /// protocols here stay below 16.
    pub const DEPTH: usize = 32;

    /// At the first element of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(message),
            depth: 0,
        }
    }

    /// Whether no element is left.
    pub fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// The tag of the next element.
    pub fn peek(&self) -> Option<Tag> {
        self.reader.clone().u8("tag").ok().map(Tag)
    }

    /// The next element, whatever it is.
    pub fn any(&mut self, what: &'static str) -> Result<Element<'a>, Fault> {
        let start = self.reader.at();
        let tag = Tag(self.reader.u8(what)?);
        if tag.0 & 0x1f == 0x1f {
            return Err(self.reader.malformed("a tag number above 30"));
        }
        let length = length(&mut self.reader)?;
        let from = self.reader.at();
        self.reader.bytes(length, what)?;
        let raw = &self.reader.message()[start..self.reader.at()];
        let mut contents = Reader::new(&self.reader.message()[..self.reader.at()]);
        contents.seek(from, what)?;
        Ok(Element {
            tag,
            raw,
            contents,
            depth: self.depth,
        })
    }

    /// The next element, which has to be `tag`.
    pub fn element(&mut self, tag: Tag, what: &'static str) -> Result<Element<'a>, Fault> {
        if self.peek() != Some(tag) {
            return Err(self.reader.malformed(what));
        }
        self.any(what)
    }

    /// The next element if it is `tag`; otherwise it stays.
    pub fn optional(&mut self, tag: Tag, what: &'static str) -> Result<Option<Element<'a>>, Fault> {
        if self.peek() == Some(tag) {
            self.any(what).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The elements in the next element, which has to be `tag`.
    pub fn enter(&mut self, tag: Tag, what: &'static str) -> Result<Self, Fault> {
        self.element(tag, what)?.enter(what)
    }

    /// A BOOLEAN.
    pub fn boolean(&mut self, what: &'static str) -> Result<bool, Fault> {
        self.element(Tag::BOOLEAN, what)?.boolean(what)
    }

    /// An INTEGER of at most 64 bits.
    pub fn integer(&mut self, what: &'static str) -> Result<i64, Fault> {
        self.element(Tag::INTEGER, what)?.integer(what)
    }

    /// An ENUMERATED.
    pub fn enumerated(&mut self, what: &'static str) -> Result<i64, Fault> {
        self.element(Tag::ENUMERATED, what)?.integer(what)
    }

    /// An OCTET STRING.
    pub fn octets(&mut self, what: &'static str) -> Result<&'a [u8], Fault> {
        Ok(self.element(Tag::OCTET_STRING, what)?.contents())
    }

    /// An OBJECT IDENTIFIER.
    pub fn oid(&mut self, what: &'static str) -> Result<Oid, Fault> {
        self.element(Tag::OID, what)?.oid(what)
    }

    /// A `Name` of X.501.
    pub fn name(&mut self, what: &'static str) -> Result<Name, Fault> {
        Name::read(self, what)
    }

    /// A character string of any kind.
    pub fn text(&mut self, what: &'static str) -> Result<String, Fault> {
        self.any(what)?.text(what)
    }

    /// A `UTCTime` or `GeneralizedTime`, in UTC. (Not an instant: certificates
    /// without an end are dated 9999-12-31 23:59:59, which lies beyond those.)
    pub fn time(&mut self, what: &'static str) -> Result<DateTime, Fault> {
        self.any(what)?.time(what)
    }

    /// The fault that names this place.
    pub fn malformed(&self, what: &'static str) -> Fault {
        self.reader.malformed(what)
    }
}

/// One element. The methods that take its value do not look at its tag, since
/// an implicit tag may stand in for the universal one; those of [`Ber`] do.
#[derive(Debug, Clone)]
pub struct Element<'a> {
    tag: Tag,
    raw: &'a [u8],
    contents: Reader<'a>,
    depth: usize,
}

impl<'a> Element<'a> {
    /// Its tag.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// All its bytes, with tag and length.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The bytes of its contents.
    pub fn contents(&self) -> &'a [u8] {
        self.contents.clone().rest()
    }

    /// The elements in it.
    pub fn enter(&self, what: &'static str) -> Result<Ber<'a>, Fault> {
        if !self.tag.is_constructed() {
            return Err(self.malformed(what));
        }
        self.elements()
    }

    /// The elements in its contents, where those of a plain string are a
    /// message of their own: an extension of a certificate.
    pub fn elements(&self) -> Result<Ber<'a>, Fault> {
        if self.depth >= Ber::DEPTH {
            return Err(self.malformed("elements nested too deep"));
        }
        Ok(Ber {
            reader: self.contents.clone(),
            depth: self.depth + 1,
        })
    }

    /// A BOOLEAN.
    pub fn boolean(&self, what: &'static str) -> Result<bool, Fault> {
        match self.contents() {
            [byte] => Ok(*byte != 0),
            _ => Err(self.malformed(what)),
        }
    }

    /// A whole number of at most 64 bits.
    pub fn integer(&self, what: &'static str) -> Result<i64, Fault> {
        let bytes = self.contents();
        if bytes.is_empty() || bytes.len() > 8 {
            return Err(self.malformed(what));
        }
        let filling = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
        let mut number = [filling; 8];
        number[8 - bytes.len()..].copy_from_slice(bytes);
        Ok(i64::from_be_bytes(number))
    }

    /// A whole number that cannot be negative (a counter of SNMP), of at most
    /// 64 bits. Senders that forget the leading zero are understood.
    pub fn unsigned(&self, what: &'static str) -> Result<u64, Fault> {
        let bytes = match self.contents() {
            [] => return Err(self.malformed(what)),
            [0, rest @ ..] => rest,
            all => all,
        };
        if bytes.len() > 8 {
            return Err(self.malformed(what));
        }
        let mut number = [0; 8];
        number[8 - bytes.len()..].copy_from_slice(bytes);
        Ok(u64::from_be_bytes(number))
    }

    /// An object identifier.
    pub fn oid(&self, what: &'static str) -> Result<Oid, Fault> {
        Oid::read(self.contents()).ok_or_else(|| self.malformed(what))
    }

    /// A BIT STRING: how many bits of the last byte do not count, and the bytes.
    pub fn bits(&self, what: &'static str) -> Result<(u8, &'a [u8]), Fault> {
        match self.contents() {
            [unused @ 0..=7, bytes @ ..] => Ok((*unused, bytes)),
            _ => Err(self.malformed(what)),
        }
    }

    /// A character string, decoded as its tag says; an unknown tag as UTF-8.
    pub fn text(&self, what: &'static str) -> Result<String, Fault> {
        if self.tag.is_constructed() {
            return Err(self.malformed(what));
        }
        text::string(self.tag, self.contents()).ok_or_else(|| self.malformed(what))
    }

    /// A time, as its tag says, in UTC.
    pub fn time(&self, what: &'static str) -> Result<DateTime, Fault> {
        text::time(self.tag, self.contents()).ok_or_else(|| self.malformed(what))
    }

    /// The fault that names the beginning of its contents.
    pub fn malformed(&self, what: &'static str) -> Fault {
        self.contents.malformed(what)
    }
}

/// Takes one whole element off `stream`, of at most `limit` bytes of contents.
pub fn element_of(stream: &mut Stream<'_>, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut message = stream.exact(2)?;
    let octets = match message[1] {
        octets @ 0x81..=0x84 => usize::from(octets & 0x7f),
        _ => 0,
    };
    message.extend(stream.exact(octets)?);
    let mut reader = Reader::new(&message);
    reader.u8("tag")?;
    let length = length(&mut reader)?;
    if length > limit {
        return Err(Fault::Long(limit));
    }
    message.extend(stream.exact(length)?);
    Ok(message)
}

/// A definite length of at most four octets.
fn length(reader: &mut Reader<'_>) -> Result<usize, Fault> {
    let first = reader.u8("length")?;
    let octets = match first {
        0..=0x7f => return Ok(usize::from(first)),
        0x81..=0x84 => usize::from(first & 0x7f),
        0x80 => return Err(reader.malformed("an indefinite length")),
        _ => return Err(reader.malformed("a length of more than 32 bits")),
    };
    let mut length = 0;
    for byte in reader.bytes(octets, "length")? {
        length = length << 8 | usize::from(*byte);
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::question::Script;

    #[test]
    fn elements_end_where_the_enclosing_one_ends() {
        let message = [0x30, 0x06, 0x02, 0x01, 0x05, 0x04, 0x01, b'x', 0x05, 0x00];
        let mut ber = Ber::new(&message);
        let mut inside = ber.enter(Tag::SEQUENCE, "sequence").unwrap();
        assert_eq!(inside.integer("number").unwrap(), 5);
        assert!(inside.optional(Tag::NULL, "null").unwrap().is_none());
        assert_eq!(inside.octets("string").unwrap(), b"x");
        assert!(inside.is_empty());
        assert!(inside.any("more").is_err());
        let null = ber.any("null").unwrap();
        assert_eq!((null.tag(), null.raw()), (Tag::NULL, &message[8..]));
    }

    #[test]
    fn faults_name_the_place_in_the_whole_message() {
        let mut ber = Ber::new(&[0x30, 0x03, 0x02, 0x01, 0x05]);
        let mut inside = ber.enter(Tag::SEQUENCE, "sequence").unwrap();
        let fault = inside.octets("a string").unwrap_err();
        assert!(matches!(
            fault,
            Fault::Malformed {
                what: "a string",
                at: 2
            }
        ));
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        for message in [
            &[0x30][..],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
            &[0x30, 0xff],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x82, 0x01],
            &[0x30, 0x02, 0x00],
            &[0x1f, 0x81, 0x00, 0x00],
        ] {
            assert!(Ber::new(message).any("element").is_err(), "{message:x?}");
        }
        // The inner element claims more than the outer one has, though the
        // message goes on.
        let mut ber = Ber::new(&[0x30, 0x02, 0x04, 0x02, b'x', b'y']);
        let mut inside = ber.enter(Tag::SEQUENCE, "sequence").unwrap();
        assert!(inside.octets("string").is_err());
    }

    #[test]
    fn nesting_comes_to_an_end() {
        let mut message = vec![0x30, 0x00];
        while message.len() < 4096 {
            let inside = message;
            let mut writer = Writer::new();
            writer.element(Tag::SEQUENCE, &inside);
            message = writer.into_bytes();
        }
        let mut ber = Ber::new(&message);
        let mut depth = 0;
        while let Ok(inside) = ber.enter(Tag::SEQUENCE, "sequence") {
            ber = inside;
            depth += 1;
        }
        assert_eq!(depth, Ber::DEPTH);
    }

    #[test]
    fn numbers_have_at_most_64_bits() {
        let number = |bytes: &[u8]| {
            let mut writer = Writer::new();
            writer.element(Tag::INTEGER, bytes);
            let message = writer.into_bytes();
            let element = Ber::new(&message).any("number").unwrap();
            (
                element.integer("number").ok(),
                element.unsigned("number").ok(),
            )
        };
        assert_eq!(number(&[0xff]), (Some(-1), Some(255)));
        assert_eq!(number(&[0, 0xff]), (Some(255), Some(255)));
        assert_eq!(number(&[0]), (Some(0), Some(0)));
        assert_eq!(number(&[]), (None, None));
        assert_eq!(
            number(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (None, Some(u64::MAX))
        );
        assert_eq!(number(&[1; 9]), (None, None));
    }

    #[test]
    fn an_element_is_taken_off_a_stream() {
        let take = |pieces: &[&[u8]]| {
            let mut stream = Stream::new(Script::of(pieces), Duration::from_secs(5));
            element_of(&mut stream, 1000)
        };
        assert_eq!(take(&[b"\x04", b"\x02x", b"yz"]).unwrap(), b"\x04\x02xy");
        let long = [&[0x04, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        assert_eq!(take(&[&long]).unwrap(), long);
        assert!(matches!(take(&[b"\x04\x05xy"]), Err(Fault::Closed)));
        assert!(matches!(
            take(&[b"\x04\x84\xff\xff\xff\xff"]),
            Err(Fault::Long(1000))
        ));
        assert!(take(&[b"\x04\x80\0\0"]).is_err());
    }

    proptest! {
        #[test]
        fn numbers_come_back(number: i64, unsigned: u64) {
            let mut writer = Writer::new();
            writer.integer(number);
            writer.unsigned(Tag::application_value(6), unsigned);
            let message = writer.into_bytes();
            let mut ber = Ber::new(&message);
            prop_assert_eq!(ber.integer("number").unwrap(), number);
            let element = ber.any("number").unwrap();
            prop_assert_eq!(element.unsigned("number").unwrap(), unsigned);
            prop_assert!(ber.is_empty());
        }

        #[test]
        fn contents_of_any_length_come_back(contents in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut writer = Writer::new();
            writer.wrap(Tag::SEQUENCE, |writer| writer.octets(&contents));
            let message = writer.into_bytes();
            let mut inside = Ber::new(&message).enter(Tag::SEQUENCE, "sequence").unwrap();
            prop_assert_eq!(inside.octets("string").unwrap(), &contents[..]);
        }

        #[test]
        fn any_bytes_come_to_an_end(message: Vec<u8>) {
            let mut ber = Ber::new(&message);
            while let Ok(element) = ber.any("element") {
                prop_assert!(element.raw().len() >= 2);
                let _ = (element.oid("o"), element.text("t"), element.time("t"), element.bits("b"));
                let _ = element.elements().and_then(|mut inside| inside.name("name"));
            }
        }
    }
}
