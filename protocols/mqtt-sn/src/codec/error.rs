//! What can be wrong with a datagram, and what its sender is told.

use super::{Message, ReturnCode};

/// Why a datagram is not a message. The sender is at fault, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} [{clause}]")]
pub struct DecodeError {
    /// The kind of fault.
    pub fault: Fault,
    /// The clause that the datagram breaks.
    pub clause: &'static str,
    /// The fault in words, for one log line.
    pub text: &'static str,
    /// The message that refuses it, where the specification has one and the datagram says enough to fill it in. A
    /// CONNACK for a CONNECT is shorter than that and may go to anybody; the others may be a few bytes longer than the
    /// datagram and are for clients that are known. Without a refusal the datagram is dropped.
    pub refusal: Option<Message<'static>>,
}

/// The kinds of fault that the decoder tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The length of the datagram is not what it says (§5.2.1), or not one that its type may have.
    Length,
    /// A reserved message type (§5.2.2).
    MsgType,
    /// A reserved protocol id (§5.3.8).
    ProtocolId,
    /// QoS −1 where only a PUBLISH may have it (§5.3.4).
    QoS,
    /// A reserved topic id type (§5.3.4).
    TopicIdType,
    /// A reserved topic id (§5.3.11).
    TopicId,
    /// No message id where the answer needs one (§5.3.7).
    MsgId,
    /// A text that is not UTF-8 or has U+0000 in it.
    Text,
    /// A topic name or filter that is none.
    TopicName,
}

impl DecodeError {
    /// A stable word for counters and logs.
    pub const fn word(&self) -> &'static str {
        match self.fault {
            Fault::Length => "malformed_length",
            Fault::MsgType => "reserved_message_type",
            Fault::ProtocolId => "unsupported_protocol_id",
            Fault::QoS => "invalid_qos",
            Fault::TopicIdType => "reserved_topic_id_type",
            Fault::TopicId => "reserved_topic_id",
            Fault::MsgId => "message_id_zero",
            Fault::Text => "malformed_text",
            Fault::TopicName => "invalid_topic_name",
        }
    }

    /// The return code of its refusal.
    pub(super) const fn return_code(&self) -> ReturnCode {
        match self.fault {
            Fault::TopicId => ReturnCode::InvalidTopicId,
            _ => ReturnCode::NotSupported,
        }
    }

    #[cold]
    pub(super) const fn new(fault: Fault, clause: &'static str, text: &'static str) -> DecodeError {
        DecodeError {
            fault,
            clause,
            text,
            refusal: None,
        }
    }

    /// With the refusal that `answer` makes of the return code.
    pub(super) fn refused(self, answer: impl FnOnce(ReturnCode) -> Message<'static>) -> DecodeError {
        DecodeError {
            refusal: Some(answer(self.return_code())),
            ..self
        }
    }
}

pub(super) const ENDS_EARLY: DecodeError = DecodeError::new(
    Fault::Length,
    "MQTT-SN §5.4",
    "the message ends before all its fields",
);

pub(super) const GOES_ON: DecodeError = DecodeError::new(
    Fault::Length,
    "MQTT-SN §5.4",
    "the message goes on after its last field",
);

pub(super) const RESERVED_TOPIC_ID: DecodeError =
    DecodeError::new(Fault::TopicId, "MQTT-SN §5.3.11", "the topic id is reserved");

pub(super) const RESERVED_TOPIC_ID_TYPE: DecodeError = DecodeError::new(
    Fault::TopicIdType,
    "MQTT-SN §5.3.4",
    "the topic id type is reserved",
);

pub(super) const QOS_WITHOUT_CONNECTION: DecodeError =
    DecodeError::new(Fault::QoS, "MQTT-SN §5.3.4", "QoS -1 is for PUBLISH only");

pub(super) const WITHOUT_A_NAME: DecodeError =
    DecodeError::new(Fault::TopicName, "MQTT 3.1.1 §4.7.3", "a topic name is empty");

pub(super) const NO_MSG_ID: DecodeError =
    DecodeError::new(Fault::MsgId, "MQTT-SN §5.3.7", "the message id is zero");
