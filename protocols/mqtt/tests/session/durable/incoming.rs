//! Messages that clients send: acknowledged when they cannot be lost, and QoS 2 handed out once.

use broker_core::ReasonCode;
use mqtt::codec::Packet;

use super::{CRASHES, Crash, durable, payloads};
use crate::net::*;

#[test]
fn puback_waits_for_a_message_that_somebody_keeps() {
    for is_retained in [false, true] {
        let mut net = durable();
        if !is_retained {
            net.leave_session("r", &[("t", Q1)]);
        }
        let writer = net.client(V5, "w");
        net.hold_commits();
        let mut publish = acked("t", "x", Q1, 1);
        publish.retain = is_retained;
        net.send(writer, Packet::Publish(publish));
        let mut answer = puback(1);
        if is_retained {
            answer = because(answer, ReasonCode::NoMatchingSubscribers);
        }
        net.expect_after_commit(writer, answer);
    }
}

#[test]
fn what_nobody_keeps_waits_for_nothing() {
    let mut net = durable();
    net.leave_session("r", &[("kept", Q1)]);
    let reader = net.subscriber(V4, "live", &[("t", Q2)]);
    let writer = net.client(V4, "w");
    net.hold_commits();
    net.send(writer, Packet::Publish(acked("t", "1", Q1, 1)));
    net.expect(writer, puback(1));
    net.deliver(writer, acked("t", "2", Q2, 2));
    assert_eq!(net.publishes(reader).len(), 2);
    // Nor does quality of service 0, for which nothing is promised.
    net.send(writer, Packet::Publish(message("kept", "3")));
    assert_eq!(net.node.store().pending(), 0);
}

#[test]
fn an_acknowledged_message_is_not_lost_and_one_that_is_not_may_come_again() {
    for crash in CRASHES {
        let mut net = durable();
        net.leave_session("r", &[("t", Q1)]);
        let writer = net.client(V4, "w");
        net.deliver(writer, acked("t", "first", Q1, 1));
        net.hold_commits();
        net.send(writer, Packet::Publish(acked("t", "second", Q1, 2)));
        net.crash_at(crash, writer, puback(2));
        let writer = net.client(V4, "w");
        if crash != Crash::After {
            net.deliver(writer, dup(acked("t", "second", Q1, 2)));
        }
        net.deliver(writer, acked("t", "third", Q1, 3));
        let (_, packets) = net.backlog("r");
        let expected: &[&str] = match crash {
            Crash::Untold => &["first", "second", "second", "third"],
            Crash::Before | Crash::After => &["first", "second", "third"],
        };
        assert_eq!(payloads(&packets), expected, "{crash:?}");
    }
}

#[test]
fn a_message_for_many_is_committed_once() {
    let mut net = durable();
    for name in ["a", "b", "c", "d", "e"] {
        net.leave_session(name, &[("t/#", Q1), ("+/x", Q2)]);
    }
    let bytes = |net: &mut Net| net.node.store().log_bytes();
    let writer = net.client(V4, "w");
    let before = bytes(&mut net);
    net.deliver(writer, acked("t/x", &"y".repeat(10_000), Q1, 1));
    let after = bytes(&mut net);
    assert!((10_000..11_000).contains(&(after - before)), "{}", after - before);
    for name in ["a", "b", "c", "d", "e"] {
        let (_, packets) = net.backlog(name);
        assert_eq!(packets.len(), 1, "{name}");
    }
}

#[test]
fn a_session_that_is_there_gets_what_is_committed_and_nothing_else() {
    let mut net = durable();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q1)]);
    let writer = net.client(V4, "w");
    net.hold_commits();
    net.send(writer, Packet::Publish(acked("t", "x", Q1, 1)));
    net.expect_nothing(reader);
    net.expect_after_commit(writer, puback(1));
    net.expect(reader, Packet::Publish(acked("t", "x", Q1, 1)));
}

/// [MQTT-4.3.3-10]: between PUBREC and PUBREL the message is not handed out again, also if the process was killed.
#[test]
fn a_message_of_qos_2_is_taken_once_wherever_the_process_is_killed() {
    for first in CRASHES {
        for second in CRASHES {
            let mut net = durable();
            net.leave_session("r", &[("t", Q2)]);
            let mut writer = net.connect(kept(V5, "w"));
            net.hold_commits();
            net.send(writer, Packet::Publish(acked("t", "x", Q2, 9)));
            net.crash_at(first, writer, pubrec(9));
            writer = net.resume(kept(V5, "w"));
            if first != Crash::After {
                net.send(writer, Packet::Publish(dup(acked("t", "x", Q2, 9))));
                net.expect(writer, pubrec(9));
            }
            net.hold_commits();
            net.send(writer, pubrel(9));
            net.crash_at(second, writer, pubcomp(9));
            writer = net.resume(kept(V5, "w"));
            if second != Crash::After {
                net.send(writer, pubrel(9));
                let unknown = because(pubcomp(9), ReasonCode::PacketIdentifierNotFound);
                let answer = if second == Crash::Before {
                    pubcomp(9)
                } else {
                    unknown
                };
                net.expect(writer, answer);
            }
            // The identifier is free again.
            net.deliver(writer, acked("t", "y", Q2, 9));
            let (_, packets) = net.backlog("r");
            assert_eq!(payloads(&packets), ["x", "y"], "{first:?} {second:?}");
        }
    }
}

#[test]
fn pubrec_waits_for_the_identifier_of_a_session_that_lasts() {
    // Nobody keeps the message, but the sender may ask again after a crash.
    let mut net = durable();
    let live = net.subscriber(V4, "live", &[("t", Q0)]);
    let writer = net.connect(kept(V5, "w"));
    net.hold_commits();
    net.send(writer, Packet::Publish(acked("t", "x", Q2, 1)));
    net.expect_after_commit(writer, pubrec(1));
    net.crash();
    let _ = live;
    let live = net.subscriber(V4, "live", &[("t", Q0)]);
    let writer = net.resume(kept(V5, "w"));
    net.send(writer, Packet::Publish(dup(acked("t", "x", Q2, 1))));
    net.expect(writer, pubrec(1));
    net.expect_nothing(live);
}

#[test]
fn a_repetition_while_the_commit_waits_is_answered_once_it_is_done() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q2)]);
    let writer = net.connect(kept(V5, "w"));
    net.hold_commits();
    net.send(writer, Packet::Publish(acked("t", "x", Q2, 1)));
    net.send(writer, Packet::Publish(dup(acked("t", "x", Q2, 1))));
    net.expect_nothing(writer);
    net.commit();
    net.expect_all(writer, &[pubrec(1), pubrec(1)]);
    let (_, packets) = net.backlog("r");
    assert_eq!(payloads(&packets), ["x"]);
}

/// [MQTT-4.6.0-2]
#[test]
fn acknowledgements_keep_the_order_of_the_messages() {
    let mut net = durable();
    net.leave_session("r", &[("kept", Q1)]);
    let writer = net.connect(kept(V5, "w"));
    net.hold_commits();
    let topics = ["kept", "free", "kept", "free", "free", "kept"];
    for (number, topic) in (1..).zip(topics) {
        net.send(writer, Packet::Publish(acked(topic, "x", Q1, number)));
    }
    net.expect_nothing(writer);
    net.commit();
    let answers: Vec<_> = (1..)
        .zip(topics)
        .map(|(number, topic)| match topic {
            "kept" => puback(number),
            _ => because(puback(number), ReasonCode::NoMatchingSubscribers),
        })
        .collect();
    net.expect_all(writer, &answers);
}
