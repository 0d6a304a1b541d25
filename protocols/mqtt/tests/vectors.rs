//! The table of packets, forwards and backwards, whole and cut short.

mod table;

use broker_core::ReasonCode;
use bytes::BytesMut;
use mqtt::codec::{Answer, DecodeError, Fault, Foreign, Packet, ProtocolVersion, decode_connect};

use table::{V3, V4, V5, decoder, wire};

#[test]
fn valid_packets_are_understood() {
    for one in table::valid::all() {
        let decoded = decoder(one.version, one.sender).decode(&one.bytes);
        assert_eq!(decoded, Ok(Some((one.packet, one.bytes.len()))), "{}", one.name);
    }
}

#[test]
fn what_follows_a_packet_is_left_alone() {
    for one in table::valid::all() {
        let mut bytes = one.bytes.clone();
        bytes.extend([0xff; 5]);
        let decoded = decoder(one.version, one.sender).decode(&bytes);
        assert_eq!(decoded, Ok(Some((one.packet, one.bytes.len()))), "{}", one.name);
    }
}

#[test]
fn valid_packets_are_written() {
    for one in table::valid::all() {
        let mut out = BytesMut::from(&b"before"[..]);
        one.packet
            .encode(one.version, u32::MAX, &mut out)
            .expect("a valid packet");
        let written = &out[6..];
        if one.canonical {
            assert_eq!(written, one.bytes, "{}", one.name);
        }
        let again = decoder(one.version, one.sender).decode(written);
        assert_eq!(again, Ok(Some((one.packet, written.len()))), "{}", one.name);
    }
}

#[test]
fn broken_packets_are_refused_with_their_clause() {
    for one in table::broken::all() {
        let error = decoder(one.version, one.sender)
            .decode(&one.bytes)
            .expect_err(one.notation);
        assert_eq!(
            (error.fault, error.reason, error.clause),
            (one.fault, one.reason, one.clause),
            "{:?} {} -> {error}",
            one.version,
            one.notation
        );
    }
}

#[test]
fn a_packet_that_is_not_complete_is_awaited() {
    for one in table::valid::all() {
        for len in 0..one.bytes.len() {
            let decoded = decoder(one.version, one.sender).decode(&one.bytes[..len]);
            assert_eq!(decoded, Ok(None), "{} cut to {len}", one.name);
        }
    }
}

/// The remaining length says what is there, but the fields want more.
#[test]
fn a_packet_cut_short_is_refused_or_a_shorter_packet() {
    let short = |one: &table::valid::Valid| one.canonical && one.bytes.len() < 128;
    for one in table::valid::all().into_iter().filter(short) {
        for len in 2..one.bytes.len() {
            let mut bytes = one.bytes[..len].to_vec();
            bytes[1] = (len - 2) as u8;
            if let Ok(Some((packet, used))) = decoder(one.version, one.sender).decode(&bytes) {
                assert_eq!(used, len, "{}", one.name);
                assert_ne!(packet, one.packet, "{} cut to {len}", one.name);
            }
        }
    }
}

#[test]
fn faults_of_the_fixed_header_do_not_wait_for_the_body() {
    let server = decoder(V5, mqtt::codec::Sender::Client);
    for first in [0x00, 0x11, 0x20, 0x36, 0x38, 0x41, 0x60, 0x80, 0xa0, 0xc1, 0xd0] {
        assert!(server.decode(&[first]).is_err(), "{first:#x}");
    }
    let limited = mqtt::codec::Decoder {
        max_packet_size: 100,
        ..server
    };
    assert_eq!(limited.decode(&[0x30, 98]), Ok(None));
    let error = limited.decode(&[0x30, 99]).expect_err("101 bytes");
    assert_eq!(
        (error.fault, error.reason),
        (Fault::TooLarge, ReasonCode::PacketTooLarge)
    );
    let error = limited
        .decode(&[0x30, 0xff, 0xff, 0xff, 0x7f])
        .expect_err("the greatest length");
    assert_eq!(error.fault, Fault::TooLarge);
    assert_eq!(
        decode_connect(&[0x10, 0xff, 0xff, 0x7f], 100).unwrap_err().fault,
        Fault::TooLarge
    );
}

#[test]
fn the_first_packet_is_a_connect() {
    for one in table::valid::all() {
        let decoded = decode_connect(&one.bytes, u32::MAX);
        match &one.packet {
            Packet::Connect(connect) => {
                assert_eq!(
                    decoded,
                    Ok(Some((connect.clone(), one.bytes.len()))),
                    "{}",
                    one.name
                );
                for len in 0..one.bytes.len() {
                    assert_eq!(decode_connect(&one.bytes[..len], u32::MAX), Ok(None));
                }
            }
            _ => {
                let error = decoded.expect_err(one.name);
                assert_eq!(error.clause, "MQTT-3.1.0-1");
                assert_eq!(error.answer(None), Answer::Close);
            }
        }
    }
}

#[test]
fn other_protocols_are_named() {
    for (bytes, foreign) in [
        (&b"GET /mqtt HTTP/1.1\r\n"[..], Foreign::Http),
        (b"G", Foreign::Http),
        (b"PRI * HTTP/2.0\r\n", Foreign::Http),
        (&[0x16, 0x03, 0x01, 0x02, 0x00], Foreign::Tls),
        (&[0x16], Foreign::Tls),
        (b"PROXY TCP4 1.2.3.4", Foreign::ProxyProtocol),
        (b"SSH-2.0-x", Foreign::Other),
        (&[0], Foreign::Other),
    ] {
        let error = decode_connect(bytes, u32::MAX).expect_err("not MQTT");
        assert_eq!(error.fault, Fault::NotMqtt(foreign), "{bytes:?}");
        assert_eq!(error.answer(None), Answer::Close);
    }
    let error = decode_connect(&[0xc0, 0], u32::MAX).expect_err("a PINGREQ");
    assert_eq!(error.fault, Fault::Protocol);
}

#[test]
fn a_faulty_client_is_told_what_its_version_can_say() {
    let answer = |notation: &str| {
        let bytes = wire(notation);
        let error = decode_connect(&bytes, u32::MAX).expect_err(notation);
        error.answer(None)
    };
    let unsupported = ReasonCode::UnsupportedProtocolVersion;
    assert_eq!(
        answer(r#"10 | "MQTT" 03 02 0000 "c""#),
        Answer::ConnAck(V4, unsupported)
    );
    assert_eq!(
        answer(r#"10 | "MQIsdp" 04 02 0000 "c""#),
        Answer::ConnAck(V4, unsupported)
    );
    assert_eq!(
        answer(r#"10 | "MQTT" 06 02 0000 {} "c""#),
        Answer::ConnAck(V5, unsupported)
    );
    assert_eq!(answer(r#"10 | "MQTT" 04 03 0000 "c""#), Answer::Close);
    assert_eq!(
        answer(r#"10 | "MQTT" 05 03 0000 {} "c""#),
        Answer::ConnAck(V5, ReasonCode::MalformedPacket)
    );
    let later = |version: ProtocolVersion| -> DecodeError {
        decoder(version, mqtt::codec::Sender::Client)
            .decode(&[0x00, 0x00])
            .expect_err("a reserved type")
    };
    assert_eq!(later(V3).answer(Some(V3)), Answer::Close);
    assert_eq!(later(V4).answer(Some(V4)), Answer::Close);
    assert_eq!(
        later(V5).answer(Some(V5)),
        Answer::Disconnect(ReasonCode::MalformedPacket)
    );
}
