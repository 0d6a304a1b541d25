//! Retained and delayed messages, and Wills that wait.

use broker_core::ReasonCode;
use mqtt::codec::{Connect, Packet};

use super::{CRASHES, Crash, durable};
use crate::net::*;

/// What is retained for `#`, by topic.
fn kept_messages(net: &mut Net) -> Vec<(String, String)> {
    let reader = net.client(V5, "look");
    net.send(reader, subscribe(1, &[sub("#", Q1)]));
    let mut packets = net.take(reader);
    assert_eq!(packets.remove(0), suback(1, &[ReasonCode::GrantedQoS1]));
    let mut found: Vec<_> = packets
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) if publish.retain => {
                let payload = String::from_utf8_lossy(publish.payload).into_owned();
                (publish.topic.to_owned(), payload)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort();
    net.disconnect(reader);
    found
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned()))
        .collect()
}

fn nobody(packet: Packet<'static>) -> Packet<'static> {
    because(packet, ReasonCode::NoMatchingSubscribers)
}

#[test]
fn a_retained_message_that_was_acknowledged_is_there() {
    for crash in CRASHES {
        let mut net = durable();
        let writer = net.client(V5, "w");
        net.hold_commits();
        net.send(writer, Packet::Publish(retained(acked("t", "x", Q1, 1))));
        net.crash_at(crash, writer, nobody(puback(1)));
        let expected: &[_] = if crash == Crash::Before {
            &[]
        } else {
            &[("t", "x")]
        };
        assert_eq!(kept_messages(&mut net), pairs(expected), "{crash:?}");
    }
}

#[test]
fn the_last_retained_message_counts_and_an_empty_one_removes_it() {
    let mut net = durable();
    let writer = net.client(V5, "w");
    for (number, (topic, payload)) in
        (1..).zip([("a", "old"), ("b", "old"), ("a", "new"), ("b", ""), ("c/d", "x")])
    {
        net.send(
            writer,
            Packet::Publish(retained(acked(topic, payload, Q1, number))),
        );
        net.expect(writer, nobody(puback(number)));
    }
    for _ in 0..2 {
        net.crash();
        assert_eq!(kept_messages(&mut net), pairs(&[("a", "new"), ("c/d", "x")]));
    }
    let writer = net.client(V5, "w");
    net.hold_commits();
    net.send(writer, Packet::Publish(retained(acked("a", "", Q1, 9))));
    net.crash_at(Crash::After, writer, nobody(puback(9)));
    assert_eq!(kept_messages(&mut net), pairs(&[("c/d", "x")]));
}

#[test]
fn retained_messages_expire_while_the_process_is_down() {
    let mut net = durable();
    let writer = net.client(V5, "w");
    for (number, seconds) in [(1, 5), (2, 30)] {
        let topic = seconds.to_string();
        net.send(
            writer,
            Packet::Publish(retained(expiring(acked(&topic, "x", Q1, number), seconds))),
        );
        net.expect(writer, nobody(puback(number)));
    }
    net.crash_for(10);
    assert_eq!(kept_messages(&mut net), pairs(&[("30", "x")]));
    net.pass(21);
    net.pass_slot();
    assert_eq!(kept_messages(&mut net), []);
    net.crash();
    assert_eq!(kept_messages(&mut net), []);
}

#[test]
fn a_retained_message_is_seen_by_who_subscribes_after_its_acknowledgement() {
    for shards in [1, 3] {
        let mut net = Net::with_shards(shards, |_| {});
        let writer = net.client(V5, "w");
        net.hold_commits();
        net.send(writer, Packet::Publish(retained(acked("t", "x", Q1, 1))));
        net.expect_after_commit(writer, nobody(puback(1)));
        assert_eq!(kept_messages(&mut net), pairs(&[("t", "x")]));
    }
}

#[test]
fn a_delayed_message_that_was_acknowledged_comes_in_its_time() {
    for crash in CRASHES {
        let mut net = durable();
        let writer = net.client(V4, "w");
        net.hold_commits();
        net.send(writer, Packet::Publish(acked("$delayed/10/t", "x", Q1, 1)));
        net.crash_at(crash, writer, puback(1));
        let reader = net.subscriber(V4, "r", &[("t", Q0)]);
        net.pass(9);
        net.expect_nothing(reader);
        net.pass(1);
        net.pass_slot();
        if crash == Crash::Before {
            net.expect_nothing(reader);
        } else {
            net.expect(reader, Packet::Publish(message("t", "x")));
        }
        // It does not come a second time.
        net.crash();
        let reader = net.subscriber(V4, "r", &[("t", Q0)]);
        net.pass(60);
        net.expect_nothing(reader);
    }
}

#[test]
fn a_delayed_message_whose_time_comes_while_the_process_is_down_is_late() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q1)]);
    let writer = net.client(V4, "w");
    net.deliver(writer, acked("$delayed/10/t", "x", Q1, 1));
    net.crash_for(60);
    net.pass_slot();
    let (_, packets) = net.backlog("r");
    assert_eq!(packets, [Packet::Publish(acked("t", "x", Q1, 1))]);
    net.crash_for(60);
    let (_, packets) = net.backlog("r");
    assert_eq!(
        packets.len(),
        1,
        "sent again, since it was not acknowledged, but not published again"
    );
}

/// A Will of QoS 1 that waits for ten seconds, of a session that is kept for an hour.
fn patient() -> Connect<'static> {
    let mut connect = with_will(kept(V5, "a"), "will");
    if let Some(will) = &mut connect.will {
        will.delay_interval = 10;
        will.qos = Q1;
    }
    connect
}

fn the_will() -> Packet<'static> {
    Packet::Publish(acked("will", "will", Q1, 1))
}

#[test]
fn a_will_that_waits_is_published_after_a_crash() {
    let mut net = durable();
    let client = net.connect(patient());
    net.cut(client);
    net.pass(4);
    net.crash();
    let watcher = net.subscriber(V5, "watcher", &[("will", Q1)]);
    net.pass(5);
    net.expect_nothing(watcher);
    net.pass(1);
    net.pass_slot();
    net.expect(watcher, the_will());
    net.crash();
    let watcher = net.subscriber(V5, "watcher", &[("will", Q1)]);
    net.pass(60);
    net.expect_nothing(watcher);
}

/// The client was there when the process was killed: it is lost since then.
#[test]
fn the_will_of_a_client_that_was_there_is_published_after_a_crash() {
    let mut net = durable();
    net.leave_session("watcher", &[("will", Q1)]);
    net.connect(patient());
    net.pass(60);
    net.crash_for(3);
    net.pass(10);
    net.pass_slot();
    let (_, packets) = net.backlog("watcher");
    assert_eq!(packets, [the_will()]);
}

#[test]
fn a_will_whose_time_comes_while_the_process_is_down_is_late() {
    let mut net = durable();
    net.leave_session("watcher", &[("will", Q1)]);
    let client = net.connect(patient());
    net.cut(client);
    net.crash_for(60);
    net.pass_slot();
    let (_, packets) = net.backlog("watcher");
    assert_eq!(packets, [the_will()]);
}

/// [MQTT-3.1.3-9]
#[test]
fn who_is_back_in_time_takes_its_will_back() {
    let mut net = durable();
    let client = net.connect(patient());
    net.cut(client);
    net.crash_for(5);
    let watcher = net.subscriber(V5, "watcher", &[("will", Q1)]);
    net.resume(kept(V5, "a"));
    net.pass(60);
    net.expect_nothing(watcher);
    net.crash();
    let watcher = net.subscriber(V5, "watcher", &[("will", Q1)]);
    net.pass(60);
    net.expect_nothing(watcher);
}

#[test]
fn the_will_of_a_client_that_said_goodbye_does_not_come_after_a_crash() {
    let mut net = durable();
    let client = net.connect(patient());
    net.disconnect(client);
    net.crash();
    let watcher = net.subscriber(V5, "watcher", &[("will", Q1)]);
    net.pass(7200);
    net.expect_nothing(watcher);
}

#[test]
fn a_will_for_a_session_that_is_away_lasts() {
    let mut net = durable();
    net.leave_session("watcher", &[("will", Q1)]);
    let mut connect = with_will(Connect::new(V5, "a"), "will");
    if let Some(will) = &mut connect.will {
        will.qos = Q1;
        will.retain = true;
    }
    let client = net.connect(connect);
    net.cut(client);
    net.crash();
    let (_, packets) = net.backlog("watcher");
    assert_eq!(packets, [the_will()]);
    assert_eq!(kept_messages(&mut net), pairs(&[("will", "will")]));
}
