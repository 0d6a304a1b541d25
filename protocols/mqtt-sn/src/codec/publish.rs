//! PUBLISH and the acknowledgements (§5.4.12 to §5.4.14).
//!
//! ```text
//!   PUBLISH                  Flags (DUP, QoS, Retain, TopicIdType)   TopicId (2)   MsgId (2)   Data (0 to n)
//!   PUBACK                   TopicId (2)   MsgId (2)   ReturnCode
//!   PUBREC, PUBREL, PUBCOMP  MsgId (2)
//! ```

use broker_core::QoS;
use bytes::{BufMut, BytesMut};

use super::{DecodeError, Message, MsgId, TopicId, error::NO_MSG_ID, fields::Flags, reader::Reader};

/// PUBLISH (§5.4.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: PublishQoS,
    /// Retain it.
    pub retain: bool,
    /// Where to.
    pub topic: Topic,
    /// Not zero for QoS 1 and 2. Of no meaning for QoS 0 and −1, where it is to be zero.
    pub msg_id: MsgId,
    /// The application's bytes.
    pub data: &'a [u8],
}

/// Quality of service of a PUBLISH (§5.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishQoS {
    /// QoS −1: without a connection (§6.8).
    WithoutConnection,
    /// QoS 0 to 2.
    Level(QoS),
}

/// A topic by its id (§5.3.4). The ids that are reserved do not occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Registered in this session.
    Normal(TopicId),
    /// Known to both sides without registration (§6.7).
    Predefined(TopicId),
    /// A name of two octets (§6.7): a valid topic name.
    Short([u8; 2]),
}

impl<'a> Publish<'a> {
    #[inline]
    pub(super) fn decode(mut reader: Reader<'a>) -> Result<Publish<'a>, DecodeError> {
        let flags = reader.flags()?;
        let octets = reader.pair()?;
        let msg_id = reader.msg_id()?;
        let qos = flags
            .qos()
            .map_or(PublishQoS::WithoutConnection, PublishQoS::Level);
        let topic = match qos {
            PublishQoS::Level(QoS::AtLeastOnce | QoS::ExactlyOnce) if msg_id == MsgId(0) => Err(NO_MSG_ID),
            _ => Topic::decode(flags.topic_id_type(), octets),
        };
        match topic {
            Ok(topic) => Ok(Publish {
                dup: flags.is_dup(),
                qos,
                retain: flags.is_retain(),
                topic,
                msg_id,
                data: reader.rest(),
            }),
            Err(error) if qos == PublishQoS::WithoutConnection => Err(error),
            Err(error) => Err(error.refused(|return_code| Message::PubAck {
                topic_id: TopicId(u16::from_be_bytes(octets)),
                msg_id,
                return_code,
            })),
        }
    }

    pub(super) const fn body_len(&self) -> usize {
        5 + self.data.len()
    }

    pub(super) fn put(&self, to: &mut BytesMut) {
        let qos = match self.qos {
            PublishQoS::WithoutConnection => None,
            PublishQoS::Level(qos) => Some(qos),
        };
        let flags = Flags::default()
            .with_dup(self.dup)
            .with_qos(qos)
            .with_retain(self.retain)
            .with_topic_id_type(self.topic.topic_id_type());
        to.put_u8(flags.0);
        to.put_slice(&self.topic.octets());
        to.put_u16(self.msg_id.0);
        to.put_slice(self.data);
    }
}

/// The only field of PUBREC, PUBREL, PUBCOMP and UNSUBACK.
pub(super) fn msg_id(mut reader: Reader<'_>) -> Result<MsgId, DecodeError> {
    let msg_id = reader.msg_id()?;
    reader.end(msg_id)
}
