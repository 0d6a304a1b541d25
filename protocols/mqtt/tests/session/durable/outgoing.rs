//! Messages that clients get: all that were acknowledged, in order, and QoS 2 once.

use std::num::NonZeroU16;

use broker_core::QoS;
use mqtt::codec::{Packet, Publish};

use super::{CRASHES, Crash, durable, payloads};
use crate::net::*;

/// Acknowledgements of QoS 1 are committed after this time at the latest.
const FLUSH_MS: u64 = 1000;

fn publish(payload: &str, qos: QoS, packet_id: u16) -> Packet<'_> {
    Packet::Publish(acked("t", payload, qos, packet_id))
}

fn again(payload: &str, qos: QoS, packet_id: u16) -> Packet<'_> {
    Packet::Publish(dup(acked("t", payload, qos, packet_id)))
}

fn send_numbers(net: &mut Net, qos: QoS, numbers: std::ops::RangeInclusive<u16>) {
    let writer = net.client(V4, "w");
    for number in numbers {
        net.deliver(writer, acked("t", &number.to_string(), qos, number));
    }
    net.disconnect(writer);
}

#[test]
fn messages_for_a_session_that_is_away_come_in_order_after_a_crash() {
    for qos in [Q1, Q2] {
        let mut net = durable();
        net.leave_session("r", &[("t", Q2)]);
        send_numbers(&mut net, qos, 1..=50);
        net.crash();
        send_numbers(&mut net, qos, 51..=60);
        let mut connect = kept(V5, "r");
        connect.properties.receive_maximum = NonZeroU16::new(7);
        let reader = net.dial(connect);
        let mut packets = net.take(reader);
        packets.remove(0);
        let mut got = Vec::new();
        while !packets.is_empty() {
            assert!(packets.len() <= 7);
            for packet in packets {
                match packet {
                    Packet::Publish(publish) => {
                        got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                        let id = publish.packet_id.unwrap().get();
                        net.send(reader, if qos == Q2 { pubrec(id) } else { puback(id) });
                    }
                    Packet::PubRel(ack) => net.send(reader, pubcomp(ack.packet_id.get())),
                    other => panic!("{other:?}"),
                }
            }
            packets = net.take(reader);
        }
        let expected: Vec<_> = (1..=60).map(|number| number.to_string()).collect();
        assert_eq!(got, expected);
    }
}

/// [MQTT-4.4.0-1]: what was sent and not acknowledged comes again, under its identifier where one was promised.
#[test]
fn what_was_under_way_comes_again_after_a_crash() {
    let mut net = durable();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q2)]);
    send_numbers(&mut net, Q2, 1..=3);
    net.expect_all(
        reader,
        &[publish("1", Q2, 1), publish("2", Q2, 2), publish("3", Q2, 3)],
    );
    net.send(reader, pubrec(2));
    net.expect(reader, pubrel(2));
    net.crash();
    let (reader, packets) = net.backlog("r");
    assert_eq!(packets, [again("1", Q2, 1), pubrel(2), again("3", Q2, 3)]);
    net.send(reader, pubcomp(2));
    send_numbers(&mut net, Q2, 4..=4);
    net.expect(reader, publish("4", Q2, 4));
}

#[test]
fn messages_of_qos_1_under_way_come_again_marked_and_in_order() {
    let mut net = durable();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q1)]);
    send_numbers(&mut net, Q1, 1..=3);
    assert_eq!(net.publishes(reader).len(), 3);
    net.crash();
    send_numbers(&mut net, Q1, 4..=4);
    let (_, packets) = net.backlog("r");
    assert_eq!(payloads(&packets), ["1", "2", "3", "4"]);
    let is_dup = |packet: &Packet<'_>| matches!(packet, Packet::Publish(publish) if publish.dup);
    assert!(
        packets[..3].iter().all(is_dup),
        "they may have been sent before: {packets:?}"
    );
    assert!(!is_dup(&packets[3]), "this one was not");
}

/// Acknowledgements of subscribers wait for nothing; those of a crash's last moments may be lost.
#[test]
fn what_was_acknowledged_a_while_ago_does_not_come_again() {
    let mut net = durable();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q1)]);
    send_numbers(&mut net, Q1, 1..=4);
    assert_eq!(net.publishes(reader).len(), 4);
    // Out of order, so that a mere position would not do.
    for number in [3, 1] {
        net.send(reader, puback(number));
    }
    net.pass_ms(FLUSH_MS);
    net.crash();
    let (reader, packets) = net.backlog("r");
    assert_eq!(payloads(&packets), ["2", "4"]);
    for packet in &packets {
        if let Packet::Publish(publish) = packet {
            net.send(reader, puback(publish.packet_id.unwrap().get()));
        }
    }
    net.pass_ms(FLUSH_MS);
    net.crash();
    let (_, packets) = net.backlog("r");
    assert_eq!(packets, []);
}

#[test]
fn packet_identifiers_go_on() {
    let mut net = durable();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q2)]);
    for number in 1..=5 {
        send_numbers(&mut net, Q2, number..=number);
        net.expect(reader, publish(&number.to_string(), Q2, number));
        net.send(reader, pubrec(number));
        net.expect(reader, pubrel(number));
        net.send(reader, pubcomp(number));
    }
    net.pass_ms(FLUSH_MS);
    net.crash();
    let (reader, packets) = net.backlog("r");
    assert_eq!(packets, []);
    send_numbers(&mut net, Q2, 6..=6);
    net.expect(reader, publish("6", Q2, 6));
}

/// A client that has sent PUBREC must not get the message under another identifier, and one that has sent PUBCOMP not
/// at all [MQTT-4.3.3-6].
#[test]
fn a_message_of_qos_2_is_delivered_once_wherever_the_process_is_killed() {
    for sent in CRASHES {
        for released in CRASHES {
            let mut net = durable();
            let reader = net.connect(kept(V5, "r"));
            net.subscribe(reader, &[("t", Q2)]);
            let writer = net.client(V4, "w");
            // PUBLISH waits until its identifier is known to the store.
            net.hold_commits();
            net.send(writer, Packet::Publish(acked("t", "x", Q2, 1)));
            while net.take(writer).is_empty() {
                assert!(net.node.complete_commit(), "PUBREC waits for a commit");
            }
            net.crash_at(sent, reader, publish("x", Q2, 1));
            let (reader, mut packets) = net.backlog("r");
            let expected = if sent == Crash::Before {
                publish("x", Q2, 1)
            } else {
                again("x", Q2, 1)
            };
            assert_eq!(packets.remove(0), expected, "{sent:?}");

            // PUBREL waits until the store knows that PUBREC has come.
            net.hold_commits();
            net.send(reader, pubrec(1));
            net.crash_at(released, reader, pubrel(1));
            let (reader, packets) = net.backlog("r");
            if released == Crash::Before {
                assert_eq!(
                    packets,
                    [again("x", Q2, 1)],
                    "the client knows the identifier and drops it"
                );
                net.send(reader, pubrec(1));
                net.expect(reader, pubrel(1));
            } else {
                assert_eq!(packets, [pubrel(1)], "{released:?}");
            }
            net.send(reader, pubcomp(1));
            net.expect_nothing(reader);
            net.pass_ms(FLUSH_MS);
            net.crash();
            let (_, packets) = net.backlog("r");
            assert_eq!(packets, [], "{sent:?} {released:?}");
        }
    }
}

#[test]
fn a_pubcomp_that_was_lost_in_a_crash_is_asked_for_again() {
    let mut net = durable();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q2)]);
    send_numbers(&mut net, Q2, 1..=1);
    net.expect(reader, publish("1", Q2, 1));
    net.send(reader, pubrec(1));
    net.expect(reader, pubrel(1));
    net.hold_commits();
    net.send(reader, pubcomp(1));
    net.crash();
    let (reader, packets) = net.backlog("r");
    assert_eq!(packets, [pubrel(1)]);
    net.send(reader, pubcomp(1));
    net.pass_ms(FLUSH_MS);
    net.crash();
    let (_, packets) = net.backlog("r");
    assert_eq!(packets, []);
}

#[test]
fn a_crash_in_the_middle_of_a_backlog_loses_and_doubles_nothing_of_qos_2() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q2)]);
    send_numbers(&mut net, Q2, 1..=30);
    let mut got = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    while got.len() < 30 {
        let mut connect = kept(V5, "r");
        connect.properties.receive_maximum = NonZeroU16::new(4);
        let reader = net.dial(connect);
        let mut packets = net.take(reader);
        packets.remove(0);
        // Two rounds, then the next crash.
        for _ in 0..2 {
            for packet in packets {
                match packet {
                    Packet::Publish(publish) => {
                        let id = publish.packet_id.unwrap().get();
                        if known.insert(id) {
                            got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                        }
                        net.send(reader, pubrec(id));
                    }
                    Packet::PubRel(ack) => {
                        known.remove(&ack.packet_id.get());
                        net.send(reader, pubcomp(ack.packet_id.get()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            packets = net.take(reader);
        }
        net.crash();
    }
    let expected: Vec<_> = (1..=30).map(|number| number.to_string()).collect();
    assert_eq!(got, expected);
}

#[test]
fn messages_expire_while_the_process_is_down() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q1)]);
    let writer = net.client(V5, "w");
    for (number, seconds) in [(1, 5), (2, 30)] {
        let text = seconds.to_string();
        net.deliver(writer, expiring(acked("t", &text, Q1, number), seconds));
    }
    net.deliver(writer, acked("t", "never", Q1, 3));
    net.crash_for(10);
    let (_, packets) = net.backlog("r");
    let rest = expiring(acked("t", "30", Q1, 1), 20);
    assert_eq!(packets, [Packet::Publish(rest), publish("never", Q1, 2)]);
}

#[test]
fn a_message_says_the_same_after_a_crash() {
    let mut net = durable();
    net.leave_session("r", &[("t", Q1)]);
    let writer = net.client(V5, "w");
    // Payload format, content type, response topic, correlation data, user property.
    let properties = b"\x01\x01\x03\x00\x01t\x08\x00\x01r\x09\x00\x02\x00\xff\x26\x00\x01a\x00\x012";
    let publish = Publish {
        properties: properties.into(),
        ..acked("t", "x", Q1, 1)
    };
    net.deliver(writer, publish.clone());
    net.crash();
    let (_, packets) = net.backlog("r");
    assert_eq!(packets, [Packet::Publish(publish)]);
}
