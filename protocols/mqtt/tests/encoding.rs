//! What the encoder leaves out, what it refuses, and the fast way of writing a delivery.

use std::num::NonZeroU16;

use broker_core::{
    ClientInfo, Delivery, Message, MessageParts, Outbox, PacketId, PropertiesBuilder, Property, QoS,
    ReasonCode, SubscriptionIds, Timestamp,
};
use bytes::BytesMut;
use mqtt::codec::{
    Ack, AckProperties, Auth, ConnAck, Connect, Decoder, EncodeError, Hop, OutgoingPublish, Packet,
    ProtocolVersion, Publish, ReasonCodes, Sender, SubAck, UserProperties, is_valid_filter,
};

use ProtocolVersion::{V3, V4, V5};

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

fn encode(packet: &Packet<'_>, version: ProtocolVersion, limit: u32) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    packet.encode(version, limit, &mut out).map(|()| out.to_vec())
}

#[test]
fn user_properties_go_first_and_the_reason_string_second() {
    let pairs = [("name".to_owned(), "value".to_owned())];
    let packet = Packet::PubAck(Ack {
        properties: AckProperties {
            reason_string: Some("why"),
            user: UserProperties::new(&pairs),
        },
        ..Ack::new(id(1), ReasonCode::QuotaExceeded)
    });
    let lengths = |limit| encode(&packet, V5, limit).map(|bytes| bytes.len());
    assert_eq!(lengths(u32::MAX), Ok(26));
    assert_eq!(lengths(26), Ok(26));
    assert_eq!(lengths(25), Ok(12));
    assert_eq!(lengths(12), Ok(12));
    assert_eq!(lengths(11), Ok(5));
    assert_eq!(lengths(5), Ok(5));
    assert_eq!(lengths(4), Err(EncodeError::PacketTooLarge));
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let long = "x".repeat(65_536);
    let no_id = Publish {
        qos: QoS::AtLeastOnce,
        ..Publish::new("t", b"")
    };
    let needless_id = Publish {
        packet_id: Some(id(1)),
        ..Publish::new("t", b"")
    };
    let mut out = BytesMut::from(&b"before"[..]);
    for (packet, error) in [
        (Packet::Publish(no_id), EncodeError::PacketIdMismatch),
        (Packet::Publish(needless_id), EncodeError::PacketIdMismatch),
        (
            Packet::Publish(Publish::new(&long, b"")),
            EncodeError::FieldTooLong,
        ),
        (
            Packet::Connect(Box::new(Connect::new(V4, &long))),
            EncodeError::FieldTooLong,
        ),
        (
            Packet::Auth(Auth::new(ReasonCode::ContinueAuthentication, "m", None)),
            EncodeError::NotInThisVersion,
        ),
    ] {
        assert_eq!(packet.encode(V4, u32::MAX, &mut out), Err(error), "{packet:?}");
    }
    assert_eq!(&out[..], b"before");
}

/// A hook's user property that no length field can hold does not cost the client its answer.
#[test]
fn a_property_that_cannot_be_written_is_left_out_of_an_answer() {
    let pairs = [("x".repeat(65_536), String::new())];
    let mut connack = ConnAck::new(ReasonCode::Success);
    connack.properties.user = UserProperties::new(&pairs);
    assert_eq!(
        encode(&Packet::ConnAck(Box::new(connack)), V5, u32::MAX),
        Ok(vec![0x20, 3, 0, 0, 0])
    );
}

#[test]
fn reasons_are_told_in_the_words_of_the_version() {
    use ReasonCode::*;
    for (reason, code) in [
        (Success, 0),
        (UnsupportedProtocolVersion, 1),
        (ClientIdentifierNotValid, 2),
        (ServerBusy, 3),
        (BadUserNameOrPassword, 4),
        (NotAuthorized, 5),
        (Banned, 5),
    ] {
        let packet = Packet::ConnAck(Box::new(ConnAck::new(reason)));
        assert_eq!(
            encode(&packet, V4, u32::MAX),
            Ok(vec![0x20, 2, 0, code]),
            "{reason:?}"
        );
    }
    let reasons = [GrantedQoS2, NotAuthorized, TopicFilterInvalid];
    let packet = Packet::SubAck(SubAck::new(id(1), ReasonCodes::new(&reasons)));
    assert_eq!(
        encode(&packet, V3, u32::MAX),
        Ok(vec![0x90, 5, 0, 1, 2, 0x80, 0x80])
    );
    assert_eq!(
        encode(&packet, V5, u32::MAX),
        Ok(vec![0x90, 6, 0, 1, 0, 2, 0x87, 0x8f])
    );
}

#[test]
fn shared_filters_have_a_group_and_a_filter() {
    for valid in ["a", "+/#", "$share/g/a", "$share/g/#", "$share/g//", "$share"] {
        assert!(is_valid_filter(valid), "{valid}");
    }
    for invalid in [
        "",
        "a#",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/g#/a",
    ] {
        assert!(!is_valid_filter(invalid), "{invalid}");
    }
}

fn delivery(payload: &[u8], qos: QoS, properties: &PropertiesBuilder) -> Delivery {
    let parts = MessageParts {
        properties: properties.as_properties(),
        ..MessageParts::new("mount/a/b", payload)
    };
    let message: Message = parts
        .publish(Timestamp::from_millis(0), ClientInfo::system())
        .expect("a short topic");
    Delivery {
        message,
        packet_id: (qos != QoS::AtMostOnce).then(|| id(7)),
        qos,
        dup: true,
        retain: true,
        subscription_ids: SubscriptionIds::from_slice(&[1, 300]),
    }
}

#[test]
fn a_delivery_is_the_publish_that_it_stands_for() {
    let mut properties = PropertiesBuilder::new();
    properties.push(Property::PayloadFormat(false));
    properties.push(Property::User("k", "v"));
    let large = vec![0xa5; Outbox::SHARE_FROM_BYTES + 1];
    for payload in [&b""[..], b"x", &[0x5a; 200], &large] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for version in [V3, V4, V5] {
                for (topic, alias) in [
                    ("a/b", None),
                    ("a/b", NonZeroU16::new(3)),
                    ("", NonZeroU16::new(3)),
                ] {
                    if topic.is_empty() && version != V5 {
                        continue;
                    }
                    let delivery = delivery(payload, qos, &properties);
                    let hop = Hop {
                        topic: topic.as_bytes(),
                        topic_alias: alias,
                        expiry_interval: Some(9),
                    };
                    let outgoing = OutgoingPublish::new(version, &delivery, hop).expect("it fits");
                    let mut outbox = Outbox::new();
                    outbox.put(b"before");
                    outgoing.write(&mut outbox);
                    let written = outbox.take().split_off(6);
                    assert_eq!(written.len(), outgoing.encoded_len());

                    let v5 = version == V5;
                    let mut expected = Publish::new(topic, payload);
                    expected.qos = qos;
                    expected.dup = qos != QoS::AtMostOnce;
                    expected.retain = true;
                    expected.packet_id = delivery.packet_id;
                    if v5 {
                        expected.topic_alias = alias;
                        expected.expiry_interval = Some(9);
                        expected.subscription_ids = delivery.subscription_ids.clone();
                        expected.properties = properties.as_properties().encoded().into();
                    }
                    let decoder = Decoder {
                        version,
                        sender: Sender::Server,
                        max_packet_size: u32::MAX,
                    };
                    let decoded = decoder.decode(&written);
                    assert_eq!(decoded, Ok(Some((Packet::Publish(expected), written.len()))));
                }
            }
        }
    }
}

#[test]
fn a_delivery_that_no_packet_can_hold_is_none() {
    let long = vec![b'x'; 65_536];
    let hop = |topic| Hop {
        topic,
        topic_alias: None,
        expiry_interval: None,
    };
    let mut delivery = delivery(b"x", QoS::AtLeastOnce, &PropertiesBuilder::new());
    assert!(OutgoingPublish::new(V5, &delivery, hop(&long)).is_none());
    assert!(OutgoingPublish::new(V5, &delivery, hop(&long[1..])).is_some());
    delivery.packet_id = None;
    assert!(OutgoingPublish::new(V5, &delivery, hop(b"a")).is_none());
}
