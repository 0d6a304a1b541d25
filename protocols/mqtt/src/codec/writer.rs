//! The data representations of MQTT 5 §1.5, written, or only counted: one description of a packet serves for its
//! length and for its bytes.

use bytes::{BufMut, BytesMut};

use super::{EncodeError, reader::VarInt};

/// Where encoded bytes go.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// A Variable Byte Integer; `value` is at most 268 435 455.
    fn put_var_int(&mut self, value: usize) {
        debug_assert!(value <= VarInt::MAX, "the caller bounds the length");
        let mut rest = value;
        while rest > 0x7f {
            self.put_u8(0x80 | (rest & 0x7f) as u8);
            rest >>= 7;
        }
        self.put_u8(rest as u8);
    }

    /// Binary Data, or a UTF-8 Encoded String.
    fn put_binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
        self.put_u16(len);
        self.put(bytes);
        Ok(())
    }

    fn put_text(&mut self, text: &str) -> Result<(), EncodeError> {
        self.put_binary(text.as_bytes())
    }
}

impl Sink for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Debug, Default)]
pub(super) struct Counter(pub(super) usize);

impl Sink for Counter {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// What may be left out of a packet so that it fits the receiver's Maximum Packet Size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trim {
    Nothing,
    UserProperties,
    UserPropertiesAndReasonString,
}

impl Trim {
    pub(super) const LEVELS: [Trim; 3] = [
        Trim::Nothing,
        Trim::UserProperties,
        Trim::UserPropertiesAndReasonString,
    ];
}
