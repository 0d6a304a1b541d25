//! CONNECT (MQTT 5 §3.1), the packet that names its own version.
//!
//! ```text
//! variable header  protocol name "MQTT" ("MQIsdp" in 3.1) · level · connect flags · keep alive · properties (5)
//! connect flags    user name · password · will retain · will QoS (2) · will · clean start · reserved
//! payload          client identifier · will properties (5) · will topic · will payload · user name · password
//! ```

use std::borrow::Cow;

use broker_core::{Properties, QoS, ReasonCode};

use super::{
    ConnectProperties, DecodeError, EncodeError, Fault, ProtocolVersion,
    properties::{self, Property, PropertyList, bit},
    publish::{Split, TRAVELLING, WILDCARD_IN_TOPIC},
    reader::Reader,
    writer::{Sink, Trim},
};

/// A request for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the connection speaks.
    pub version: ProtocolVersion,
    /// The client is a bridge: the high bit of the level, a convention that began with Mosquitto, in 3.1 and 3.1.1.
    pub is_bridge: bool,
    /// Discard an existing session ("clean session" before MQTT 5).
    pub clean_start: bool,
    /// Seconds within which the client shows that it is alive; 0: no limit.
    pub keep_alive: u16,
    /// Properties of the connection.
    pub properties: ConnectProperties<'a>,
    /// As sent: may be empty or longer than the version allows, which is answered by CONNACK, not here.
    pub client_id: &'a str,
    /// What to publish when the connection ends without a goodbye.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password or token.
    pub password: Option<&'a [u8]>,
}

/// A Will message (§3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// Quality of service to publish it with.
    pub qos: QoS,
    /// Retain it.
    pub retain: bool,
    /// Seconds to wait before it is published; 0 is the default.
    pub delay_interval: u32,
    /// Seconds that the published message lives.
    pub expiry_interval: Option<u32>,
    /// The properties that travel with the message, encoded (see [`Properties`]).
    pub properties: Cow<'a, [u8]>,
}

mod flag {
    pub(super) const USER_NAME: u8 = 0x80;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const RESERVED: u8 = 0x01;
}

/// The high bit of the level.
const BRIDGE: u8 = 0x80;

impl<'a> Connect<'a> {
    /// A clean session without keep alive, Will and credentials.
    pub const fn new(version: ProtocolVersion, client_id: &'a str) -> Connect<'a> {
        Connect {
            version,
            is_bridge: false,
            clean_start: true,
            keep_alive: 0,
            properties: ConnectProperties {
                session_expiry_interval: None,
                receive_maximum: None,
                maximum_packet_size: None,
                topic_alias_maximum: None,
                request_response_information: None,
                request_problem_information: None,
                authentication_method: None,
                authentication_data: None,
                user: super::UserProperties::EMPTY,
            },
            client_id,
            will: None,
            username: None,
            password: None,
        }
    }

    /// `minimal`: the remaining length was in its shortest form.
    pub(super) fn decode(body: &'a [u8], minimal: bool) -> Result<Connect<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let (version, is_bridge) = read_version(&mut reader)?;
        if version == ProtocolVersion::V5 && !minimal {
            return Err(super::reader::NOT_MINIMAL.of_connect(version));
        }
        Connect::decode_rest(&mut reader, version, is_bridge).map_err(|error| error.of_connect(version))
    }

    fn decode_rest(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
        is_bridge: bool,
    ) -> Result<Connect<'a>, DecodeError> {
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let keep_alive = reader.u16()?;
        let mut properties = ConnectProperties::default();
        if version == ProtocolVersion::V5 {
            properties = ConnectProperties::decode(reader)?;
            check_authentication(properties.authentication_method, properties.authentication_data)?;
        }
        let client_id = reader.text()?;
        let will = match flags & flag::WILL {
            0 => None,
            _ => Some(Will::decode(reader, flags, version)?),
        };
        // MQTT 3.1 §3.1: the remaining length takes precedence over the flags of user name and password.
        let present = |flag, reader: &Reader<'_>| {
            flags & flag != 0 && !(version == ProtocolVersion::V3 && reader.is_empty())
        };
        let username = match present(flag::USER_NAME, reader) {
            true => Some(reader.text()?),
            false => None,
        };
        let password = match present(flag::PASSWORD, reader) {
            true => Some(reader.binary()?),
            false => None,
        };
        reader.end()?;
        Ok(Connect {
            version,
            is_bridge,
            clean_start: flags & flag::CLEAN_START != 0,
            keep_alive,
            properties,
            client_id,
            will,
            username,
            password,
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        for (bit, set) in [
            (flag::USER_NAME, self.username.is_some()),
            (flag::PASSWORD, self.password.is_some()),
            (flag::CLEAN_START, self.clean_start),
        ] {
            flags |= if set { bit } else { 0 };
        }
        if let Some(will) = &self.will {
            flags |= flag::WILL | (will.qos as u8) << 3;
            flags |= if will.retain { flag::WILL_RETAIN } else { 0 };
        }
        flags
    }

    pub(super) fn put(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let v5 = self.version == ProtocolVersion::V5;
        sink.put_text(self.version.name())?;
        let bridge = if self.is_bridge && !v5 { BRIDGE } else { 0 };
        sink.put_u8(self.version as u8 | bridge);
        sink.put_u8(self.flags());
        sink.put_u16(self.keep_alive);
        if v5 {
            properties::put_block(&self.properties, Trim::Nothing, sink)?;
        }
        sink.put_text(self.client_id)?;
        if let Some(will) = &self.will {
            if v5 {
                properties::put_block(will, Trim::Nothing, sink)?;
            }
            sink.put_text(will.topic)?;
            sink.put_binary(will.payload)?;
        }
        if let Some(username) = self.username {
            sink.put_text(username)?;
        }
        if let Some(password) = self.password {
            sink.put_binary(password)?;
        }
        Ok(())
    }
}

impl<'a> Will<'a> {
    /// A Will of QoS 0 without properties.
    pub const fn new(topic: &'a str, payload: &'a [u8]) -> Will<'a> {
        Will {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            delay_interval: 0,
            expiry_interval: None,
            properties: Cow::Borrowed(&[]),
        }
    }

    /// The properties that travel with the message.
    pub fn message_properties(&self) -> Properties<'_> {
        Properties::from_validated(&self.properties)
    }

    fn decode(reader: &mut Reader<'a>, flags: u8, version: ProtocolVersion) -> Result<Will<'a>, DecodeError> {
        let mut split = Split::default();
        if version == ProtocolVersion::V5 {
            let len = reader.var_int()? as usize;
            let hop = bit::WillDelayInterval | bit::MessageExpiryInterval;
            split = Split::decode(reader.bytes(len)?, TRAVELLING | hop)?;
        }
        let (topic, has_wildcard) = reader.topic()?;
        if has_wildcard {
            return Err(WILDCARD_IN_TOPIC);
        }
        if topic.is_empty() {
            return Err(DecodeError::malformed("MQTT-4.7.3-1", "the Will topic is empty"));
        }
        Ok(Will {
            topic,
            payload: reader.binary()?,
            qos: QoS::new((flags & flag::WILL_QOS) >> 3).ok_or(WILL_QOS_3)?,
            retain: flags & flag::WILL_RETAIN != 0,
            delay_interval: split.delay_interval.unwrap_or(0),
            expiry_interval: split.expiry_interval,
            properties: split.travelling,
        })
    }
}

impl PropertyList for Will<'_> {
    fn put(&self, _: Trim, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if self.delay_interval != 0 {
            Property::WillDelayInterval(self.delay_interval).put(sink)?;
        }
        if let Some(seconds) = self.expiry_interval {
            Property::MessageExpiryInterval(seconds).put(sink)?;
        }
        sink.put(&self.properties);
        Ok(())
    }
}

const WILL_QOS_3: DecodeError = DecodeError::malformed("MQTT-3.1.2-12", "the Will has QoS 3");

/// Protocol name and level [MQTT-3.1.2-1, MQTT-3.1.2-2], and if a bridge speaks.
fn read_version(reader: &mut Reader<'_>) -> Result<(ProtocolVersion, bool), DecodeError> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    let version = match (name, level & !BRIDGE) {
        (b"MQIsdp", 3) => Some(ProtocolVersion::V3),
        (b"MQTT", 4) => Some(ProtocolVersion::V4),
        (b"MQTT", 5) if level == 5 => Some(ProtocolVersion::V5),
        _ => None,
    };
    version
        .map(|version| (version, level & BRIDGE != 0))
        .ok_or_else(|| {
            // Clients newer than MQTT 5 are likelier to read its CONNACK than that of 3.1.1.
            let layout = match level {
                5..BRIDGE => ProtocolVersion::V5,
                _ => ProtocolVersion::V4,
            };
            DecodeError::new(
                Fault::UnsupportedVersion,
                ReasonCode::UnsupportedProtocolVersion,
                "MQTT-3.1.2-2",
                "the protocol name or level is unknown",
            )
            .of_connect(layout)
        })
}

fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    let has = |bit| flags & bit != 0;
    if version != ProtocolVersion::V5 && has(flag::PASSWORD) && !has(flag::USER_NAME) {
        return Err(DecodeError::malformed(
            "MQTT3-3.1.2-22",
            "there is a password but no user name",
        ));
    }
    if has(flag::WILL) && flags & flag::WILL_QOS == flag::WILL_QOS {
        return Err(WILL_QOS_3);
    }
    // MQTT 3.1 §3.1: the reserved bit, and Will QoS and Will Retain without a Will, are disregarded.
    if version == ProtocolVersion::V3 {
        return Ok(());
    }
    if has(flag::RESERVED) {
        return Err(DecodeError::malformed(
            "MQTT-3.1.2-3",
            "the reserved connect flag is set",
        ));
    }
    if !has(flag::WILL) && has(flag::WILL_QOS) {
        return Err(DecodeError::malformed(
            "MQTT-3.1.2-11",
            "there is a Will QoS but no Will",
        ));
    }
    if !has(flag::WILL) && has(flag::WILL_RETAIN) {
        return Err(DecodeError::malformed(
            "MQTT-3.1.2-13",
            "there is a Will Retain but no Will",
        ));
    }
    Ok(())
}

/// §3.1.2.11.10: data without a method.
pub(super) fn check_authentication(method: Option<&str>, data: Option<&[u8]>) -> Result<(), DecodeError> {
    if method.is_none() && data.is_some() {
        return Err(DecodeError::protocol(
            "MQTT 5 §3.1.2.11.10",
            "there is authentication data but no method",
        ));
    }
    Ok(())
}
