//! WebSocket (RFC 6455) as a byte stream, without I/O.
//!
//! The frames of a message, and the messages of a connection, are one stream of bytes to the protocols carried here:
//! MQTT packets need not be aligned to frames (MQTT 5 §6.0). So payload is unmasked where it was read and passed on at
//! once; no frame is ever gathered, and an idle connection owns no buffer.

mod decode;
mod encode;
#[cfg(feature = "net")]
pub(crate) mod upgrade;

pub(crate) use decode::{Decoder, End};
pub(crate) use encode::Encoder;
#[cfg(feature = "net")]
pub(crate) use encode::limit;

/// Status codes of a Close frame (RFC 6455 §7.4.1).
pub(crate) mod code {
    pub(crate) const NORMAL: u16 = 1000;
    pub(crate) const GOING_AWAY: u16 = 1001;
    pub(crate) const PROTOCOL_ERROR: u16 = 1002;
    pub(crate) const UNSUPPORTED_DATA: u16 = 1003;
    pub(crate) const INVALID_DATA: u16 = 1007;
    pub(crate) const TOO_BIG: u16 = 1009;
}

/// Opcodes (RFC 6455 §11.8).
mod opcode {
    pub(super) const CONTINUATION: u8 = 0x0;
    pub(super) const TEXT: u8 = 0x1;
    pub(super) const BINARY: u8 = 0x2;
    pub(super) const CLOSE: u8 = 0x8;
    pub(super) const PING: u8 = 0x9;
    pub(super) const PONG: u8 = 0xa;
}

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    /// What comes in.
    pub(crate) decoder: Decoder,
    /// What goes out.
    pub(crate) encoder: Encoder,
}

impl WebSocket {
    /// The server's end, just after the opening handshake.
    pub(crate) fn new(message_bytes_max: u64) -> WebSocket {
        WebSocket {
            decoder: Decoder::new(message_bytes_max),
            encoder: Encoder::default(),
        }
    }

    /// Removes the framing from `buffer` in place. Returns how many bytes at its front are payload now, and how the
    /// connection ends, if it does. Pings are answered and a Close is answered through the encoder.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> (usize, Option<End>) {
        let encoder = &mut self.encoder;
        let (payload, end) = self.decoder.decode(buffer, |data| encoder.pong(data));
        if let Some(end) = &end {
            encoder.close(end.code);
        }
        (payload, end)
    }
}

/// The code that tells a WebSocket client why its connection ends, from the stable word of a
/// [`Close`](broker_core::Close).
pub(crate) fn close_code(reason: &str) -> u16 {
    match reason {
        "malformed_packet" | "protocol_error" => code::PROTOCOL_ERROR,
        "packet_too_large" | "frame_too_large" => code::TOO_BIG,
        "server_shutting_down" => code::GOING_AWAY,
        _ => code::NORMAL,
    }
}
