//! Messages from clients: the three qualities of service and their repetitions.

use broker_core::ReasonCode;
use mqtt::codec::{Packet, Publish};

use crate::net::*;

#[test]
fn each_quality_of_service_has_its_answers() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let reader = net.subscriber(V4, "r", &[("t", Q0)]);
        let writer = net.client(version, "w");
        net.send(writer, Packet::Publish(message("t", "0")));
        net.expect_nothing(writer);
        net.send(writer, Packet::Publish(acked("t", "1", Q1, 7)));
        net.expect(writer, puback(7));
        net.send(writer, Packet::Publish(acked("t", "2", Q2, 65_535)));
        net.expect(writer, pubrec(65_535));
        net.send(writer, pubrel(65_535));
        net.expect(writer, pubcomp(65_535));
        net.expect_all(
            reader,
            &["0", "1", "2"].map(|payload| Packet::Publish(message("t", payload))),
        );
    }
}

/// §3.4.2.1, §3.5.2.1: MQTT 5 clients learn that nobody listens; the others cannot.
#[test]
fn nobody_listens() {
    for (version, reason) in [(V4, ReasonCode::Success), (V5, ReasonCode::NoMatchingSubscribers)] {
        let mut net = Net::new();
        let client = net.client(version, "a");
        net.send(client, Packet::Publish(acked("t", "", Q1, 1)));
        net.expect(client, because(puback(1), reason));
        net.send(client, Packet::Publish(acked("t", "", Q2, 2)));
        net.expect(client, because(pubrec(2), reason));
        net.send(client, pubrel(2));
        net.expect(client, pubcomp(2));
    }
}

#[test]
fn quality_of_service_2_takes_a_message_once() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let reader = net.subscriber(V4, "r", &[("t", Q0)]);
        let writer = net.client(version, "w");
        net.send(writer, Packet::Publish(acked("t", "a", Q2, 1)));
        net.send(writer, Packet::Publish(dup(acked("t", "a", Q2, 1))));
        net.expect_all(writer, &[pubrec(1), pubrec(1)]);
        net.expect(reader, Packet::Publish(message("t", "a")));
        net.send(writer, pubrel(1));
        net.expect(writer, pubcomp(1));
        // The identifier is free, so this is another message, whatever its DUP flag says [MQTT-4.3.3-12].
        net.send(writer, Packet::Publish(dup(acked("t", "b", Q2, 1))));
        net.expect(writer, pubrec(1));
        net.expect(reader, Packet::Publish(message("t", "b")));
    }
}

#[test]
fn an_identifier_in_use_is_not_used_for_another_message() {
    let mut net = Net::new();
    let reader = net.subscriber(V4, "r", &[("t", Q0)]);
    let writer = net.client(V5, "w");
    net.send(writer, Packet::Publish(acked("t", "a", Q2, 1)));
    net.expect(writer, pubrec(1));
    net.send(writer, Packet::Publish(acked("t", "b", Q2, 1)));
    net.expect(writer, because(pubrec(1), ReasonCode::PacketIdentifierInUse));
    net.expect(reader, Packet::Publish(message("t", "a")));
}

#[test]
fn a_release_of_nothing_is_answered() {
    for (version, reason) in [
        (V4, ReasonCode::Success),
        (V5, ReasonCode::PacketIdentifierNotFound),
    ] {
        let mut net = Net::new();
        let client = net.client(version, "a");
        net.send(client, pubrel(9));
        net.expect(client, because(pubcomp(9), reason));
    }
}

/// Quality of service 1 promises no more than that the message arrives.
#[test]
fn quality_of_service_1_hands_on_repetitions() {
    let mut net = Net::new();
    let reader = net.subscriber(V4, "r", &[("t", Q1)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(acked("t", "a", Q1, 1)));
    net.send(writer, Packet::Publish(dup(acked("t", "a", Q1, 1))));
    net.expect_all(writer, &[puback(1), puback(1)]);
    // DUP does not travel [MQTT-3.3.1-3].
    net.expect_all(reader, &[1, 2].map(|id| Packet::Publish(acked("t", "a", Q1, id))));
}

#[test]
fn the_exchange_of_quality_of_service_2_survives_the_connection() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let reader = net.subscriber(V4, "r", &[("t", Q0)]);
        let writer = net.connect(kept(version, "w"));
        net.send(writer, Packet::Publish(acked("t", "a", Q2, 1)));
        net.expect(writer, pubrec(1));
        net.cut(writer);
        // MQTT 3.1 has no session present flag.
        let writer = net.dial(kept(version, "w"));
        assert_eq!(net.connack(writer).session_present, version != V3);
        net.send(writer, Packet::Publish(dup(acked("t", "a", Q2, 1))));
        net.expect(writer, pubrec(1));
        net.send(writer, pubrel(1));
        net.expect(writer, pubcomp(1));
        net.expect(reader, Packet::Publish(message("t", "a")));
    }
}

#[test]
fn properties_travel_unaltered() {
    let mut net = Net::new();
    let five = net.subscriber(V5, "5", &[("t", Q0)]);
    let four = net.subscriber(V4, "4", &[("t", Q0)]);
    let writer = net.client(V5, "w");
    // User property, payload format, content type, response topic, correlation data, user property.
    let properties =
        b"\x26\x00\x01a\x00\x011\x01\x01\x03\x00\x01t\x08\x00\x01r\x09\x00\x01\xff\x26\x00\x01a\x00\x012";
    let publish = Publish {
        properties: properties.into(),
        ..message("t", "x")
    };
    net.send(writer, Packet::Publish(publish.clone()));
    net.expect(five, Packet::Publish(publish));
    net.expect(four, Packet::Publish(message("t", "x")));
}

#[test]
fn a_payload_that_is_not_what_it_says() {
    let mut net = Net::new();
    let publish = |qos, id| Publish {
        properties: b"\x01\x01".into(),
        payload: b"\xff",
        ..acked("t", "", qos, id)
    };
    let client = net.client(V5, "a");
    net.send(client, Packet::Publish(publish(Q1, 1)));
    net.expect(client, because(puback(1), ReasonCode::PayloadFormatInvalid));
    net.send(client, Packet::Publish(publish(Q2, 2)));
    net.expect(client, because(pubrec(2), ReasonCode::PayloadFormatInvalid));
    // With an error the exchange is over and the identifier free.
    net.send(client, Packet::Publish(acked("t", "", Q2, 2)));
    net.expect(client, because(pubrec(2), ReasonCode::NoMatchingSubscribers));
    let publish = Publish {
        qos: Q0,
        packet_id: None,
        ..publish(Q0, 3)
    };
    net.send(client, Packet::Publish(publish));
    net.expect_end(client, ReasonCode::PayloadFormatInvalid);
}

#[test]
fn messages_that_wait_for_their_time() {
    let mut net = Net::with_shards(2, |_| {});
    let reader = net.subscriber(V5, "r", &[("t", Q1)]);
    let writer = net.client(V5, "w");
    net.send(writer, Packet::Publish(acked("$delayed/10/t", "later", Q1, 1)));
    net.expect(writer, puback(1));
    net.send(writer, Packet::Publish(acked("$delayed/x/t", "never", Q1, 2)));
    net.expect(writer, because(puback(2), ReasonCode::TopicNameInvalid));
    net.send(
        writer,
        Packet::Publish(expiring(message("$delayed/10/t", "gone"), 9)),
    );
    net.disconnect(writer);
    net.pass_ms(9_999);
    net.expect_nothing(reader);
    net.pass_slot();
    net.expect(reader, Packet::Publish(acked("t", "later", Q1, 1)));
}

#[test]
fn a_topic_of_65535_bytes() {
    let topic = "x".repeat(65_535);
    let mut net = Net::new();
    let reader = net.subscriber(V5, "r", &[("#", Q0), (&topic, Q1)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(acked(&topic, "x", Q1, 1)));
    net.expect(writer, puback(1));
    net.expect(reader, Packet::Publish(acked(&topic, "x", Q1, 1)));
}
