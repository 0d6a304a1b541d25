//! CONNECT, CONNACK, keep alive, and packets at the wrong time.

use std::num::{NonZeroU16, NonZeroU32};

use broker_core::{QoS, ReasonCode, Redirect};
use mqtt::codec::{ConnAck, ConnAckProperties, Connect, Disconnect, Packet};

use crate::net::*;

/// The terms of the default configuration.
fn terms() -> ConnAckProperties<'static> {
    ConnAckProperties {
        receive_maximum: NonZeroU16::new(1000),
        maximum_packet_size: NonZeroU32::new(1 << 20),
        topic_alias_maximum: Some(65_535),
        ..ConnAckProperties::default()
    }
}

fn refusal(reason: ReasonCode) -> Packet<'static> {
    Packet::ConnAck(Box::new(ConnAck::new(reason)))
}

#[test]
fn a_client_is_told_the_terms() {
    let mut net = Net::new();
    let client = net.dial(Connect::new(V5, "a"));
    let mut connack = ConnAck::new(ReasonCode::Success);
    connack.properties = terms();
    net.expect(client, Packet::ConnAck(Box::new(connack)));
    for version in [V3, V4] {
        let client = net.dial(Connect::new(version, "b"));
        net.expect(client, refusal(ReasonCode::Success));
    }
}

#[test]
fn terms_that_differ_from_the_defaults_are_told() {
    let mut net = Net::with(|config| {
        config.mqtt.max_qos_allowed = QoS::AtLeastOnce;
        config.mqtt.retain_available = false;
        config.mqtt.wildcard_subscription = false;
        config.mqtt.shared_subscription = false;
        config.mqtt.max_topic_alias = 0;
        config.mqtt.session_expiry_interval = std::time::Duration::from_secs(60);
    });
    let connack = {
        let client = net.dial(kept(V5, "a"));
        net.connack(client)
    };
    let expected = ConnAckProperties {
        session_expiry_interval: Some(60),
        maximum_qos: Some(Q1),
        retain_available: Some(false),
        topic_alias_maximum: None,
        wildcard_subscription_available: Some(false),
        shared_subscription_available: Some(false),
        ..terms()
    };
    assert_eq!(connack.properties, expected);
}

#[test]
fn an_empty_client_id() {
    let mut net = Net::new();
    let client = net.dial(Connect::new(V5, ""));
    let assigned = net.connack(client).properties.assigned_client_identifier;
    assert!(assigned.is_some_and(|id| !id.is_empty()), "[MQTT-3.2.2-16]");
    let other = net.dial(Connect::new(V5, ""));
    assert_ne!(net.connack(other).properties.assigned_client_identifier, assigned);
    // MQTT 5 takes it with clean start 0 as well.
    net.connect(kept(V5, ""));
    net.connect(Connect::new(V4, ""));
    // [MQTT3-3.1.3-8], and 3.1, which knows no empty identifiers.
    for connect in [kept(V4, ""), kept(V3, ""), Connect::new(V3, "")] {
        let client = net.dial(connect);
        net.expect(client, refusal(ReasonCode::ClientIdentifierNotValid));
        net.expect_closed(client);
    }
}

#[test]
fn a_client_id_above_the_limit_is_refused() {
    let mut net = Net::with(|config| config.mqtt.max_clientid_len = 3);
    for version in [V3, V4, V5] {
        net.client(version, "abc");
        let client = net.dial(Connect::new(version, "abcd"));
        let connack = net.connack(client);
        assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid);
        net.expect_closed(client);
    }
}

#[test]
fn an_unknown_version_is_refused_in_words_that_its_client_may_know() {
    let mut net = Net::new();
    for (level, version) in [(4, V4), (5, V5)] {
        let mut bytes = encode(version, &Packet::Connect(Box::new(Connect::new(version, "a")))).to_vec();
        assert_eq!(bytes[8], level);
        bytes[8] += 2;
        let client = net.open(if level == 4 { V5 } else { version });
        net.send_bytes(client, &bytes);
        net.expect(client, refusal(ReasonCode::UnsupportedProtocolVersion));
        net.expect_closed(client);
    }
    // Level 3 under the name MQTT is answered as 3.1.1 [MQTT3-3.1.2-2].
    let client = net.open(V4);
    net.send_bytes(client, b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x00\x00\x01a");
    net.expect(client, refusal(ReasonCode::UnsupportedProtocolVersion));
}

#[test]
fn what_is_no_mqtt_hears_nothing() {
    let mut net = Net::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x00\xa5\x01",
        b"\xc0\x00",
    ] {
        let client = net.open(V4);
        net.send_bytes(client, bytes);
        net.expect_nothing(client);
        net.expect_closed(client);
    }
}

#[test]
fn a_connect_that_never_comes_or_never_ends() {
    let mut net = Net::new();
    let silent = net.open(V5);
    let slow = net.open(V5);
    net.send_bytes(slow, &[0x10, 0x20, 0x00]);
    net.pass_ms(14_999);
    net.expect_open(silent);
    net.pass_ms(1);
    for client in [silent, slow] {
        net.expect_nothing(client);
        net.expect_closed(client);
    }
}

#[test]
fn clients_are_sent_elsewhere() {
    for moved in [false, true] {
        let mut net = Net::with(|config| {
            config.redirect = Some(Redirect {
                moved,
                server_reference: "b.example:1883".to_owned(),
            });
        });
        let client = net.dial(Connect::new(V5, "a"));
        let connack = net.connack(client);
        let reason = [ReasonCode::UseAnotherServer, ReasonCode::ServerMoved][usize::from(moved)];
        assert_eq!(connack.reason, reason);
        assert_eq!(connack.properties.server_reference, Some("b.example:1883"));
        net.expect_closed(client);
        let client = net.dial(Connect::new(V4, "a"));
        net.expect(client, refusal(ReasonCode::ServerUnavailable));
        net.expect_closed(client);
    }
}

#[test]
fn the_second_connect_is_a_protocol_error() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let client = net.client(version, "a");
        net.send(client, Packet::Connect(Box::new(Connect::new(version, "a"))));
        net.expect_end(client, ReasonCode::ProtocolError);
    }
}

#[test]
fn packets_that_only_a_server_sends() {
    for packet in [
        Packet::PingResp,
        refusal(ReasonCode::Success),
        suback(1, &[ReasonCode::Success]),
        unsuback(1, &[ReasonCode::Success]),
    ] {
        for version in [V3, V4, V5] {
            let mut net = Net::new();
            let client = net.client(version, "a");
            net.send(client, packet.clone());
            net.expect_end(client, ReasonCode::ProtocolError);
        }
    }
}

#[test]
fn one_byte_at_a_time() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let client = net.open(version);
        let filters = [sub("t", Q1)];
        let mut bytes = encode(version, &Packet::Connect(Box::new(Connect::new(version, "a")))).to_vec();
        for packet in [
            subscribe(1, &filters),
            Packet::Publish(acked("t", "x", Q1, 2)),
            Packet::PingReq,
        ] {
            bytes.extend_from_slice(&encode(version, &packet));
        }
        for byte in bytes {
            net.send_bytes(client, &[byte]);
        }
        let packets = net.take(client);
        assert_eq!(
            packets[1..],
            [
                suback(1, &[ReasonCode::GrantedQoS1]),
                Packet::Publish(acked("t", "x", Q1, 1)),
                puback(2),
                Packet::PingResp,
            ]
        );
    }
}

/// [MQTT-3.1.4-5]: a client need not wait for CONNACK.
#[test]
fn everything_in_one_read() {
    let mut net = Net::new();
    let client = net.open(V4);
    let filters = [sub("t", Q0)];
    let mut bytes = Vec::new();
    for packet in [
        Packet::Connect(Box::new(Connect::new(V4, "a"))),
        subscribe(1, &filters),
        Packet::Publish(message("t", "x")),
        unsubscribe(2, &["t"]),
        Packet::Publish(message("t", "y")),
        Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
        Packet::PingReq,
    ] {
        bytes.extend_from_slice(&encode(V4, &packet));
    }
    net.send_bytes(client, &bytes);
    net.expect_all(
        client,
        &[
            refusal(ReasonCode::Success),
            suback(1, &[ReasonCode::Success]),
            Packet::Publish(message("t", "x")),
            unsuback(2, &[]),
        ],
    );
    net.expect_closed(client);
}

#[test]
fn a_subscriber_waits_for_the_other_shards_and_its_next_packets_with_it() {
    let mut net = Net::with_shards(3, |_| {});
    let client = net.client(V5, "a");
    net.node.hold_batches(true);
    net.send(client, subscribe(1, &[sub("t", Q0)]));
    net.send(client, Packet::PingReq);
    net.expect_nothing(client);
    assert!(net.node.is_parked(client.link));
    net.node.hold_batches(false);
    net.expect_all(client, &[suback(1, &[ReasonCode::Success]), Packet::PingResp]);
}

#[test]
fn a_client_is_not_held_for_silent_while_it_waits() {
    let mut net = Net::with_shards(2, |_| {});
    let mut connect = Connect::new(V5, "a");
    connect.keep_alive = 10;
    let client = net.connect(connect);
    net.node.hold_batches(true);
    net.send(client, subscribe(1, &[sub("t", Q0)]));
    net.pass(100);
    net.expect_open(client);
    net.node.hold_batches(false);
    net.expect(client, suback(1, &[ReasonCode::Success]));
    net.pass_ms(14_999);
    net.expect_open(client);
    net.pass_ms(1);
    net.expect_end(client, ReasonCode::KeepAliveTimeout);
}

#[test]
fn a_connection_that_ends_while_it_waits() {
    let mut net = Net::with_shards(2, |_| {});
    net.node.hold_batches(true);
    let lost = net.client(V5, "lost");
    net.send(lost, subscribe(1, &[sub("t", Q0)]));
    net.cut(lost);
    let old = net.connect(kept(V5, "old"));
    net.send(old, subscribe(1, &[sub("t", Q0)]));
    let new = net.resume(kept(V5, "old"));
    net.expect_end(old, ReasonCode::SessionTakenOver);
    net.node.hold_batches(false);
    for client in [lost, old, new] {
        net.expect_nothing(client);
    }
    let writer = net.client(V5, "w");
    net.send(writer, Packet::Publish(message("t", "x")));
    net.expect(new, Packet::Publish(message("t", "x")));
}

#[test]
fn a_client_that_falls_silent_is_gone_after_one_and_a_half_keep_alives() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let mut connect = Connect::new(version, "a");
        connect.keep_alive = 10;
        let client = net.connect(connect);
        net.pass_ms(14_999);
        net.send(client, Packet::PingReq);
        net.expect(client, Packet::PingResp);
        net.pass_ms(14_999);
        net.expect_open(client);
        net.pass_ms(1);
        net.expect_end(client, ReasonCode::KeepAliveTimeout);
    }
}

#[test]
fn half_a_packet_is_no_sign_of_life() {
    let mut net = Net::new();
    let mut connect = Connect::new(V5, "a");
    connect.keep_alive = 10;
    let client = net.connect(connect);
    net.pass(14);
    net.send_bytes(client, &[0x30, 0x7f]);
    net.pass(1);
    net.expect_end(client, ReasonCode::KeepAliveTimeout);
}

#[test]
fn without_keep_alive_a_client_may_be_silent_for_ever() {
    let mut net = Net::new();
    let client = net.client(V5, "a");
    net.pass(1_000_000);
    net.expect_open(client);
}

/// §3.2.2.3.14, as a maximum: a client that promises more signs of life keeps its promise.
#[test]
fn the_server_shortens_a_keep_alive_but_never_lengthens_it() {
    let mut net = Net::with(|config| config.mqtt.server_keepalive = Some(60));
    for (proposed, told, in_force) in [
        (120, Some(60), 60),
        (0, Some(60), 60),
        (60, None, 60),
        (20, None, 20),
    ] {
        let mut connect = Connect::new(V5, "a");
        connect.keep_alive = proposed;
        let client = net.dial(connect);
        let connack = net.connack(client);
        assert_eq!(connack.properties.server_keep_alive, told, "{proposed}");
        net.pass_ms(in_force * 1500 - 1);
        net.expect_open(client);
        net.pass_ms(1);
        net.expect_end(client, ReasonCode::KeepAliveTimeout);
    }
    // Clients of 3.x cannot be told, so their own value stands.
    let mut connect = Connect::new(V4, "b");
    connect.keep_alive = 120;
    let client = net.connect(connect);
    net.pass(179);
    net.expect_open(client);
}

#[test]
fn a_server_that_shuts_down_says_so() {
    let mut net = Net::new();
    let five = net.client(V5, "a");
    let four = net.client(V4, "b");
    net.node.with_shard(0, |shard, now| shard.shut_down(now));
    net.expect_end(five, ReasonCode::ServerShuttingDown);
    net.expect_end(four, ReasonCode::ServerShuttingDown);
}

/// CONNACK has no code for a server that shuts down (§3.2.2.2).
#[test]
fn a_server_that_shuts_down_is_unavailable_to_those_who_come() {
    let mut common = anonymous();
    common
        .admission
        .authentication
        .push(std::sync::Arc::new(crate::authentication::Users));
    let mut net = Net::with_common(1, common, "");
    net.node.hold_answers(true);
    for version in [V4, V5] {
        let client = net.dial(Connect::new(version, "a"));
        net.node.with_shard(0, |shard, now| shard.shut_down(now));
        net.expect(client, refusal(ReasonCode::ServerUnavailable));
        net.expect_closed(client);
    }
}

/// [MQTT-3.1.2-24] holds for CONNACK, too: a client that takes no CONNACK cannot be admitted.
#[test]
fn a_connack_that_the_client_does_not_take_ends_the_connection() {
    let mut net = Net::new();
    let mut connect = kept(V5, "a");
    connect.properties.maximum_packet_size = NonZeroU32::new(4);
    let client = net.dial(connect);
    net.expect_nothing(client);
    net.expect_closed(client);
    net.client(V5, "a");
}
