//! What is no message is refused, with the clause and the answer.

mod table;

use std::fmt::Write as _;

use bytes::BytesMut;
use mqtt_sn::codec::{Fault, Message, Node};

use table::{broken, valid, wire};

#[test]
fn broken_datagrams_are_refused_with_their_clause() {
    for one in broken::all() {
        let error = Message::decode(&wire(one.notation)).expect_err(one.notation);
        assert_eq!(
            (error.fault, error.clause),
            (one.fault, one.clause),
            "{} -> {error}",
            one.notation
        );
        let mut refusal = BytesMut::new();
        if let Some(message) = error.refusal {
            message.encode(&mut refusal);
        }
        assert_eq!(refusal, wire(one.refusal), "{} -> {error}", one.notation);
    }
}

#[test]
fn a_message_is_the_whole_datagram() {
    for one in valid::all() {
        let whole = one.bytes();
        for len in 0..whole.len() {
            let error = Message::decode(&whole[..len]).expect_err(one.notation);
            assert_eq!(
                (error.fault, error.refusal),
                (Fault::Length, None),
                "{}",
                one.notation
            );
        }
        let mut longer = whole.clone();
        longer.push(0);
        let error = Message::decode(&longer).expect_err(one.notation);
        assert_eq!(
            (error.fault, error.refusal),
            (Fault::Length, None),
            "{}",
            one.notation
        );
    }
}

/// All values of the octets that say the length, for every message.
#[test]
fn a_wrong_length_is_refused() {
    for one in valid::all().iter().filter(|one| one.canonical) {
        let right = one.bytes();
        let mut bytes = right.clone();
        for len in 0..=0xFF_u8 {
            bytes[0] = len;
            if bytes != right {
                let error = Message::decode(&bytes).expect_err(one.notation);
                assert_eq!(error.fault, Fault::Length, "{len} {}", one.notation);
            }
        }
    }
    for len in 0..=0xFFFF_u16 {
        let mut bytes = wire("01 00 00 09 'will'");
        bytes[1..3].copy_from_slice(&len.to_be_bytes());
        assert_eq!(Message::decode(&bytes).is_ok(), len == 8, "{len}");
    }
}

/// Messages whose fields end early although their length says so. What is left may be another message; which ones are,
/// stands here.
#[test]
fn messages_cut_short_are_refused() {
    let mut understood = String::new();
    for one in valid::all().iter().filter(|one| one.canonical) {
        let whole = one.bytes();
        for len in 2..whole.len() {
            let mut bytes = whole[..len].to_vec();
            bytes[0] = u8::try_from(len).expect("a short message");
            match Message::decode(&bytes) {
                Ok(_) => writeln!(understood, "{:02X} {len}", bytes[1]).expect("a string"),
                Err(error) => assert!(
                    matches!(error.fault, Fault::Length | Fault::TopicName | Fault::Text),
                    "{bytes:02X?}: {error}"
                ),
            }
        }
    }
    let mut lines: Vec<&str> = understood.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    // GWINFO without address, CONNECT with a shorter client id, WILLTOPIC and WILLMSG with shorter texts or none,
    // REGISTER, PUBLISH, SUBSCRIBE and UNSUBSCRIBE with shorter names or data, PINGREQ likewise, DISCONNECT without
    // duration, WILLTOPICUPD and WILLMSGUPD like the messages that they replace.
    let expected = [
        "02 3", "02 4", "02 5", "02 6", "02 7", "02 8", "04 6", "04 7", "07 2", "07 4", "07 5", "09 2",
        "09 3", "0A 7", "0A 8", "0C 10", "0C 7", "0C 8", "0C 9", "12 10", "12 11", "12 6", "12 7", "12 8",
        "12 9", "14 6", "14 7", "16 2", "16 3", "16 4", "16 5", "16 6", "18 2", "1A 2", "1A 4", "1C 2",
        "1C 3", "1C 4",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn every_reserved_type_is_refused() {
    let known: Vec<u8> = valid::all()
        .iter()
        .filter(|one| one.canonical)
        .map(|one| one.bytes()[1])
        .collect();
    for msg_type in (0..=0xFF).filter(|msg_type| !known.contains(msg_type)) {
        for body in ["", "00", "00 04 01 12 34 00"] {
            let mut bytes = vec![0, msg_type];
            bytes.extend(wire(body));
            bytes[0] = u8::try_from(bytes.len()).expect("a short message");
            let error = Message::decode(&bytes).expect_err("a reserved type");
            assert_eq!(
                (error.fault, error.refusal),
                (Fault::MsgType, None),
                "{msg_type:02X}"
            );
        }
    }
}

#[test]
fn every_protocol_id_but_one_is_refused() {
    for protocol_id in 0..=0xFF {
        let bytes = [0x07, 0x04, 0x04, protocol_id, 0, 60, b'c'];
        match Message::decode(&bytes) {
            Ok(_) => assert_eq!(protocol_id, 1),
            Err(error) => assert_eq!((error.fault, protocol_id == 1), (Fault::ProtocolId, false)),
        }
    }
}

#[test]
fn broken_envelopes_are_refused() {
    for notation in [
        "",
        "03",
        "02 FE",
        "03 FE 00",
        "03 FE 00 02 16",
        "02 FE 00 01 02 16",
        "01 FE 00 01 02 16",
        "00 FE 00 01 02 16",
        "04 FE 00 01",
        "05 FE 00 01",
        "FF FE 00 01 02 16",
        "01 00 06 FE 00 01 02 16",
        "02 16",
    ] {
        let error = Node::decode(&wire(notation)).expect_err(notation);
        assert_eq!(
            (error.clause, error.refusal),
            ("MQTT-SN §5.5", None),
            "{notation}"
        );
    }
}

#[test]
fn words_tell_faults_apart() {
    let mut words: Vec<_> = broken::all()
        .iter()
        .map(|one| Message::decode(&wire(one.notation)).expect_err(one.notation))
        .map(|error| (error.word(), format!("{:?}", error.fault)))
        .collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), 9);
    let mut only: Vec<_> = words.iter().map(|(word, _)| word).collect();
    only.dedup();
    assert_eq!(only.len(), 9);
}
