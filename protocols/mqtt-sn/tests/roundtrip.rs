//! What is written is read as the same, for any message.

use broker_core::QoS;
use bytes::BytesMut;
use mqtt_sn::codec::{
    Connect, Message, MsgId, Node, Publish, PublishQoS, ReturnCode, Subscribe, Topic, TopicId, TopicName,
    Will,
};
use proptest::prelude::*;

/// Texts, names and data that messages borrow.
#[derive(Debug)]
struct Parts {
    text: String,
    name: String,
    filter: String,
    data: Vec<u8>,
    short: String,
}

fn parts() -> impl Strategy<Value = Parts> {
    let text = "[^\0]{0,300}";
    let name = "[^\0+#]{1,300}";
    let filter = "(\\$share/[^\0+#/]{1,9}/)?([^\0+#/$]{1,9}|[+])(/([^\0+#/]{0,9}|[+])){0,9}(/#)?";
    let short = prop_oneof!["[ -\"$-*,-~]{2}", "[\u{80}-\u{7FF}]"];
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 240..270),
        prop::collection::vec(any::<u8>(), 0..2000),
    ];
    (text, name, filter, data, short).prop_map(|(text, name, filter, data, short)| Parts {
        text,
        name,
        filter,
        data,
        short,
    })
}

/// The numbers of a message.
#[derive(Debug)]
struct Numbers {
    kind: usize,
    byte: u8,
    duration: u16,
    msg_id: MsgId,
    topic_id: TopicId,
    qos: u8,
    flags: [bool; 3],
    topic: u8,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    (
        0..KINDS,
        any::<u8>(),
        any::<u16>(),
        1..=u16::MAX,
        1..u16::MAX,
        0..4_u8,
        any::<[bool; 3]>(),
        0..3_u8,
    )
        .prop_map(
            |(kind, byte, duration, msg_id, topic_id, qos, flags, topic)| Numbers {
                kind,
                byte,
                duration,
                msg_id: MsgId(msg_id),
                topic_id: TopicId(topic_id),
                qos,
                flags,
                topic,
            },
        )
}

const KINDS: usize = 29;

fn message<'a>(numbers: &Numbers, parts: &'a Parts) -> Message<'a> {
    let Numbers {
        msg_id,
        topic_id,
        byte,
        ..
    } = *numbers;
    let qos = QoS::new(numbers.qos).unwrap_or(QoS::ExactlyOnce);
    let return_code = ReturnCode::from(byte);
    let will = Will {
        qos,
        retain: numbers.flags[0],
        topic: &parts.name,
    };
    let short = parts.short.as_bytes().try_into().expect("two octets");
    let topic_name = match numbers.topic {
        0 => TopicName::Name(&parts.filter),
        1 => TopicName::Predefined(topic_id),
        _ => TopicName::Short(short),
    };
    match numbers.kind {
        0 => Message::Advertise {
            gateway_id: byte,
            duration: numbers.duration,
        },
        1 => Message::SearchGw { radius: byte },
        2 => Message::GwInfo {
            gateway_id: byte,
            address: &parts.data,
        },
        3 => Message::Connect(Connect {
            will: numbers.flags[0],
            clean_session: numbers.flags[1],
            duration: numbers.duration,
            client_id: &parts.text,
        }),
        4 => Message::ConnAck(return_code),
        5 => Message::WillTopicReq,
        6 => Message::WillTopic(numbers.flags[1].then_some(will)),
        7 => Message::WillMsgReq,
        8 => Message::WillMsg(&parts.data),
        9 => Message::Register {
            topic_id: TopicId(numbers.duration),
            msg_id,
            topic_name: &parts.name,
        },
        10 => Message::RegAck {
            topic_id: TopicId(numbers.duration),
            msg_id,
            return_code,
        },
        11 | 28 => Message::Publish(publish(numbers, short, &parts.data)),
        12 => Message::PubAck {
            topic_id: TopicId(numbers.duration),
            msg_id,
            return_code,
        },
        13 => Message::PubComp(MsgId(numbers.duration)),
        14 => Message::PubRec(MsgId(numbers.duration)),
        15 => Message::PubRel(MsgId(numbers.duration)),
        16 => Message::Subscribe(Subscribe {
            dup: numbers.flags[0],
            qos,
            msg_id,
            topic: topic_name,
        }),
        17 => Message::SubAck {
            qos,
            topic_id: TopicId(numbers.duration),
            msg_id,
            return_code,
        },
        18 => Message::Unsubscribe {
            msg_id,
            topic: topic_name,
        },
        19 => Message::UnsubAck(MsgId(numbers.duration)),
        20 => Message::PingReq(&parts.text),
        21 => Message::PingResp,
        22 => Message::Disconnect(numbers.flags[0].then_some(numbers.duration)),
        23 => Message::WillTopicUpd(numbers.flags[1].then_some(will)),
        24 => Message::WillMsgUpd(&parts.data),
        25 => Message::WillTopicResp(return_code),
        26 => Message::WillMsgResp(return_code),
        _ => Message::ConnAck(ReturnCode::Congestion),
    }
}

fn publish<'a>(numbers: &Numbers, short: [u8; 2], data: &'a [u8]) -> Publish<'a> {
    Publish {
        dup: numbers.flags[0],
        qos: QoS::new(numbers.qos).map_or(PublishQoS::WithoutConnection, PublishQoS::Level),
        retain: numbers.flags[1],
        topic: match numbers.topic {
            0 => Topic::Normal(numbers.topic_id),
            1 => Topic::Predefined(numbers.topic_id),
            _ => Topic::Short(short),
        },
        msg_id: numbers.msg_id,
        data,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn messages(numbers in numbers(), parts in parts()) {
        let message = message(&numbers, &parts);
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), message.encoded_len());
        prop_assert_eq!(bytes[0] == 1, bytes.len() > 255);
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }

    #[test]
    fn envelopes(
        radius in 0..4_u8,
        id in prop::collection::vec(any::<u8>(), 1..=Node::ID_LEN_MAX),
        inner in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        let node = Node { radius, id: &id, inner: &inner };
        let mut bytes = BytesMut::new();
        node.encode(&mut bytes);
        prop_assert_eq!(Node::decode(&bytes), Ok(node));
        prop_assert!(Node::is_envelope(&bytes));
    }

    /// Whatever is understood means the same when it is written anew.
    #[test]
    fn what_is_read_can_be_written(mut bytes in prop::collection::vec(any::<u8>(), 2..40), msg_type in 0..0x1E_u8) {
        bytes[0] = u8::try_from(bytes.len()).expect("below 40");
        bytes[1] = msg_type;
        if let Ok(message) = Message::decode(&bytes) {
            let mut again = BytesMut::new();
            message.encode(&mut again);
            prop_assert_eq!(again.len(), bytes.len());
            prop_assert_eq!(Message::decode(&again), Ok(message));
        }
    }
}

/// A message borrows all that it has: to decode one allocates nothing.
#[test]
fn messages_own_nothing() {
    const fn owns_nothing<T: Copy>() {}
    owns_nothing::<Message<'_>>();
    owns_nothing::<Node<'_>>();
    assert!(size_of::<Message<'_>>() <= 48, "{}", size_of::<Message<'_>>());
}
