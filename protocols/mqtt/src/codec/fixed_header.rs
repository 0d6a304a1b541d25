//! The fixed header (MQTT 5 §2.1), which tells a faulty packet from a good one before its body is there.
//!
//! ```text
//!  bit     7   6   5   4   3   2   1   0
//! byte 1  packet type     flags
//! byte 2… remaining length: a variable byte integer of at most four bytes
//! ```

use broker_core::ReasonCode;

use super::{
    DecodeError, Fault, ProtocolVersion, Sender,
    reader::{NOT_MINIMAL, VarInt},
};

/// The packet types of MQTT 5 §2.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Connection request.
    Connect = 1,
    /// Answer to a connection request.
    ConnAck = 2,
    /// An application message.
    Publish = 3,
    /// Answer to a PUBLISH of QoS 1.
    PubAck = 4,
    /// First answer to a PUBLISH of QoS 2.
    PubRec = 5,
    /// Second half of a QoS 2 delivery.
    PubRel = 6,
    /// End of a QoS 2 delivery.
    PubComp = 7,
    /// Request for subscriptions.
    Subscribe = 8,
    /// Answer to a SUBSCRIBE.
    SubAck = 9,
    /// Request to end subscriptions.
    Unsubscribe = 10,
    /// Answer to an UNSUBSCRIBE.
    UnsubAck = 11,
    /// Sign of life.
    PingReq = 12,
    /// Answer to it.
    PingResp = 13,
    /// Goodbye.
    Disconnect = 14,
    /// A step of enhanced authentication (MQTT 5 only).
    Auth = 15,
}

use PacketType::*;

impl PacketType {
    const ALL: [PacketType; 15] = [
        Connect,
        ConnAck,
        Publish,
        PubAck,
        PubRec,
        PubRel,
        PubComp,
        Subscribe,
        SubAck,
        Unsubscribe,
        UnsubAck,
        PingReq,
        PingResp,
        Disconnect,
        Auth,
    ];

    /// The name that the specification prints.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 15] = [
            "CONNECT",
            "CONNACK",
            "PUBLISH",
            "PUBACK",
            "PUBREC",
            "PUBREL",
            "PUBCOMP",
            "SUBSCRIBE",
            "SUBACK",
            "UNSUBSCRIBE",
            "UNSUBACK",
            "PINGREQ",
            "PINGRESP",
            "DISCONNECT",
            "AUTH",
        ];
        NAMES[self as usize - 1]
    }

    /// The first byte of a packet that has no flags of its own.
    pub(super) const fn first_byte(self) -> u8 {
        let flags = match self {
            PubRel | Subscribe | Unsubscribe => 0x02,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// §2.1.2, Table 2-1. DISCONNECT goes both ways, and AUTH exists, only in MQTT 5.
    const fn may_come_from(self, sender: Sender, version: ProtocolVersion) -> bool {
        match (self, sender) {
            (Connect | Subscribe | Unsubscribe | PingReq, Sender::Server) => false,
            (ConnAck | SubAck | UnsubAck | PingResp, Sender::Client) => false,
            (Disconnect, Sender::Server) => matches!(version, ProtocolVersion::V5),
            _ => true,
        }
    }

    /// Types whose remaining length never varies.
    const fn constant_length(self, version: ProtocolVersion) -> Option<u32> {
        match (self, version) {
            (PingReq | PingResp, _) => Some(0),
            (_, ProtocolVersion::V5) => None,
            (Disconnect, _) => Some(0),
            (ConnAck | PubAck | PubRec | PubRel | PubComp | UnsubAck, _) => Some(2),
            _ => None,
        }
    }
}

/// A fixed header without a fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct FixedHeader {
    pub(super) packet_type: PacketType,
    pub(super) flags: u8,
    /// Bytes of the fixed header.
    pub(super) len: usize,
    /// Bytes that follow it.
    pub(super) remaining: usize,
    pub(super) minimal: bool,
}

impl FixedHeader {
    /// `None` if `input` ends within the fixed header. Faults are reported as early as they can be seen.
    #[inline]
    pub(super) fn decode(
        input: &[u8],
        version: ProtocolVersion,
        sender: Sender,
        max_packet_size: u32,
    ) -> Result<Option<FixedHeader>, DecodeError> {
        let Some((&first, after)) = input.split_first() else {
            return Ok(None);
        };
        let (packet_type, flags) = first_byte(first, version, sender)?;
        FixedHeader::with_length(packet_type, flags, after, version, max_packet_size)
    }

    /// The fixed header of a CONNECT, whose version is not known yet; `input` starts with its first byte.
    pub(super) fn of_connect(input: &[u8], max_packet_size: u32) -> Result<Option<FixedHeader>, DecodeError> {
        FixedHeader::with_length(Connect, 0, &input[1..], ProtocolVersion::V4, max_packet_size)
    }

    #[inline]
    fn with_length(
        packet_type: PacketType,
        flags: u8,
        after: &[u8],
        version: ProtocolVersion,
        max_packet_size: u32,
    ) -> Result<Option<FixedHeader>, DecodeError> {
        let Some(length) = VarInt::decode(after)? else {
            return Ok(None);
        };
        // MQTT 3.1 and 3.1.1 do not demand the shortest form.
        if !length.minimal && version == ProtocolVersion::V5 {
            return Err(NOT_MINIMAL);
        }
        let header = FixedHeader {
            packet_type,
            flags,
            len: 1 + length.len,
            remaining: length.value as usize,
            minimal: length.minimal,
        };
        if (header.len + header.remaining) as u64 > u64::from(max_packet_size) {
            return Err(DecodeError::new(
                Fault::TooLarge,
                ReasonCode::PacketTooLarge,
                "MQTT-3.2.2-15",
                "the packet is larger than the maximum packet size",
            ));
        }
        match packet_type.constant_length(version) {
            Some(expected) if expected != length.value => Err(DecodeError::malformed(
                "MQTT 5 §2.1.4",
                "the remaining length is not the one of this packet type",
            )),
            _ => Ok(Some(header)),
        }
    }
}

#[inline]
fn first_byte(byte: u8, version: ProtocolVersion, sender: Sender) -> Result<(PacketType, u8), DecodeError> {
    let flags = byte & 0x0f;
    let packet_type = match usize::from(byte >> 4).checked_sub(1) {
        Some(14) if version != ProtocolVersion::V5 => None,
        Some(index) => Some(PacketType::ALL[index]),
        None => None,
    };
    let Some(packet_type) = packet_type else {
        return Err(DecodeError::malformed(
            "MQTT 5 §2.1.2",
            "the packet type is reserved",
        ));
    };
    if packet_type == Publish {
        check_publish_flags(flags)?;
    } else {
        // MQTT 3.1 §3.6, §3.8, §3.10: a retry of these three sets DUP.
        let retry =
            version == ProtocolVersion::V3 && packet_type.first_byte() & 0x0f == 0x02 && flags == 0x0a;
        if byte != packet_type.first_byte() && !retry {
            return Err(DecodeError::malformed(
                "MQTT-2.1.3-1",
                "the flags of the fixed header are not the ones of this packet type",
            ));
        }
    }
    if !packet_type.may_come_from(sender, version) {
        return Err(DecodeError::protocol(
            "MQTT 5 §2.1.2",
            "the packet type flows in the other direction only",
        ));
    }
    Ok((packet_type, flags))
}

#[inline]
fn check_publish_flags(flags: u8) -> Result<(), DecodeError> {
    let (dup, qos) = (flags & 0x08 != 0, flags >> 1 & 0x03);
    if qos == 3 {
        return Err(DecodeError::malformed("MQTT-3.3.1-4", "PUBLISH has QoS 3"));
    }
    if dup && qos == 0 {
        return Err(DecodeError::malformed(
            "MQTT-3.3.1-2",
            "PUBLISH of QoS 0 has DUP set",
        ));
    }
    Ok(())
}
