//! PUBLISH and its acknowledgements.
#![expect(clippy::too_many_lines, reason = "tables, not procedures")]

use std::{borrow::Cow, num::NonZeroU16};

use broker_core::{QoS, ReasonCode};
use mqtt::codec::{Ack, AckProperties, Packet, Publish};

use super::{
    super::{V3, V4, V5, wire},
    C, S, Valid, id, user, valid,
};

pub(super) fn publishes() -> Vec<Valid> {
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

fn publish(
    edit: impl FnOnce(&mut Publish<'static>),
    topic: &'static str,
    payload: &'static [u8],
) -> Packet<'static> {
    let mut publish = Publish::new(topic, payload);
    edit(&mut publish);
    Packet::Publish(publish)
}

pub(super) fn acks() -> Vec<Valid> {
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
