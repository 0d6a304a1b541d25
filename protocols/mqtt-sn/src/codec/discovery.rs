//! ADVERTISE, SEARCHGW and GWINFO (§5.4.1 to §5.4.3).
//!
//! ```text
//!   ADVERTISE  GwId   Duration (2)
//!   SEARCHGW   Radius
//!   GWINFO     GwId   GwAdd (0 to n; only if a client answers)
//! ```

use bytes::{BufMut, BytesMut};

use super::{DecodeError, Message, reader::Reader};

pub(super) fn advertise(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let gateway_id = reader.u8()?;
    let duration = reader.u16()?;
    reader.end(Message::Advertise { gateway_id, duration })
}

pub(super) fn search_gw(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let radius = reader.u8()?;
    reader.end(Message::SearchGw { radius })
}

pub(super) fn gw_info(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let gateway_id = reader.u8()?;
    let address = reader.rest();
    Ok(Message::GwInfo { gateway_id, address })
}

pub(super) fn put_advertise(gateway_id: u8, duration: u16, to: &mut BytesMut) {
    to.put_u8(gateway_id);
    to.put_u16(duration);
}

pub(super) fn put_gw_info(gateway_id: u8, address: &[u8], to: &mut BytesMut) {
    to.put_u8(gateway_id);
    to.put_slice(address);
}
