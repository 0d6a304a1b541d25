//! PINGREQ and DISCONNECT (§5.4.19, §5.4.21); PINGRESP (§5.4.20) has no fields.
//!
//! ```text
//!   PINGREQ     ClientId (0 to n)
//!   DISCONNECT  Duration (2)         or nothing at all
//! ```

use super::{DecodeError, Message, fields::text, reader::Reader};

pub(super) fn ping_req(reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    text(reader.rest()).map(Message::PingReq)
}

pub(super) fn disconnect(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    if reader.is_empty() {
        return Ok(Message::Disconnect(None));
    }
    let duration = reader.u16()?;
    reader.end(Message::Disconnect(Some(duration)))
}
