//! PUBLISH (MQTT 5 §3.3).
//!
//! ```text
//! byte 1   0 0 1 1  DUP QoS QoS RETAIN
//! variable header   topic name · packet identifier (QoS 1, 2) · properties (MQTT 5)
//! payload           the rest
//! ```

use std::{borrow::Cow, num::NonZeroU16};

use broker_core::{PacketId, Properties, QoS, ReasonCode, SubscriptionIds};

use super::{
    DecodeError, EncodeError, Fault, ProtocolVersion, Sender,
    fixed_header::{FixedHeader, PacketType},
    properties::{self, Property, PropertyList, SubscriptionIdentifier, bit},
    reader::Reader,
    writer::{Sink, Trim},
};

/// An application message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before; never with QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// The retain flag.
    pub retain: bool,
    /// Present for QoS 1 and 2 only.
    pub packet_id: Option<PacketId>,
    /// A valid topic name; empty only if `topic_alias` stands for it.
    pub topic: &'a str,
    /// Stands for the topic from now on, or in its place (§3.3.2.3.4). Belongs to this hop.
    pub topic_alias: Option<NonZeroU16>,
    /// Seconds that the message lives. Belongs to this hop: it is counted down.
    pub expiry_interval: Option<u32>,
    /// The receiver's subscriptions that it matches; from servers only [MQTT-3.3.4-6]. Belongs to this hop.
    pub subscription_ids: SubscriptionIds,
    /// The properties that travel with the message, encoded, in their order. Owned only if properties of the hop
    /// stand between them.
    pub properties: Cow<'a, [u8]>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// A message of QoS 0 without properties.
    pub fn new(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            packet_id: None,
            topic,
            topic_alias: None,
            expiry_interval: None,
            subscription_ids: SubscriptionIds::new(),
            properties: Cow::Borrowed(&[]),
            payload,
        }
    }

    /// The properties that travel with the message.
    pub fn message_properties(&self) -> Properties<'_> {
        Properties::from_validated(&self.properties)
    }

    #[inline]
    pub(super) fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        sender: Sender,
    ) -> Result<Publish<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let (topic, has_wildcard) = reader.topic()?;
        if has_wildcard {
            return Err(WILDCARD_IN_TOPIC);
        }
        let mut publish = Publish::new(topic, &[]);
        publish.dup = header.flags & 0x08 != 0;
        publish.retain = header.flags & 0x01 != 0;
        // The fixed header was refused if it says 3.
        publish.qos = QoS::new(header.flags >> 1 & 0x03).unwrap_or_default();
        if publish.qos != QoS::AtMostOnce {
            publish.packet_id = Some(reader.packet_id()?);
        }
        if version == ProtocolVersion::V5 {
            let len = reader.var_int()? as usize;
            if len > 0 {
                publish.take_properties(reader.bytes(len)?, sender)?;
            }
        }
        if topic.is_empty() && publish.topic_alias.is_none() {
            return Err(match version {
                ProtocolVersion::V5 => DecodeError::protocol(
                    "MQTT 5 §3.3.2.1",
                    "the topic name is empty and there is no topic alias",
                ),
                _ => DecodeError::malformed("MQTT-4.7.3-1", "the topic name is empty"),
            });
        }
        publish.payload = reader.take_rest();
        Ok(publish)
    }

    fn take_properties(&mut self, block: &'a [u8], sender: Sender) -> Result<(), DecodeError> {
        let hop = bit::MessageExpiryInterval | bit::TopicAlias | bit::SubscriptionIdentifier;
        let split = Split::decode(block, TRAVELLING | hop)?;
        if sender == Sender::Client && !split.subscription_ids.is_empty() {
            return Err(DecodeError::protocol(
                "MQTT-3.3.4-6",
                "a client sends a subscription identifier in PUBLISH",
            ));
        }
        self.topic_alias = split.topic_alias;
        self.expiry_interval = split.expiry_interval;
        self.subscription_ids = split.subscription_ids;
        self.properties = split.travelling;
        Ok(())
    }

    pub(super) fn first_byte(&self) -> u8 {
        first_byte(self.dup, self.qos, self.retain)
    }

    pub(super) fn put(&self, version: ProtocolVersion, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.put_text(self.topic)?;
        match (self.qos, self.packet_id) {
            (QoS::AtMostOnce, None) => {}
            (QoS::AtLeastOnce | QoS::ExactlyOnce, Some(id)) => sink.put_u16(id.get()),
            _ => return Err(EncodeError::PacketIdMismatch),
        }
        if version == ProtocolVersion::V5 {
            properties::put_block(self, Trim::Nothing, sink)?;
        }
        sink.put(self.payload);
        Ok(())
    }
}

impl PropertyList for Publish<'_> {
    fn put(&self, _: Trim, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if let Some(seconds) = self.expiry_interval {
            Property::MessageExpiryInterval(seconds).put(sink)?;
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias.get()).put(sink)?;
        }
        for &id in &self.subscription_ids {
            Property::SubscriptionIdentifier(SubscriptionIdentifier(id)).put(sink)?;
        }
        sink.put(&self.properties);
        Ok(())
    }
}

/// DUP is cleared for QoS 0 [MQTT-3.3.1-2].
pub(super) const fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    let dup = dup && !matches!(qos, QoS::AtMostOnce);
    (PacketType::Publish as u8) << 4 | (dup as u8) << 3 | (qos as u8) << 1 | retain as u8
}

pub(super) const WILDCARD_IN_TOPIC: DecodeError = DecodeError::new(
    Fault::Protocol,
    ReasonCode::TopicNameInvalid,
    "MQTT-3.3.2-2",
    "a topic name holds a wildcard",
);

/// The properties that a message keeps on its whole way.
pub(super) const TRAVELLING: u64 = bit::PayloadFormatIndicator
    | bit::ContentType
    | bit::ResponseTopic
    | bit::CorrelationData
    | bit::UserProperty;

/// A block of message properties (PUBLISH or Will), taken apart.
#[derive(Debug, Default)]
pub(super) struct Split<'a> {
    pub(super) topic_alias: Option<NonZeroU16>,
    pub(super) expiry_interval: Option<u32>,
    pub(super) delay_interval: Option<u32>,
    pub(super) subscription_ids: SubscriptionIds,
    pub(super) travelling: Cow<'a, [u8]>,
}

impl<'a> Split<'a> {
    pub(super) fn decode(block: &'a [u8], allowed: u64) -> Result<Split<'a>, DecodeError> {
        let mut split = Split::default();
        let mut reader = Reader::new(block);
        let mut seen = 0;
        // The last run of travelling properties, as a range of the block.
        let mut run = 0..0;
        while !reader.is_empty() {
            let start = block.len() - reader.len();
            let (property, kind) = Property::decode(&mut reader)?;
            properties::check(kind, allowed, &mut seen)?;
            match property {
                Property::MessageExpiryInterval(seconds) => split.expiry_interval = Some(seconds),
                Property::WillDelayInterval(seconds) => split.delay_interval = Some(seconds),
                Property::SubscriptionIdentifier(id) => split.subscription_ids.push(id.0),
                Property::TopicAlias(alias) => split.topic_alias = Some(topic_alias(alias)?),
                Property::ResponseTopic(topic) if !broker_core::topic::is_valid_name(topic) => {
                    return Err(DecodeError::protocol(
                        "MQTT-3.3.2-14",
                        "the response topic is empty or holds a wildcard",
                    ));
                }
                _ => {
                    if start != run.end {
                        split.keep(&block[run]);
                        run = start..start;
                    }
                    run.end = block.len() - reader.len();
                }
            }
        }
        split.keep(&block[run]);
        Ok(split)
    }

    /// Copies only if there already is another run.
    fn keep(&mut self, run: &'a [u8]) {
        if self.travelling.is_empty() {
            self.travelling = Cow::Borrowed(run);
        } else if !run.is_empty() {
            self.travelling.to_mut().extend_from_slice(run);
        }
    }
}

fn topic_alias(alias: u16) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(alias).ok_or(DecodeError::new(
        Fault::Protocol,
        ReasonCode::TopicAliasInvalid,
        "MQTT-3.3.2-8",
        "the topic alias is zero",
    ))
}
