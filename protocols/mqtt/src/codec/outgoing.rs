//! The PUBLISH of a delivery: the one packet that a broker writes often, so it is measured by arithmetic and
//! written in one go.

use std::num::NonZeroU16;

use broker_core::{Delivery, Outbox, QoS};
use bytes::BytesMut;

use super::{ProtocolVersion, publish::first_byte, reader::VarInt, writer::Sink};

/// How a delivery goes onto the wire of one client.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPublish<'a> {
    delivery: &'a Delivery,
    topic: &'a [u8],
    topic_alias: Option<NonZeroU16>,
    expiry_interval: Option<u32>,
    version: ProtocolVersion,
    remaining: usize,
    properties: usize,
}

/// What differs between the clients that get the same delivery.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The topic as the client sees it, without its mountpoint; empty if `topic_alias` stands in its place.
    pub topic: &'a [u8],
    /// MQTT 5 only.
    pub topic_alias: Option<NonZeroU16>,
    /// Seconds left of the message's life (MQTT 5 only) [MQTT-3.3.2-6].
    pub expiry_interval: Option<u32>,
}

impl<'a> OutgoingPublish<'a> {
    /// Measures the packet. Before MQTT 5 all properties, the alias and the expiry are left out.
    ///
    /// `None` if it cannot be written at all: a topic above 65 535 bytes, a packet above 268 435 455 bytes, or a
    /// packet identifier missing for QoS 1 or 2.
    pub fn new(
        version: ProtocolVersion,
        delivery: &'a Delivery,
        hop: Hop<'a>,
    ) -> Option<OutgoingPublish<'a>> {
        u16::try_from(hop.topic.len()).ok()?;
        let mut remaining = 2 + hop.topic.len() + delivery.message.payload().len();
        if delivery.qos != QoS::AtMostOnce {
            delivery.packet_id?;
            remaining += 2;
        }
        let mut outgoing = OutgoingPublish {
            delivery,
            topic: hop.topic,
            topic_alias: hop.topic_alias,
            expiry_interval: hop.expiry_interval,
            version,
            remaining,
            properties: 0,
        };
        if version == ProtocolVersion::V5 {
            outgoing.properties = outgoing.properties_len();
            outgoing.remaining += VarInt::encoded_len(outgoing.properties) + outgoing.properties;
        }
        (outgoing.remaining <= VarInt::MAX).then_some(outgoing)
    }

    /// Bytes of the whole packet, to hold against the client's Maximum Packet Size [MQTT-3.1.2-24].
    pub const fn encoded_len(&self) -> usize {
        1 + VarInt::encoded_len(self.remaining) + self.remaining
    }

    /// Appends the packet; a large payload by reference.
    pub fn write(&self, out: &mut Outbox) {
        let payload = self.delivery.message.payload();
        if payload.len() < Outbox::SHARE_FROM_BYTES {
            out.put_with(|tail| {
                tail.reserve(self.encoded_len());
                self.write_head(tail);
                tail.put(payload);
            });
        } else {
            out.put_with(|tail| {
                tail.reserve(self.encoded_len() - payload.len());
                self.write_head(tail);
            });
            out.put_payload(&self.delivery.message);
        }
    }

    /// All but the payload.
    fn write_head(&self, tail: &mut BytesMut) {
        let delivery = self.delivery;
        tail.put_u8(first_byte(delivery.dup, delivery.qos, delivery.retain));
        tail.put_var_int(self.remaining);
        // The length was checked to fit.
        tail.put_u16(self.topic.len() as u16);
        tail.put(self.topic);
        if let (QoS::AtLeastOnce | QoS::ExactlyOnce, Some(id)) = (delivery.qos, delivery.packet_id) {
            tail.put_u16(id.get());
        }
        if self.version == ProtocolVersion::V5 {
            tail.put_var_int(self.properties);
            self.write_properties(tail);
        }
    }

    fn write_properties(&self, tail: &mut BytesMut) {
        if let Some(seconds) = self.expiry_interval {
            tail.put_u8(0x02);
            tail.put_u32(seconds);
        }
        if let Some(alias) = self.topic_alias {
            tail.put_u8(0x23);
            tail.put_u16(alias.get());
        }
        for &id in &self.delivery.subscription_ids {
            tail.put_u8(0x0b);
            tail.put_var_int(id as usize);
        }
        tail.put(self.delivery.message.properties().encoded());
    }

    fn properties_len(&self) -> usize {
        let ids = self.delivery.subscription_ids.iter();
        let ids: usize = ids.map(|&id| 1 + VarInt::encoded_len(id as usize)).sum();
        let expiry = if self.expiry_interval.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        expiry + alias + ids + self.delivery.message.properties().encoded().len()
    }
}
