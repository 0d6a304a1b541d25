//! Packets that must be understood.

use std::borrow::Cow;
use std::num::{NonZeroU16, NonZeroU32};

use broker_core::{PacketId, QoS, ReasonCode, RetainHandling, SubscribeOptions};
use mqtt::codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties,
    Disconnect, DisconnectProperties, Packet, ProtocolVersion, Publish, ReasonCodes, Sender, SubAck,
    Subscribe, Subscription, UnsubAck, Unsubscribe, UnsubscribeProperties, UserProperties, Will,
};

use super::{V3, V4, V5, wire};

pub(crate) struct Valid {
    pub(crate) name: &'static str,
    pub(crate) version: ProtocolVersion,
    pub(crate) sender: Sender,
    pub(crate) bytes: Vec<u8>,
    pub(crate) packet: Packet<'static>,
    /// The encoder writes exactly these bytes.
    pub(crate) canonical: bool,
}

pub(crate) const C: Sender = Sender::Client;
pub(crate) const S: Sender = Sender::Server;

pub(crate) fn all() -> Vec<Valid> {
    let mut all = connects();
    all.extend(connacks());
    all.extend(publishes());
    all.extend(acks());
    all.extend(subscribes());
    all.extend(others());
    all
}

fn valid(
    name: &'static str,
    version: ProtocolVersion,
    sender: Sender,
    notation: &str,
    packet: Packet<'static>,
) -> Valid {
    Valid {
        name,
        version,
        sender,
        bytes: wire(notation),
        packet,
        canonical: true,
    }
}

impl Valid {
    fn also_valid(mut self) -> Valid {
        self.canonical = false;
        self
    }
}

pub(crate) fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

fn user(pairs: &[(&str, &str)]) -> UserProperties<'static> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    UserProperties::new(pairs.leak())
}

fn connect(
    edit: impl FnOnce(&mut Connect<'static>),
    version: ProtocolVersion,
    client_id: &'static str,
) -> Packet<'static> {
    let mut connect = Connect::new(version, client_id);
    edit(&mut connect);
    Packet::Connect(Box::new(connect))
}

fn connects() -> Vec<Valid> {
    vec![
        valid(
            "CONNECT 3.1",
            V3,
            C,
            r#"10 | "MQIsdp" 03 02 003c "c""#,
            connect(|it| it.keep_alive = 60, V3, "c"),
        ),
        valid(
            "CONNECT 3.1.1 with everything",
            V4,
            C,
            r#"10 | "MQTT" 04 ee 000a "c" "w/t" "bye" "user" "pass""#,
            connect(
                |it| {
                    it.keep_alive = 10;
                    it.will = Some(Will {
                        qos: QoS::AtLeastOnce,
                        retain: true,
                        ..Will::new("w/t", b"bye")
                    });
                    it.username = Some("user");
                    it.password = Some(b"pass");
                },
                V4,
                "c",
            ),
        ),
        valid(
            "CONNECT of a 3.1 bridge",
            V3,
            C,
            r#"10 | "MQIsdp" 83 00 0000 "c""#,
            connect(
                |it| {
                    it.is_bridge = true;
                    it.clean_start = false;
                },
                V3,
                "c",
            ),
        ),
        valid(
            "CONNECT of a 3.1.1 bridge",
            V4,
            C,
            r#"10 | "MQTT" 84 02 0000 "c""#,
            connect(|it| it.is_bridge = true, V4, "c"),
        ),
        valid(
            "CONNECT without client id",
            V4,
            C,
            r#"10 | "MQTT" 04 02 0000 """#,
            connect(|_| (), V4, ""),
        ),
        valid(
            "CONNECT 3.1 whose flags promise a user name that is not there",
            V3,
            C,
            r#"10 | "MQIsdp" 03 c2 003c "c""#,
            connect(|it| it.keep_alive = 60, V3, "c"),
        )
        .also_valid(),
        valid(
            "CONNECT 3.1 with disregarded Will bits and reserved bit",
            V3,
            C,
            r#"10 | "MQIsdp" 03 2b 0000 "c""#,
            connect(|_| (), V3, "c"),
        )
        .also_valid(),
        valid(
            "CONNECT 5",
            V5,
            C,
            r#"10 | "MQTT" 05 02 0000 {} "c""#,
            connect(|_| (), V5, "c"),
        ),
        valid(
            "CONNECT 5 with a password but no user name",
            V5,
            C,
            r#"10 | "MQTT" 05 42 0000 {} "c" "token""#,
            connect(|it| it.password = Some(b"token"), V5, "c"),
        ),
        valid(
            "CONNECT 5 with everything",
            V5,
            C,
            r#"10 | "MQTT" 05 f6 0014 { 11 0000000a 21 0014 27 00000100 22 000a 19 01 17 00 15 "SCRAM" 16 "data" 26 "k" "v" 26 "k" "w" }
               "client" { 18 00000005 02 0000003c 01 01 03 "text" 08 "re/ply" 09 "corr" 26 "a" "b" } "will" "gone" "u" "p""#,
            connect(full_connect, V5, "client"),
        ),
    ]
}

fn full_connect(it: &mut Connect<'static>) {
    it.keep_alive = 20;
    it.properties = ConnectProperties {
        session_expiry_interval: Some(10),
        receive_maximum: NonZeroU16::new(20),
        maximum_packet_size: NonZeroU32::new(256),
        topic_alias_maximum: Some(10),
        request_response_information: Some(true),
        request_problem_information: Some(false),
        authentication_method: Some("SCRAM"),
        authentication_data: Some(b"data"),
        user: user(&[("k", "v"), ("k", "w")]),
    };
    it.will = Some(Will {
        qos: QoS::ExactlyOnce,
        retain: true,
        delay_interval: 5,
        expiry_interval: Some(60),
        properties: Cow::Owned(wire(r#"01 01 03 "text" 08 "re/ply" 09 "corr" 26 "a" "b""#)),
        ..Will::new("will", b"gone")
    });
    it.username = Some("u");
    it.password = Some(b"p");
}

fn connack(
    session_present: bool,
    reason: ReasonCode,
    properties: ConnAckProperties<'static>,
) -> Packet<'static> {
    Packet::ConnAck(Box::new(ConnAck {
        session_present,
        reason,
        properties,
    }))
}

fn connacks() -> Vec<Valid> {
    let none = ConnAckProperties::default;
    let full = ConnAckProperties {
        session_expiry_interval: Some(1),
        receive_maximum: NonZeroU16::new(2),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: NonZeroU32::new(3),
        assigned_client_identifier: Some("id"),
        topic_alias_maximum: Some(4),
        reason_string: Some("why"),
        wildcard_subscription_available: Some(true),
        subscription_identifier_available: Some(false),
        shared_subscription_available: Some(true),
        server_keep_alive: Some(5),
        response_information: Some("r"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(b"d"),
        user: user(&[("k", "v")]),
    };
    vec![
        valid(
            "CONNACK 3.1",
            V3,
            S,
            "20 | 00 00",
            connack(false, ReasonCode::Success, none()),
        ),
        valid(
            "CONNACK 3.1 with its unused byte",
            V3,
            S,
            "20 | 01 00",
            connack(false, ReasonCode::Success, none()),
        )
        .also_valid(),
        valid(
            "CONNACK 3.1.1 with a session",
            V4,
            S,
            "20 | 01 00",
            connack(true, ReasonCode::Success, none()),
        ),
        valid(
            "CONNACK 3.1.1 version",
            V4,
            S,
            "20 | 00 01",
            connack(false, ReasonCode::UnsupportedProtocolVersion, none()),
        ),
        valid(
            "CONNACK 3.1.1 client id",
            V4,
            S,
            "20 | 00 02",
            connack(false, ReasonCode::ClientIdentifierNotValid, none()),
        ),
        valid(
            "CONNACK 3.1.1 server",
            V4,
            S,
            "20 | 00 03",
            connack(false, ReasonCode::ServerUnavailable, none()),
        ),
        valid(
            "CONNACK 3.1.1 password",
            V4,
            S,
            "20 | 00 04",
            connack(false, ReasonCode::BadUserNameOrPassword, none()),
        ),
        valid(
            "CONNACK 3.1.1 authorization",
            V4,
            S,
            "20 | 00 05",
            connack(false, ReasonCode::NotAuthorized, none()),
        ),
        valid(
            "CONNACK 5",
            V5,
            S,
            "20 | 00 00 {}",
            connack(false, ReasonCode::Success, none()),
        ),
        valid(
            "CONNACK 5 refused",
            V5,
            S,
            "20 | 00 8a {}",
            connack(false, ReasonCode::Banned, none()),
        ),
        valid(
            "CONNACK 5 with everything",
            V5,
            S,
            r#"20 | 01 00 { 11 00000001 21 0002 24 01 25 00 27 00000003 12 "id" 22 0004 1f "why" 28 01 29 00 2a 01 13 0005
               1a "r" 1c "s" 15 "m" 16 "d" 26 "k" "v" }"#,
            connack(true, ReasonCode::Success, full),
        ),
    ]
}

fn publish(
    edit: impl FnOnce(&mut Publish<'static>),
    topic: &'static str,
    payload: &'static [u8],
) -> Packet<'static> {
    let mut publish = Publish::new(topic, payload);
    edit(&mut publish);
    Packet::Publish(publish)
}

fn publishes() -> Vec<Valid> {
    let qos = |it: &mut Publish<'_>, level| {
        it.qos = level;
        it.packet_id = Some(id(10));
    };
    let mut valid_publishes = vec![
        valid(
            "PUBLISH 3.1",
            V3,
            C,
            r#"30 | "a/b" 'hi'"#,
            publish(|_| (), "a/b", b"hi"),
        ),
        valid(
            "PUBLISH QoS 1 again",
            V4,
            C,
            r#"3b | "a/b" 000a 'hi'"#,
            publish(
                |it| {
                    qos(it, QoS::AtLeastOnce);
                    it.dup = true;
                    it.retain = true;
                },
                "a/b",
                b"hi",
            ),
        ),
        valid(
            "PUBLISH QoS 2",
            V4,
            S,
            r#"34 | "a/b" 000a"#,
            publish(|it| qos(it, QoS::ExactlyOnce), "a/b", b""),
        ),
        valid(
            "PUBLISH with a topic of several alphabets",
            V4,
            C,
            r#"30 | "Ω/日本/🦀" 00"#,
            publish(|_| (), "Ω/日本/🦀", &[0]),
        ),
        valid(
            "PUBLISH 5",
            V5,
            C,
            r#"30 | "a" {} 'x'"#,
            publish(|_| (), "a", b"x"),
        ),
        valid(
            "PUBLISH 5 that sets an alias",
            V5,
            C,
            r#"30 | "a" { 23 0001 } 'x'"#,
            publish(|it| it.topic_alias = NonZeroU16::new(1), "a", b"x"),
        ),
        valid(
            "PUBLISH 5 that uses an alias",
            V5,
            C,
            r#"30 | "" { 23 ffff } 'x'"#,
            publish(|it| it.topic_alias = NonZeroU16::new(65_535), "", b"x"),
        ),
        valid(
            "PUBLISH 5 with everything",
            V5,
            S,
            r#"32 | "a" 000a { 02 00000001 23 0002 0b 01 0b ffffff7f 01 01 03 "t" 08 "r" 09 "c" 26 "k" "v" 26 "k" "v" } 'x'"#,
            publish(
                |it| {
                    qos(it, QoS::AtLeastOnce);
                    it.expiry_interval = Some(1);
                    it.topic_alias = NonZeroU16::new(2);
                    it.subscription_ids.extend([1, 268_435_455]);
                    it.properties = Cow::Owned(wire(r#"01 01 03 "t" 08 "r" 09 "c" 26 "k" "v" 26 "k" "v""#));
                },
                "a",
                b"x",
            ),
        ),
    ];
    for (name, notation) in [
        (
            "PUBLISH 5 with the hop's properties first",
            r#"30 | "a" { 02 00000001 23 0002 26 "k" "v" 01 00 } 'x'"#,
        ),
        (
            "PUBLISH 5 with the hop's properties last",
            r#"30 | "a" { 26 "k" "v" 01 00 23 0002 02 00000001 } 'x'"#,
        ),
        (
            "PUBLISH 5 with the hop's properties between",
            r#"30 | "a" { 23 0002 26 "k" "v" 02 00000001 01 00 } 'x'"#,
        ),
    ] {
        let packet = publish(
            |it| {
                it.expiry_interval = Some(1);
                it.topic_alias = NonZeroU16::new(2);
                it.properties = Cow::Owned(wire(r#"26 "k" "v" 01 00"#));
            },
            "a",
            b"x",
        );
        let mut one = valid(name, V5, C, notation, packet);
        one.canonical = name.ends_with("first");
        valid_publishes.push(one);
    }
    valid_publishes
}

fn acks() -> Vec<Valid> {
    let ack = |reason| Ack::new(id(0x1234), reason);
    let ok = ReasonCode::Success;
    let full = Ack {
        properties: AckProperties {
            reason_string: Some("why"),
            user: user(&[("k", "v")]),
        },
        ..ack(ReasonCode::QuotaExceeded)
    };
    vec![
        valid("PUBACK 3.1", V3, S, "40 | 1234", Packet::PubAck(ack(ok))),
        valid("PUBREC 3.1.1", V4, C, "50 | 1234", Packet::PubRec(ack(ok))),
        valid("PUBREL 3.1", V3, C, "62 | 1234", Packet::PubRel(ack(ok))),
        valid("PUBREL 3.1 again", V3, C, "6a | 1234", Packet::PubRel(ack(ok))).also_valid(),
        valid("PUBREL 3.1.1", V4, C, "62 | 1234", Packet::PubRel(ack(ok))),
        valid("PUBCOMP 3.1.1", V4, S, "70 | 1234", Packet::PubComp(ack(ok))),
        valid(
            "PUBACK 5 of two bytes",
            V5,
            C,
            "40 | 1234",
            Packet::PubAck(ack(ok)),
        ),
        valid(
            "PUBACK 5 of three bytes",
            V5,
            S,
            "40 | 1234 10",
            Packet::PubAck(ack(ReasonCode::NoMatchingSubscribers)),
        ),
        valid(
            "PUBACK 5 with explicit success",
            V5,
            S,
            "40 | 1234 00",
            Packet::PubAck(ack(ok)),
        )
        .also_valid(),
        valid(
            "PUBACK 5 with empty properties",
            V5,
            S,
            "40 | 1234 10 {}",
            Packet::PubAck(ack(ReasonCode::NoMatchingSubscribers)),
        )
        .also_valid(),
        valid(
            "PUBREC 5 with everything",
            V5,
            S,
            r#"50 | 1234 97 { 1f "why" 26 "k" "v" }"#,
            Packet::PubRec(full),
        ),
        valid(
            "PUBREL 5",
            V5,
            C,
            "62 | 1234 92",
            Packet::PubRel(ack(ReasonCode::PacketIdentifierNotFound)),
        ),
        valid(
            "PUBCOMP 5",
            V5,
            S,
            "70 | 1234 92",
            Packet::PubComp(ack(ReasonCode::PacketIdentifierNotFound)),
        ),
    ]
}

fn subscribes() -> Vec<Valid> {
    const fn at(filter: &'static str, qos: QoS) -> Subscription<'static> {
        let options = SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        Subscription { filter, options }
    }
    const TWO: &[Subscription<'static>] = &[at("a/b", QoS::AtLeastOnce), at("c/#", QoS::ExactlyOnce)];
    const OPTIONS: &[Subscription<'static>] = &[Subscription {
        filter: "+/x",
        options: SubscribeOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        },
    }];
    let granted = &[
        ReasonCode::Success,
        ReasonCode::GrantedQoS2,
        ReasonCode::UnspecifiedError,
    ];
    let unsub = &[ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    let why = AckProperties {
        reason_string: Some("why"),
        user: user(&[("k", "v")]),
    };
    vec![
        valid(
            "SUBSCRIBE 3.1 again, with upper bits left over",
            V3,
            C,
            r#"8a | 0001 "a/b" f1 "c/#" 06"#,
            Packet::Subscribe(Subscribe::new(id(1), TWO)),
        )
        .also_valid(),
        valid(
            "SUBSCRIBE 3.1.1",
            V4,
            C,
            r#"82 | 0001 "a/b" 01 "c/#" 02"#,
            Packet::Subscribe(Subscribe::new(id(1), TWO)),
        ),
        valid(
            "SUBSCRIBE 5 with everything",
            V5,
            C,
            r#"82 | 0001 { 0b 8001 26 "k" "v" } "+/x" 2e"#,
            Packet::Subscribe(Subscribe {
                subscription_id: Some(128),
                user: user(&[("k", "v")]),
                ..Subscribe::new(id(1), OPTIONS)
            }),
        ),
        valid(
            "SUBSCRIBE 5 with a filter for the peer to refuse",
            V5,
            C,
            r#"82 | 0001 {} "a#" 00 "" 00"#,
            Packet::Subscribe(Subscribe::new(
                id(1),
                const { &[at("a#", QoS::AtMostOnce), at("", QoS::AtMostOnce)] },
            )),
        ),
        valid(
            "SUBACK 3.1.1",
            V4,
            S,
            "90 | 0001 00 02 80",
            Packet::SubAck(SubAck::new(id(1), ReasonCodes::new(granted))),
        ),
        valid(
            "SUBACK 5",
            V5,
            S,
            r#"90 | 0001 { 1f "why" 26 "k" "v" } 00 02 80"#,
            Packet::SubAck(SubAck {
                properties: why,
                ..SubAck::new(id(1), ReasonCodes::new(granted))
            }),
        ),
        valid(
            "UNSUBSCRIBE 3.1 again",
            V3,
            C,
            r#"aa | 0001 "a" "b""#,
            Packet::Unsubscribe(Unsubscribe::new(id(1), &["a", "b"])),
        )
        .also_valid(),
        valid(
            "UNSUBSCRIBE 3.1.1",
            V4,
            C,
            r#"a2 | 0001 "a" "b""#,
            Packet::Unsubscribe(Unsubscribe::new(id(1), &["a", "b"])),
        ),
        valid(
            "UNSUBSCRIBE 5",
            V5,
            C,
            r#"a2 | 0001 { 26 "k" "v" } "a""#,
            Packet::Unsubscribe(Unsubscribe {
                properties: UnsubscribeProperties {
                    user: user(&[("k", "v")]),
                },
                ..Unsubscribe::new(id(1), &["a"])
            }),
        ),
        valid(
            "UNSUBACK 3.1.1",
            V4,
            S,
            "b0 | 0001",
            Packet::UnsubAck(UnsubAck::new(id(1), ReasonCodes::EMPTY)),
        ),
        valid(
            "UNSUBACK 5",
            V5,
            S,
            "b0 | 0001 {} 00 11",
            Packet::UnsubAck(UnsubAck::new(id(1), ReasonCodes::new(unsub))),
        ),
    ]
}

fn others() -> Vec<Valid> {
    let goodbye = |reason| Packet::Disconnect(Disconnect::new(reason));
    vec![
        valid("PINGREQ 3.1", V3, C, "c0 00", Packet::PingReq),
        valid("PINGREQ 5", V5, C, "c0 00", Packet::PingReq),
        valid(
            "PINGREQ 3.1.1 with a needlessly long length",
            V4,
            C,
            "c0 8000",
            Packet::PingReq,
        )
        .also_valid(),
        valid("PINGRESP", V4, S, "d0 00", Packet::PingResp),
        valid("DISCONNECT 3.1.1", V4, C, "e0 00", goodbye(ReasonCode::Success)),
        valid(
            "DISCONNECT 5 of no byte",
            V5,
            C,
            "e0 00",
            goodbye(ReasonCode::Success),
        ),
        valid(
            "DISCONNECT 5 of one byte",
            V5,
            C,
            "e0 | 04",
            goodbye(ReasonCode::DisconnectWithWill),
        ),
        valid(
            "DISCONNECT 5 with explicit success",
            V5,
            C,
            "e0 | 00 {}",
            goodbye(ReasonCode::Success),
        )
        .also_valid(),
        valid(
            "DISCONNECT 5 of a server",
            V5,
            S,
            "e0 | 8e",
            goodbye(ReasonCode::SessionTakenOver),
        ),
        valid(
            "DISCONNECT 5 with everything",
            V5,
            C,
            r#"e0 | 00 { 11 00000001 1f "why" 1c "s" 26 "k" "v" }"#,
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::Success,
                properties: DisconnectProperties {
                    session_expiry_interval: Some(1),
                    reason_string: Some("why"),
                    server_reference: Some("s"),
                    user: user(&[("k", "v")]),
                },
            }),
        ),
        valid(
            "AUTH success, short",
            V5,
            S,
            "f0 00",
            Packet::Auth(Auth {
                reason: ReasonCode::Success,
                properties: AuthProperties::default(),
            }),
        ),
        valid(
            "AUTH success, written out",
            V5,
            S,
            "f0 | 00 {}",
            Packet::Auth(Auth {
                reason: ReasonCode::Success,
                properties: AuthProperties::default(),
            }),
        )
        .also_valid(),
        valid(
            "AUTH continue",
            V5,
            C,
            r#"f0 | 18 { 15 "SCRAM" 16 "data" }"#,
            Packet::Auth(Auth::new(
                ReasonCode::ContinueAuthentication,
                "SCRAM",
                Some(b"data"),
            )),
        ),
        valid(
            "AUTH again",
            V5,
            C,
            r#"f0 | 19 { 15 "SCRAM" }"#,
            Packet::Auth(Auth::new(ReasonCode::ReAuthenticate, "SCRAM", None)),
        ),
    ]
}
