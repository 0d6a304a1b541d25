//! CONNECT and CONNACK (§5.4.4, §5.4.5).
//!
//! ```text
//!   CONNECT  Flags (Will, CleanSession)   ProtocolId = 1   Duration (2)   ClientId (0 to n)
//!   CONNACK  ReturnCode
//! ```

use bytes::{BufMut, BytesMut};

use super::{
    DecodeError, Fault, Message, ReturnCode,
    fields::{Flags, text},
    reader::Reader,
};

/// The protocol id of MQTT-SN 1.2 (§5.3.8).
const PROTOCOL_ID: u8 = 1;

/// CONNECT (§5.4.4). One of another protocol id is refused while it is decoded: only that of this version (1) says
/// how the rest is laid out (§5.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The gateway is to ask for a Will.
    pub will: bool,
    /// Neither an old session nor an old Will goes on (§6.3).
    pub clean_session: bool,
    /// Seconds of keep alive.
    pub duration: u16,
    /// 1 to 23 characters, says §5.3.1; longer ones are taken too, the broker has a limit of its own. Empty asks the
    /// gateway for one.
    pub client_id: &'a str,
}

impl<'a> Connect<'a> {
    pub(super) fn decode(mut reader: Reader<'a>) -> Result<Connect<'a>, DecodeError> {
        let flags = reader.flags()?;
        if reader.u8()? != PROTOCOL_ID {
            return Err(UNSUPPORTED.refused(Message::ConnAck));
        }
        let duration = reader.u16()?;
        let client_id = text(reader.rest()).map_err(|error| error.refused(Message::ConnAck))?;
        Ok(Connect {
            will: flags.is_will(),
            clean_session: flags.is_clean_session(),
            duration,
            client_id,
        })
    }

    pub(super) const fn body_len(&self) -> usize {
        4 + self.client_id.len()
    }

    pub(super) fn put(&self, to: &mut BytesMut) {
        let flags = Flags::default()
            .with_will(self.will)
            .with_clean_session(self.clean_session);
        to.put_u8(flags.0);
        to.put_u8(PROTOCOL_ID);
        to.put_u16(self.duration);
        to.put_slice(self.client_id.as_bytes());
    }
}

pub(super) fn return_code(mut reader: Reader<'_>) -> Result<ReturnCode, DecodeError> {
    let return_code = reader.return_code()?;
    reader.end(return_code)
}

const UNSUPPORTED: DecodeError = DecodeError::new(
    Fault::ProtocolId,
    "MQTT-SN §5.3.8",
    "the protocol id is not that of MQTT-SN 1.2",
);
