//! Fields that several messages have (§5.3).

use broker_core::QoS;

use super::{
    DecodeError, Fault, Topic,
    error::{RESERVED_TOPIC_ID, WITHOUT_A_NAME},
};

/// A number that the sender of a message gives it, so that it knows the answer (§5.3.7). Zero where none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MsgId(pub u16);

/// A number that stands for a topic name (§5.3.11). 0 and 0xFFFF are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TopicId(pub u16);

impl TopicId {
    /// In place of an id where there is none.
    pub const NONE: TopicId = TopicId(0);

    /// True for 0 and 0xFFFF (§5.3.11).
    pub const fn is_reserved(self) -> bool {
        matches!(self.0, 0 | 0xFFFF)
    }
}

/// What became of a request (§5.3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnCode {
    /// 0x00.
    Accepted,
    /// 0x01: try again after T_WAIT (§6.5, §6.6, §7.2).
    Congestion,
    /// 0x02.
    InvalidTopicId,
    /// 0x03.
    NotSupported,
    /// Any other; reserved, and 0x80 to 0x84 are EMQX's own.
    Other(u8),
}

impl From<u8> for ReturnCode {
    fn from(code: u8) -> ReturnCode {
        match code {
            0 => ReturnCode::Accepted,
            1 => ReturnCode::Congestion,
            2 => ReturnCode::InvalidTopicId,
            3 => ReturnCode::NotSupported,
            other => ReturnCode::Other(other),
        }
    }
}

impl From<ReturnCode> for u8 {
    fn from(code: ReturnCode) -> u8 {
        match code {
            ReturnCode::Accepted => 0,
            ReturnCode::Congestion => 1,
            ReturnCode::InvalidTopicId => 2,
            ReturnCode::NotSupported => 3,
            ReturnCode::Other(other) => other,
        }
    }
}

/// The octet of flags (§5.3.4). What a message does not use is ignored when it is read and zero when it is written.
///
/// ```text
///    7     6 5    4        3      2              1 0
///   DUP   QoS   Retain   Will   CleanSession   TopicIdType
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Flags(pub(super) u8);

/// The values of TopicIdType.
pub(super) const NORMAL: u8 = 0;
pub(super) const PREDEFINED: u8 = 1;
pub(super) const SHORT: u8 = 2;

const DUP: u8 = 0x80;
const RETAIN: u8 = 0x10;
const WILL: u8 = 0x08;
const CLEAN_SESSION: u8 = 0x04;
const QOS_SHIFT: u8 = 5;

impl Flags {
    pub(super) const fn is_dup(self) -> bool {
        self.0 & DUP != 0
    }

    /// `None`: 0b11, QoS −1.
    pub(super) const fn qos(self) -> Option<QoS> {
        QoS::new(self.0 >> QOS_SHIFT & 3)
    }

    pub(super) const fn is_retain(self) -> bool {
        self.0 & RETAIN != 0
    }

    pub(super) const fn is_will(self) -> bool {
        self.0 & WILL != 0
    }

    pub(super) const fn is_clean_session(self) -> bool {
        self.0 & CLEAN_SESSION != 0
    }

    pub(super) const fn topic_id_type(self) -> u8 {
        self.0 & 3
    }

    pub(super) const fn with_dup(self, dup: bool) -> Flags {
        self.with(DUP, dup)
    }

    pub(super) const fn with_qos(self, qos: Option<QoS>) -> Flags {
        let bits = match qos {
            Some(qos) => qos as u8,
            None => 3,
        };
        Flags(self.0 | bits << QOS_SHIFT)
    }

    pub(super) const fn with_retain(self, retain: bool) -> Flags {
        self.with(RETAIN, retain)
    }

    pub(super) const fn with_will(self, will: bool) -> Flags {
        self.with(WILL, will)
    }

    pub(super) const fn with_clean_session(self, clean_session: bool) -> Flags {
        self.with(CLEAN_SESSION, clean_session)
    }

    pub(super) const fn with_topic_id_type(self, topic_id_type: u8) -> Flags {
        Flags(self.0 | topic_id_type)
    }

    const fn with(self, bit: u8, set: bool) -> Flags {
        if set { Flags(self.0 | bit) } else { self }
    }
}

/// A topic id of a PUBLISH, SUBSCRIBE or UNSUBSCRIBE.
pub(super) const fn topic_id(number: u16) -> Result<TopicId, DecodeError> {
    let id = TopicId(number);
    if id.is_reserved() {
        return Err(RESERVED_TOPIC_ID);
    }
    Ok(id)
}

/// A short topic name (§6.7): a topic name of two octets.
pub(super) fn short(octets: [u8; 2]) -> Result<[u8; 2], DecodeError> {
    topic_name(&octets).map(|_| octets)
}

/// A text: UTF-8 without U+0000.
pub(super) fn text(octets: &[u8]) -> Result<&str, DecodeError> {
    match std::str::from_utf8(octets) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(DecodeError::new(
            Fault::Text,
            "MQTT 3.1.1 §1.5.3",
            "a text has U+0000 in it",
        )),
        Err(_) => Err(DecodeError::new(
            Fault::Text,
            "MQTT-SN §5.3",
            "a text is not UTF-8",
        )),
    }
}

/// A topic name, not a filter.
pub(super) fn topic_name(octets: &[u8]) -> Result<&str, DecodeError> {
    let name = text(octets)?;
    if name.is_empty() {
        return Err(WITHOUT_A_NAME);
    }
    if !broker_core::topic::is_valid_name(name) {
        return Err(DecodeError::new(
            Fault::TopicName,
            "MQTT 3.1.1 §4.7.1",
            "a topic name has a wildcard in it",
        ));
    }
    Ok(name)
}

impl Topic {
    pub(super) fn decode(topic_id_type: u8, octets: [u8; 2]) -> Result<Topic, DecodeError> {
        let number = u16::from_be_bytes(octets);
        match topic_id_type {
            NORMAL => topic_id(number).map(Topic::Normal),
            PREDEFINED => topic_id(number).map(Topic::Predefined),
            SHORT => short(octets).map(Topic::Short),
            _ => Err(super::error::RESERVED_TOPIC_ID_TYPE),
        }
    }

    pub(super) const fn topic_id_type(self) -> u8 {
        match self {
            Topic::Normal(_) => NORMAL,
            Topic::Predefined(_) => PREDEFINED,
            Topic::Short(_) => SHORT,
        }
    }

    /// The octets that stand for it in messages: those of the number, or the name itself.
    pub const fn octets(self) -> [u8; 2] {
        match self {
            Topic::Normal(id) | Topic::Predefined(id) => id.0.to_be_bytes(),
            Topic::Short(name) => name,
        }
    }

    /// What a PUBACK about it says in its field for the topic id (§5.4.13).
    pub const fn as_topic_id(self) -> TopicId {
        TopicId(u16::from_be_bytes(self.octets()))
    }
}
