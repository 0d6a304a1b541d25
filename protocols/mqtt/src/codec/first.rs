//! The first packet of a connection: a CONNECT, or something that never was MQTT.

use super::{Connect, DecodeError, Fault, Foreign, fixed_header::FixedHeader};

use broker_core::ReasonCode;

/// The CONNECT at the front of `input` and how many bytes it takes; `None` if it is not complete. What is not a
/// CONNECT is refused by its first byte, under the name of the protocol it looks like.
///
/// # Errors
///
/// What the client does wrong; [`DecodeError::answer`] with `None` says what it is told.
pub fn decode_connect(
    input: &[u8],
    max_packet_size: u32,
) -> Result<Option<(Box<Connect<'_>>, usize)>, DecodeError> {
    match input.first() {
        None => return Ok(None),
        Some(0x10) => {}
        Some(_) => return Err(not_connect(input)),
    }
    let Some(header) = FixedHeader::of_connect(input, max_packet_size)? else {
        return Ok(None);
    };
    let len = header.len + header.remaining;
    let Some(body) = input.get(header.len..len) else {
        return Ok(None);
    };
    Ok(Some((Box::new(Connect::decode(body, header.minimal)?), len)))
}

fn not_connect(input: &[u8]) -> DecodeError {
    let known = SIGNATURES
        .iter()
        .find(|(signature, _)| input.starts_with(signature) || signature.starts_with(input));
    let fault = match known {
        Some(&(_, foreign)) => Fault::NotMqtt(foreign),
        None if is_packet(input[0]) => Fault::Protocol,
        None => Fault::NotMqtt(Foreign::Other),
    };
    DecodeError::new(
        fault,
        ReasonCode::ProtocolError,
        "MQTT-3.1.0-1",
        "the first packet is not a CONNECT",
    )
}

/// True for the first byte of a packet that some client could send.
fn is_packet(first: u8) -> bool {
    match first >> 4 {
        3 => true,
        6 | 8 | 10 => first & 0x0f == 0x02,
        0 => false,
        _ => first & 0x0f == 0,
    }
}

/// How connections of other protocols begin. One that is not complete yet is told by what is there.
const SIGNATURES: &[(&[u8], Foreign)] = &[
    (&[0x16, 0x03], Foreign::Tls),
    (b"\r\n\r\n\0\r\nQUIT\n", Foreign::ProxyProtocol),
    (b"PROXY ", Foreign::ProxyProtocol),
    (b"PRI * HTTP/2", Foreign::Http),
    (b"GET ", Foreign::Http),
    (b"HEAD ", Foreign::Http),
    (b"POST ", Foreign::Http),
    (b"PUT ", Foreign::Http),
    (b"DELETE ", Foreign::Http),
    (b"OPTIONS ", Foreign::Http),
    (b"CONNECT ", Foreign::Http),
];
