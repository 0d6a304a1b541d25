//! A message as a record of the journal.

use bytes::Bytes;

use super::{Decoder, Encoder, FormatError, Origins, origin::encode_client};
use crate::{Message, MessageParts, Properties, QoS, Timestamp};

const VERSION: u8 = 0x10;
const RETAIN: u8 = 0x04;
const EXPIRES: u8 = 0x08;

/// The record of a message. It begins with the absolute topic, as [`record_topic`](crate::store::record_topic) wants.
pub fn encode_message(message: &Message) -> Bytes {
    let (topic, properties) = (message.topic_bytes(), message.properties().encoded());
    let mut to = Encoder::with_capacity(topic.len() + properties.len() + message.payload().len() + 128);
    to.u16(u16::try_from(topic.len()).expect("a topic has at most 65 535 bytes"));
    to.raw(topic);
    let has_expiry = message.expires() != Timestamp::NEVER;
    let flags = message.qos() as u8
        | if message.retain() { RETAIN } else { 0 }
        | if has_expiry { EXPIRES } else { 0 };
    to.u8(VERSION | flags);
    to.u64(message.id());
    to.u64(message.created().as_millis());
    if has_expiry {
        to.u64(message.expires().as_millis());
    }
    to.nested(|to| encode_client(message.origin(), to));
    to.bytes(properties);
    to.raw(message.payload());
    to.finish()
}

/// True if the message of a record is to be retained.
pub fn is_retained(record: &[u8]) -> bool {
    let Some((len, rest)) = record.split_first_chunk::<2>() else {
        return false;
    };
    let flags = rest.get(usize::from(u16::from_be_bytes(*len)));
    flags.is_some_and(|flags| flags & RETAIN != 0)
}

/// The message of a record.
///
/// # Errors
/// If the bytes are not those of a message.
pub fn decode_message(record: &[u8], origins: &mut Origins) -> Result<Message, FormatError> {
    let mut from = Decoder::new(record);
    let len = from.u16()?;
    let topic = std::str::from_utf8(from.raw(usize::from(len))?).map_err(|_| FormatError)?;
    let flags = from.u8()?;
    if flags & 0xf0 != VERSION {
        return Err(FormatError);
    }
    let id = from.u64()?;
    let created = Timestamp::from_millis(from.u64()?);
    let expires = if flags & EXPIRES == 0 {
        Timestamp::NEVER
    } else {
        Timestamp::from_millis(from.u64()?)
    };
    let origin = origins.get(from.bytes()?)?;
    let parts = MessageParts {
        topic,
        qos: QoS::new(flags & 0x03).ok_or(FormatError)?,
        retain: flags & RETAIN != 0,
        expiry_interval: None,
        properties: Properties::from_validated(from.bytes()?),
        payload: from.rest(),
    };
    let mut message = parts.publish_absolute(created, &origin).ok_or(FormatError)?;
    message.set_id(id);
    message.set_expires(expires);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ClientInfo, store::record_topic};

    #[test]
    fn a_message_comes_back_from_its_record() {
        let mut client = ClientInfo::internal("c", false);
        client.peer = Some("[::1]:7".parse().unwrap());
        client.mountpoint = "m/".into();
        client.attributes = vec![("a".into(), "b".into())];
        let parts = MessageParts {
            qos: QoS::ExactlyOnce,
            retain: true,
            expiry_interval: Some(7),
            ..MessageParts::new("t/x", b"payload")
        };
        let mut message = parts.publish(Timestamp::from_millis(5), &client.into()).unwrap();
        message.set_id(9);
        let record = encode_message(&message);
        assert_eq!(record_topic(&record), Some("m/t/x"));
        let read = decode_message(&record, &mut Origins::default()).unwrap();
        assert_eq!(encode_message(&read), record);
        assert_eq!((read.topic(), read.local_topic()), ("m/t/x", "t/x"));
        assert_eq!((read.payload(), read.id()), (&b"payload"[..], 9));
        assert_eq!(read.expires(), Timestamp::from_millis(7005));
        assert_eq!(read.origin().peer, message.origin().peer);
        for len in 0..record.len() - 7 {
            assert!(
                decode_message(&record[..len], &mut Origins::default()).is_err(),
                "{len}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes: Vec<u8>) {
            let _ = decode_message(&bytes, &mut Origins::default());
        }
    }
}
