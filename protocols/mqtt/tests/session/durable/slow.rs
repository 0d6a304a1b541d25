//! Storage that is slow, full or broken.

use broker_core::{ReasonCode, store::Fault};
use mqtt::codec::Packet;

use super::{durable, payloads};
use crate::net::*;

#[test]
fn only_who_needs_the_store_waits_for_it() {
    let mut net = durable();
    net.leave_session("r", &[("kept", Q1)]);
    let live = net.subscriber(V4, "live", &[("#", Q1)]);
    let (slow, quick) = (net.client(V4, "slow"), net.client(V4, "quick"));
    net.hold_commits();
    net.send(slow, Packet::Publish(acked("kept", "x", Q1, 1)));
    net.expect_nothing(slow);
    for number in 1..=100 {
        net.deliver(quick, acked("free", "x", Q1, number));
    }
    assert!(
        net.publishes(live).len() >= 20,
        "as many as it has not acknowledged"
    );
    net.client(V5, "another");
    net.subscriber(V5, "one more", &[("free", Q1)]);
    net.expect_after_commit(slow, puback(1));
}

/// A publisher that adds more than the store takes is not read any more, and goes on when there is room.
#[test]
fn what_waits_for_the_store_is_bounded() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q1)]);
    let (writer, other) = (net.client(V4, "w"), net.client(V4, "o"));
    net.hold_commits();
    let payload = "x".repeat(700 << 10);
    for number in 1..=30 {
        net.send(writer, Packet::Publish(acked("t", &payload, Q1, number)));
    }
    net.expect_nothing(writer);
    for _ in 0..net.node.store().pending() {
        net.node.complete_commit();
    }
    let answered = net.take(writer).len();
    assert!((1..30).contains(&answered), "{answered} were read");
    net.deliver(other, acked("free", "x", Q1, 1));
    net.commit();
    assert_eq!(answered + net.take(writer).len(), 30);
    net.expect_open(writer);
}

#[test]
fn a_message_that_a_full_store_does_not_take_is_not_acknowledged() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q2)]);
    let (old, new) = (net.client(V4, "old"), net.connect(kept(V5, "new")));
    net.node.store().fail(Some(Fault::Full));
    net.send(new, Packet::Publish(acked("t", "1", Q1, 1)));
    net.expect(new, because(puback(1), ReasonCode::QuotaExceeded));
    net.send(new, Packet::Publish(acked("t", "2", Q2, 2)));
    net.expect(new, because(pubrec(2), ReasonCode::QuotaExceeded));
    net.expect_open(new);
    net.send(old, Packet::Publish(acked("t", "3", Q1, 3)));
    net.expect_end(old, ReasonCode::QuotaExceeded);
    net.node.store().fail(None);
    // The identifier of the refused message is free.
    net.deliver(new, acked("t", "4", Q2, 2));
    let (_, packets) = net.backlog("r");
    assert_eq!(payloads(&packets), ["4"]);
}

#[test]
fn nothing_is_promised_by_a_store_that_has_failed() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q1)]);
    let client = net.connect(kept(V5, "a"));
    let live = net.subscriber(V4, "live", &[("free", Q1)]);
    net.node.store().fail(Some(Fault::Failed("no disk".into())));
    let newcomer = net.dial(kept(V5, "b"));
    let connack = net.connack(newcomer);
    assert!(connack.reason.is_error(), "{connack:?}");
    net.expect_closed(newcomer);
    net.send(client, subscribe(1, &[sub("x", Q1)]));
    let packets = net.take(client);
    assert!(
        !packets.iter().any(|packet| matches!(packet, Packet::SubAck(_))),
        "{packets:?}"
    );
    net.expect_closed(client);
    // What needs no store goes on.
    let writer = net.client(V4, "w");
    net.deliver(writer, acked("free", "x", Q1, 1));
    assert_eq!(net.publishes(live).len(), 1);
    net.send(writer, Packet::Publish(acked("t", "x", Q1, 2)));
    net.expect_nothing(writer);
    net.expect_closed(writer);
}

/// The backlog of a session is read in pages, while it is taken: it need not fit into memory.
#[test]
fn a_long_backlog_comes_whole_and_in_order() {
    const COUNT: u16 = 3000;
    let mut net = super::durable_with(|config| {
        config.mqtt.max_mqueue_len = 0;
        config.mqtt.max_mqueue_bytes = 0;
    });
    net.leave_session("r", &[("t/#", Q1)]);
    let writer = net.client(V4, "w");
    for number in 1..=COUNT {
        let topic = format!("t/{}", number % 7);
        net.deliver(writer, acked(&topic, &number.to_string(), Q1, number));
    }
    net.crash();
    let (reader, mut packets) = net.backlog("r");
    let mut got = Vec::new();
    while !packets.is_empty() {
        got.extend(payloads(&packets));
        for packet in packets {
            if let Packet::Publish(publish) = packet {
                net.send(reader, puback(publish.packet_id.unwrap().get()));
            }
        }
        packets = net.take(reader);
    }
    let expected: Vec<_> = (1..=COUNT).map(|number| number.to_string()).collect();
    assert_eq!(got, expected);
}

/// Of what waits for a session that is away only so much is kept, the newest.
#[test]
fn the_limit_of_the_queue_holds_for_a_backlog() {
    let mut net = super::durable_with(|config| config.mqtt.max_mqueue_len = 5);
    net.leave_session("r", &[("t", Q1)]);
    let writer = net.client(V4, "w");
    for number in 1..=12 {
        net.deliver(writer, acked("t", &number.to_string(), Q1, number));
    }
    net.crash();
    let (_, packets) = net.backlog("r");
    assert_eq!(payloads(&packets), ["8", "9", "10", "11", "12"]);
}

#[test]
fn a_subscription_begins_with_its_commit_also_after_a_crash() {
    let mut net = durable();
    net.leave_session("other", &[("t", Q1)]);
    let writer = net.client(V4, "w");
    let reader = net.connect(kept(V5, "r"));
    net.hold_commits();
    net.send(writer, Packet::Publish(acked("t", "old", Q1, 1)));
    net.send(reader, subscribe(1, &[sub("t", Q1)]));
    net.expect_nothing(reader);
    net.commit();
    net.expect(writer, puback(1));
    net.expect(reader, suback(1, &[ReasonCode::GrantedQoS1]));
    net.deliver(writer, acked("t", "new", Q1, 2));
    assert_eq!(payloads(&net.take(reader)), ["new"]);
    net.crash();
    let (_, packets) = net.backlog("r");
    assert_eq!(payloads(&packets), ["new"]);
}
