//! Shared subscriptions (§4.8.2).

use broker_core::{ReasonCode, SharedStrategy};
use mqtt::codec::{Connect, Packet};

use crate::net::*;

fn send(net: &mut Net, writer: Client, count: u16) {
    for at in 1..=count {
        net.send(writer, Packet::Publish(acked("t", "x", Q1, at)));
        net.expect(writer, puback(at));
    }
}

#[test]
fn one_member_gets_each_message() {
    for filter in ["$share/g/t", "$queue/t"] {
        let mut net = Net::with_shards(3, |_| {});
        let members = ["a", "b", "c"].map(|name| net.subscriber(V5, name, &[(filter, Q0)]));
        let apart = net.subscriber(V4, "other", &[("$share/h/t", Q0)]);
        let plain = net.subscriber(V4, "plain", &[("t", Q0)]);
        let writer = net.client(V4, "w");
        send(&mut net, writer, 9);
        for member in members {
            assert_eq!(net.publishes(member).len(), 3);
        }
        assert_eq!(net.publishes(apart).len(), 9);
        assert_eq!(net.publishes(plain).len(), 9);
    }
}

#[test]
fn a_member_gets_nothing_retained() {
    let mut net = Net::new();
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(retained(message("t", "x"))));
    net.subscriber(V5, "a", &[("$share/g/t", Q0)]);
}

#[test]
fn shared_and_plain_at_once_are_two_deliveries() {
    let mut net = Net::new();
    let reader = net.subscriber(V5, "r", &[("$share/g/t", Q0), ("t", Q0)]);
    let writer = net.client(V4, "w");
    send(&mut net, writer, 1);
    assert_eq!(net.publishes(reader).len(), 2);
}

#[test]
fn who_leaves_hands_on_what_it_has_not_acknowledged() {
    for version in [V4, V5] {
        let mut net = Net::with_shards(2, |config| {
            config.shared_strategy = SharedStrategy::RoundRobinPerGroup;
        });
        let first = net.connect(Connect::new(version, "first"));
        net.subscribe(first, &[("$share/g/t", Q1)]);
        let writer = net.client(V4, "w");
        send(&mut net, writer, 2);
        assert_eq!(net.publishes(first).len(), 2);
        let second = net.subscriber(version, "second", &[("$share/g/t", Q1)]);
        net.send(first, puback(1));
        net.cut(first);
        net.expect(second, Packet::Publish(acked("t", "x", Q1, 1)));
        send(&mut net, writer, 1);
        net.expect(second, Packet::Publish(acked("t", "x", Q1, 2)));
    }
}

/// [MQTT-4.8.2-4]: what is under way with quality of service 2 stays where it is.
#[test]
fn a_session_that_is_kept_finishes_what_it_began_with_quality_of_service_2() {
    let mut net = Net::new();
    let first = net.connect(kept(V5, "first"));
    net.subscribe(first, &[("$share/g/t", Q2)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(acked("t", "x", Q2, 1)));
    net.expect(writer, pubrec(1));
    net.expect(first, Packet::Publish(acked("t", "x", Q2, 1)));
    let second = net.subscriber(V5, "second", &[("$share/g/t", Q2)]);
    net.cut(first);
    net.expect_nothing(second);
    let first = net.dial(kept(V5, "first"));
    let packets = net.take(first);
    assert_eq!(packets[1..], [Packet::Publish(dup(acked("t", "x", Q2, 1)))]);
}

/// [MQTT-4.8.2-6]
#[test]
fn a_refused_delivery_goes_to_nobody_else() {
    let mut net = Net::new();
    let members = ["a", "b"].map(|name| net.subscriber(V5, name, &[("$share/g/t", Q1)]));
    let writer = net.client(V4, "w");
    send(&mut net, writer, 1);
    let got: Vec<_> = members.map(|member| net.publishes(member).len()).to_vec();
    let holder = members[got.iter().position(|&count| count == 1).expect("one has it")];
    net.send(holder, because(puback(1), ReasonCode::UnspecifiedError));
    for member in members {
        net.expect_nothing(member);
    }
}

#[test]
fn a_group_that_is_away_keeps_its_messages() {
    let mut net = Net::with_shards(2, |_| {});
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("$share/g/t", Q1)]);
    net.cut(reader);
    let writer = net.client(V4, "w");
    send(&mut net, writer, 2);
    let reader = net.dial(kept(V5, "r"));
    let packets = net.take(reader);
    assert_eq!(
        packets[1..],
        [1, 2].map(|id| Packet::Publish(acked("t", "x", Q1, id)))
    );
}

#[test]
fn unsubscribing_hands_on_what_waits() {
    let mut net = Net::new();
    let mut connect = Connect::new(V5, "a");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let first = net.connect(connect);
    net.subscribe(first, &[("$share/g/t", Q1)]);
    let writer = net.client(V4, "w");
    send(&mut net, writer, 3);
    assert_eq!(net.publishes(first).len(), 1);
    let second = net.subscriber(V5, "b", &[("$share/g/t", Q1)]);
    net.send(first, unsubscribe(2, &["$share/g/t"]));
    net.expect(first, unsuback(2, &[ReasonCode::Success]));
    assert!(net.publishes(second).len() >= 2);
}
