//! Wills (§3.1.2.5): published unless the client says goodbye.

use broker_core::{PropertiesBuilder, Property, ReasonCode};
use mqtt::codec::{Connect, Disconnect, Packet, Will};

use crate::net::*;

fn watched(shards: u16) -> (Net, Client) {
    let mut net = Net::with_shards(shards, |_| {});
    let watcher = net.subscriber(V5, "watcher", &[("will", Q2)]);
    (net, watcher)
}

fn the_will() -> Packet<'static> {
    Packet::Publish(message("will", "will"))
}

/// A Will that waits, of a session that is kept.
fn patient(delay: u32, session_expiry: u32) -> Connect<'static> {
    let mut connect = with_will(kept(V5, "a"), "will");
    connect.properties.session_expiry_interval = Some(session_expiry);
    if let Some(will) = &mut connect.will {
        will.delay_interval = delay;
    }
    connect
}

#[test]
fn a_goodbye_discards_it() {
    let (mut net, watcher) = watched(2);
    for version in [V3, V4, V5] {
        let client = net.connect(with_will(Connect::new(version, "a"), "will"));
        net.disconnect(client);
        net.expect_nothing(watcher);
    }
}

#[test]
fn a_lost_connection_publishes_it() {
    let (mut net, watcher) = watched(2);
    for version in [V3, V4, V5] {
        for connect in [Connect::new(version, "a"), kept(version, "b")] {
            let client = net.connect(with_will(connect, "will"));
            net.cut(client);
            net.expect(watcher, the_will());
        }
        net.client(version, "b");
    }
}

#[test]
fn so_does_silence() {
    let (mut net, watcher) = watched(1);
    let mut connect = with_will(Connect::new(V4, "a"), "will");
    connect.keep_alive = 2;
    net.connect(connect);
    net.pass_ms(2_999);
    net.expect_nothing(watcher);
    net.pass_ms(1);
    net.expect(watcher, the_will());
}

#[test]
fn so_does_a_fault() {
    let (mut net, watcher) = watched(1);
    for version in [V3, V4, V5] {
        let client = net.connect(with_will(Connect::new(version, "a"), "will"));
        net.send_bytes(client, &[0x00, 0x00]);
        net.expect_end(client, ReasonCode::MalformedPacket);
        net.expect(watcher, the_will());
    }
}

#[test]
fn so_does_a_takeover() {
    let (mut net, watcher) = watched(1);
    for version in [V3, V4, V5] {
        let first = net.connect(with_will(Connect::new(version, "a"), "will"));
        let second = net.connect(Connect::new(version, "a"));
        net.expect_end(first, ReasonCode::SessionTakenOver);
        net.expect(watcher, the_will());
        net.disconnect(second);
    }
}

/// §3.14.2.1: 0x04, and every code of an error.
#[test]
fn so_does_a_goodbye_that_asks_for_it() {
    let (mut net, watcher) = watched(1);
    for reason in [ReasonCode::DisconnectWithWill, ReasonCode::UnspecifiedError] {
        let client = net.connect(with_will(Connect::new(V5, "a"), "will"));
        net.send(client, Packet::Disconnect(Disconnect::new(reason)));
        net.expect_nothing(client);
        net.expect_closed(client);
        net.expect(watcher, the_will());
    }
}

/// [MQTT-3.1.3-9]
#[test]
fn a_delayed_will_comes_when_its_time_or_the_end_of_the_session_has_come() {
    for (delay, expiry, due) in [(3, 5, 3_000), (5, 2, 2_000), (5, 0, 0), (5, 5, 5_000)] {
        let (mut net, watcher) = watched(2);
        let client = net.connect(patient(delay, expiry));
        net.cut(client);
        if due > 0 {
            net.pass_ms(due - 1);
            net.expect_nothing(watcher);
            net.pass_slot();
        }
        net.expect(watcher, the_will());
        net.pass(10);
        net.expect_nothing(watcher);
    }
}

#[test]
fn who_returns_in_time_cancels_it() {
    let (mut net, watcher) = watched(1);
    let client = net.connect(patient(5, 60));
    net.cut(client);
    net.pass(4);
    let client = net.resume(kept(V5, "a"));
    net.pass(60);
    net.expect_nothing(watcher);
    // The new connection has no Will.
    net.cut(client);
    net.pass(60);
    net.expect_nothing(watcher);
}

#[test]
fn who_returns_without_the_session_does_not() {
    let (mut net, watcher) = watched(1);
    let client = net.connect(patient(5, 60));
    net.cut(client);
    net.client(V5, "a");
    net.expect(watcher, the_will());
}

#[test]
fn a_takeover_of_the_session_cancels_a_delayed_one() {
    let (mut net, watcher) = watched(1);
    let first = net.connect(patient(5, 60));
    let second = net.resume(patient(5, 60));
    net.expect_end(first, ReasonCode::SessionTakenOver);
    net.pass(60);
    net.expect_nothing(watcher);
    net.cut(second);
    net.pass(5);
    net.pass_slot();
    net.expect(watcher, the_will());
}

#[test]
fn it_is_a_message_like_any_other() {
    let mut net = Net::with_shards(2, |_| {});
    let watcher = net.subscriber(V5, "watcher", &[("will", Q2)]);
    let mut connect = Connect::new(V5, "a");
    connect.will = Some(Will {
        qos: Q1,
        retain: true,
        expiry_interval: Some(10),
        // Content type and a user property.
        properties: b"\x03\x00\x01t\x26\x00\x01a\x00\x01b".into(),
        ..Will::new("will", b"will")
    });
    let client = net.connect(connect);
    net.cut(client);
    let mut expected = expiring(acked("will", "will", Q1, 1), 10);
    expected.properties = b"\x03\x00\x01t\x26\x00\x01a\x00\x01b".into();
    net.expect(watcher, Packet::Publish(expected.clone()));
    // It is retained until it expires, counted from its publication.
    net.pass(4);
    let late = net.client(V5, "late");
    net.send(late, subscribe(1, &[sub("will", Q0)]));
    let mut expected = retained(expiring(message("will", "will"), 6));
    expected.properties = b"\x03\x00\x01t\x26\x00\x01a\x00\x01b".into();
    net.expect_all(
        late,
        &[suback(1, &[ReasonCode::Success]), Packet::Publish(expected)],
    );
    net.pass(6);
    net.pass_slot();
    let later = net.client(V5, "later");
    net.subscribe(later, &[("will", Q0)]);
}

#[test]
fn one_that_the_server_cannot_publish_is_refused_with_the_connection() {
    let mut net = Net::with(|config| {
        config.mqtt.max_qos_allowed = Q1;
        config.mqtt.retain_available = false;
    });
    for (qos, retain, reason) in [
        (Q2, false, ReasonCode::QoSNotSupported),
        (Q0, true, ReasonCode::RetainNotSupported),
    ] {
        let mut connect = Connect::new(V5, "a");
        connect.will = Some(Will {
            qos,
            retain,
            ..Will::new("will", b"")
        });
        let client = net.dial(connect);
        // [MQTT-3.2.2-12], [MQTT-3.2.2-13]
        assert_eq!(net.connack(client).reason, reason);
        net.expect_closed(client);
    }
}

/// §3.1.3.2.3: who declares text sends text, in a Will as in a PUBLISH.
#[test]
fn one_that_is_not_the_text_it_says_is_refused_with_the_connection() {
    let mut properties = PropertiesBuilder::new();
    properties.push(Property::PayloadFormat(true));
    let properties = properties.as_properties();
    for (payload, reason) in [
        (&b"\xc3\xa9"[..], ReasonCode::Success),
        (b"\xc3", ReasonCode::PayloadFormatInvalid),
    ] {
        let mut net = Net::new();
        let mut connect = Connect::new(V5, "a");
        connect.will = Some(Will {
            properties: properties.encoded().into(),
            ..Will::new("will", payload)
        });
        let client = net.dial(connect);
        assert_eq!(net.connack(client).reason, reason);
        assert_eq!(net.node.closed(client.link).is_some(), reason.is_error());
    }
}
