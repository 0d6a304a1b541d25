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

const KINDS: usize = 30;

fn message<'a>(numbers: &Numbers, parts: &'a Parts) -> Message<'a> {
    let Numbers {
        msg_id,
        topic_id,
        byte,
        duration,
        flags,
        ..
    } = *numbers;
    let (text, name, data) = (&*parts.text, &*parts.name, &*parts.data);
    let short = parts.short.as_bytes().try_into().expect("two octets");
    let qos = numbers.qos();
    let will = Some(Will {
        qos,
        retain: flags[0],
        topic: name,
    });
    let topic = match numbers.topic {
        0 => TopicName::Name(&parts.filter),
        1 => TopicName::Predefined(topic_id),
        _ => TopicName::Short(short),
    };
    match numbers.kind {
        0 => Message::GwInfo {
            gateway_id: byte,
            address: data,
        },
        1 => Message::Connect(Connect {
            will: flags[0],
            clean_session: flags[1],
            duration,
            client_id: text,
        }),
        2 => Message::WillTopic(will),
        3 => Message::WillMsg(data),
        4 => Message::Register {
            topic_id: TopicId(duration),
            msg_id,
            topic_name: name,
        },
        5 | 6 => Message::Publish(publish(numbers, short, data)),
        7 => Message::Subscribe(Subscribe {
            dup: flags[0],
            qos,
            msg_id,
            topic,
        }),
        8 => Message::Unsubscribe { msg_id, topic },
        9 => Message::PingReq(text),
        10 => Message::WillTopicUpd(will),
        11 => Message::WillMsgUpd(data),
        other => short_message(other - 12, numbers),
    }
}

/// A message without texts and data.
fn short_message(kind: usize, numbers: &Numbers) -> Message<'static> {
    let (byte, duration) = (numbers.byte, numbers.duration);
    let (topic_id, msg_id) = (TopicId(duration), numbers.msg_id);
    let return_code = ReturnCode::from(byte);
    match kind {
        0 => Message::Advertise {
            gateway_id: byte,
            duration,
        },
        1 => Message::SearchGw { radius: byte },
        2 => Message::ConnAck(return_code),
        3 => Message::WillTopicReq,
        4 => Message::WillTopic(None),
        5 => Message::WillMsgReq,
        6 => Message::RegAck {
            topic_id,
            msg_id,
            return_code,
        },
        7 => Message::PubAck {
            topic_id,
            msg_id,
            return_code,
        },
        8 => Message::PubComp(MsgId(duration)),
        9 => Message::PubRec(MsgId(duration)),
        10 => Message::PubRel(MsgId(duration)),
        11 => Message::SubAck {
            qos: numbers.qos(),
            topic_id,
            msg_id,
            return_code,
        },
        12 => Message::UnsubAck(MsgId(duration)),
        13 => Message::PingResp,
        14 => Message::Disconnect(numbers.flags[0].then_some(duration)),
        15 => Message::WillTopicUpd(None),
        16 => Message::WillTopicResp(return_code),
        _ => Message::WillMsgResp(return_code),
    }
}

impl Numbers {
    fn qos(&self) -> QoS {
        QoS::new(self.qos).unwrap_or(QoS::ExactlyOnce)
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
