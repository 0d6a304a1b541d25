//! SUBSCRIBE, UNSUBSCRIBE and their answers.
#![expect(clippy::too_many_lines, reason = "tables, not procedures")]

use broker_core::{QoS, ReasonCode, RetainHandling, SubscribeOptions};
use mqtt::codec::{
    AckProperties, Packet, ReasonCodes, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe,
    UnsubscribeProperties,
};

use super::{
    super::{V3, V4, V5},
    C, S, Valid, id, user, valid,
};

pub(super) fn subscribes() -> Vec<Valid> {
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
