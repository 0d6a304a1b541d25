//! Every message, with the clause that its bytes are written from.

use broker_core::QoS;
use mqtt_sn::codec::{
    Connect, Message, MsgId, Publish, PublishQoS, ReturnCode, Subscribe, Topic, TopicId, TopicName, Will,
};

use super::wire;

/// A message and the bytes for it.
pub(crate) struct Valid {
    pub(crate) clause: &'static str,
    pub(crate) notation: &'static str,
    pub(crate) message: Message<'static>,
    /// These are the bytes that are written for it, too.
    pub(crate) canonical: bool,
}

impl Valid {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        wire(self.notation)
    }
}

pub(crate) fn all() -> Vec<Valid> {
    let canonical = [
        discovery(),
        connection(),
        will(),
        topics(),
        publish(),
        acknowledgements(),
        subscribe(),
    ]
    .concat();
    let entry = |canonical| {
        move |(clause, notation, message)| Valid {
            clause,
            notation,
            message,
            canonical,
        }
    };
    let canonical = canonical.into_iter().map(entry(true));
    canonical
        .chain(tolerated().into_iter().map(entry(false)))
        .collect()
}

type Line = (&'static str, &'static str, Message<'static>);

fn connect(will: bool, clean_session: bool, duration: u16, client_id: &'static str) -> Message<'static> {
    Message::Connect(Connect {
        will,
        clean_session,
        duration,
        client_id,
    })
}

fn will_topic(qos: QoS, retain: bool, topic: &'static str) -> Option<Will<'static>> {
    Some(Will { qos, retain, topic })
}

fn subscribe_to(dup: bool, qos: QoS, topic: TopicName<'static>) -> Message<'static> {
    Message::Subscribe(Subscribe {
        dup,
        qos,
        msg_id: ID,
        topic,
    })
}

fn suback(qos: QoS, topic_id: TopicId, return_code: ReturnCode) -> Message<'static> {
    Message::SubAck {
        qos,
        topic_id,
        msg_id: ID,
        return_code,
    }
}

const PUBLISH: Publish<'static> = Publish {
    dup: false,
    qos: PublishQoS::Level(QoS::AtMostOnce),
    retain: false,
    topic: Topic::Normal(TOPIC),
    msg_id: MsgId(0),
    data: b"21.5",
};

const ID: MsgId = MsgId(0x1234);
const TOPIC: TopicId = TopicId(0x0401);

fn discovery() -> Vec<Line> {
    vec![
        (
            "§5.4.1 ADVERTISE",
            "05 00 07 03 84",
            Message::Advertise {
                gateway_id: 7,
                duration: 900,
            },
        ),
        ("§5.4.2 SEARCHGW", "03 01 02", Message::SearchGw { radius: 2 }),
        (
            "§5.4.3 GWINFO of a gateway",
            "03 02 07",
            Message::GwInfo {
                gateway_id: 7,
                address: &[],
            },
        ),
        (
            "§5.4.3 GWINFO of a client",
            "09 02 07 C0 00 02 01 07 5C",
            Message::GwInfo {
                gateway_id: 7,
                address: &[0xC0, 0, 2, 1, 7, 0x5C],
            },
        ),
    ]
}

fn connection() -> Vec<Line> {
    vec![
        (
            "§5.4.4 CONNECT",
            "08 04 0C 01 00 3C 'c1'",
            connect(true, true, 60, "c1"),
        ),
        (
            "§5.4.4 CONNECT without flags and client id",
            "06 04 00 01 FF FF",
            connect(false, false, 0xFFFF, ""),
        ),
        (
            "§5.3.4 CONNECT with CleanSession alone",
            "08 04 04 01 00 01 'é'",
            connect(false, true, 1, "é"),
        ),
        (
            "§5.4.5 CONNACK",
            "03 05 00",
            Message::ConnAck(ReturnCode::Accepted),
        ),
        (
            "§5.3.10 CONNACK",
            "03 05 01",
            Message::ConnAck(ReturnCode::Congestion),
        ),
        (
            "§5.3.10 CONNACK",
            "03 05 03",
            Message::ConnAck(ReturnCode::NotSupported),
        ),
        (
            "§5.3.10 reserved",
            "03 05 80",
            Message::ConnAck(ReturnCode::Other(0x80)),
        ),
        ("§5.4.19 PINGREQ", "02 16", Message::PingReq("")),
        (
            "§5.4.19 PINGREQ, asleep",
            "07 16 'node1'",
            Message::PingReq("node1"),
        ),
        ("§5.4.20 PINGRESP", "02 17", Message::PingResp),
        ("§5.4.21 DISCONNECT", "02 18", Message::Disconnect(None)),
        (
            "§5.4.21 DISCONNECT, asleep",
            "04 18 0E 10",
            Message::Disconnect(Some(3600)),
        ),
        (
            "§5.4.21 DISCONNECT of 0 s",
            "04 18 00 00",
            Message::Disconnect(Some(0)),
        ),
    ]
}

fn will() -> Vec<Line> {
    vec![
        ("§5.4.6 WILLTOPICREQ", "02 06", Message::WillTopicReq),
        (
            "§5.4.7 WILLTOPIC",
            "06 07 30 'w/t'",
            Message::WillTopic(will_topic(QoS::AtLeastOnce, true, "w/t")),
        ),
        ("§5.4.7 WILLTOPIC, none", "02 07", Message::WillTopic(None)),
        (
            "§5.4.7 WILLTOPIC, no flags",
            "04 07 00 'w'",
            Message::WillTopic(will_topic(QoS::AtMostOnce, false, "w")),
        ),
        ("§5.4.8 WILLMSGREQ", "02 08", Message::WillMsgReq),
        ("§5.4.9 WILLMSG", "04 09 'by'", Message::WillMsg(b"by")),
        ("§5.4.9 WILLMSG, empty", "02 09", Message::WillMsg(b"")),
        (
            "§5.4.22 WILLTOPICUPD",
            "05 1A 40 'wu'",
            Message::WillTopicUpd(will_topic(QoS::ExactlyOnce, false, "wu")),
        ),
        ("§5.4.22 WILLTOPICUPD, none", "02 1A", Message::WillTopicUpd(None)),
        (
            "§5.4.23 WILLMSGUPD",
            "05 1C 00 FF 80",
            Message::WillMsgUpd(&[0, 0xFF, 0x80]),
        ),
        (
            "§5.4.24 WILLTOPICRESP",
            "03 1B 00",
            Message::WillTopicResp(ReturnCode::Accepted),
        ),
        (
            "§5.4.25 WILLMSGRESP",
            "03 1D 03",
            Message::WillMsgResp(ReturnCode::NotSupported),
        ),
    ]
}

fn topics() -> Vec<Line> {
    vec![
        (
            "§5.4.10 REGISTER of a client",
            "09 0A 00 00 12 34 'a/b'",
            Message::Register {
                topic_id: TopicId::NONE,
                msg_id: ID,
                topic_name: "a/b",
            },
        ),
        (
            "§5.4.10 REGISTER of a gateway",
            "07 0A 04 01 12 34 'a'",
            Message::Register {
                topic_id: TOPIC,
                msg_id: ID,
                topic_name: "a",
            },
        ),
        (
            "§5.4.11 REGACK",
            "07 0B 04 01 12 34 00",
            Message::RegAck {
                topic_id: TOPIC,
                msg_id: ID,
                return_code: ReturnCode::Accepted,
            },
        ),
        (
            "§5.4.11 REGACK, refused",
            "07 0B 00 00 12 34 01",
            Message::RegAck {
                topic_id: TopicId::NONE,
                msg_id: ID,
                return_code: ReturnCode::Congestion,
            },
        ),
    ]
}

fn publish() -> Vec<Line> {
    vec![
        (
            "§5.4.12 PUBLISH",
            "0B 0C 00 04 01 00 00 '21.5'",
            Message::Publish(PUBLISH),
        ),
        (
            "§5.3.4 PUBLISH, all flags",
            "0B 0C B1 04 01 12 34 '21.5'",
            Message::Publish(Publish {
                dup: true,
                qos: PublishQoS::Level(QoS::AtLeastOnce),
                retain: true,
                topic: Topic::Predefined(TOPIC),
                msg_id: ID,
                ..PUBLISH
            }),
        ),
        (
            "§6.7 PUBLISH to a short name, no data",
            "07 0C 42 't' '1' 12 34",
            Message::Publish(Publish {
                qos: PublishQoS::Level(QoS::ExactlyOnce),
                topic: Topic::Short(*b"t1"),
                msg_id: ID,
                data: b"",
                ..PUBLISH
            }),
        ),
        (
            "§6.8 PUBLISH of QoS -1",
            "0B 0C 61 00 01 00 00 '21.5'",
            Message::Publish(Publish {
                qos: PublishQoS::WithoutConnection,
                topic: Topic::Predefined(TopicId(1)),
                ..PUBLISH
            }),
        ),
        (
            "§5.3.11 the highest id",
            "0B 0C 00 FF FE 00 00 '21.5'",
            Message::Publish(Publish {
                topic: Topic::Normal(TopicId(0xFFFE)),
                ..PUBLISH
            }),
        ),
        (
            "§5.3.7 QoS 0 with a message id that means nothing",
            "0B 0C 00 04 01 12 34 '21.5'",
            Message::Publish(Publish {
                msg_id: ID,
                ..PUBLISH
            }),
        ),
    ]
}

fn acknowledgements() -> Vec<Line> {
    let puback = |topic_id, return_code| Message::PubAck {
        topic_id,
        msg_id: ID,
        return_code,
    };
    vec![
        (
            "§5.4.13 PUBACK",
            "07 0D 04 01 12 34 00",
            puback(TOPIC, ReturnCode::Accepted),
        ),
        (
            "§6.6 PUBACK",
            "07 0D 04 01 12 34 02",
            puback(TOPIC, ReturnCode::InvalidTopicId),
        ),
        ("§5.4.14 PUBREC", "04 0F 12 34", Message::PubRec(ID)),
        ("§5.4.14 PUBREL", "04 10 12 34", Message::PubRel(ID)),
        ("§5.4.14 PUBCOMP", "04 0E 12 34", Message::PubComp(ID)),
    ]
}

fn subscribe() -> Vec<Line> {
    let unsubscribe = |topic| Message::Unsubscribe { msg_id: ID, topic };
    vec![
        (
            "§5.4.15 SUBSCRIBE to a filter",
            "0C 12 00 12 34 'a/+/c/#'",
            subscribe_to(false, QoS::AtMostOnce, TopicName::Name("a/+/c/#")),
        ),
        (
            "§5.4.15 SUBSCRIBE to a name of two octets",
            "07 12 A0 12 34 'ab'",
            subscribe_to(true, QoS::AtLeastOnce, TopicName::Name("ab")),
        ),
        (
            "§5.4.15 SUBSCRIBE to a predefined id",
            "07 12 41 12 34 04 01",
            subscribe_to(false, QoS::ExactlyOnce, TopicName::Predefined(TOPIC)),
        ),
        (
            "§5.4.15 SUBSCRIBE to a short name",
            "07 12 02 12 34 'ab'",
            subscribe_to(false, QoS::AtMostOnce, TopicName::Short(*b"ab")),
        ),
        (
            "MQTT 5 §4.8.2 SUBSCRIBE to a shared filter",
            "0F 12 00 12 34 '$share/g/+'",
            subscribe_to(false, QoS::AtMostOnce, TopicName::Name("$share/g/+")),
        ),
        (
            "§5.4.16 SUBACK",
            "08 13 20 04 01 12 34 00",
            suback(QoS::AtLeastOnce, TOPIC, ReturnCode::Accepted),
        ),
        (
            "§5.4.16 SUBACK, refused",
            "08 13 00 00 00 12 34 03",
            suback(QoS::AtMostOnce, TopicId::NONE, ReturnCode::NotSupported),
        ),
        (
            "§5.4.17 UNSUBSCRIBE",
            "08 14 00 12 34 '+/x'",
            unsubscribe(TopicName::Name("+/x")),
        ),
        (
            "§5.4.17 UNSUBSCRIBE",
            "07 14 01 12 34 04 01",
            unsubscribe(TopicName::Predefined(TOPIC)),
        ),
        (
            "§5.4.17 UNSUBSCRIBE",
            "07 14 02 12 34 'ab'",
            unsubscribe(TopicName::Short(*b"ab")),
        ),
        ("§5.4.18 UNSUBACK", "04 15 12 34", Message::UnsubAck(ID)),
    ]
}

/// What is understood and never written.
fn tolerated() -> Vec<Line> {
    vec![
        ("§5.2.1 long form of 4", "01 00 04 16", Message::PingReq("")),
        (
            "§5.2.1 long form of 5",
            "01 00 05 05 00",
            Message::ConnAck(ReturnCode::Accepted),
        ),
        (
            "§5.2.1 long form of 11",
            "01 00 0B 0A 00 00 12 34 'a/b'",
            Message::Register {
                topic_id: TopicId::NONE,
                msg_id: ID,
                topic_name: "a/b",
            },
        ),
        (
            "§5.4.4 flags not used by CONNECT",
            "08 04 F3 01 00 3C 'c1'",
            connect(false, false, 60, "c1"),
        ),
        (
            "§5.4.7 flags not used by WILLTOPIC",
            "06 07 BF 'w/t'",
            Message::WillTopic(will_topic(QoS::AtLeastOnce, true, "w/t")),
        ),
        (
            "§5.4.12 flags not used by PUBLISH",
            "07 0C 0C 04 01 00 00",
            Message::Publish(Publish { data: b"", ..PUBLISH }),
        ),
        (
            "§5.4.15 flags not used by SUBSCRIBE",
            "08 12 1C 12 34 'a/b'",
            subscribe_to(false, QoS::AtMostOnce, TopicName::Name("a/b")),
        ),
        (
            "§5.4.16 flags not used by SUBACK",
            "08 13 9F 04 01 12 34 00",
            suback(QoS::AtMostOnce, TOPIC, ReturnCode::Accepted),
        ),
        (
            "§5.4.17 flags not used by UNSUBSCRIBE, QoS -1 too",
            "08 14 FC 12 34 'a/b'",
            Message::Unsubscribe {
                msg_id: ID,
                topic: TopicName::Name("a/b"),
            },
        ),
    ]
}
