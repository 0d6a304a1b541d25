//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (§5.4.15 to §5.4.18).
//!
//! ```text
//!   SUBSCRIBE    Flags (DUP, QoS, TopicIdType)   MsgId (2)     TopicName (1 to n) or TopicId (2)
//!   SUBACK       Flags (QoS)                     TopicId (2)   MsgId (2)   ReturnCode
//!   UNSUBSCRIBE  Flags (TopicIdType)             MsgId (2)     TopicName (1 to n) or TopicId (2)
//!   UNSUBACK     MsgId (2)
//! ```

use broker_core::QoS;
use bytes::{BufMut, BytesMut};

use super::{
    DecodeError, Fault, Message, MsgId, ReturnCode, TopicId,
    error::{NO_MSG_ID, QOS_WITHOUT_CONNECTION, RESERVED_TOPIC_ID_TYPE, WITHOUT_A_NAME},
    fields::{Flags, NORMAL, PREDEFINED, SHORT, short, text, topic_id},
    reader::Reader,
};

/// SUBSCRIBE (§5.4.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Sent before.
    pub dup: bool,
    /// Highest quality of service of deliveries.
    pub qos: QoS,
    /// For the answer; not zero.
    pub msg_id: MsgId,
    /// To what.
    pub topic: TopicName<'a>,
}

/// What a SUBSCRIBE or UNSUBSCRIBE is about (§5.4.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicName<'a> {
    /// A valid topic filter; behind `$share/` and a group, too.
    Name(&'a str),
    /// A predefined topic id that is not reserved.
    Predefined(TopicId),
    /// A name of two octets: a valid topic name.
    Short([u8; 2]),
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(mut reader: Reader<'a>) -> Result<Subscribe<'a>, DecodeError> {
        let flags = reader.flags()?;
        let msg_id = reader.msg_id()?;
        let fields = flags
            .qos()
            .ok_or(QOS_WITHOUT_CONNECTION)
            .and_then(|qos| Ok((qos, TopicName::decode(flags, msg_id, reader)?)));
        let (qos, topic) = fields.map_err(|error| {
            error.refused(|return_code| Message::SubAck {
                qos: QoS::AtMostOnce,
                topic_id: TopicId::NONE,
                msg_id,
                return_code,
            })
        })?;
        Ok(Subscribe {
            dup: flags.is_dup(),
            qos,
            msg_id,
            topic,
        })
    }

    pub(super) const fn body_len(&self) -> usize {
        3 + self.topic.len()
    }

    pub(super) fn put(&self, to: &mut BytesMut) {
        let flags = Flags::default().with_dup(self.dup).with_qos(Some(self.qos));
        self.topic.put(flags, self.msg_id, to);
    }
}

impl<'a> TopicName<'a> {
    fn decode(flags: Flags, msg_id: MsgId, mut reader: Reader<'a>) -> Result<TopicName<'a>, DecodeError> {
        if msg_id == MsgId(0) {
            return Err(NO_MSG_ID);
        }
        match flags.topic_id_type() {
            NORMAL => filter(reader.rest()).map(TopicName::Name),
            PREDEFINED => {
                let id = reader.u16()?;
                reader.end(TopicName::Predefined(topic_id(id)?))
            }
            SHORT => {
                let name = reader.pair()?;
                reader.end(TopicName::Short(short(name)?))
            }
            _ => Err(RESERVED_TOPIC_ID_TYPE),
        }
    }

    pub(super) const fn len(&self) -> usize {
        match self {
            TopicName::Name(name) => name.len(),
            TopicName::Predefined(_) | TopicName::Short(_) => 2,
        }
    }

    /// Appends the body of a message about it.
    pub(super) fn put(&self, flags: Flags, msg_id: MsgId, to: &mut BytesMut) {
        let id;
        let (topic_id_type, octets) = match self {
            TopicName::Name(name) => (NORMAL, name.as_bytes()),
            TopicName::Predefined(topic_id) => {
                id = topic_id.0.to_be_bytes();
                (PREDEFINED, &id[..])
            }
            TopicName::Short(name) => (SHORT, &name[..]),
        };
        to.put_u8(flags.with_topic_id_type(topic_id_type).0);
        to.put_u16(msg_id.0);
        to.put_slice(octets);
    }
}

/// UNSUBACK has no return code: what cannot be subscribed to, is not subscribed to, and its refusal says so.
pub(super) fn unsubscribe(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let flags = reader.flags()?;
    let msg_id = reader.msg_id()?;
    let topic = TopicName::decode(flags, msg_id, reader)
        .map_err(|error| error.refused(|_| Message::UnsubAck(msg_id)))?;
    Ok(Message::Unsubscribe { msg_id, topic })
}

pub(super) fn sub_ack(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let qos = reader.flags()?.qos().ok_or(QOS_WITHOUT_CONNECTION)?;
    let topic_id = reader.topic_id()?;
    let msg_id = reader.msg_id()?;
    let return_code = reader.return_code()?;
    reader.end(Message::SubAck {
        qos,
        topic_id,
        msg_id,
        return_code,
    })
}

pub(super) fn put_sub_ack(
    qos: QoS,
    topic_id: TopicId,
    msg_id: MsgId,
    return_code: ReturnCode,
    to: &mut BytesMut,
) {
    to.put_u8(Flags::default().with_qos(Some(qos)).0);
    to.put_u16(topic_id.0);
    to.put_u16(msg_id.0);
    to.put_u8(return_code.into());
}

fn filter(octets: &[u8]) -> Result<&str, DecodeError> {
    let filter = text(octets)?;
    if filter.is_empty() {
        return Err(WITHOUT_A_NAME);
    }
    let is_valid = match filter.strip_prefix("$share/") {
        None => broker_core::topic::is_valid_filter(filter),
        Some(shared) => shared.split_once('/').is_some_and(|(group, filter)| {
            !group.is_empty()
                && !broker_core::topic::has_wildcard(group)
                && broker_core::topic::is_valid_filter(filter)
        }),
    };
    if is_valid { Ok(filter) } else { Err(NOT_A_FILTER) }
}

const NOT_A_FILTER: DecodeError = DecodeError::new(
    Fault::TopicName,
    "MQTT 3.1.1 §4.7.1",
    "a topic filter has a wildcard where none may be",
);
