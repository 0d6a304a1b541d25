//! CONNACK (MQTT 5 §3.2): acknowledge flags · reason code · properties (MQTT 5).

use broker_core::{QoS, ReasonCode};

use super::{
    ConnAckProperties, DecodeError, EncodeError, ProtocolVersion,
    connect::check_authentication,
    properties,
    reader::Reader,
    reasons,
    writer::{Sink, Trim},
};

/// The answer to a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server has state of an earlier connection. Never with an error [MQTT-3.2.2-6], never in MQTT 3.1.
    pub session_present: bool,
    /// Success, or why not. In 3.1 and 3.1.1 the nearest of the six return codes is sent: unsupported protocol
    /// version, client identifier not valid, bad user name or password, not authorized (also for banned and bad
    /// authentication method), else server unavailable.
    pub reason: ReasonCode,
    /// Properties of the connection. A maximum QoS of 2 is left out when written.
    pub properties: ConnAckProperties<'a>,
}

impl<'a> ConnAck<'a> {
    /// Without properties and session.
    pub fn new(reason: ReasonCode) -> ConnAck<'a> {
        ConnAck {
            session_present: false,
            reason,
            properties: ConnAckProperties::default(),
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<ConnAck<'a>, DecodeError> {
        let mut reader = Reader::new(body);
        let (flags, code) = (reader.u8()?, reader.u8()?);
        let mut connack = match version {
            ProtocolVersion::V5 => ConnAck::new(reasons::read(code, reasons::CONNACK)?),
            _ => ConnAck::new(reasons::from_return_code(code)?),
        };
        // The byte is unused in MQTT 3.1 (§3.2).
        if version != ProtocolVersion::V3 {
            if flags > 1 {
                return Err(DecodeError::malformed(
                    "MQTT-3.2.2-1",
                    "a reserved acknowledge flag is set",
                ));
            }
            connack.session_present = flags == 1;
        }
        if connack.session_present && connack.reason != ReasonCode::Success {
            return Err(DecodeError::protocol(
                "MQTT-3.2.2-6",
                "a refused connection has a session",
            ));
        }
        if version == ProtocolVersion::V5 {
            connack.properties = ConnAckProperties::decode(&mut reader)?;
            let found = &connack.properties;
            check_authentication(found.authentication_method, found.authentication_data)?;
        }
        reader.end()?;
        Ok(connack)
    }

    pub(super) fn put(
        &self,
        version: ProtocolVersion,
        trim: Trim,
        sink: &mut impl Sink,
    ) -> Result<(), EncodeError> {
        let session =
            self.session_present && self.reason == ReasonCode::Success && version != ProtocolVersion::V3;
        sink.put_u8(u8::from(session));
        if version != ProtocolVersion::V5 {
            sink.put_u8(reasons::to_return_code(self.reason));
            return Ok(());
        }
        sink.put_u8(self.reason as u8);
        let mut properties = self.properties;
        properties.maximum_qos = properties.maximum_qos.filter(|&qos| qos != QoS::ExactlyOnce);
        properties::put_block(&properties, trim, sink)
    }
}
