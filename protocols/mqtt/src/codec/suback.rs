//! SUBACK and UNSUBACK (MQTT 5 §3.9, §3.11): packet identifier · properties (MQTT 5) · one reason code per filter
//! (an UNSUBACK of MQTT 3.1 and 3.1.1 has none).

use broker_core::{PacketId, ReasonCode};

use super::{
    AckProperties, DecodeError, EncodeError, ProtocolVersion, ReasonCodes, properties,
    reader::Reader,
    reasons,
    writer::{Sink, Trim},
};

/// The answer to a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties.
    pub properties: AckProperties<'a>,
    /// One per filter, in order. Before MQTT 5 every failure is sent as unspecified error (0x80).
    pub reasons: ReasonCodes<'a>,
}

/// The answer to an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Reason string and user properties.
    pub properties: AckProperties<'a>,
    /// One per filter, in order; not sent before MQTT 5.
    pub reasons: ReasonCodes<'a>,
}

/// MQTT 3.1.1 §3.9.3; also taken from servers that speak 3.1.
const SUBACK_3: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::GrantedQoS1,
    ReasonCode::GrantedQoS2,
    ReasonCode::UnspecifiedError,
];

impl<'a> SubAck<'a> {
    /// Without properties.
    pub fn new(packet_id: PacketId, reasons: ReasonCodes<'a>) -> SubAck<'a> {
        SubAck {
            packet_id,
            properties: AckProperties::default(),
            reasons,
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<SubAck<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let mut suback = SubAck::new(reader.packet_id()?, ReasonCodes::EMPTY);
        let mut allowed = SUBACK_3;
        if version == ProtocolVersion::V5 {
            suback.properties = AckProperties::decode(&mut reader)?;
            allowed = reasons::SUBACK;
        }
        suback.reasons = ReasonCodes::decode(reader.take_rest(), allowed)?;
        Ok(suback)
    }

    pub(super) fn put(
        &self,
        version: ProtocolVersion,
        trim: Trim,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            properties::put_block(&self.properties, trim, sink)?;
        }
        self.reasons
            .for_suback(version)
            .for_each(|code| sink.put_u8(code));
        Ok(())
    }
}

impl<'a> UnsubAck<'a> {
    /// Without properties.
    pub fn new(packet_id: PacketId, reasons: ReasonCodes<'a>) -> UnsubAck<'a> {
        UnsubAck {
            packet_id,
            properties: AckProperties::default(),
            reasons,
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<UnsubAck<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let mut unsuback = UnsubAck::new(reader.packet_id()?, ReasonCodes::EMPTY);
        if version == ProtocolVersion::V5 {
            unsuback.properties = AckProperties::decode(&mut reader)?;
            unsuback.reasons = ReasonCodes::decode(reader.take_rest(), reasons::UNSUBACK)?;
        }
        reader.end()?;
        Ok(unsuback)
    }

    pub(super) fn put(
        &self,
        version: ProtocolVersion,
        trim: Trim,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        sink.put_u16(self.packet_id.get());
        if version == ProtocolVersion::V5 {
            properties::put_block(&self.properties, trim, sink)?;
            self.reasons.iter().for_each(|code| sink.put_u8(code as u8));
        }
        Ok(())
    }
}
