//! What an element is.

/// The identifier octet: class, whether it holds elements, and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub u8);

impl Tag {
    /// BOOLEAN.
    pub const BOOLEAN: Self = Self(0x01);
    /// INTEGER.
    pub const INTEGER: Self = Self(0x02);
    /// BIT STRING.
    pub const BIT_STRING: Self = Self(0x03);
    /// OCTET STRING.
    pub const OCTET_STRING: Self = Self(0x04);
    /// NULL.
    pub const NULL: Self = Self(0x05);
    /// OBJECT IDENTIFIER.
    pub const OID: Self = Self(0x06);
    /// ENUMERATED.
    pub const ENUMERATED: Self = Self(0x0a);
    /// `UTF8String`.
    pub const UTF8_STRING: Self = Self(0x0c);
    /// SEQUENCE and SEQUENCE OF.
    pub const SEQUENCE: Self = Self(0x30);
    /// SET and SET OF.
    pub const SET: Self = Self(0x31);
    /// `NumericString`.
    pub const NUMERIC_STRING: Self = Self(0x12);
    /// `PrintableString`.
    pub const PRINTABLE_STRING: Self = Self(0x13);
    /// `TeletexString`, also called `T61String`.
    pub const TELETEX_STRING: Self = Self(0x14);
    /// `IA5String`.
    pub const IA5_STRING: Self = Self(0x16);
    /// `UTCTime`.
    pub const UTC_TIME: Self = Self(0x17);
    /// `GeneralizedTime`.
    pub const GENERALIZED_TIME: Self = Self(0x18);
    /// `VisibleString`.
    pub const VISIBLE_STRING: Self = Self(0x1a);
    /// `GeneralString`.
    pub const GENERAL_STRING: Self = Self(0x1b);
    /// `UniversalString`.
    pub const UNIVERSAL_STRING: Self = Self(0x1c);
    /// `BMPString`.
    pub const BMP_STRING: Self = Self(0x1e);

    /// `[APPLICATION number]` around other elements.
    pub const fn application(number: u8) -> Self {
        Self(0x60 | number)
    }

    /// `[APPLICATION number] IMPLICIT` of a plain value.
    pub const fn application_value(number: u8) -> Self {
        Self(0x40 | number)
    }

    /// `[number]` around other elements.
    pub const fn context(number: u8) -> Self {
        Self(0xa0 | number)
    }

    /// `[number] IMPLICIT` of a plain value.
    pub const fn context_value(number: u8) -> Self {
        Self(0x80 | number)
    }

    /// Whether its contents are elements.
    pub const fn is_constructed(self) -> bool {
        self.0 & 0x20 != 0
    }
}
