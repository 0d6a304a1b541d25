//! The data representations of MQTT 5 §1.5, read from a slice.

use broker_core::PacketId;

use super::DecodeError;

/// A packet's bytes that are not yet read. Every method fails instead of reading past their end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const ENDS_EARLY: DecodeError = DecodeError::malformed("MQTT 5 §4.13.1", "the packet ends within a field");

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&value, rest) = self.rest.split_first().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(value)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*value))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*value))
    }

    /// A Variable Byte Integer (§1.5.5) in the fewest bytes possible [MQTT-1.5.5-1].
    #[inline]
    pub(super) fn var_int(&mut self) -> Result<u32, DecodeError> {
        let VarInt { value, len, minimal } = VarInt::decode(self.rest)?.ok_or(ENDS_EARLY)?;
        if !minimal {
            return Err(NOT_MINIMAL);
        }
        self.rest = &self.rest[len..];
        Ok(value)
    }

    #[inline]
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (value, rest) = self.rest.split_at_checked(len).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(value)
    }

    /// Binary Data (§1.5.6).
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(self.u16()?);
        self.bytes(len)
    }

    /// A UTF-8 Encoded String (§1.5.4).
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if any(bytes, |byte| byte == 0) {
            return Err(DecodeError::malformed("MQTT-1.5.4-2", "a text holds U+0000"));
        }
        utf8(bytes)
    }

    /// A text that is to be a topic name: also tells if it holds a wildcard.
    #[inline]
    pub(super) fn topic(&mut self) -> Result<(&'a str, bool), DecodeError> {
        let bytes = self.binary()?;
        let suspicious = any(bytes, |byte| matches!(byte, 0 | b'+' | b'#'));
        if suspicious && bytes.contains(&0) {
            return Err(DecodeError::malformed("MQTT-1.5.4-2", "a topic holds U+0000"));
        }
        Ok((utf8(bytes)?, suspicious))
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::protocol(
            "MQTT-2.2.1-3",
            "the packet identifier is zero",
        ))
    }

    /// Nothing may follow.
    #[inline]
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::malformed(
            "MQTT 5 §2.1.4",
            "the packet goes on after its last field",
        ))
    }
}

pub(super) const NOT_MINIMAL: DecodeError =
    DecodeError::malformed("MQTT-1.5.5-1", "a variable byte integer has needless bytes");

/// A decoded Variable Byte Integer (§1.5.5).
#[derive(Clone, Copy, Debug)]
pub(super) struct VarInt {
    pub(super) value: u32,
    /// Bytes it took.
    pub(super) len: usize,
    /// It could not be said in fewer bytes.
    pub(super) minimal: bool,
}

impl VarInt {
    /// The greatest value: four bytes of seven bits.
    pub(super) const MAX: usize = 268_435_455;

    /// `None` if `input` ends before the number does.
    #[inline]
    pub(super) fn decode(input: &[u8]) -> Result<Option<VarInt>, DecodeError> {
        let mut value = 0;
        for (at, &byte) in input.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(Some(VarInt {
                    value,
                    len: at + 1,
                    minimal: byte != 0 || at == 0,
                }));
            }
        }
        if input.len() < 4 {
            return Ok(None);
        }
        Err(DecodeError::malformed(
            "MQTT 5 §1.5.5",
            "a variable byte integer is longer than four bytes",
        ))
    }

    /// Bytes that `value` takes.
    pub(super) const fn encoded_len(value: usize) -> usize {
        match value {
            0..=0x7f => 1,
            0x80..=0x3fff => 2,
            0x4000..=0x1f_ffff => 3,
            _ => 4,
        }
    }
}

/// Without an early exit, so that the compiler can compare many bytes at once.
#[inline]
fn any(bytes: &[u8], is_hit: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |hit, &byte| hit | is_hit(byte))
}

/// Surrogates and overlong forms are ill-formed UTF-8 to the standard library, as the clause demands.
#[inline]
fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::malformed("MQTT-1.5.4-1", "a text is not UTF-8"))
}
