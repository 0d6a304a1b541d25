//! Length and type of a message (§5.2).
//!
//! ```text
//!   Length 2 to 255     MsgType   ...
//!   0x01   Length (2)   MsgType   ...
//! ```
//!
//! The length counts all of the message, itself included. The long form is read whatever the length; it is written for
//! messages that need it.

use bytes::{BufMut, BytesMut};

use super::{DecodeError, Fault};

/// The longest message that its length can say (§5.2.1), bytes, header included.
pub const MESSAGE_LEN_MAX: usize = 0xFFFF;

/// The length of the longest message that the short form can say.
const SHORT_LEN_MAX: usize = 0xFF;

/// Type and body of the message that `datagram` is.
pub(super) fn split(datagram: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    let (len, msg_type, body) = match *datagram {
        [0x01, high, low, msg_type, ref body @ ..] => {
            (usize::from(u16::from_be_bytes([high, low])), msg_type, body)
        }
        [0x01, ..] | [] | [_] => return Err(TOO_SHORT),
        [len, msg_type, ref body @ ..] => (usize::from(len), msg_type, body),
    };
    if len != datagram.len() {
        return Err(DecodeError::new(
            Fault::Length,
            "MQTT-SN §5.2.1",
            "the datagram is not as long as it says",
        ));
    }
    Ok((msg_type, body))
}

/// Length of a message whose body has `body_len` bytes.
pub(super) const fn message_len(body_len: usize) -> usize {
    if body_len + 2 <= SHORT_LEN_MAX {
        body_len + 2
    } else {
        body_len + 4
    }
}

/// Appends the header of a message whose body has `body_len` bytes. `None`, and nothing appended, if it is too long.
pub(super) fn put(msg_type: u8, body_len: usize, to: &mut BytesMut) -> Option<()> {
    let len = u16::try_from(message_len(body_len)).ok()?;
    to.reserve(usize::from(len));
    match u8::try_from(len) {
        Ok(len) => to.put_u8(len),
        Err(_) => {
            to.put_u8(0x01);
            to.put_u16(len);
        }
    }
    to.put_u8(msg_type);
    Some(())
}

const TOO_SHORT: DecodeError = DecodeError::new(
    Fault::Length,
    "MQTT-SN §5.2.1",
    "the datagram ends within length and message type",
);
