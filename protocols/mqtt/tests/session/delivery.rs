//! Messages to clients: acknowledgements, the window, limits of size and time.

use std::num::{NonZeroU16, NonZeroU32};

use broker_core::{MessageParts, ReasonCode};
use mqtt::codec::{Ack, Connect, Packet, Publish};

use crate::net::*;

/// A client with this receive maximum.
fn narrow(receive_maximum: u16) -> Connect<'static> {
    let mut connect = kept(V5, "r");
    connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
    connect
}

#[test]
fn the_quality_of_service_is_the_lower_of_the_two() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let readers =
            [Q0, Q1, Q2].map(|qos| net.subscriber(version, ["r0", "r1", "r2"][qos as usize], &[("t", qos)]));
        let writer = net.client(V4, "w");
        net.send(writer, Packet::Publish(message("t", "0")));
        net.send(writer, Packet::Publish(acked("t", "1", Q1, 1)));
        net.send(writer, Packet::Publish(acked("t", "2", Q2, 2)));
        net.expect_all(writer, &[puback(1), pubrec(2)]);
        for (reader, qos) in readers.into_iter().zip([Q0, Q1, Q2]) {
            let publishes = net.publishes(reader);
            let lower: Vec<_> = [Q0, Q1, Q2].map(|published| published.min(qos)).to_vec();
            assert_eq!(
                publishes.iter().map(|publish| publish.qos).collect::<Vec<_>>(),
                lower
            );
        }
    }
}

#[test]
fn upgraded_if_the_server_is_told_so() {
    let mut net = Net::with(|config| config.mqtt.upgrade_qos = true);
    let reader = net.subscriber(V4, "r", &[("t", Q1)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(message("t", "x")));
    net.expect(reader, Packet::Publish(acked("t", "x", Q1, 1)));
}

#[test]
fn packet_identifiers_count_up_from_1_and_stay_in_use_until_acknowledged() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let reader = net.subscriber(version, "r", &[("#", Q2)]);
        let writer = net.client(V4, "w");
        for (topic, qos, id) in [("a", Q1, 1), ("b", Q2, 2), ("c", Q1, 3)] {
            net.send(writer, Packet::Publish(acked(topic, "", qos, id)));
        }
        net.take(writer);
        net.expect_all(
            reader,
            &[("a", Q1, 1), ("b", Q2, 2), ("c", Q1, 3)]
                .map(|(topic, qos, id)| Packet::Publish(acked(topic, "", qos, id))),
        );
        net.send(reader, puback(1));
        net.send(reader, pubrec(2));
        net.expect(reader, pubrel(2));
        net.send(reader, pubcomp(2));
        net.send(reader, puback(3));
        net.expect_nothing(reader);
    }
}

#[test]
fn acknowledgements_that_fit_nothing() {
    let mut net = Net::new();
    let reader = net.subscriber(V5, "r", &[("#", Q2)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(acked("t", "", Q2, 1)));
    net.expect(writer, pubrec(1));
    net.expect(reader, Packet::Publish(acked("t", "", Q2, 1)));
    // Of another quality of service, too early, or about nothing at all.
    for packet in [puback(1), pubcomp(1), puback(77), pubcomp(77)] {
        net.send(reader, packet);
        net.expect_nothing(reader);
    }
    net.send(reader, pubrec(77));
    net.expect(reader, because(pubrel(77), ReasonCode::PacketIdentifierNotFound));
    // The delivery itself is not disturbed, and PUBREC may come again.
    net.send(reader, pubrec(1));
    net.send(reader, pubrec(1));
    net.expect_all(reader, &[pubrel(1), pubrel(1)]);
    net.send(reader, pubcomp(1));
    net.expect_nothing(reader);
}

#[test]
fn a_client_may_refuse_a_delivery() {
    let mut net = Net::new();
    let reader = net.connect(narrow(1));
    net.subscribe(reader, &[("#", Q2)]);
    let writer = net.client(V4, "w");
    for id in [1, 2] {
        net.send(writer, Packet::Publish(acked("t", "", Q2, id)));
    }
    net.take(writer);
    net.expect(reader, Packet::Publish(acked("t", "", Q2, 1)));
    net.send(reader, because(pubrec(1), ReasonCode::QuotaExceeded));
    // No PUBREL: the exchange is over, and the window open [MQTT-4.4.0-2].
    net.expect(reader, Packet::Publish(acked("t", "", Q2, 2)));
}

/// [MQTT-3.3.4-7], [MQTT-4.9.0-2], [MQTT-4.9.0-3]
#[test]
fn the_receive_maximum_of_the_client_is_kept() {
    let mut net = Net::new();
    let reader = net.connect(narrow(2));
    net.subscribe(reader, &[("#", Q2)]);
    let writer = net.client(V4, "w");
    for (payload, id) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        net.send(writer, Packet::Publish(acked("t", payload, Q1, id)));
    }
    net.send(writer, Packet::Publish(message("t", "now")));
    net.take(writer);
    net.expect_all(
        reader,
        &[
            Packet::Publish(acked("t", "a", Q1, 1)),
            Packet::Publish(acked("t", "b", Q1, 2)),
            // Quality of service 0 is not counted.
            Packet::Publish(message("t", "now")),
        ],
    );
    net.send(reader, puback(2));
    net.expect(reader, Packet::Publish(acked("t", "c", Q1, 3)));
    net.send(reader, Packet::PingReq);
    net.expect(reader, Packet::PingResp);
    net.send(reader, puback(1));
    net.expect(reader, Packet::Publish(acked("t", "d", Q1, 4)));
}

/// §3.1.2.11.4
#[test]
fn what_the_client_is_too_small_for_is_left_out_and_does_not_hold_up_the_rest() {
    let mut net = Net::new();
    let mut connect = narrow(1);
    connect.properties.maximum_packet_size = NonZeroU32::new(64);
    let reader = net.connect(connect);
    net.subscribe(reader, &[("t", Q1)]);
    let writer = net.client(V4, "w");
    let long = "x".repeat(64);
    for (payload, id) in [(&*long, 1), ("small", 2)] {
        net.send(writer, Packet::Publish(acked("t", payload, Q1, id)));
    }
    net.send(writer, Packet::Publish(message("t", &long)));
    net.take(writer);
    net.expect(reader, Packet::Publish(acked("t", "small", Q1, 2)));
}

#[test]
fn a_packet_of_exactly_the_maximum_size() {
    let mut net = Net::new();
    let mut connect = narrow(1);
    connect.properties.maximum_packet_size = NonZeroU32::new(64);
    let reader = net.connect(connect);
    net.subscribe(reader, &[("t", Q0)]);
    let writer = net.client(V4, "w");
    // 2 bytes of header, 3 of topic, 1 of property length.
    let payload = "x".repeat(58);
    net.send(writer, Packet::Publish(message("t", &payload)));
    net.expect(reader, Packet::Publish(message("t", &payload)));
    net.send(writer, Packet::Publish(message("t", &format!("{payload}x"))));
    net.expect_nothing(reader);
}

#[test]
fn a_message_says_how_long_it_still_lives() {
    let mut net = Net::new();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q1)]);
    net.cut(reader);
    let writer = net.client(V5, "w");
    for (payload, seconds) in [("short", 1), ("long", 60)] {
        net.send(
            writer,
            Packet::Publish(expiring(acked("t", payload, Q1, 1), seconds)),
        );
    }
    net.take(writer);
    net.pass(10);
    let reader = net.dial(kept(V5, "r"));
    let packets = net.take(reader);
    // [MQTT-3.3.2-5], [MQTT-3.3.2-6]
    assert_eq!(
        packets[1..],
        [Packet::Publish(expiring(acked("t", "long", Q1, 1), 50))]
    );
}

/// §3.3.2.3.3: only what was not yet sent expires.
#[test]
fn a_delivery_that_has_begun_does_not_expire() {
    let mut net = Net::new();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q1)]);
    let writer = net.client(V5, "w");
    net.send(writer, Packet::Publish(expiring(acked("t", "x", Q1, 1), 1)));
    net.expect(writer, puback(1));
    net.expect(reader, Packet::Publish(expiring(acked("t", "x", Q1, 1), 1)));
    net.cut(reader);
    net.pass(5);
    let reader = net.dial(kept(V5, "r"));
    let packets = net.take(reader);
    assert_eq!(
        packets[1..],
        [Packet::Publish(dup(expiring(acked("t", "x", Q1, 1), 0)))]
    );
}

#[test]
fn clients_of_3_may_be_sent_what_they_did_not_acknowledge_in_time() {
    let interval = std::time::Duration::from_secs(30);
    for (version, repeats) in [(V3, true), (V4, true), (V5, false)] {
        let mut net = Net::with(|config| config.mqtt.retry_interval = Some(interval));
        let reader = net.subscriber(version, "r", &[("t", Q2)]);
        let writer = net.client(V4, "w");
        net.send(writer, Packet::Publish(acked("t", "x", Q2, 1)));
        net.expect(writer, pubrec(1));
        net.expect(reader, Packet::Publish(acked("t", "x", Q2, 1)));
        net.pass(30);
        net.pass_slot();
        if !repeats {
            // [MQTT-4.4.0-1]
            net.expect_nothing(reader);
            continue;
        }
        net.expect(reader, Packet::Publish(dup(acked("t", "x", Q2, 1))));
        net.send(reader, pubrec(1));
        net.expect(reader, pubrel(1));
        net.pass(60);
        assert!(net.take(reader).iter().all(|packet| *packet == pubrel(1)));
        net.send(reader, pubcomp(1));
        net.pass(120);
        net.expect_nothing(reader);
    }
}

#[test]
fn a_congested_client_gets_the_rest_when_it_has_caught_up() {
    let mut net = Net::new();
    let reader = net.subscriber(V4, "r", &[("t", Q1)]);
    let writer = net.client(V4, "w");
    net.node.congest(reader.link, true);
    net.send(writer, Packet::Publish(acked("t", "1", Q1, 1)));
    net.send(writer, Packet::Publish(message("t", "0")));
    net.expect(writer, puback(1));
    net.expect_nothing(reader);
    net.node.congest(reader.link, false);
    net.expect_all(
        reader,
        &[
            Packet::Publish(acked("t", "1", Q1, 1)),
            Packet::Publish(message("t", "0")),
        ],
    );
}

#[test]
fn a_large_payload_reaches_every_client() {
    let mut net = Net::new();
    let payload = "x".repeat(100_000);
    let readers = [V3, V4, V5]
        .map(|version| net.subscriber(version, ["3", "4", "5"][version as usize - 3], &[("t", Q0)]));
    let parts = MessageParts::new("t", payload.as_bytes());
    let sent = parts.publish_absolute(net.node.now(), broker_core::ClientInfo::system());
    assert!(
        net.node
            .publish(0, sent.expect("a short topic"))
            .expect("no limit")
    );
    for reader in readers {
        net.expect(reader, Packet::Publish(Publish::new("t", payload.as_bytes())));
    }
}

/// [MQTT-3.1.2-29]: without problem information, no acknowledgement carries a reason string or user property.
#[test]
fn no_problem_information() {
    let mut net = Net::with(|config| config.mqtt.max_payload_size = 1);
    let mut connect = Connect::new(V5, "a");
    connect.properties.request_problem_information = Some(false);
    let client = net.connect(connect);
    net.send(client, Packet::Publish(acked("t", "xx", Q1, 1)));
    let ack = Ack::new(id(1), ReasonCode::QuotaExceeded);
    net.expect(client, Packet::PubAck(ack));
}

/// [MQTT-2.2.1-3]: 65 535 is followed by 1, and identifiers in use are left out.
#[test]
fn packet_identifiers_begin_anew_at_their_end() {
    let mut net = Net::new();
    let reader = net.subscriber(V4, "r", &[("t", Q1)]);
    let writer = net.client(V4, "w");
    for number in 1..=65_537u32 {
        net.send(writer, Packet::Publish(acked("t", "", Q1, 1)));
        let publishes = net.publishes(reader);
        let expected = if number <= 65_535 { number } else { number - 65_534 };
        let received = publishes[0].packet_id.expect("QoS 1").get();
        assert_eq!(u32::from(received), expected);
        // The first one stays unacknowledged.
        if received != 1 {
            net.send(reader, puback(received));
        }
        if number % 1000 == 0 {
            net.take(writer);
        }
    }
    net.take(writer);
}
