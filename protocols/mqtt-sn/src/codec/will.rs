//! WILLTOPIC, WILLTOPICUPD, WILLMSG and WILLMSGUPD (§5.4.7, §5.4.9, §5.4.22, §5.4.23).
//!
//! ```text
//!   WILLTOPIC, WILLTOPICUPD  Flags (QoS, Retain)   WillTopic (1 to n)    or nothing at all: no Will
//!   WILLMSG, WILLMSGUPD      WillMsg (0 to n)
//! ```
//!
//! WILLTOPICREQ and WILLMSGREQ have no fields; WILLTOPICRESP and WILLMSGRESP have a return code.

use broker_core::QoS;
use bytes::{BufMut, BytesMut};

use super::{
    DecodeError, Message, ReturnCode,
    error::QOS_WITHOUT_CONNECTION,
    fields::{Flags, topic_name},
    reader::Reader,
};

/// The Will topic with its options (§5.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// To publish it with.
    pub qos: QoS,
    /// Retain it.
    pub retain: bool,
    /// Where to: a valid topic name.
    pub topic: &'a str,
}

impl<'a> Will<'a> {
    /// `answer` refuses it.
    pub(super) fn decode(
        reader: Reader<'a>,
        answer: fn(ReturnCode) -> Message<'static>,
    ) -> Result<Option<Will<'a>>, DecodeError> {
        if reader.is_empty() {
            return Ok(None);
        }
        let will = Will::fields(reader).map_err(|error| error.refused(answer))?;
        Ok(Some(will))
    }

    fn fields(mut reader: Reader<'a>) -> Result<Will<'a>, DecodeError> {
        let flags = reader.flags()?;
        Ok(Will {
            qos: flags.qos().ok_or(QOS_WITHOUT_CONNECTION)?,
            retain: flags.is_retain(),
            topic: topic_name(reader.rest())?,
        })
    }

    pub(super) const fn body_len(&self) -> usize {
        1 + self.topic.len()
    }

    pub(super) fn put(&self, to: &mut BytesMut) {
        let flags = Flags::default().with_qos(Some(self.qos)).with_retain(self.retain);
        to.put_u8(flags.0);
        to.put_slice(self.topic.as_bytes());
    }
}
