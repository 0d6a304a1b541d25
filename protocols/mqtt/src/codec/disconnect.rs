//! DISCONNECT and AUTH (MQTT 5 §3.14, §3.15): reason code · properties, both left out where they say nothing.
//! Before MQTT 5 a DISCONNECT is empty and there is no AUTH.

use broker_core::ReasonCode;

use super::{
    AuthProperties, DecodeError, DisconnectProperties, EncodeError, ProtocolVersion, Sender,
    connect::check_authentication,
    properties::{self, PropertyList},
    reader::Reader,
    reasons,
    writer::{Sink, Trim},
};

/// A goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: ReasonCode,
    /// Properties of the goodbye.
    pub properties: DisconnectProperties<'a>,
}

/// A step of enhanced authentication (MQTT 5 §4.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success (from servers), continue, or re-authenticate (from clients).
    pub reason: ReasonCode,
    /// Method and data. The method is there unless a server sends the short form of success.
    pub properties: AuthProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Without properties.
    pub fn new(reason: ReasonCode) -> Disconnect<'a> {
        Disconnect {
            reason,
            properties: DisconnectProperties::default(),
        }
    }

    pub(super) fn decode(
        body: &'a [u8],
        version: ProtocolVersion,
        sender: Sender,
    ) -> Result<Disconnect<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let mut disconnect = Disconnect::new(ReasonCode::Success);
        if version == ProtocolVersion::V5 && !reader.is_empty() {
            disconnect.reason = reasons::disconnect(reader.u8()?, sender)?;
            if !reader.is_empty() {
                disconnect.properties = DisconnectProperties::decode(&mut reader)?;
            }
        }
        reader.end()?;
        if sender == Sender::Server && disconnect.properties.session_expiry_interval.is_some() {
            return Err(DecodeError::protocol(
                "MQTT-3.14.2-2",
                "a server sends a session expiry interval in DISCONNECT",
            ));
        }
        Ok(disconnect)
    }

    pub(super) fn put(
        &self,
        version: ProtocolVersion,
        trim: Trim,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
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

impl<'a> Auth<'a> {
    /// A step of `method`.
    pub fn new(reason: ReasonCode, method: &'a str, data: Option<&'a [u8]>) -> Auth<'a> {
        Auth {
            reason,
            properties: AuthProperties {
                authentication_method: Some(method),
                authentication_data: data,
                ..AuthProperties::default()
            },
        }
    }

    pub(super) fn decode(body: &'a [u8], sender: Sender) -> Result<Auth<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        if reader.is_empty() {
            // §3.15.2.1: success without properties, which only servers may say.
            let reason = reasons::auth(ReasonCode::Success as u8, sender)?;
            let properties = AuthProperties::default();
            return Ok(Auth { reason, properties });
        }
        let reason = reasons::auth(reader.u8()?, sender)?;
        let properties = AuthProperties::decode(&mut reader)?;
        reader.end()?;
        check_authentication(properties.authentication_method, properties.authentication_data)?;
        // Success without properties may be left out, so it may also be written out.
        let says_nothing = reason == ReasonCode::Success && properties == AuthProperties::default();
        if properties.authentication_method.is_none() && !says_nothing {
            return Err(DecodeError::protocol(
                "MQTT 5 §3.15.2.2.2",
                "AUTH has no authentication method",
            ));
        }
        Ok(Auth { reason, properties })
    }

    pub(super) fn put(&self, trim: Trim, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if self.reason == ReasonCode::Success && self.properties.is_empty(trim)? {
            return Ok(());
        }
        sink.put_u8(self.reason as u8);
        properties::put_block(&self.properties, trim, sink)
    }
}
