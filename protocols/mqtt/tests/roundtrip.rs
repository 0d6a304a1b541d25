//! What is written is read back, whatever it is.

use std::{
    borrow::Cow,
    num::{NonZeroU16, NonZeroU32},
};

use broker_core::{PacketId, PropertiesBuilder, Property, QoS, ReasonCode, RetainHandling, SubscribeOptions};
use bytes::BytesMut;
use mqtt::codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties,
    Decoder, Disconnect, DisconnectProperties, EncodeError, Packet, PacketType, ProtocolVersion, Publish,
    ReasonCodes, Sender, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, UnsubscribeProperties,
    UserProperties, Will,
};
use proptest::prelude::*;

use ProtocolVersion::{V3, V4, V5};

/// What packets are made of. Packets borrow, so their parts are generated first.
#[derive(Clone, Debug)]
struct Parts {
    texts: [String; 6],
    topic: String,
    filters: Vec<String>,
    data: [Vec<u8>; 2],
    pairs: Vec<(String, String)>,
    numbers: [u32; 3],
    ids: Vec<u32>,
    packet_id: u16,
    flags: u32,
    choice: u8,
}

impl Parts {
    /// One of 32 independent decisions.
    fn flag(&self, index: u32) -> bool {
        self.flags >> index & 1 == 1
    }

    fn when<T>(&self, index: u32, value: T) -> Option<T> {
        self.flag(index).then_some(value)
    }

    fn qos(&self) -> QoS {
        QoS::new(self.choice % 3).expect("below 3")
    }

    fn packet_id(&self) -> PacketId {
        PacketId::new(self.packet_id).expect("generated from 1 on")
    }

    fn pick(&self, codes: &[ReasonCode]) -> ReasonCode {
        codes[usize::from(self.choice) % codes.len()]
    }

    fn travelling(&self) -> Vec<u8> {
        let mut builder = PropertiesBuilder::new();
        let mut push = |index, property| assert!(!self.flag(index) || builder.push(property));
        push(20, Property::PayloadFormat(self.flag(21)));
        push(22, Property::ContentType(&self.texts[4]));
        push(23, Property::ResponseTopic(&self.topic));
        push(24, Property::CorrelationData(&self.data[1]));
        for (name, value) in &self.pairs {
            push(25, Property::User(name, value));
        }
        builder.as_properties().encoded().to_vec()
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let text = "[^\u{0}]{0,12}";
    let topic = "[^\u{0}+#]{1,12}";
    let filters = prop::collection::vec("[^\u{0}+#$]{1,8}(/\\+)?(/#)?", 1..4);
    let data = prop::collection::vec(any::<u8>(), 0..200);
    (
        prop::array::uniform6(text),
        topic,
        filters,
        prop::array::uniform2(data),
        prop::collection::vec((text, text), 0..4),
        prop::array::uniform3(1..=u32::MAX),
        prop::collection::vec(1..=268_435_455u32, 0..4),
        1..=u16::MAX,
        any::<u32>(),
        any::<u8>(),
    )
        .prop_map(
            |(texts, topic, filters, data, pairs, numbers, ids, packet_id, flags, choice)| Parts {
                texts,
                topic,
                filters,
                data,
                pairs,
                numbers,
                ids,
                packet_id,
                flags,
                choice,
            },
        )
}

fn connect<'a>(parts: &'a Parts, version: ProtocolVersion) -> Packet<'a> {
    let v5 = version == V5;
    let mut connect = Connect::new(version, &parts.texts[0]);
    connect.clean_start = parts.flag(0);
    connect.is_bridge = !v5 && parts.flag(1);
    connect.keep_alive = parts.packet_id;
    connect.username = parts.when(2, &*parts.texts[1]);
    if v5 || connect.username.is_some() {
        connect.password = parts.when(3, &*parts.data[0]);
    }
    if v5 {
        connect.properties = ConnectProperties {
            session_expiry_interval: parts.when(4, parts.numbers[0]),
            receive_maximum: parts.when(5, NonZeroU16::new(parts.packet_id)).flatten(),
            maximum_packet_size: parts.when(6, NonZeroU32::new(parts.numbers[1])).flatten(),
            topic_alias_maximum: parts.when(7, parts.packet_id),
            request_response_information: parts.when(8, parts.flag(9)),
            request_problem_information: parts.when(10, parts.flag(11)),
            authentication_method: parts.when(12, &parts.texts[2]),
            authentication_data: parts.when(12, &*parts.data[1]).filter(|_| parts.flag(13)),
            user: UserProperties::new(&parts.pairs),
        };
    }
    connect.will = parts.when(
        14,
        Will {
            qos: parts.qos(),
            retain: parts.flag(15),
            delay_interval: if v5 && parts.flag(16) { parts.numbers[2] } else { 0 },
            expiry_interval: parts.when(17, parts.numbers[0]).filter(|_| v5),
            properties: Cow::Owned(if v5 { parts.travelling() } else { Vec::new() }),
            ..Will::new(&parts.topic, &parts.data[0])
        },
    );
    Packet::Connect(Box::new(connect))
}

fn connack<'a>(parts: &'a Parts, version: ProtocolVersion) -> Packet<'a> {
    use ReasonCode::*;
    let reason = parts.pick(&[
        Success,
        UnsupportedProtocolVersion,
        ClientIdentifierNotValid,
        ServerUnavailable,
        BadUserNameOrPassword,
        NotAuthorized,
    ]);
    let mut connack = ConnAck::new(reason);
    connack.session_present = parts.flag(0) && reason == Success && version != V3;
    if version == V5 {
        connack.properties = ConnAckProperties {
            session_expiry_interval: parts.when(1, parts.numbers[0]),
            receive_maximum: parts.when(2, NonZeroU16::new(parts.packet_id)).flatten(),
            maximum_qos: parts.when(3, parts.qos()).filter(|&qos| qos != QoS::ExactlyOnce),
            retain_available: parts.when(4, parts.flag(5)),
            maximum_packet_size: parts.when(6, NonZeroU32::new(parts.numbers[1])).flatten(),
            assigned_client_identifier: parts.when(7, &parts.texts[0]),
            topic_alias_maximum: parts.when(8, parts.packet_id),
            reason_string: parts.when(9, &parts.texts[1]),
            wildcard_subscription_available: parts.when(10, parts.flag(11)),
            subscription_identifier_available: parts.when(12, parts.flag(13)),
            shared_subscription_available: parts.when(14, parts.flag(15)),
            server_keep_alive: parts.when(16, parts.packet_id),
            response_information: parts.when(17, &parts.texts[2]),
            server_reference: parts.when(18, &parts.texts[3]),
            authentication_method: parts.when(19, &parts.texts[4]),
            authentication_data: parts.when(19, &*parts.data[0]).filter(|_| parts.flag(20)),
            user: UserProperties::new(&parts.pairs),
        };
    }
    Packet::ConnAck(Box::new(connack))
}

fn publish<'a>(parts: &'a Parts, version: ProtocolVersion, sender: Sender) -> Packet<'a> {
    let mut publish = Publish::new(&parts.topic, &parts.data[0]);
    publish.qos = parts.qos();
    publish.retain = parts.flag(0);
    if publish.qos != QoS::AtMostOnce {
        publish.packet_id = Some(parts.packet_id());
        publish.dup = parts.flag(1);
    }
    if version == V5 {
        publish.topic_alias = parts.when(2, NonZeroU16::new(parts.packet_id)).flatten();
        if publish.topic_alias.is_some() && parts.flag(3) {
            publish.topic = "";
        }
        publish.expiry_interval = parts.when(4, parts.numbers[0]);
        if sender == Sender::Server {
            publish.subscription_ids.extend_from_slice(&parts.ids);
        }
        publish.properties = Cow::Owned(parts.travelling());
    }
    Packet::Publish(publish)
}

fn ack<'a>(parts: &'a Parts, version: ProtocolVersion, codes: &[ReasonCode]) -> Ack<'a> {
    let mut ack = Ack::new(parts.packet_id(), ReasonCode::Success);
    if version == V5 {
        ack.reason = parts.pick(codes);
        ack.properties = ack_properties(parts, version);
    }
    ack
}

fn ack_properties<'a>(parts: &'a Parts, version: ProtocolVersion) -> AckProperties<'a> {
    match version {
        V5 => AckProperties {
            reason_string: parts.when(0, &parts.texts[0]),
            user: UserProperties::new(&parts.pairs),
        },
        V3 | V4 => AckProperties::default(),
    }
}

fn subscriptions(parts: &Parts, version: ProtocolVersion) -> Vec<Subscription<'_>> {
    parts
        .filters
        .iter()
        .map(|filter| Subscription {
            filter,
            options: match version {
                V5 => SubscribeOptions {
                    qos: parts.qos(),
                    no_local: parts.flag(0),
                    retain_as_published: parts.flag(1),
                    retain_handling: match (parts.flag(2), parts.flag(3)) {
                        (true, _) => RetainHandling::Send,
                        (false, true) => RetainHandling::SendIfNew,
                        (false, false) => RetainHandling::DoNotSend,
                    },
                },
                V3 | V4 => SubscribeOptions {
                    qos: parts.qos(),
                    ..SubscribeOptions::default()
                },
            },
        })
        .collect()
}

fn disconnect<'a>(parts: &'a Parts, version: ProtocolVersion, sender: Sender) -> Packet<'a> {
    use ReasonCode::*;
    let mut disconnect = Disconnect::new(Success);
    if version == V5 {
        disconnect.reason = match sender {
            Sender::Client => parts.pick(&[Success, DisconnectWithWill, ProtocolError]),
            Sender::Server => parts.pick(&[Success, SessionTakenOver, MalformedPacket]),
        };
        disconnect.properties = DisconnectProperties {
            session_expiry_interval: parts
                .when(0, parts.numbers[0])
                .filter(|_| sender == Sender::Client),
            reason_string: parts.when(1, &parts.texts[0]),
            server_reference: parts.when(2, &parts.texts[1]),
            user: UserProperties::new(&parts.pairs),
        };
    }
    Packet::Disconnect(disconnect)
}

fn auth<'a>(parts: &'a Parts, sender: Sender) -> Packet<'a> {
    use ReasonCode::*;
    Packet::Auth(Auth {
        reason: match sender {
            Sender::Client => parts.pick(&[ContinueAuthentication, ReAuthenticate]),
            Sender::Server => parts.pick(&[ContinueAuthentication, Success]),
        },
        properties: AuthProperties {
            authentication_method: Some(&parts.texts[0]),
            authentication_data: parts.when(0, &parts.data[0]),
            reason_string: parts.when(1, &parts.texts[1]),
            user: UserProperties::new(&parts.pairs),
        },
    })
}

/// Builds every packet that `sender` may send in `version` and hands it to `check`.
fn each_packet(parts: &Parts, version: ProtocolVersion, sender: Sender, mut check: impl FnMut(&Packet<'_>)) {
    use ReasonCode::*;
    let v5 = version == V5;
    let subscriptions = subscriptions(parts, version);
    let filters: Vec<&str> = parts.filters.iter().map(String::as_str).collect();
    let granted = [
        parts.pick(&[Success, GrantedQoS1, GrantedQoS2, UnspecifiedError]),
        Success,
    ];
    let ended = [
        parts.pick(&[Success, NoSubscriptionExisted, NotAuthorized]),
        Success,
    ];
    let user = if v5 {
        UserProperties::new(&parts.pairs)
    } else {
        UserProperties::EMPTY
    };
    let acked = [Success, NoMatchingSubscribers, QuotaExceeded];
    let released = [Success, PacketIdentifierNotFound];
    for packet in [
        publish(parts, version, sender),
        Packet::PubAck(ack(parts, version, &acked)),
        Packet::PubRec(ack(parts, version, &acked)),
        Packet::PubRel(ack(parts, version, &released)),
        Packet::PubComp(ack(parts, version, &released)),
    ] {
        check(&packet);
    }
    match sender {
        Sender::Client => {
            check(&connect(parts, version));
            check(&Packet::Subscribe(Subscribe {
                subscription_id: parts.ids.first().copied().filter(|_| v5),
                user,
                ..Subscribe::new(parts.packet_id(), &subscriptions)
            }));
            check(&Packet::Unsubscribe(Unsubscribe {
                properties: UnsubscribeProperties { user },
                ..Unsubscribe::new(parts.packet_id(), &filters)
            }));
            check(&Packet::PingReq);
        }
        Sender::Server => {
            check(&connack(parts, version));
            check(&Packet::SubAck(SubAck {
                properties: ack_properties(parts, version),
                ..SubAck::new(parts.packet_id(), ReasonCodes::new(&granted))
            }));
            let reasons = if v5 {
                ReasonCodes::new(&ended)
            } else {
                ReasonCodes::EMPTY
            };
            check(&Packet::UnsubAck(UnsubAck {
                properties: ack_properties(parts, version),
                ..UnsubAck::new(parts.packet_id(), reasons)
            }));
            check(&Packet::PingResp);
        }
    }
    if v5 || sender == Sender::Client {
        check(&disconnect(parts, version, sender));
    }
    if v5 {
        check(&auth(parts, sender));
    }
}

fn each_side(mut check: impl FnMut(ProtocolVersion, Sender)) {
    for version in [V3, V4, V5] {
        check(version, Sender::Client);
        check(version, Sender::Server);
    }
}

const fn decoder(version: ProtocolVersion, sender: Sender) -> Decoder {
    Decoder {
        version,
        sender,
        max_packet_size: u32::MAX,
    }
}

proptest! {
    #[test]
    fn decode_undoes_encode(parts in parts()) {
        each_side(|version, sender| each_packet(&parts, version, sender, |packet| {
            let mut out = BytesMut::new();
            packet.encode(version, u32::MAX, &mut out).expect("its parts are short");
            let decoded = decoder(version, sender).decode(&out);
            assert_eq!(decoded, Ok(Some((packet.clone(), out.len()))));
        }));
    }

    /// At every limit a packet either fits or is refused, and only answers lose something on the way.
    #[test]
    fn no_packet_exceeds_the_limit_of_its_receiver(parts in parts(), cut in 0..400usize) {
        each_side(|version, sender| each_packet(&parts, version, sender, |packet| {
            let mut whole = BytesMut::new();
            packet.encode(version, u32::MAX, &mut whole).expect("its parts are short");
            let limit = whole.len().saturating_sub(cut);
            let mut out = BytesMut::new();
            match packet.encode(version, limit as u32, &mut out) {
                Ok(()) => {
                    assert!(out.len() <= limit);
                    let decoded = decoder(version, sender).decode(&out);
                    let (decoded, used) = decoded.expect("valid").expect("complete");
                    assert_eq!((decoded.packet_type(), used), (packet.packet_type(), out.len()));
                    if cut > 0 {
                        assert!(version == V5 && is_answer(packet.packet_type()));
                    }
                }
                Err(error) => {
                    assert_eq!((error, out.len()), (EncodeError::PacketTooLarge, 0));
                }
            }
        }));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        each_side(|version, sender| {
            let _ = decoder(version, sender).decode(&bytes);
        });
        let _ = mqtt::codec::decode_connect(&bytes, 1000);
    }
}

const fn is_answer(packet_type: PacketType) -> bool {
    !matches!(
        packet_type,
        PacketType::Connect | PacketType::Publish | PacketType::Subscribe | PacketType::Unsubscribe
    )
}
