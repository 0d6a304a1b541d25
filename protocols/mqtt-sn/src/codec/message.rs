//! The messages, as values (§5.2.2, §5.4).

use broker_core::QoS;
use bytes::{BufMut, BytesMut};

use super::{
    Connect, DecodeError, Fault, MsgId, Publish, ReturnCode, Subscribe, TopicId, TopicName, Will, connect,
    connection, discovery, fields::Flags, header, publish, reader::Reader, register, subscribe,
};

/// One message. Texts and data are borrowed from the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A gateway makes itself known (§5.4.1).
    Advertise {
        /// Of the gateway.
        gateway_id: u8,
        /// Seconds until the next one.
        duration: u16,
    },
    /// A client looks for a gateway (§5.4.2).
    SearchGw {
        /// Hops that it may go; 0: to all nodes.
        radius: u8,
    },
    /// The answer (§5.4.3).
    GwInfo {
        /// Of the gateway.
        gateway_id: u8,
        /// Its address, if another client answers; else empty.
        address: &'a [u8],
    },
    /// A client asks to be connected (§5.4.4).
    Connect(Connect<'a>),
    /// The answer (§5.4.5).
    ConnAck(ReturnCode),
    /// The gateway asks for the Will topic (§5.4.6).
    WillTopicReq,
    /// The answer (§5.4.7); `None` (an empty message): no Will.
    WillTopic(Option<Will<'a>>),
    /// The gateway asks for the Will message (§5.4.8).
    WillMsgReq,
    /// The answer (§5.4.9).
    WillMsg(&'a [u8]),
    /// A topic id for a topic name (§5.4.10).
    Register {
        /// 0 if a client asks for it; what else a client says here means nothing.
        topic_id: TopicId,
        /// For the answer; not zero.
        msg_id: MsgId,
        /// A valid topic name.
        topic_name: &'a str,
    },
    /// The answer (§5.4.11).
    RegAck {
        /// The id.
        topic_id: TopicId,
        /// Of the REGISTER.
        msg_id: MsgId,
        /// What became of it.
        return_code: ReturnCode,
    },
    /// An application message (§5.4.12).
    Publish(Publish<'a>),
    /// The answer to one of QoS 1, or the refusal of any (§5.4.13).
    PubAck {
        /// Of the PUBLISH.
        topic_id: TopicId,
        /// Of the PUBLISH.
        msg_id: MsgId,
        /// What became of it.
        return_code: ReturnCode,
    },
    /// QoS 2: received (§5.4.14).
    PubRec(MsgId),
    /// QoS 2: released (§5.4.14).
    PubRel(MsgId),
    /// QoS 2: complete (§5.4.14).
    PubComp(MsgId),
    /// A request for a subscription (§5.4.15).
    Subscribe(Subscribe<'a>),
    /// The answer (§5.4.16).
    SubAck {
        /// Granted.
        qos: QoS,
        /// The id that the topic will have; 0 for wildcards.
        topic_id: TopicId,
        /// Of the SUBSCRIBE.
        msg_id: MsgId,
        /// What became of it.
        return_code: ReturnCode,
    },
    /// A request to end one (§5.4.17).
    Unsubscribe {
        /// For the answer; not zero.
        msg_id: MsgId,
        /// Which.
        topic: TopicName<'a>,
    },
    /// The answer (§5.4.18).
    UnsubAck(MsgId),
    /// Are you there; with its client id, a sleeping client asks for its messages (§5.4.19). Without: empty.
    PingReq(&'a str),
    /// Yes; to a sleeping client: you have got them all (§5.4.20).
    PingResp,
    /// The end of a connection, or (with a duration, in seconds) the beginning of sleep (§5.4.21). There are clients
    /// that mean no duration when they say 0.
    Disconnect(Option<u16>),
    /// A new Will topic (§5.4.22); `None` (an empty message): no Will any more.
    WillTopicUpd(Option<Will<'a>>),
    /// A new Will message (§5.4.23).
    WillMsgUpd(&'a [u8]),
    /// The answer to WILLTOPICUPD (§5.4.24).
    WillTopicResp(ReturnCode),
    /// The answer to WILLMSGUPD (§5.4.25).
    WillMsgResp(ReturnCode),
}

impl<'a> Message<'a> {
    /// The message that `datagram` is, all of it. Its length may be said in either form (§5.2.1). Flags that its type
    /// does not use are ignored (§5.4 calls them "not used"). Costs no allocation.
    ///
    /// An [envelope of a forwarder](super::Node) is not a message: its type is refused here.
    ///
    /// # Errors
    ///
    /// What the datagram does wrong, and how to refuse it.
    #[inline]
    pub fn decode(datagram: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let (msg_type, body) = header::split(datagram)?;
        if msg_type == types::PUBLISH {
            return Publish::decode(Reader::new(body)).map(Message::Publish);
        }
        Message::decode_body(msg_type, body)
    }

    fn decode_body(msg_type: u8, body: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let reader = Reader::new(body);
        match msg_type {
            types::ADVERTISE => discovery::advertise(reader),
            types::SEARCHGW => discovery::search_gw(reader),
            types::GWINFO => discovery::gw_info(reader),
            types::CONNECT => Connect::decode(reader).map(Message::Connect),
            types::CONNACK => connect::return_code(reader).map(Message::ConnAck),
            types::WILLTOPICREQ => reader.end(Message::WillTopicReq),
            types::WILLTOPIC => Will::decode(reader, Message::ConnAck).map(Message::WillTopic),
            types::WILLMSGREQ => reader.end(Message::WillMsgReq),
            types::WILLMSG => Ok(Message::WillMsg(body)),
            types::REGISTER => register::register(reader),
            types::REGACK => register::ack(reader).map(|(topic_id, msg_id, return_code)| Message::RegAck {
                topic_id,
                msg_id,
                return_code,
            }),
            types::PUBLISH => Publish::decode(reader).map(Message::Publish),
            types::PUBACK => register::ack(reader).map(|(topic_id, msg_id, return_code)| Message::PubAck {
                topic_id,
                msg_id,
                return_code,
            }),
            types::PUBCOMP => publish::msg_id(reader).map(Message::PubComp),
            types::PUBREC => publish::msg_id(reader).map(Message::PubRec),
            types::PUBREL => publish::msg_id(reader).map(Message::PubRel),
            types::SUBSCRIBE => Subscribe::decode(reader).map(Message::Subscribe),
            types::SUBACK => subscribe::sub_ack(reader),
            types::UNSUBSCRIBE => subscribe::unsubscribe(reader),
            types::UNSUBACK => publish::msg_id(reader).map(Message::UnsubAck),
            types::PINGREQ => connection::ping_req(reader),
            types::PINGRESP => reader.end(Message::PingResp),
            types::DISCONNECT => connection::disconnect(reader),
            types::WILLTOPICUPD => Will::decode(reader, Message::WillTopicResp).map(Message::WillTopicUpd),
            types::WILLTOPICRESP => connect::return_code(reader).map(Message::WillTopicResp),
            types::WILLMSGUPD => Ok(Message::WillMsgUpd(body)),
            types::WILLMSGRESP => connect::return_code(reader).map(Message::WillMsgResp),
            _ => Err(RESERVED_TYPE),
        }
    }

    /// Appends the message as one datagram. One of more than [`MESSAGE_LEN_MAX`](super::MESSAGE_LEN_MAX) bytes cannot
    /// be said (§5.2.1): nothing is appended then; [`Message::encoded_len`] tells beforehand.
    ///
    /// What was decoded is the same again: the long form of the length is written only where it is needed, and flags
    /// that the type does not use are zero.
    pub fn encode(&self, to: &mut BytesMut) {
        if header::put(self.msg_type(), self.body_len(), to).is_some() {
            self.put_body(to);
        }
    }

    /// Bytes that [`Message::encode`] writes, or would write if it is more than
    /// [`MESSAGE_LEN_MAX`](super::MESSAGE_LEN_MAX).
    pub const fn encoded_len(&self) -> usize {
        header::message_len(self.body_len())
    }

    const fn msg_type(&self) -> u8 {
        match self {
            Message::Advertise { .. } => types::ADVERTISE,
            Message::SearchGw { .. } => types::SEARCHGW,
            Message::GwInfo { .. } => types::GWINFO,
            Message::Connect(_) => types::CONNECT,
            Message::ConnAck(_) => types::CONNACK,
            Message::WillTopicReq => types::WILLTOPICREQ,
            Message::WillTopic(_) => types::WILLTOPIC,
            Message::WillMsgReq => types::WILLMSGREQ,
            Message::WillMsg(_) => types::WILLMSG,
            Message::Register { .. } => types::REGISTER,
            Message::RegAck { .. } => types::REGACK,
            Message::Publish(_) => types::PUBLISH,
            Message::PubAck { .. } => types::PUBACK,
            Message::PubRec(_) => types::PUBREC,
            Message::PubRel(_) => types::PUBREL,
            Message::PubComp(_) => types::PUBCOMP,
            Message::Subscribe(_) => types::SUBSCRIBE,
            Message::SubAck { .. } => types::SUBACK,
            Message::Unsubscribe { .. } => types::UNSUBSCRIBE,
            Message::UnsubAck(_) => types::UNSUBACK,
            Message::PingReq(_) => types::PINGREQ,
            Message::PingResp => types::PINGRESP,
            Message::Disconnect(_) => types::DISCONNECT,
            Message::WillTopicUpd(_) => types::WILLTOPICUPD,
            Message::WillMsgUpd(_) => types::WILLMSGUPD,
            Message::WillTopicResp(_) => types::WILLTOPICRESP,
            Message::WillMsgResp(_) => types::WILLMSGRESP,
        }
    }

    const fn body_len(&self) -> usize {
        match self {
            Message::WillTopicReq | Message::WillMsgReq | Message::PingResp => 0,
            Message::WillTopic(None) | Message::WillTopicUpd(None) | Message::Disconnect(None) => 0,
            Message::SearchGw { .. } | Message::ConnAck(_) => 1,
            Message::WillTopicResp(_) | Message::WillMsgResp(_) => 1,
            Message::PubRec(_) | Message::PubRel(_) | Message::PubComp(_) | Message::UnsubAck(_) => 2,
            Message::Disconnect(Some(_)) => 2,
            Message::Advertise { .. } => 3,
            Message::RegAck { .. } | Message::PubAck { .. } => 5,
            Message::SubAck { .. } => 6,
            Message::GwInfo { address, .. } => 1 + address.len(),
            Message::Connect(connect) => connect.body_len(),
            Message::WillTopic(Some(will)) | Message::WillTopicUpd(Some(will)) => will.body_len(),
            Message::WillMsg(message) | Message::WillMsgUpd(message) => message.len(),
            Message::Register { topic_name, .. } => 4 + topic_name.len(),
            Message::Publish(publish) => publish.body_len(),
            Message::Subscribe(subscribe) => subscribe.body_len(),
            Message::Unsubscribe { topic, .. } => 3 + topic.len(),
            Message::PingReq(client_id) => client_id.len(),
        }
    }

    fn put_body(&self, to: &mut BytesMut) {
        match *self {
            Message::WillTopicReq | Message::WillMsgReq | Message::PingResp => {}
            Message::WillTopic(None) | Message::WillTopicUpd(None) | Message::Disconnect(None) => {}
            Message::Advertise { gateway_id, duration } => discovery::put_advertise(gateway_id, duration, to),
            Message::SearchGw { radius } => to.put_u8(radius),
            Message::GwInfo { gateway_id, address } => discovery::put_gw_info(gateway_id, address, to),
            Message::Connect(connect) => connect.put(to),
            Message::ConnAck(code) | Message::WillTopicResp(code) | Message::WillMsgResp(code) => {
                to.put_u8(code.into());
            }
            Message::WillTopic(Some(will)) | Message::WillTopicUpd(Some(will)) => will.put(to),
            Message::WillMsg(message) | Message::WillMsgUpd(message) => to.put_slice(message),
            Message::Register {
                topic_id,
                msg_id,
                topic_name,
            } => register::put_register(topic_id, msg_id, topic_name, to),
            Message::RegAck {
                topic_id,
                msg_id,
                return_code,
            }
            | Message::PubAck {
                topic_id,
                msg_id,
                return_code,
            } => register::put_ack(topic_id, msg_id, return_code, to),
            Message::Publish(publish) => publish.put(to),
            Message::PubRec(id) | Message::PubRel(id) | Message::PubComp(id) | Message::UnsubAck(id) => {
                to.put_u16(id.0);
            }
            Message::Subscribe(subscribe) => subscribe.put(to),
            Message::SubAck {
                qos,
                topic_id,
                msg_id,
                return_code,
            } => subscribe::put_sub_ack(qos, topic_id, msg_id, return_code, to),
            Message::Unsubscribe { msg_id, topic } => topic.put(Flags::default(), msg_id, to),
            Message::PingReq(client_id) => to.put_slice(client_id.as_bytes()),
            Message::Disconnect(Some(duration)) => to.put_u16(duration),
        }
    }
}

/// Whom a message concerns, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concern {
    /// ADVERTISE, SEARCHGW and GWINFO: everybody (§6.1).
    Discovery,
    /// A PUBLISH of QoS −1 (§6.8).
    WithoutConnection,
    /// A CONNECT: a client that is to be.
    Connect,
    /// All others: one client and its gateway.
    Client,
}

impl Concern {
    /// Looks at length, type and QoS only.
    pub(crate) fn of(datagram: &[u8]) -> Result<Concern, DecodeError> {
        match header::split(datagram)? {
            (types::ADVERTISE | types::SEARCHGW | types::GWINFO, _) => Ok(Concern::Discovery),
            (types::PUBLISH, [flags, ..]) if Flags(*flags).qos().is_none() => Ok(Concern::WithoutConnection),
            (types::CONNECT, _) => Ok(Concern::Connect),
            (0x03 | 0x11 | 0x19 | 0x1E.., _) => Err(RESERVED_TYPE),
            _ => Ok(Concern::Client),
        }
    }
}

/// The message types (§5.2.2); all others are reserved.
mod types {
    pub(super) const ADVERTISE: u8 = 0x00;
    pub(super) const SEARCHGW: u8 = 0x01;
    pub(super) const GWINFO: u8 = 0x02;
    pub(super) const CONNECT: u8 = 0x04;
    pub(super) const CONNACK: u8 = 0x05;
    pub(super) const WILLTOPICREQ: u8 = 0x06;
    pub(super) const WILLTOPIC: u8 = 0x07;
    pub(super) const WILLMSGREQ: u8 = 0x08;
    pub(super) const WILLMSG: u8 = 0x09;
    pub(super) const REGISTER: u8 = 0x0A;
    pub(super) const REGACK: u8 = 0x0B;
    pub(super) const PUBLISH: u8 = 0x0C;
    pub(super) const PUBACK: u8 = 0x0D;
    pub(super) const PUBCOMP: u8 = 0x0E;
    pub(super) const PUBREC: u8 = 0x0F;
    pub(super) const PUBREL: u8 = 0x10;
    pub(super) const SUBSCRIBE: u8 = 0x12;
    pub(super) const SUBACK: u8 = 0x13;
    pub(super) const UNSUBSCRIBE: u8 = 0x14;
    pub(super) const UNSUBACK: u8 = 0x15;
    pub(super) const PINGREQ: u8 = 0x16;
    pub(super) const PINGRESP: u8 = 0x17;
    pub(super) const DISCONNECT: u8 = 0x18;
    pub(super) const WILLTOPICUPD: u8 = 0x1A;
    pub(super) const WILLTOPICRESP: u8 = 0x1B;
    pub(super) const WILLMSGUPD: u8 = 0x1C;
    pub(super) const WILLMSGRESP: u8 = 0x1D;
}

const RESERVED_TYPE: DecodeError =
    DecodeError::new(Fault::MsgType, "MQTT-SN §5.2.2", "the message type is reserved");
