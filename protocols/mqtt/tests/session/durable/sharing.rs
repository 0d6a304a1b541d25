//! Shared groups with members whose sessions last.

use broker_core::ReasonCode;
use mqtt::codec::Packet;

use super::{durable, payloads};
use crate::net::*;

#[test]
fn a_group_whose_members_are_away_keeps_its_messages() {
    let mut net = durable();
    for name in ["a", "b"] {
        net.leave_session(name, &[("$share/g/t", Q1)]);
    }
    let writer = net.client(V4, "w");
    for number in 1..=10 {
        net.deliver(writer, acked("t", &number.to_string(), Q1, number));
    }
    net.crash();
    let mut got = Vec::new();
    for name in ["a", "b"] {
        let (_, packets) = net.backlog(name);
        got.extend(payloads(&packets));
    }
    got.sort_by_key(|text| text.parse::<u16>().unwrap());
    let expected: Vec<_> = (1..=10).map(|number| number.to_string()).collect();
    assert_eq!(got, expected, "each to one of them");
}

#[test]
fn what_a_member_has_acknowledged_goes_to_nobody_else() {
    let mut net = durable();
    let first = net.connect(kept(V5, "a"));
    net.subscribe(first, &[("$share/g/t", Q1)]);
    let writer = net.client(V4, "w");
    for number in 1..=4 {
        net.deliver(writer, acked("t", &number.to_string(), Q1, number));
    }
    assert_eq!(net.publishes(first).len(), 4);
    for number in [1, 2] {
        net.send(first, puback(number));
    }
    net.pass(1);
    net.crash();
    let second = net.connect(kept(V5, "b"));
    net.send(second, subscribe(1, &[sub("$share/g/t", Q1)]));
    let mut packets = net.take(second);
    assert_eq!(packets.remove(0), suback(1, &[ReasonCode::GrantedQoS1]));
    let (_, of_first) = net.backlog("a");
    packets.extend(of_first);
    let mut got = payloads(&packets);
    got.sort();
    assert_eq!(got, ["3", "4"], "each to one of them");
}

#[test]
fn a_group_is_known_before_its_members_are_back() {
    let mut net = durable();
    net.leave_session("a", &[("$share/g/t/+", Q2), ("$share/h/t/+", Q1)]);
    net.crash();
    let writer = net.client(V4, "w");
    net.deliver(writer, acked("t/x", "1", Q2, 1));
    net.crash();
    let (_, packets) = net.backlog("a");
    assert_eq!(payloads(&packets), ["1", "1"], "one for each group");
}

#[test]
fn a_message_that_another_member_had_meanwhile_is_still_a_repetition() {
    let mut net = durable();
    let first = net.connect(kept(V5, "a"));
    net.subscribe(first, &[("$share/g/t", Q1)]);
    let writer = net.client(V4, "w");
    net.deliver(writer, acked("t", "1", Q1, 1));
    assert_eq!(net.publishes(first), [acked("t", "1", Q1, 1)]);
    let mut narrow = kept(V5, "b");
    narrow.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let second = net.connect(narrow);
    net.subscribe(second, &[("$share/g/t", Q1), ("u", Q1)]);
    net.deliver(writer, acked("u", "fills its window", Q1, 2));
    assert_eq!(payloads(&net.take(second)), ["fills its window"]);
    // It is given to the other one, and not sent.
    net.cut(first);
    net.expect_nothing(second);
    net.cut(second);
    let (_, packets) = net.backlog("a");
    let [Packet::Publish(publish)] = packets.as_slice() else {
        panic!("{packets:?}");
    };
    assert_eq!((publish.payload, publish.dup), (b"1".as_slice(), true));
}
