//! Topic aliases (§3.3.2.3.4), both ways.

use broker_core::ReasonCode;
use mqtt::codec::{Connect, Packet, Publish};

use crate::net::*;

#[test]
fn a_client_names_a_topic_once() {
    let mut net = Net::new();
    let reader = net.subscriber(V4, "r", &[("#", Q0)]);
    let writer = net.client(V5, "w");
    for (publish, topic) in [
        (aliased(message("a", "x"), 1), "a"),
        (aliased(message("", "x"), 1), "a"),
        (aliased(message("b", "x"), 65_535), "b"),
        (aliased(message("", "x"), 65_535), "b"),
        // An alias may change its meaning.
        (aliased(message("c", "x"), 1), "c"),
        (aliased(message("", "x"), 1), "c"),
        (aliased(acked("", "x", Q1, 9), 1), "c"),
    ] {
        net.send(writer, Packet::Publish(publish));
        net.expect(reader, Packet::Publish(message(topic, "x")));
    }
    net.expect(writer, puback(9));
}

#[test]
fn an_alias_above_the_maximum_and_one_that_is_zero() {
    let mut net = Net::with(|config| config.mqtt.max_topic_alias = 2);
    let client = net.client(V5, "a");
    net.send(client, Packet::Publish(aliased(message("t", ""), 2)));
    net.expect_open(client);
    net.send(client, Packet::Publish(aliased(message("t", ""), 3)));
    net.expect_end(client, ReasonCode::TopicAliasInvalid);
    let client = net.client(V5, "a");
    net.send_bytes(client, b"\x30\x07\x00\x01t\x03\x23\x00\x00");
    net.expect_end(client, ReasonCode::TopicAliasInvalid);
}

/// §3.3.4: the alias alone, unknown, is a protocol error. It dies with its connection.
#[test]
fn an_alias_that_was_never_given() {
    let mut net = Net::new();
    let client = net.connect(kept(V5, "a"));
    net.send(client, Packet::Publish(aliased(message("t", ""), 1)));
    net.disconnect(client);
    let client = net.resume(kept(V5, "a"));
    net.send(client, Packet::Publish(aliased(message("", ""), 1)));
    net.expect_end(client, ReasonCode::ProtocolError);
}

#[test]
fn the_topics_behind_aliases_take_a_bounded_memory() {
    let mut net = Net::new();
    let client = net.client(V5, "a");
    let topic = "x".repeat(65_535);
    for alias in 1..=64 {
        net.send(client, Packet::Publish(aliased(message(&topic, ""), alias)));
        net.expect_open(client);
    }
    // Giving an alias anew costs nothing.
    for _ in 0..10 {
        net.send(client, Packet::Publish(aliased(message(&topic, ""), 64)));
        net.expect_open(client);
    }
    net.send(client, Packet::Publish(aliased(message(&topic, ""), 65)));
    net.expect_end(client, ReasonCode::QuotaExceeded);
}

#[test]
fn the_broker_names_a_topic_once() {
    let mut net = Net::new();
    let mut connect = Connect::new(V5, "r");
    connect.properties.topic_alias_maximum = Some(1);
    let reader = net.connect(connect);
    net.subscribe(reader, &[("#", Q1)]);
    let writer = net.client(V5, "w");
    for (topic, qos, expected) in [
        ("a", Q0, aliased(message("a", "x"), 1)),
        ("a", Q0, aliased(message("", "x"), 1)),
        ("a", Q1, aliased(acked("", "x", Q1, 1), 1)),
        // No alias is left.
        ("b", Q0, message("b", "x")),
        ("b", Q0, message("b", "x")),
    ] {
        let publish = Publish {
            qos,
            packet_id: (qos == Q1).then(|| id(1)),
            ..message(topic, "x")
        };
        net.send(writer, Packet::Publish(publish));
        net.expect(reader, Packet::Publish(expected));
    }
    net.take(writer);
}

#[test]
fn the_broker_forgets_its_aliases_with_the_connection() {
    let mut net = Net::new();
    let mut connect = kept(V5, "r");
    connect.properties.topic_alias_maximum = Some(10);
    let reader = net.connect(connect.clone());
    net.subscribe(reader, &[("t", Q1)]);
    let writer = net.client(V5, "w");
    net.send(writer, Packet::Publish(acked("t", "x", Q1, 1)));
    net.expect(writer, puback(1));
    net.expect(reader, Packet::Publish(aliased(acked("t", "x", Q1, 1), 1)));
    net.cut(reader);
    let reader = net.dial(connect);
    let packets = net.take(reader);
    assert_eq!(
        packets[1..],
        [Packet::Publish(dup(aliased(acked("t", "x", Q1, 1), 1)))]
    );
}

/// An alias makes the first packet longer; that must not make it too long.
#[test]
fn an_alias_never_costs_a_message() {
    let mut net = Net::new();
    let mut connect = Connect::new(V5, "r");
    connect.properties.topic_alias_maximum = Some(10);
    connect.properties.maximum_packet_size = std::num::NonZeroU32::new(64);
    let reader = net.connect(connect);
    net.subscribe(reader, &[("t", Q0)]);
    let writer = net.client(V4, "w");
    let payload = "x".repeat(58);
    net.send(writer, Packet::Publish(message("t", &payload)));
    net.expect(reader, Packet::Publish(message("t", &payload)));
    net.send(writer, Packet::Publish(message("t", "short")));
    net.expect(reader, Packet::Publish(aliased(message("t", "short"), 1)));
}
