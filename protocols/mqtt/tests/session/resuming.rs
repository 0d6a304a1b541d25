//! Sessions: what stays, what is sent again, takeover, and how DISCONNECT ends them.

use std::num::NonZeroU16;

use broker_core::ReasonCode;
use mqtt::codec::{Disconnect, Packet};

use crate::net::*;

fn goodbye(reason: ReasonCode, session_expiry_interval: Option<u32>) -> Packet<'static> {
    let mut disconnect = Disconnect::new(reason);
    disconnect.properties.session_expiry_interval = session_expiry_interval;
    Packet::Disconnect(disconnect)
}

/// [MQTT-4.4.0-1], [MQTT-4.6.0-1]
#[test]
fn what_was_not_acknowledged_comes_again_in_its_order() {
    for version in [V3, V4, V5] {
        let mut net = Net::new();
        let reader = net.connect(kept(version, "r"));
        net.subscribe(reader, &[("#", Q2)]);
        let writer = net.client(V4, "w");
        for (payload, qos, id) in [("a", Q1, 1), ("b", Q2, 2), ("c", Q2, 3), ("d", Q1, 4)] {
            net.send(writer, Packet::Publish(acked("t", payload, qos, id)));
        }
        net.take(writer);
        assert_eq!(net.publishes(reader).len(), 4);
        net.send(reader, pubrec(2));
        net.expect(reader, pubrel(2));
        net.send(reader, puback(4));
        net.cut(reader);
        // While it is away, quality of service 0 is lost, the rest waits.
        net.send(writer, Packet::Publish(message("t", "lost")));
        net.send(writer, Packet::Publish(acked("t", "e", Q1, 5)));
        net.expect(writer, puback(5));
        let reader = net.dial(kept(version, "r"));
        let packets = net.take(reader);
        assert!(
            matches!(&packets[0], Packet::ConnAck(connack) if connack.session_present == (version != V3))
        );
        assert_eq!(
            packets[1..],
            [
                Packet::Publish(dup(acked("t", "a", Q1, 1))),
                pubrel(2),
                Packet::Publish(dup(acked("t", "c", Q2, 3))),
                Packet::Publish(acked("t", "e", Q1, 5)),
            ]
        );
        // PUBCOMP may have crossed the loss of the connection.
        net.send(reader, pubcomp(2));
        net.expect_nothing(reader);
    }
}

#[test]
fn the_window_of_the_new_connection_counts() {
    let mut net = Net::new();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("#", Q1)]);
    let writer = net.client(V4, "w");
    for id in 1..=3 {
        net.send(writer, Packet::Publish(acked("t", "x", Q1, id)));
    }
    net.take(writer);
    assert_eq!(net.publishes(reader).len(), 3);
    net.cut(reader);
    let mut connect = kept(V5, "r");
    connect.properties.receive_maximum = NonZeroU16::new(1);
    let reader = net.dial(connect);
    let first = net.take(reader);
    assert_eq!(first[1..], [Packet::Publish(dup(acked("t", "x", Q1, 1)))]);
    for id in 1..=2 {
        net.send(reader, puback(id));
        net.expect(reader, Packet::Publish(dup(acked("t", "x", Q1, id + 1))));
    }
}

#[test]
fn subscriptions_stay_with_the_session() {
    for version in [V4, V5] {
        let mut net = Net::with_shards(2, |_| {});
        let reader = net.connect(kept(version, "r"));
        net.subscribe(reader, &[("t", Q0)]);
        net.disconnect(reader);
        let reader = net.resume(kept(version, "r"));
        let writer = net.client(V4, "w");
        net.send(writer, Packet::Publish(message("t", "x")));
        net.expect(reader, Packet::Publish(message("t", "x")));
        net.disconnect(reader);
        // A clean start leaves nothing of it [MQTT-3.1.2-4].
        let reader = net.client(version, "r");
        net.send(writer, Packet::Publish(message("t", "x")));
        net.expect_nothing(reader);
    }
}

#[test]
fn a_second_connection_takes_the_session_over() {
    for version in [V3, V4, V5] {
        let mut net = Net::with_shards(3, |_| {});
        let first = net.connect(kept(version, "a"));
        net.subscribe(first, &[("t", Q1)]);
        let second = net.dial(kept(version, "a"));
        net.expect_end(first, ReasonCode::SessionTakenOver);
        assert_eq!(net.connack(second).session_present, version != V3);
        let writer = net.client(V4, "w");
        net.send(writer, Packet::Publish(message("t", "x")));
        net.expect(second, Packet::Publish(message("t", "x")));
    }
}

#[test]
fn an_old_session_may_go_on_in_another_version() {
    let mut net = Net::new();
    let client = net.connect(kept(V4, "a"));
    net.subscribe(client, &[("t", Q1)]);
    net.cut(client);
    let client = net.resume(kept(V5, "a"));
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(message("t", "x")));
    net.expect(client, Packet::Publish(message("t", "x")));
}

#[test]
fn a_session_lives_as_long_as_it_asked_for() {
    let mut net = Net::new();
    let mut connect = kept(V5, "a");
    connect.properties.session_expiry_interval = Some(5);
    let client = net.connect(connect.clone());
    net.cut(client);
    net.pass_ms(4_999);
    let client = net.resume(connect.clone());
    net.cut(client);
    net.pass(5);
    net.pass_slot();
    let client = net.connect(connect.clone());
    // Without the property it ends with its connection.
    connect.properties.session_expiry_interval = None;
    net.cut(client);
    let client = net.resume(connect.clone());
    net.cut(client);
    net.connect(connect);
}

#[test]
fn a_session_of_3_lives_as_long_as_the_server_says() {
    for version in [V3, V4] {
        let mut net = Net::with(|config| {
            config.mqtt.session_expiry_interval = std::time::Duration::from_secs(60);
        });
        let client = net.connect(kept(version, "a"));
        net.subscribe(client, &[("t", Q1)]);
        net.cut(client);
        net.pass(60);
        net.pass_slot();
        let writer = net.client(V5, "w");
        net.send(writer, Packet::Publish(acked("t", "x", Q1, 1)));
        net.expect(writer, because(puback(1), ReasonCode::NoMatchingSubscribers));
        // A clean session ends at once.
        let client = net.client(version, "a");
        net.cut(client);
        net.connect(kept(version, "a"));
    }
}

/// §3.14.2.2.2
#[test]
fn disconnect_may_change_how_long_the_session_lives() {
    let mut net = Net::new();
    let mut short = kept(V5, "a");
    short.properties.session_expiry_interval = Some(1);
    let client = net.connect(short.clone());
    net.send(client, goodbye(ReasonCode::Success, Some(999_999_999)));
    net.expect_closed(client);
    net.pass(60);
    let client = net.resume(short.clone());
    net.send(client, goodbye(ReasonCode::Success, Some(0)));
    net.expect_closed(client);
    net.connect(short);
}

/// [MQTT-3.14.2-2] and §3.14.2.2.2: from 0 it cannot be raised.
#[test]
fn a_session_that_ends_with_its_connection_cannot_be_prolonged() {
    let mut net = Net::new();
    let client = net.client(V5, "a");
    net.send(client, goodbye(ReasonCode::Success, Some(5)));
    net.expect_end(client, ReasonCode::ProtocolError);
    let client = net.client(V5, "a");
    net.send(client, goodbye(ReasonCode::Success, Some(0)));
    net.expect_nothing(client);
    net.expect_closed(client);
}

#[test]
fn a_client_may_not_give_the_reasons_of_a_server() {
    let mut net = Net::new();
    let client = net.client(V5, "a");
    net.send(client, goodbye(ReasonCode::ServerBusy, None));
    net.expect_end(client, ReasonCode::ProtocolError);
}

#[test]
fn a_full_queue_loses_the_oldest() {
    let mut net = Net::with(|config| config.mqtt.max_mqueue_len = 2);
    let reader = net.connect(kept(V4, "r"));
    net.subscribe(reader, &[("t", Q1)]);
    net.cut(reader);
    let writer = net.client(V4, "w");
    for (payload, id) in [("a", 1), ("b", 2), ("c", 3)] {
        net.send(writer, Packet::Publish(acked("t", payload, Q1, id)));
        net.expect(writer, puback(id));
    }
    let reader = net.dial(kept(V4, "r"));
    let packets = net.take(reader);
    assert_eq!(
        packets[1..],
        [
            Packet::Publish(acked("t", "b", Q1, 1)),
            Packet::Publish(acked("t", "c", Q1, 2)),
        ]
    );
}
