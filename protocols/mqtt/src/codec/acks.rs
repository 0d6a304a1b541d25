//! PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5 §3.4–§3.7): packet identifier · reason code · properties. The reason
//! code is left out if it is success, the properties if there are none; MQTT 3.1 and 3.1.1 have neither.

use broker_core::{PacketId, ReasonCode};

use super::{
    AckProperties, DecodeError, EncodeError, ProtocolVersion,
    properties::{self, PropertyList},
    reader::Reader,
    reasons,
    writer::{Sink, Trim},
};

/// A step in the handshake of a QoS 1 or 2 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The message it is about.
    pub packet_id: PacketId,
    /// Success or why not; MQTT 3.1 and 3.1.1 only know success.
    pub reason: ReasonCode,
    /// Reason string and user properties.
    pub properties: AckProperties<'a>,
}

impl<'a> Ack<'a> {
    /// Without properties.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Ack<'a> {
        Ack {
            packet_id,
            reason,
            properties: AckProperties::default(),
        }
    }

    #[inline]
    pub(super) fn decode(
        body: &'a [u8],
        version: ProtocolVersion,
        allowed: &[ReasonCode],
    ) -> Result<Ack<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let mut ack = Ack::new(reader.packet_id()?, ReasonCode::Success);
        if version == ProtocolVersion::V5 && !reader.is_empty() {
            ack.reason = reasons::read(reader.u8()?, allowed)?;
            if !reader.is_empty() {
                ack.properties = AckProperties::decode(&mut reader)?;
            }
        }
        reader.end()?;
        Ok(ack)
    }

    pub(super) fn put(
        &self,
        version: ProtocolVersion,
        trim: Trim,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put_u16(self.packet_id.get());
        if version != ProtocolVersion::V5 {
            return Ok(());
        }
        let bare = self.properties.is_empty(trim)?;
        if !bare || self.reason != ReasonCode::Success {
            sink.put_u8(self.reason as u8);
        }
        if !bare {
            properties::put_block(&self.properties, trim, sink)?;
        }
        Ok(())
    }
}
