//! Every message, from its bytes and back.

mod table;

use bytes::BytesMut;
use mqtt_sn::codec::{MESSAGE_LEN_MAX, Message, MsgId, Node, Publish, PublishQoS, Topic, TopicId};

use table::{valid, wire};

fn encode(message: &Message<'_>) -> BytesMut {
    let mut out = BytesMut::from(&b"before"[..]);
    message.encode(&mut out);
    out.split_off(6)
}

#[test]
fn messages_are_understood() {
    for one in valid::all() {
        assert_eq!(
            Message::decode(&one.bytes()),
            Ok(one.message),
            "{} {}",
            one.clause,
            one.notation
        );
    }
}

#[test]
fn messages_are_written() {
    for one in valid::all() {
        let written = encode(&one.message);
        assert_eq!(written.len(), one.message.encoded_len(), "{}", one.clause);
        assert_eq!(Message::decode(&written), Ok(one.message), "{}", one.clause);
        assert_eq!(
            written == one.bytes(),
            one.canonical,
            "{} {}",
            one.clause,
            one.notation
        );
    }
}

#[test]
fn every_type_has_a_vector() {
    let mut types: Vec<u8> = valid::all()
        .iter()
        .filter(|one| one.canonical)
        .map(|one| one.bytes()[1])
        .collect();
    types.sort_unstable();
    types.dedup();
    let reserved = [0x03, 0x11, 0x19];
    let all: Vec<u8> = (0..=0x1D).filter(|number| !reserved.contains(number)).collect();
    assert_eq!(types, all);
}

/// The long form of the length begins where the short one ends (§5.2.1).
#[test]
fn the_length_takes_three_octets_from_256_on() {
    let data = vec![b'x'; 0xFFFF];
    for (data_len, header, len) in [
        (253, &[0xFF, 0x09][..], 255),
        (254, &[0x01, 0x01, 0x02, 0x09], 258),
        (0xFFFF - 4, &[0x01, 0xFF, 0xFF, 0x09], 0xFFFF),
    ] {
        let message = Message::WillMsg(&data[..data_len]);
        let written = encode(&message);
        assert_eq!(&written[..header.len()], header);
        assert_eq!((written.len(), message.encoded_len()), (len, len));
        assert_eq!(Message::decode(&written), Ok(message));
    }
    // Two lengths that the long form alone can say, but that nobody needs it for.
    for len in [0xFE_u16, 0xFF, 0x100, 0x101] {
        let mut bytes = vec![0x01];
        bytes.extend(len.to_be_bytes());
        bytes.push(0x09);
        bytes.resize(usize::from(len), b'x');
        assert_eq!(Message::decode(&bytes), Ok(Message::WillMsg(&bytes[4..])));
    }
}

#[test]
fn what_is_too_long_is_not_written() {
    let data = vec![0; MESSAGE_LEN_MAX - 8];
    for (data, written) in [(&data[1..], MESSAGE_LEN_MAX), (&data[..], 0)] {
        let message = Message::Publish(Publish {
            dup: false,
            qos: PublishQoS::WithoutConnection,
            retain: false,
            topic: Topic::Predefined(TopicId(1)),
            msg_id: MsgId(0),
            data,
        });
        assert_eq!(message.encoded_len() <= MESSAGE_LEN_MAX, written > 0);
        assert_eq!(encode(&message).len(), written);
    }
}

#[test]
fn envelopes_are_opened_and_sealed() {
    let bytes = wire("07 FE 02 C0 FF EE 01 02 16");
    let node = Node {
        radius: 2,
        id: &[0xC0, 0xFF, 0xEE, 0x01],
        inner: &[0x02, 0x16],
    };
    assert!(Node::is_envelope(&bytes));
    assert_eq!(Node::decode(&bytes), Ok(node));
    let mut out = BytesMut::new();
    node.encode(&mut out);
    assert_eq!(out, bytes);

    // The inner message is nobody's business here, and reserved bits of Ctrl mean nothing.
    let odd = wire("04 FE FD 01 FF");
    assert_eq!(
        Node::decode(&odd),
        Ok(Node {
            radius: 1,
            id: &[1],
            inner: &[0xFF],
        })
    );
}

#[test]
fn a_node_id_may_fill_the_envelope() {
    let id = [7; Node::ID_LEN_MAX + 1];
    for (id, is_written) in [(&id[1..], true), (&id[..], false), (&[], false)] {
        let node = Node {
            radius: 9,
            id,
            inner: b"x",
        };
        let mut out = BytesMut::new();
        node.encode(&mut out);
        assert_eq!(!out.is_empty(), is_written);
        if is_written {
            assert_eq!(Node::decode(&out), Ok(Node { radius: 3, ..node }));
        }
    }
}

#[test]
fn messages_are_no_envelopes() {
    for one in valid::all() {
        assert!(!Node::is_envelope(&one.bytes()), "{}", one.clause);
    }
    // A long form of the length, broken as it is, does not hide one.
    assert!(Node::is_envelope(&wire("01 00 06 FE 00 01")));
    assert!(!Node::is_envelope(&wire("01 FE 02 16")));
    assert!(!Node::is_envelope(&wire("FE")));
}
