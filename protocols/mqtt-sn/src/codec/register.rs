//! REGISTER and REGACK (§5.4.10, §5.4.11).
//!
//! ```text
//!   REGISTER  TopicId (2)   MsgId (2)   TopicName (1 to n)
//!   REGACK    TopicId (2)   MsgId (2)   ReturnCode
//! ```

use bytes::{BufMut, BytesMut};

use super::{
    DecodeError, Message, MsgId, ReturnCode, TopicId, error::NO_MSG_ID, fields::topic_name, reader::Reader,
};

/// Any topic id is taken: one that a client sends means nothing (§5.4.10).
pub(super) fn register(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let topic_id = reader.topic_id()?;
    let msg_id = reader.msg_id()?;
    let topic_name = if msg_id == MsgId(0) {
        Err(NO_MSG_ID)
    } else {
        topic_name(reader.rest())
    };
    let topic_name = topic_name.map_err(|error| {
        error.refused(|return_code| Message::RegAck {
            topic_id,
            msg_id,
            return_code,
        })
    })?;
    Ok(Message::Register {
        topic_id,
        msg_id,
        topic_name,
    })
}

/// The fields of REGACK and of PUBACK.
pub(super) fn ack(mut reader: Reader<'_>) -> Result<(TopicId, MsgId, ReturnCode), DecodeError> {
    let ack = (reader.topic_id()?, reader.msg_id()?, reader.return_code()?);
    reader.end(ack)
}

pub(super) fn put_register(topic_id: TopicId, msg_id: MsgId, topic_name: &str, to: &mut BytesMut) {
    to.put_u16(topic_id.0);
    to.put_u16(msg_id.0);
    to.put_slice(topic_name.as_bytes());
}

pub(super) fn put_ack(topic_id: TopicId, msg_id: MsgId, return_code: ReturnCode, to: &mut BytesMut) {
    to.put_u16(topic_id.0);
    to.put_u16(msg_id.0);
    to.put_u8(return_code.into());
}
