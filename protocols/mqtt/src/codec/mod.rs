//! Packets of MQTT 3.1, 3.1.1 and 5.0, decoded from borrowed bytes into one set of types and back.
//!
//! Decoding is strict: what comes out of it needs no further check of its form. What depends on the state of the
//! connection (aliases, quotas, the first packet being a CONNECT) is the peer's.

mod acks;
mod connack;
mod connect;
mod disconnect;
mod error;
mod first;
mod fixed_header;
mod outgoing;
mod properties;
mod publish;
mod reader;
mod reasons;
mod suback;
mod subscribe;
mod user_properties;
mod writer;

use bytes::BytesMut;

pub use acks::Ack;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::{Auth, Disconnect};
pub use error::{Answer, DecodeError, EncodeError, Fault, Foreign};
pub use first::decode_connect;
pub use fixed_header::PacketType;
pub use outgoing::{Hop, OutgoingPublish};
pub use properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    UnsubscribeProperties,
};
pub use publish::Publish;
pub use reasons::{ReasonCodes, closest_reason};
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{Subscribe, Subscription, Subscriptions, TopicFilters, Unsubscribe, is_valid_filter};
pub use user_properties::UserProperties;

use fixed_header::FixedHeader;
use reader::VarInt;
use writer::{Counter, Sink, Trim};

/// A version of MQTT; the number is the protocol level in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ProtocolVersion {
    /// MQTT 3.1, `MQIsdp`.
    V3 = 3,
    /// MQTT 3.1.1.
    V4 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl ProtocolVersion {
    /// The protocol name in CONNECT (MQTT 5 §3.1.2.1).
    pub const fn name(self) -> &'static str {
        match self {
            ProtocolVersion::V3 => "MQIsdp",
            ProtocolVersion::V4 | ProtocolVersion::V5 => "MQTT",
        }
    }
}

/// The side that a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A client: the receiver is a server.
    Client,
    /// A server: the receiver is a client.
    Server,
}

/// A packet of any version. It borrows from the bytes it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Connection request.
    Connect(Box<Connect<'a>>),
    /// Answer to a connection request.
    ConnAck(Box<ConnAck<'a>>),
    /// An application message.
    Publish(Publish<'a>),
    /// Answer to a PUBLISH of QoS 1.
    PubAck(Ack<'a>),
    /// First answer to a PUBLISH of QoS 2.
    PubRec(Ack<'a>),
    /// Second half of a QoS 2 delivery.
    PubRel(Ack<'a>),
    /// End of a QoS 2 delivery.
    PubComp(Ack<'a>),
    /// Request for subscriptions.
    Subscribe(Subscribe<'a>),
    /// Answer to a SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// Request to end subscriptions.
    Unsubscribe(Unsubscribe<'a>),
    /// Answer to an UNSUBSCRIBE.
    UnsubAck(UnsubAck<'a>),
    /// Sign of life.
    PingReq,
    /// Answer to it.
    PingResp,
    /// Goodbye.
    Disconnect(Disconnect<'a>),
    /// A step of enhanced authentication (MQTT 5 only).
    Auth(Auth<'a>),
}

/// Decodes the packets of one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// What the connection speaks. A CONNECT is read as what it says itself.
    pub version: ProtocolVersion,
    /// The side that the packets come from.
    pub sender: Sender,
    /// Largest packet accepted, bytes, fixed header included.
    pub max_packet_size: u32,
}

impl Decoder {
    /// The packet at the front of `input`, and how many bytes it takes. `None` if it is not complete; asking again
    /// costs no more than its fixed header. A wrong packet type, flags, direction or length is reported before the
    /// body is there.
    ///
    /// # Errors
    ///
    /// What the packet does wrong. The connection cannot go on then: see [`DecodeError::answer`].
    #[inline]
    pub fn decode<'a>(&self, input: &'a [u8]) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
        let header = FixedHeader::decode(input, self.version, self.sender, self.max_packet_size)?;
        let Some(header) = header else {
            return Ok(None);
        };
        let len = header.len + header.remaining;
        let Some(body) = input.get(header.len..len) else {
            return Ok(None);
        };
        if header.packet_type == PacketType::Publish {
            let publish = Publish::decode(header, body, self.version, self.sender)?;
            return Ok(Some((Packet::Publish(publish), len)));
        }
        self.decode_body(header, body).map(|packet| Some((packet, len)))
    }

    fn decode_body<'a>(&self, header: FixedHeader, body: &'a [u8]) -> Result<Packet<'a>, DecodeError> {
        let version = self.version;
        Ok(match header.packet_type {
            PacketType::Connect => Packet::Connect(Box::new(Connect::decode(body, header.minimal)?)),
            PacketType::ConnAck => Packet::ConnAck(Box::new(ConnAck::decode(body, version)?)),
            PacketType::Publish => Packet::Publish(Publish::decode(header, body, version, self.sender)?),
            PacketType::PubAck => Packet::PubAck(Ack::decode(body, version, reasons::PUBACK_PUBREC)?),
            PacketType::PubRec => Packet::PubRec(Ack::decode(body, version, reasons::PUBACK_PUBREC)?),
            PacketType::PubRel => Packet::PubRel(Ack::decode(body, version, reasons::PUBREL_PUBCOMP)?),
            PacketType::PubComp => Packet::PubComp(Ack::decode(body, version, reasons::PUBREL_PUBCOMP)?),
            PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
            PacketType::SubAck => Packet::SubAck(SubAck::decode(body, version)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(body, version)?),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(body, version, self.sender)?),
            PacketType::Auth => Packet::Auth(Auth::decode(body, self.sender)?),
        })
    }
}

impl Packet<'_> {
    /// Its type.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `out`. What `version` has no words for is left out; a CONNECT is written in the version
    /// it names itself.
    ///
    /// `max_packet_size` is what the receiver accepts, bytes; `u32::MAX` without a limit. In answers (CONNACK, the
    /// acknowledgements, DISCONNECT, AUTH) first the user properties, then the reason string are left out if
    /// the packet does not fit otherwise [MQTT-3.2.2-19, 3.2.2-20 and their like].
    ///
    /// # Errors
    ///
    /// If the packet cannot be written or does not fit; `out` is unchanged then.
    pub fn encode(
        &self,
        version: ProtocolVersion,
        max_packet_size: u32,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let levels = if self.may_be_trimmed() {
            &Trim::LEVELS[..]
        } else {
            &Trim::LEVELS[..1]
        };
        let mut failure = EncodeError::PacketTooLarge;
        for &trim in levels {
            let mut body = Counter::default();
            if let Err(error) = self.put_body(version, trim, &mut body) {
                failure = error;
                continue;
            }
            let len = 1 + VarInt::encoded_len(body.0) + body.0;
            if body.0 > VarInt::MAX || len as u64 > u64::from(max_packet_size) {
                failure = EncodeError::PacketTooLarge;
                continue;
            }
            out.reserve(len);
            out.put_u8(self.first_byte());
            out.put_var_int(body.0);
            return self.put_body(version, trim, out);
        }
        Err(failure)
    }

    const fn may_be_trimmed(&self) -> bool {
        !matches!(
            self.packet_type(),
            PacketType::Connect | PacketType::Publish | PacketType::Subscribe | PacketType::Unsubscribe
        )
    }

    fn first_byte(&self) -> u8 {
        match self {
            Packet::Publish(publish) => publish.first_byte(),
            other => other.packet_type().first_byte(),
        }
    }

    fn put_body(
        &self,
        version: ProtocolVersion,
        trim: Trim,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        match self {
            Packet::Connect(connect) => connect.put(sink),
            Packet::ConnAck(connack) => connack.put(version, trim, sink),
            Packet::Publish(publish) => publish.put(version, sink),
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                ack.put(version, trim, sink)
            }
            Packet::Subscribe(subscribe) => subscribe.put(version, sink),
            Packet::SubAck(suback) => suback.put(version, trim, sink),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.put(version, sink),
            Packet::UnsubAck(unsuback) => unsuback.put(version, trim, sink),
            Packet::PingReq | Packet::PingResp => Ok(()),
            Packet::Disconnect(disconnect) => disconnect.put(version, trim, sink),
            Packet::Auth(_) if version != ProtocolVersion::V5 => Err(EncodeError::NotInThisVersion),
            Packet::Auth(auth) => auth.put(trim, sink),
        }
    }
}
