//! The envelope of forwarders (§5.5).
//!
//! ```text
//!   Length   0xFE   Ctrl                           Wireless Node Id (1 to 252)   message
//!                    7 ... 2: reserved   1 0: Radius
//! ```
//!
//! The length is one octet and counts the envelope alone, up to the end of the node id. Reserved bits are ignored when
//! they are read and zero when they are written.

use bytes::{BufMut, BytesMut};

use super::{DecodeError, Fault};

/// The envelope in which a forwarder carries a message of a wireless node, or one for it (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Hops that the forwarder broadcasts it, 0 to 3. Of no meaning in what a forwarder sends.
    pub radius: u8,
    /// Names the node; 1 to [`Node::ID_LEN_MAX`] bytes.
    pub id: &'a [u8],
    /// The message, as it would stand in a datagram of its own; not empty.
    pub inner: &'a [u8],
}

const MSG_TYPE: u8 = 0xFE;
const RADIUS_MAX: u8 = 3;
/// Length, type and Ctrl.
const HEADER_LEN: usize = 3;

impl<'a> Node<'a> {
    /// The longest node id that the length of an envelope can say, bytes.
    pub const ID_LEN_MAX: usize = 0xFF - HEADER_LEN;

    /// True if `datagram` is an envelope, perhaps a broken one.
    pub const fn is_envelope(datagram: &[u8]) -> bool {
        matches!(
            *datagram,
            [0x01, _, _, MSG_TYPE, ..] | [0x00 | 0x02..=0xFF, MSG_TYPE, ..]
        )
    }

    /// Opens the envelope that `datagram` is. What is in it is not looked at.
    ///
    /// # Errors
    ///
    /// If it is none, its length is wrong, it names no node or nothing is in it.
    pub fn decode(datagram: &'a [u8]) -> Result<Node<'a>, DecodeError> {
        let [len, MSG_TYPE, ctrl, ..] = *datagram else {
            return Err(NOT_AN_ENVELOPE);
        };
        let (id, inner) = datagram
            .split_at_checked(usize::from(len))
            .and_then(|(envelope, inner)| Some((envelope.get(HEADER_LEN..)?, inner)))
            .ok_or(WRONG_LENGTH)?;
        if id.is_empty() || inner.is_empty() {
            return Err(WRONG_LENGTH);
        }
        Ok(Node {
            radius: ctrl & RADIUS_MAX,
            id,
            inner,
        })
    }

    /// Appends the envelope and what is in it. A radius above 3 becomes 3; a node id that is empty or longer than
    /// [`Node::ID_LEN_MAX`] cannot be said: nothing is appended then.
    pub fn encode(&self, to: &mut BytesMut) {
        Node::seal(self.radius, self.id, to, |to| to.put_slice(self.inner));
    }

    /// Like [`Node::encode`]; `write` appends what is in the envelope.
    pub fn seal(radius: u8, id: &[u8], to: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
        let Ok(len) = u8::try_from(HEADER_LEN + id.len()) else {
            return;
        };
        if id.is_empty() {
            return;
        }
        to.put_slice(&[len, MSG_TYPE, radius.min(RADIUS_MAX)]);
        to.put_slice(id);
        write(to);
    }
}

const NOT_AN_ENVELOPE: DecodeError = DecodeError::new(
    Fault::MsgType,
    "MQTT-SN §5.5",
    "the datagram is not an envelope of a forwarder",
);

const WRONG_LENGTH: DecodeError = DecodeError::new(
    Fault::Length,
    "MQTT-SN §5.5",
    "the envelope has no node id, nothing in it, or a length that is not its own",
);
