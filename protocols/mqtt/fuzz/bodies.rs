//! What the fuzz targets of the codec check, apart from how bytes are made up: `cargo fuzz` and the test `fuzz` share it.

use bytes::BytesMut;
use mqtt::codec::{Connect, Decoder, Packet, ProtocolVersion, Sender, decode_connect};

/// Decoding never panics, and what was decoded survives being written and read again.
pub fn decode(version: ProtocolVersion, data: &[u8]) {
    for sender in [Sender::Client, Sender::Server] {
        let decoder = Decoder {
            version,
            sender,
            max_packet_size: 1 << 20,
        };
        if let Ok(Some((packet, used))) = decoder.decode(data) {
            assert!(used <= data.len());
            write_and_read(&packet, decoder);
        }
    }
    if let Ok(Some((connect, _))) = decode_connect(data, 1 << 20) {
        let decoder = Decoder {
            version: connect.version,
            sender: Sender::Client,
            max_packet_size: 1 << 20,
        };
        write_and_read(&Packet::Connect(Box::new(Connect::clone(&connect))), decoder);
    }
}

fn write_and_read(packet: &Packet<'_>, decoder: Decoder) {
    let mut out = BytesMut::new();
    packet
        .encode(decoder.version, u32::MAX, &mut out)
        .expect("what was decoded can be written");
    let again = decoder.decode(&out).expect("what was written is valid");
    assert_eq!(again, Some((packet.clone(), out.len())));
}
