//! Sessions and their subscriptions.

use broker_core::{ReasonCode, RetainHandling};
use mqtt::codec::{Connect, Disconnect, Packet, Subscribe};

use super::{CRASHES, Crash, durable, payloads};
use crate::net::*;

#[test]
fn connack_waits_for_a_session_that_is_to_last() {
    for version in [V4, V5] {
        let mut net = durable();
        net.hold_commits();
        let client = net.dial(kept(version, "a"));
        net.expect_nothing(client);
        net.commit();
        assert!(!net.connack(client).session_present);
        net.expect_open(client);
    }
}

#[test]
fn a_session_that_ends_with_its_connection_waits_for_nothing() {
    for version in [V3, V4, V5] {
        let mut net = durable();
        net.hold_commits();
        net.client(version, "a");
        assert_eq!(net.node.store().pending(), 0);
    }
}

#[test]
fn a_session_is_there_once_it_was_confirmed() {
    for version in [V4, V5] {
        for crash in CRASHES {
            let mut net = durable();
            net.hold_commits();
            let client = net.dial(kept(version, "a"));
            net.expect_nothing(client);
            match crash {
                Crash::Before => net.node.crash(0),
                Crash::Untold => net.node.crash(net.node.store().pending()),
                Crash::After => {
                    net.commit();
                    assert!(!net.connack(client).session_present);
                    net.node.crash(0);
                }
            }
            net.node.restart(super::SHARDS);
            let client = net.dial(kept(version, "a"));
            let is_present = net.connack(client).session_present;
            assert_eq!(is_present, crash != Crash::Before, "{version:?} {crash:?}");
        }
    }
}

#[test]
fn a_clean_start_waits_until_nothing_is_left() {
    for crash in CRASHES {
        let mut net = durable();
        net.leave_session("a", &[("t", Q1)]);
        let writer = net.client(V4, "w");
        net.deliver(writer, acked("t", "old", Q1, 1));
        net.hold_commits();
        let mut connect = kept(V5, "a");
        connect.clean_start = true;
        let client = net.dial(connect);
        net.expect_nothing(client);
        match crash {
            Crash::Before => net.node.crash(0),
            Crash::Untold => net.node.crash(net.node.store().pending()),
            Crash::After => {
                net.commit();
                assert!(!net.connack(client).session_present);
                net.node.crash(0);
            }
        }
        net.node.restart(super::SHARDS);
        let (_, packets) = net.backlog("a");
        let expected: &[&str] = if crash == Crash::Before { &["old"] } else { &[] };
        assert_eq!(payloads(&packets), expected, "{crash:?}");
    }
}

#[test]
fn a_session_that_was_ended_does_not_come_back() {
    for version in [V4, V5] {
        let mut net = durable();
        let client = net.connect(kept(version, "a"));
        net.subscribe(client, &[("t", Q1)]);
        if version == V5 {
            let mut goodbye = Disconnect::new(ReasonCode::Success);
            goodbye.properties.session_expiry_interval = Some(0);
            net.send(client, Packet::Disconnect(goodbye));
        } else {
            net.cut(client);
            let client = net.client(version, "a");
            net.disconnect(client);
        }
        net.crash();
        net.connect(kept(version, "a"));
    }
}

#[test]
fn suback_waits_and_then_the_subscription_lasts() {
    for crash in CRASHES {
        let mut net = durable();
        let client = net.connect(kept(V5, "a"));
        net.hold_commits();
        net.send(client, subscribe(7, &[sub("t/+", Q1), sub("u", Q2)]));
        let granted = [ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2];
        net.crash_at(crash, client, suback(7, &granted));
        let writer = net.client(V4, "w");
        for (topic, number) in [("t/x", 1), ("u", 2)] {
            net.deliver(writer, acked(topic, topic, Q2, number));
        }
        let (_, packets) = net.backlog("a");
        let expected: &[&str] = if crash == Crash::Before {
            &[]
        } else {
            &["t/x", "u"]
        };
        assert_eq!(payloads(&packets), expected, "{crash:?}");
    }
}

#[test]
fn suback_of_a_session_that_ends_with_its_connection_waits_for_nothing() {
    let mut net = durable();
    let client = net.client(V5, "a");
    net.hold_commits();
    net.subscribe(client, &[("t", Q1)]);
}

#[test]
fn unsuback_waits_and_then_the_subscription_is_gone() {
    for crash in CRASHES {
        let mut net = durable();
        let client = net.connect(kept(V5, "a"));
        net.subscribe(client, &[("t", Q1)]);
        net.hold_commits();
        net.send(client, unsubscribe(7, &["t"]));
        net.crash_at(crash, client, unsuback(7, &[ReasonCode::Success]));
        let writer = net.client(V4, "w");
        net.send(writer, Packet::Publish(acked("t", "x", Q1, 1)));
        net.take(writer);
        let (_, packets) = net.backlog("a");
        let expected: &[&str] = if crash == Crash::Before { &["x"] } else { &[] };
        assert_eq!(payloads(&packets), expected, "{crash:?}");
    }
}

#[test]
fn options_and_identifiers_of_subscriptions_last() {
    let mut net = durable();
    let client = net.connect(kept(V5, "a"));
    let mut filter = sub("t", Q2);
    filter.options.no_local = true;
    filter.options.retain_as_published = true;
    filter.options.retain_handling = RetainHandling::DoNotSend;
    let subscribe = Subscribe {
        subscription_id: Some(77),
        ..Subscribe::new(id(1), std::slice::from_ref(&filter))
    };
    net.send(client, Packet::Subscribe(subscribe));
    net.expect(client, suback(1, &[ReasonCode::GrantedQoS2]));
    net.crash();
    let client = net.resume(kept(V5, "a"));
    net.deliver(client, acked("t", "own", Q1, 1));
    net.expect_nothing(client);
    let writer = net.client(V5, "w");
    net.deliver(writer, retained(acked("t", "x", Q2, 1)));
    let mut packets = net.publishes(client);
    assert_eq!(packets.len(), 1);
    let publish = packets.remove(0);
    assert_eq!(
        (publish.qos, publish.retain, &publish.subscription_ids[..]),
        (Q2, true, &[77][..])
    );
}

#[test]
fn a_subscription_that_was_changed_lasts_as_it_was_changed() {
    let mut net = durable();
    let client = net.connect(kept(V5, "a"));
    net.subscribe(client, &[("t", Q2)]);
    net.subscribe(client, &[("t", Q1)]);
    net.crash();
    let writer = net.client(V4, "w");
    net.deliver(writer, acked("t", "x", Q2, 1));
    let (_, packets) = net.backlog("a");
    assert_eq!(packets, [Packet::Publish(acked("t", "x", Q1, 1))]);
}

/// The session expiry interval counts from the end of the connection, in which the process was not there too.
#[test]
fn sessions_expire_while_the_process_is_down() {
    for (down, is_present) in [(4, true), (7, false)] {
        let mut net = durable();
        let mut connect = kept(V5, "a");
        connect.properties.session_expiry_interval = Some(10);
        let client = net.connect(connect.clone());
        net.cut(client);
        net.pass(4);
        net.crash_for(down);
        net.pass_slot();
        let client = net.dial(connect);
        assert_eq!(net.connack(client).session_present, is_present, "{down}");
    }
}

/// A client that was connected when the process was killed is away since then, or since the start.
#[test]
fn a_session_whose_client_was_there_expires_after_the_crash() {
    let mut net = durable();
    let mut connect = kept(V5, "a");
    connect.properties.session_expiry_interval = Some(10);
    net.connect(connect.clone());
    net.pass(100);
    net.crash_for(5);
    net.pass(4);
    let client = net.resume(connect.clone());
    net.cut(client);
    net.crash();
    net.pass(11);
    net.pass_slot();
    net.connect(connect);
}

#[test]
fn the_expiry_of_a_goodbye_lasts() {
    let mut net = durable();
    let client = net.connect(kept(V5, "a"));
    let mut goodbye = Disconnect::new(ReasonCode::Success);
    goodbye.properties.session_expiry_interval = Some(5);
    net.send(client, Packet::Disconnect(goodbye));
    net.crash_for(3);
    let client = net.resume(kept(V5, "a"));
    let mut goodbye = Disconnect::new(ReasonCode::Success);
    goodbye.properties.session_expiry_interval = Some(5);
    net.send(client, Packet::Disconnect(goodbye));
    net.crash_for(6);
    net.pass_slot();
    net.connect(kept(V5, "a"));
}

/// Sessions are spread anew when a node starts with another number of shards.
#[test]
fn the_number_of_shards_may_change() {
    let mut net = Net::with_shards(1, |_| {});
    let names: Vec<String> = (0..9).map(|number| format!("client-{number}")).collect();
    for name in &names {
        net.leave_session(name, &[("t/#", Q1), (name, Q2)]);
    }
    for (round, shards) in (1..).zip([3, 2, 5, 1]) {
        let writer = net.client(V4, "w");
        net.deliver(writer, acked("t/x", &format!("{round}"), Q1, 1));
        for name in &names {
            net.deliver(writer, acked(name, "own", Q2, 2));
        }
        net.node.crash(0);
        net.node.restart(shards);
    }
    for name in &names {
        let (_, packets) = net.backlog(name);
        // Messages of different quality of service may pass each other.
        let (own, common): (Vec<_>, Vec<_>) = payloads(&packets).into_iter().partition(|text| text == "own");
        assert_eq!(
            (common, own.len()),
            (vec!["1".into(), "2".into(), "3".into(), "4".into()], 4),
            "{name}"
        );
    }
}

#[test]
fn an_old_session_of_3_lasts() {
    let mut net = durable();
    let client = net.connect(kept(V4, "a"));
    net.subscribe(client, &[("t", Q1)]);
    net.crash();
    let writer = net.client(V5, "w");
    net.deliver(writer, acked("t", "x", Q1, 1));
    let client = net.dial(kept(V4, "a"));
    let packets = net.take(client);
    assert!(matches!(&packets[0], Packet::ConnAck(connack) if connack.session_present));
    assert_eq!(packets[1..], [Packet::Publish(acked("t", "x", Q1, 1))]);
    net.crash();
    net.client(V4, "a");
    net.crash();
    net.connect(Connect {
        clean_start: false,
        ..Connect::new(V4, "a")
    });
}
