//! Limits of the server, and how a client hears of them.

use broker_core::ReasonCode;
use mqtt::codec::Packet;

use crate::net::*;

#[test]
fn a_packet_above_the_maximum_size() {
    for version in [V4, V5] {
        let mut net = Net::with(|config| config.mqtt.max_packet_size = 100);
        let client = net.client(version, "a");
        let fits = "x".repeat(if version == V5 { 92 } else { 93 });
        net.send(client, Packet::Publish(message("/t/", &fits)));
        net.expect_open(client);
        // The length alone condemns it: nobody waits for the rest.
        net.send_bytes(client, &[0x30, 0x63]);
        net.expect_end(client, ReasonCode::PacketTooLarge);
    }
    let mut net = Net::with(|config| config.mqtt.max_packet_size = 20);
    let client = net.open(V5);
    net.send_bytes(client, b"\x10\x7f\x00\x04MQTT\x05");
    net.take(client);
    net.expect_closed(client);
}

#[test]
fn a_payload_above_the_maximum_size() {
    let mut net = Net::with(|config| config.mqtt.max_payload_size = 3);
    let client = net.client(V5, "a");
    net.send(client, Packet::Publish(acked("t", "xxxx", Q1, 1)));
    net.expect(client, because(puback(1), ReasonCode::QuotaExceeded));
    net.send(client, Packet::Publish(acked("t", "xxxx", Q2, 2)));
    net.expect(client, because(pubrec(2), ReasonCode::QuotaExceeded));
    net.send(client, Packet::Publish(message("t", "xxxx")));
    net.expect_nothing(client);
    net.expect_open(client);
}

#[test]
fn too_many_levels() {
    let mut net = Net::with(|config| config.mqtt.max_topic_levels = 2);
    let client = net.client(V5, "a");
    net.send(client, Packet::Publish(acked("a/b/c", "", Q1, 1)));
    net.expect(client, because(puback(1), ReasonCode::TopicNameInvalid));
    net.send(client, Packet::Publish(message("a/b/c", "")));
    net.expect_end(client, ReasonCode::TopicNameInvalid);
}

/// [MQTT-3.2.2-11]
#[test]
fn a_quality_of_service_above_the_maximum() {
    for version in [V4, V5] {
        let mut net = Net::with(|config| config.mqtt.max_qos_allowed = Q0);
        let client = net.client(version, "a");
        net.send(client, Packet::Publish(acked("t", "", Q1, 1)));
        net.expect_end(client, ReasonCode::QoSNotSupported);
    }
}

/// [MQTT-3.3.4-9]: the client went beyond the server's Receive Maximum.
#[test]
fn more_than_the_receive_maximum_of_the_server() {
    for version in [V4, V5] {
        let mut net = Net::with(|config| config.mqtt.max_awaiting_rel = 2);
        let client = net.client(version, "a");
        let reader = net.subscriber(V4, "r", &[("t", Q0)]);
        for at in 1..=2 {
            net.send(client, Packet::Publish(acked("t", "", Q2, at)));
            net.expect(client, pubrec(at));
        }
        // Quality of service 1 is answered at once, so it is never counted.
        net.send(client, Packet::Publish(acked("t", "", Q1, 9)));
        net.expect(client, puback(9));
        net.send(client, Packet::Publish(acked("t", "", Q2, 3)));
        net.expect_end(client, ReasonCode::ReceiveMaximumExceeded);
        assert_eq!(net.publishes(reader).len(), 3);
    }
}

#[test]
fn malformed_packets_end_the_connection() {
    for version in [V3, V4, V5] {
        for (bytes, reason) in [
            // Reserved packet type, wrong flags, a length of five bytes.
            (&[0x00, 0x00][..], ReasonCode::MalformedPacket),
            (&[0x80, 0x00], ReasonCode::MalformedPacket),
            (&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], ReasonCode::MalformedPacket),
            // QoS 3.
            (&[0x36, 0x05, 0, 1, b't', 0, 1], ReasonCode::MalformedPacket),
            // A wildcard in a topic name.
            (&[0x30, 0x04, 0, 1, b'+', 0], ReasonCode::TopicNameInvalid),
        ] {
            let mut net = Net::new();
            let bystander = net.subscriber(V5, "bystander", &[("#", Q0)]);
            let client = net.client(version, "a");
            net.send_bytes(client, bytes);
            net.expect_end(client, reason);
            net.expect_nothing(bystander);
            net.expect_open(bystander);
        }
    }
}

#[test]
fn after_a_goodbye_nothing_counts() {
    let mut net = Net::new();
    let reader = net.subscriber(V4, "r", &[("#", Q0)]);
    let client = net.client(V5, "a");
    let mut bytes = encode(
        V5,
        &Packet::Disconnect(mqtt::codec::Disconnect::new(ReasonCode::Success)),
    )
    .to_vec();
    bytes.extend_from_slice(&encode(V5, &Packet::Publish(message("t", "late"))));
    net.send_bytes(client, &bytes);
    net.send(client, Packet::Publish(message("t", "later")));
    net.expect_nothing(reader);
    net.expect_nothing(client);
    net.expect_closed(client);
}
