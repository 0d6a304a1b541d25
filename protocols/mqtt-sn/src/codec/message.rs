//! The messages, as values.

use broker_core::QoS;

/// A number that the sender of a message gives it, so that it knows the answer (§5.3.11). Zero where none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MsgId(pub u16);

/// A number that stands for a topic name (§5.3.12). 0 and 0xFFFF are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TopicId(pub u16);

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
        /// 0 if a client asks for it.
        topic_id: TopicId,
        /// For the answer.
        msg_id: MsgId,
        /// The topic name.
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
        /// For the answer.
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
    /// The end of a connection, or (with a duration, in seconds) the beginning of sleep (§5.4.21).
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

/// CONNECT (§5.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The gateway is to ask for a Will.
    pub will: bool,
    /// Neither an old session nor an old Will goes on (§6.3).
    pub clean_session: bool,
    /// Always 1; others are answered with "not supported" (§5.3.7).
    pub protocol_id: u8,
    /// Seconds of keep alive.
    pub duration: u16,
    /// 1 to 23 characters, says §5.3.1; empty asks the gateway for one.
    pub client_id: &'a str,
}

/// The Will topic with its options (§5.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// To publish it with.
    pub qos: QoS,
    /// Retain it.
    pub retain: bool,
    /// Where to.
    pub topic: &'a str,
}

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
    /// Zero for QoS 0 and −1.
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

/// A topic by its id (§5.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Registered in this session.
    Normal(TopicId),
    /// Known to both sides without registration (§6.7).
    Predefined(TopicId),
    /// A name of two characters (§6.7).
    Short([u8; 2]),
}

/// SUBSCRIBE (§5.4.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Sent before.
    pub dup: bool,
    /// Highest quality of service of deliveries.
    pub qos: QoS,
    /// For the answer.
    pub msg_id: MsgId,
    /// To what.
    pub topic: TopicName<'a>,
}

/// What a SUBSCRIBE or UNSUBSCRIBE is about (§5.4.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicName<'a> {
    /// A topic name or filter.
    Name(&'a str),
    /// A predefined topic id.
    Predefined(TopicId),
    /// A name of two characters.
    Short([u8; 2]),
}

/// The envelope in which a forwarder carries a message of a wireless node, or one for it (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Hops that the forwarder broadcasts it, 0 to 3.
    pub radius: u8,
    /// Names the node.
    pub id: &'a [u8],
    /// The message, as it would stand in a datagram of its own.
    pub inner: &'a [u8],
}
