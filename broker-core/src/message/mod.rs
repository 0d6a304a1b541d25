//! The one message of the broker: MQTT 5's application message, immutable and shared.

mod properties;

use std::{fmt, sync::Arc};

use smallvec::SmallVec;
use triomphe::ThinArc;

use crate::{ClientInfo, QoS, Timestamp};

pub use properties::{Properties, PropertiesBuilder, Property};

/// An application message. One allocation holds everything; a clone is one reference count.
///
/// Its bytes lie in the order topic, properties, payload, so an outgoing PUBLISH of any version is a few
/// copies. The properties are kept encoded as on the MQTT 5 wire until somebody asks for them.
#[derive(Clone)]
pub struct Message(ThinArc<Head, u8>);

struct Head {
    id: u64,
    created: Timestamp,
    expires: Timestamp,
    origin: Arc<ClientInfo>,
    properties_len: u32,
    topic_len: u16,
    qos: QoS,
    retain: bool,
}

/// What a [`Message`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    /// A valid topic name, without the publisher's mountpoint.
    pub topic: &'a str,
    /// Quality of service that the publisher asked for.
    pub qos: QoS,
    /// The publisher's retain flag.
    pub retain: bool,
    /// Message expiry interval in seconds (MQTT 5 §3.3.2.3.3); `None`: never expires.
    pub expiry_interval: Option<u32>,
    /// The properties that travel with the message, encoded (see [`Properties`]).
    pub properties: Properties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> MessageParts<'a> {
    /// A QoS 0 message without properties.
    pub fn new(topic: &'a str, payload: &'a [u8]) -> MessageParts<'a> {
        MessageParts {
            topic,
            qos: QoS::AtMostOnce,
            retain: false,
            expiry_interval: None,
            properties: Properties::EMPTY,
            payload,
        }
    }

    /// The message as `origin` publishes it at `now`: its mountpoint stands before the topic.
    ///
    /// The topic with its mountpoint must fit into 65 535 bytes; `None` if it does not.
    pub fn publish(&self, now: Timestamp, origin: &Arc<ClientInfo>) -> Option<Message> {
        self.assemble(now, origin, &origin.mountpoint)
    }

    /// The message with a topic that already is absolute (wills, rewritten topics, internal publishers).
    pub fn publish_absolute(&self, now: Timestamp, origin: &Arc<ClientInfo>) -> Option<Message> {
        self.assemble(now, origin, "")
    }

    fn assemble(&self, now: Timestamp, origin: &Arc<ClientInfo>, mountpoint: &str) -> Option<Message> {
        let topic_len = u16::try_from(mountpoint.len() + self.topic.len()).ok()?;
        let properties = self.properties.encoded();
        let head = Head {
            id: 0,
            created: now,
            expires: self
                .expiry_interval
                .map_or(Timestamp::NEVER, |secs| now.after_secs(u64::from(secs))),
            origin: Arc::clone(origin),
            properties_len: u32::try_from(properties.len()).ok()?,
            topic_len,
            qos: self.qos,
            retain: self.retain,
        };
        let mut bytes: SmallVec<[u8; 512]> = SmallVec::new();
        bytes.reserve(topic_len as usize + properties.len() + self.payload.len());
        bytes.extend_from_slice(mountpoint.as_bytes());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(self.payload);
        Some(Message(ThinArc::from_header_and_slice(head, &bytes)))
    }
}

impl Message {
    /// The absolute topic name: with the publisher's mountpoint.
    pub fn topic(&self) -> &str {
        let bytes = &self.0.slice[..self.0.header.header.topic_len as usize];
        std::str::from_utf8(bytes).expect("a message is made from a str topic")
    }

    /// The topic in its publisher's own words: without the mountpoint.
    pub fn local_topic(&self) -> &str {
        let topic = self.topic();
        topic.strip_prefix(&*self.origin().mountpoint).unwrap_or(topic)
    }

    /// The topic's bytes, for those who only copy them.
    pub fn topic_bytes(&self) -> &[u8] {
        &self.0.slice[..self.0.header.header.topic_len as usize]
    }

    /// The properties that travel with the message.
    pub fn properties(&self) -> Properties<'_> {
        let head = &self.0.header.header;
        let start = head.topic_len as usize;
        Properties::from_validated(&self.0.slice[start..start + head.properties_len as usize])
    }

    /// The application's bytes.
    pub fn payload(&self) -> &[u8] {
        let head = &self.0.header.header;
        &self.0.slice[head.topic_len as usize + head.properties_len as usize..]
    }

    /// Number given by the shard that accepted the message; 0 before.
    pub fn id(&self) -> u64 {
        self.0.header.header.id
    }

    /// Sets the number if nobody else holds the message yet.
    pub fn set_id(&mut self, id: u64) {
        self.0.with_arc_mut(|arc| {
            if let Some(inner) = triomphe::Arc::get_mut(arc) {
                inner.header_mut().id = id;
            }
        });
    }

    /// Sets when it expires, if nobody else holds the message yet.
    pub(crate) fn set_expires(&mut self, expires: Timestamp) {
        self.0.with_arc_mut(|arc| {
            if let Some(inner) = triomphe::Arc::get_mut(arc) {
                inner.header_mut().expires = expires;
            }
        });
    }

    /// The publisher's quality of service.
    pub fn qos(&self) -> QoS {
        self.0.header.header.qos
    }

    /// The publisher's retain flag.
    pub fn retain(&self) -> bool {
        self.0.header.header.retain
    }

    /// Who published it.
    pub fn origin(&self) -> &Arc<ClientInfo> {
        &self.0.header.header.origin
    }

    /// When the gateway received it.
    pub fn created(&self) -> Timestamp {
        self.0.header.header.created
    }

    /// When it expires; [`Timestamp::NEVER`] without an expiry interval.
    pub fn expires(&self) -> Timestamp {
        self.0.header.header.expires
    }

    /// True once its expiry interval has passed [MQTT-3.3.2-5].
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.0.header.header.expires <= now
    }

    /// What to forward as Message Expiry Interval: the received value minus the waiting time [MQTT-3.3.2-6].
    pub fn remaining_expiry_secs(&self, now: Timestamp) -> Option<u32> {
        match self.expires() {
            Timestamp::NEVER => None,
            at => Some(u32::try_from(at.since(now).as_millis().div_ceil(1000)).unwrap_or(u32::MAX)),
        }
    }

    /// Bytes that a queue accounts for this message: its memory, bookkeeping included.
    pub fn weight(&self) -> usize {
        self.0.slice.len() + size_of::<Head>() + 2 * size_of::<usize>()
    }

    /// The same message under another topic and retain flag (rewrite, `$delayed`, hooks).
    pub fn with_topic(&self, topic: &str, retain: bool) -> Option<Message> {
        let mut changed = self.parts(topic).assemble(self.created(), self.origin(), "")?;
        let (id, expires) = (self.id(), self.expires());
        changed.0.with_arc_mut(|arc| {
            if let Some(inner) = triomphe::Arc::get_mut(arc) {
                inner.header_mut().id = id;
                inner.header_mut().expires = expires;
                inner.header_mut().retain = retain;
            }
        });
        Some(changed)
    }

    fn parts<'a>(&'a self, topic: &'a str) -> MessageParts<'a> {
        MessageParts {
            topic,
            qos: self.qos(),
            retain: self.retain(),
            expiry_interval: None,
            properties: self.properties(),
            payload: self.payload(),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}
