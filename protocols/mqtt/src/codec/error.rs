//! What can be wrong with a packet, and what its sender is told.

use broker_core::ReasonCode;

use super::ProtocolVersion;

/// Why bytes are not a packet. The sender is at fault, always; the connection cannot go on (MQTT 5 §4.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} [{clause}]")]
pub struct DecodeError {
    /// The kind of fault.
    pub fault: Fault,
    /// What an MQTT 5 peer is told.
    pub reason: ReasonCode,
    /// The clause that the packet breaks: a normative statement of MQTT 5 (`MQTT-3.1.2-3`), of MQTT 3.1.1 where
    /// MQTT 5 has none (`MQTT3-3.1.2-22`), or a section (`MQTT 5 §2.2.2.2`).
    pub clause: &'static str,
    /// The fault in words, for one log line.
    pub text: &'static str,
    /// The version that a faulty CONNECT speaks, once it could be read; `None` for every other packet.
    pub connect_version: Option<ProtocolVersion>,
}

/// The kinds of fault that a decoder tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The packet cannot be parsed (MQTT 5 §1.2, "Malformed Packet").
    Malformed,
    /// The packet can be parsed and says what the protocol does not allow (MQTT 5 §1.2, "Protocol Error").
    Protocol,
    /// The packet is larger than the receiver allows.
    TooLarge,
    /// A CONNECT of a protocol name or level that is none of the three.
    UnsupportedVersion,
    /// The first bytes of the connection belong to another protocol.
    NotMqtt(Foreign),
}

/// A protocol that is mistaken for MQTT often enough to be named in a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Foreign {
    /// A TLS record with a ClientHello (RFC 8446 §5.1): the client should use a TLS listener.
    Tls,
    /// An HTTP/1 request or the preface of HTTP/2: the client should use a WebSocket listener.
    Http,
    /// The header of the PROXY protocol, which this listener does not expect.
    ProxyProtocol,
    /// Anything else.
    Other,
}

/// What the sender of a faulty packet is told before the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: the version has no words for it, or nobody there understands MQTT.
    Close,
    /// A CONNACK in the layout of this version, with this reason.
    ConnAck(ProtocolVersion, ReasonCode),
    /// A DISCONNECT (MQTT 5) with this reason.
    Disconnect(ReasonCode),
}

impl DecodeError {
    /// What a server tells the sender. `session` is the version of the connection once a CONNECT was accepted,
    /// `None` while the first packet is awaited.
    ///
    /// MQTT 5 clients hear the reason in a CONNACK or DISCONNECT (§4.13.1). MQTT 3.1.1 knows one such answer, to an
    /// unacceptable protocol level [MQTT3-3.1.2-2]; any other fault closes the connection [MQTT3-4.8.0-1].
    pub fn answer(&self, session: Option<ProtocolVersion>) -> Answer {
        let unsupported = self.fault == Fault::UnsupportedVersion;
        match (session, self.connect_version) {
            (Some(ProtocolVersion::V5), _) => Answer::Disconnect(self.reason),
            (Some(_), _) | (None, None) => Answer::Close,
            (None, Some(version)) if version == ProtocolVersion::V5 || unsupported => {
                Answer::ConnAck(version, self.reason)
            }
            (None, Some(_)) => Answer::Close,
        }
    }

    /// A stable word for counters and logs.
    pub const fn word(&self) -> &'static str {
        match self.fault {
            Fault::Malformed => "malformed_packet",
            Fault::Protocol => "protocol_error",
            Fault::TooLarge => "packet_too_large",
            Fault::UnsupportedVersion => "unsupported_protocol_version",
            Fault::NotMqtt(Foreign::Tls) => "not_mqtt_tls",
            Fault::NotMqtt(Foreign::Http) => "not_mqtt_http",
            Fault::NotMqtt(Foreign::ProxyProtocol) => "not_mqtt_proxy_protocol",
            Fault::NotMqtt(Foreign::Other) => "not_mqtt",
        }
    }

    #[cold]
    pub(super) const fn malformed(clause: &'static str, text: &'static str) -> DecodeError {
        DecodeError::new(Fault::Malformed, ReasonCode::MalformedPacket, clause, text)
    }

    #[cold]
    pub(super) const fn protocol(clause: &'static str, text: &'static str) -> DecodeError {
        DecodeError::new(Fault::Protocol, ReasonCode::ProtocolError, clause, text)
    }

    #[cold]
    pub(super) const fn new(
        fault: Fault,
        reason: ReasonCode,
        clause: &'static str,
        text: &'static str,
    ) -> DecodeError {
        DecodeError {
            fault,
            reason,
            clause,
            text,
            connect_version: None,
        }
    }

    pub(super) const fn of_connect(mut self, version: ProtocolVersion) -> DecodeError {
        self.connect_version = Some(version);
        self
    }
}

/// Why a packet cannot be put on the wire. Nothing is written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A text or binary field is longer than its two-byte length can say (MQTT 5 §1.5.4, §1.5.6).
    #[error("a field is longer than 65535 bytes")]
    FieldTooLong,
    /// The packet is larger than the receiver's Maximum Packet Size or than the protocol can express.
    #[error("the packet is larger than its receiver accepts")]
    PacketTooLarge,
    /// A PUBLISH of QoS 1 or 2 has no packet identifier [MQTT-2.2.1-3], or one of QoS 0 has [MQTT-2.2.1-2].
    #[error("the packet identifier does not fit the quality of service")]
    PacketIdMismatch,
    /// The version has no such packet.
    #[error("the protocol version has no such packet")]
    NotInThisVersion,
}
