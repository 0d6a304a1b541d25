//! Which reason codes a packet may carry (MQTT 5 §2.4), and what stands for them in MQTT 3.1 and 3.1.1.

use std::fmt;

use broker_core::ReasonCode;
use broker_core::ReasonCode::*;

use super::{DecodeError, PacketType, ProtocolVersion, Sender};

/// §3.2.2.2, Table 3-1.
pub(super) const CONNACK: &[ReasonCode] = &[
    Success,
    UnspecifiedError,
    MalformedPacket,
    ProtocolError,
    ImplementationSpecificError,
    UnsupportedProtocolVersion,
    ClientIdentifierNotValid,
    BadUserNameOrPassword,
    NotAuthorized,
    ServerUnavailable,
    ServerBusy,
    Banned,
    BadAuthenticationMethod,
    TopicNameInvalid,
    PacketTooLarge,
    QuotaExceeded,
    PayloadFormatInvalid,
    RetainNotSupported,
    QoSNotSupported,
    UseAnotherServer,
    ServerMoved,
    ConnectionRateExceeded,
];

/// §3.4.2.1 and §3.5.2.1.
pub(super) const PUBACK_PUBREC: &[ReasonCode] = &[
    Success,
    NoMatchingSubscribers,
    UnspecifiedError,
    ImplementationSpecificError,
    NotAuthorized,
    TopicNameInvalid,
    PacketIdentifierInUse,
    QuotaExceeded,
    PayloadFormatInvalid,
];

/// §3.6.2.1 and §3.7.2.1.
pub(super) const PUBREL_PUBCOMP: &[ReasonCode] = &[Success, PacketIdentifierNotFound];

/// §3.9.3, Table 3-8.
pub(super) const SUBACK: &[ReasonCode] = &[
    Success,
    GrantedQoS1,
    GrantedQoS2,
    UnspecifiedError,
    ImplementationSpecificError,
    NotAuthorized,
    TopicFilterInvalid,
    PacketIdentifierInUse,
    QuotaExceeded,
    SharedSubscriptionsNotSupported,
    SubscriptionIdentifiersNotSupported,
    WildcardSubscriptionsNotSupported,
];

/// §3.11.3, Table 3-9.
pub(super) const UNSUBACK: &[ReasonCode] = &[
    Success,
    NoSubscriptionExisted,
    UnspecifiedError,
    ImplementationSpecificError,
    NotAuthorized,
    TopicFilterInvalid,
    PacketIdentifierInUse,
];

/// §3.14.2.1, Table 3-10: what both sides may say.
const DISCONNECT_BOTH: &[ReasonCode] = &[
    Success,
    UnspecifiedError,
    MalformedPacket,
    ProtocolError,
    ImplementationSpecificError,
    TopicNameInvalid,
    ReceiveMaximumExceeded,
    TopicAliasInvalid,
    PacketTooLarge,
    MessageRateTooHigh,
    QuotaExceeded,
    AdministrativeAction,
    PayloadFormatInvalid,
];

/// §3.14.2.1: what only servers say. Bad authentication method is there by Table 2-6.
const DISCONNECT_SERVER: &[ReasonCode] = &[
    NotAuthorized,
    ServerBusy,
    ServerShuttingDown,
    BadAuthenticationMethod,
    KeepAliveTimeout,
    SessionTakenOver,
    TopicFilterInvalid,
    RetainNotSupported,
    QoSNotSupported,
    UseAnotherServer,
    ServerMoved,
    SharedSubscriptionsNotSupported,
    ConnectionRateExceeded,
    MaximumConnectTime,
    SubscriptionIdentifiersNotSupported,
    WildcardSubscriptionsNotSupported,
];

pub(super) fn disconnect(byte: u8, sender: Sender) -> Result<ReasonCode, DecodeError> {
    let own = match sender {
        Sender::Client => &[DisconnectWithWill],
        Sender::Server => DISCONNECT_SERVER,
    };
    read(byte, DISCONNECT_BOTH).or_else(|_| read(byte, own))
}

/// §3.15.2.1, Table 3-11.
pub(super) fn auth(byte: u8, sender: Sender) -> Result<ReasonCode, DecodeError> {
    match sender {
        Sender::Client => read(byte, &[ContinueAuthentication, ReAuthenticate]),
        Sender::Server => read(byte, &[Success, ContinueAuthentication]),
    }
}

/// What a server says for `reason` in a packet of this type: the code itself if the type has it (MQTT 5 §2.4, Table
/// 2-6), else the one that comes closest.
pub fn closest_reason(packet_type: PacketType, reason: ReasonCode) -> ReasonCode {
    let has = |code: &ReasonCode| match packet_type {
        PacketType::ConnAck => CONNACK.contains(code),
        PacketType::PubAck | PacketType::PubRec => PUBACK_PUBREC.contains(code),
        PacketType::PubRel | PacketType::PubComp => PUBREL_PUBCOMP.contains(code),
        PacketType::SubAck => SUBACK.contains(code),
        PacketType::UnsubAck => UNSUBACK.contains(code),
        PacketType::Disconnect => DISCONNECT_BOTH.contains(code) || DISCONNECT_SERVER.contains(code),
        _ => true,
    };
    let substitute = match reason {
        BadUserNameOrPassword | BadAuthenticationMethod | Banned => NotAuthorized,
        ServerShuttingDown => ServerUnavailable,
        TopicAliasInvalid | ReceiveMaximumExceeded => ProtocolError,
        reason if reason.is_error() => UnspecifiedError,
        _ => Success,
    };
    let candidates = [reason, substitute, UnspecifiedError];
    candidates.into_iter().find(has).unwrap_or(Success)
}

/// A reason code that the packet type has.
pub(super) fn read(byte: u8, allowed: &[ReasonCode]) -> Result<ReasonCode, DecodeError> {
    let code = ReasonCode::new(byte).ok_or(DecodeError::malformed(
        "MQTT 5 §2.4",
        "the reason code is unknown",
    ))?;
    if allowed.contains(&code) {
        return Ok(code);
    }
    Err(DecodeError::protocol(
        "MQTT 5 §2.4",
        "the reason code does not belong to this packet type and sender",
    ))
}

/// The CONNACK return code of MQTT 3.1 and 3.1.1 (§3.2.2.3, Table 3.1) that comes closest.
pub(super) const fn to_return_code(reason: ReasonCode) -> u8 {
    match reason {
        Success => 0,
        UnsupportedProtocolVersion => 1,
        ClientIdentifierNotValid => 2,
        BadUserNameOrPassword => 4,
        NotAuthorized | Banned | BadAuthenticationMethod => 5,
        _ => 3,
    }
}

pub(super) fn from_return_code(code: u8) -> Result<ReasonCode, DecodeError> {
    match code {
        0 => Ok(Success),
        1 => Ok(UnsupportedProtocolVersion),
        2 => Ok(ClientIdentifierNotValid),
        3 => Ok(ServerUnavailable),
        4 => Ok(BadUserNameOrPassword),
        5 => Ok(NotAuthorized),
        _ => Err(DecodeError::malformed(
            "MQTT 3.1.1 §3.2.2.3",
            "the connect return code is reserved",
        )),
    }
}

/// A list of reason codes: the payload of SUBACK and UNSUBACK, one per filter.
#[derive(Clone, Copy)]
pub struct ReasonCodes<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// Validated.
    Encoded(&'a [u8]),
    List(&'a [ReasonCode]),
}

impl<'a> ReasonCodes<'a> {
    /// None, as in an UNSUBACK of MQTT 3.1 and 3.1.1.
    pub const EMPTY: ReasonCodes<'static> = ReasonCodes(Source::List(&[]));

    /// These codes.
    pub const fn new(codes: &'a [ReasonCode]) -> ReasonCodes<'a> {
        ReasonCodes(Source::List(codes))
    }

    /// How many.
    pub const fn len(self) -> usize {
        match self.0 {
            Source::Encoded(bytes) => bytes.len(),
            Source::List(codes) => codes.len(),
        }
    }

    /// True if there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The codes in order.
    pub fn iter(self) -> impl Iterator<Item = ReasonCode> {
        let (bytes, codes): (&'a [u8], &'a [ReasonCode]) = match self.0 {
            Source::Encoded(bytes) => (bytes, &[]),
            Source::List(codes) => (&[], codes),
        };
        let decoded = bytes.iter().filter_map(|&byte| ReasonCode::new(byte));
        decoded.chain(codes.iter().copied())
    }

    pub(super) fn decode(bytes: &'a [u8], allowed: &[ReasonCode]) -> Result<ReasonCodes<'a>, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::protocol("MQTT-3.8.4-6", "there are no reason codes"));
        }
        for &byte in bytes {
            read(byte, allowed)?;
        }
        Ok(ReasonCodes(Source::Encoded(bytes)))
    }

    /// The granted QoS, or 0x80 for any failure in 3.1.1 (§3.9.3). MQTT 3.1 has no word for a failure; 0x80 is what
    /// its clients hear as well, since a granted QoS would be a lie.
    pub(super) fn for_suback(self, version: ProtocolVersion) -> impl Iterator<Item = u8> {
        self.iter().map(move |code| match version {
            ProtocolVersion::V5 => code as u8,
            _ if code.is_error() => UnspecifiedError as u8,
            _ => code as u8,
        })
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

impl fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
