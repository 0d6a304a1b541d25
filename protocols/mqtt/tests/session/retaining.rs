//! Retained messages (§3.3.1.3).

use broker_core::{ReasonCode, RetainHandling};
use mqtt::codec::{Packet, Publish, Subscription};

use crate::net::*;

fn keep(net: &mut Net, writer: Client, publish: Publish<'_>) {
    net.send(writer, Packet::Publish(retained(publish)));
    net.expect_nothing(writer);
}

fn options(filter: &str, retain_handling: RetainHandling, retain_as_published: bool) -> Subscription<'_> {
    let mut subscription = sub(filter, Q1);
    subscription.options.retain_handling = retain_handling;
    subscription.options.retain_as_published = retain_as_published;
    subscription
}

#[test]
fn who_subscribes_later_gets_them() {
    for version in [V3, V4, V5] {
        let mut net = Net::with_shards(3, |_| {});
        let writer = net.client(version, "w");
        keep(&mut net, writer, message("a", "old"));
        keep(&mut net, writer, message("a", "new"));
        keep(&mut net, writer, message("b", "x"));
        keep(&mut net, writer, message("$x", "hidden"));
        let reader = net.client(version, "r");
        net.send(reader, subscribe(1, &[sub("a", Q1)]));
        net.expect_all(
            reader,
            &[
                suback(1, &[ReasonCode::GrantedQoS1]),
                Packet::Publish(retained(message("a", "new"))),
            ],
        );
        net.send(reader, subscribe(2, &[sub("#", Q0)]));
        let mut packets = net.take(reader);
        assert_eq!(packets.remove(0), suback(2, &[ReasonCode::Success]));
        let mut topics: Vec<_> = packets
            .iter()
            .map(|packet| match packet {
                Packet::Publish(publish) if publish.retain => publish.topic,
                other => panic!("{other:?}"),
            })
            .collect();
        topics.sort_unstable();
        assert_eq!(topics, ["a", "b"]);
    }
}

#[test]
fn an_empty_payload_clears_the_topic_and_is_delivered() {
    let mut net = Net::with_shards(2, |_| {});
    let writer = net.client(V4, "w");
    keep(&mut net, writer, message("t", "x"));
    let reader = net.client(V4, "r");
    net.send(reader, subscribe(1, &[sub("t", Q0)]));
    assert_eq!(net.take(reader).len(), 2);
    keep(&mut net, writer, message("t", ""));
    // To those who subscribe already it is a message like others [MQTT-3.3.1-8].
    net.expect(reader, Packet::Publish(message("t", "")));
    net.subscriber(V4, "late", &[("t", Q0)]);
}

#[test]
fn the_quality_of_service_is_the_lower_of_the_two() {
    let mut net = Net::new();
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(retained(acked("t", "x", Q2, 1))));
    net.expect(writer, pubrec(1));
    for (name, qos, expected) in [
        ("r0", Q0, message("t", "x")),
        ("r1", Q1, acked("t", "x", Q1, 1)),
        ("r2", Q2, acked("t", "x", Q2, 1)),
    ] {
        let reader = net.client(V5, name);
        net.send(reader, subscribe(1, &[sub("t", qos)]));
        let packets = net.take(reader);
        assert_eq!(packets[1..], [Packet::Publish(retained(expected))]);
    }
}

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
#[test]
fn retain_handling_says_when() {
    let mut net = Net::new();
    let writer = net.client(V4, "w");
    keep(&mut net, writer, message("t", "x"));
    for (handling, first, again) in [
        (RetainHandling::Send, 1, 1),
        (RetainHandling::SendIfNew, 1, 0),
        (RetainHandling::DoNotSend, 0, 0),
    ] {
        let reader = net.client(V5, "r");
        for expected in [first, again] {
            net.send(reader, subscribe(1, &[options("t", handling, false)]));
            assert_eq!(net.take(reader).len(), 1 + expected, "{handling:?}");
        }
        net.disconnect(reader);
    }
}

/// [MQTT-3.3.1-12], [MQTT-3.3.1-13]
#[test]
fn retain_as_published_keeps_the_flag() {
    let mut net = Net::new();
    let plain = net.subscriber(V5, "plain", &[("t", Q0)]);
    let keeper = net.client(V5, "keeper");
    net.send(
        keeper,
        subscribe(1, &[options("t", RetainHandling::DoNotSend, true)]),
    );
    net.expect(keeper, suback(1, &[ReasonCode::GrantedQoS1]));
    let writer = net.client(V4, "w");
    keep(&mut net, writer, message("t", "x"));
    net.send(writer, Packet::Publish(message("t", "y")));
    net.expect_all(
        plain,
        &["x", "y"].map(|payload| Packet::Publish(message("t", payload))),
    );
    net.expect_all(
        keeper,
        &[
            Packet::Publish(retained(message("t", "x"))),
            Packet::Publish(message("t", "y")),
        ],
    );
}

/// The convention of bridges in 3.1 and 3.1.1: the high bit of the protocol level.
#[test]
fn a_bridge_gets_messages_as_published() {
    for version in [V3, V4] {
        let mut net = Net::new();
        let mut connect = mqtt::codec::Connect::new(version, "bridge");
        connect.is_bridge = true;
        let bridge = net.connect(connect);
        net.subscribe(bridge, &[("t", Q0)]);
        let writer = net.client(V4, "w");
        keep(&mut net, writer, message("t", "x"));
        net.expect(bridge, Packet::Publish(retained(message("t", "x"))));
    }
}

#[test]
fn they_expire() {
    let mut net = Net::with_shards(2, |_| {});
    let writer = net.client(V5, "w");
    keep(&mut net, writer, expiring(message("t", "x"), 10));
    net.pass_ms(3_500);
    let reader = net.client(V5, "r");
    net.send(reader, subscribe(1, &[sub("t", Q0)]));
    let packets = net.take(reader);
    assert_eq!(
        packets[1..],
        [Packet::Publish(retained(expiring(message("t", "x"), 7)))]
    );
    net.pass_ms(6_500);
    net.pass_slot();
    net.subscriber(V5, "late", &[("t", Q0)]);
    let stats: u64 = (0..2).map(|at| net.node.shard(at).stats().retained.get()).sum();
    assert_eq!(stats, 0);
}

#[test]
fn a_topic_of_65535_bytes() {
    let topic = "x/".repeat(32_767) + "x";
    let mut net = Net::with(|config| config.mqtt.max_topic_levels = 65_535);
    let writer = net.client(V5, "w");
    keep(&mut net, writer, message(&topic, "x"));
    for filter in [&topic, "#"] {
        let reader = net.client(V5, "r");
        net.send(reader, subscribe(1, &[sub(filter, Q0)]));
        let packets = net.take(reader);
        assert_eq!(packets[1..], [Packet::Publish(retained(message(&topic, "x")))]);
        net.disconnect(reader);
    }
}

#[test]
fn the_server_may_not_support_them() {
    for version in [V4, V5] {
        let mut net = Net::with(|config| config.mqtt.retain_available = false);
        let client = net.client(version, "a");
        net.send(client, Packet::Publish(retained(message("t", "x"))));
        net.expect_end(client, ReasonCode::RetainNotSupported);
    }
}

#[test]
fn many_come_within_the_window_of_the_client() {
    let mut net = Net::with_shards(2, |config| config.mqtt.max_inflight = 10);
    let writer = net.client(V4, "w");
    for number in 0..300 {
        net.send(
            writer,
            Packet::Publish(retained(acked(&format!("t/{number}"), "x", Q1, 1))),
        );
    }
    net.take(writer);
    let reader = net.client(V5, "r");
    net.send(reader, subscribe(1, &[sub("t/+", Q1)]));
    let mut packets = net.take(reader);
    packets.remove(0);
    let mut topics = Vec::new();
    while !packets.is_empty() {
        assert!(packets.len() <= 10);
        for packet in packets {
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            topics.push(publish.topic);
            net.send(reader, puback(publish.packet_id.expect("QoS 1").get()));
        }
        packets = net.take(reader);
    }
    topics.sort_unstable();
    topics.dedup();
    assert_eq!(topics.len(), 300);
}

#[test]
fn they_carry_the_identifier_of_the_subscription_that_brought_them() {
    let mut net = Net::new();
    let writer = net.client(V4, "w");
    keep(&mut net, writer, message("t", "x"));
    let reader = net.client(V5, "r");
    for subscription_id in [7, 8] {
        let filters = [sub("t", Q0)];
        let packet = mqtt::codec::Subscribe {
            subscription_id: Some(subscription_id),
            ..mqtt::codec::Subscribe::new(id(1), &filters)
        };
        net.send(reader, Packet::Subscribe(packet));
        let packets = net.take(reader);
        let expected = Publish {
            subscription_ids: [subscription_id].into_iter().collect(),
            ..retained(message("t", "x"))
        };
        assert_eq!(packets[1..], [Packet::Publish(expected)]);
    }
}

/// [MQTT-3.8.3-3] speaks of all messages that the client published.
#[test]
fn no_local_keeps_a_clients_own_retained_messages_away() {
    let mut net = Net::new();
    let client = net.client(V5, "a");
    keep(&mut net, client, message("t", "x"));
    let mut filter = sub("t", Q0);
    filter.options.no_local = true;
    net.send(client, subscribe(1, &[filter]));
    net.expect(client, suback(1, &[ReasonCode::Success]));
}
