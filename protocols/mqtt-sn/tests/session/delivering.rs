//! Messages for the client (§6.10, §6.13): order, repetition, refusals.

use mqtt_sn::codec::{Message, MsgId, TopicName};

use crate::{net::*, probe::Probe};

/// A client that has subscribed to everything below `a/`.
fn wildcard(net: &mut Net) -> (broker_core::Remote, Probe) {
    let probe = net.probe();
    let client = at(1);
    net.connect(
        &client,
        mqtt_sn::codec::Connect {
            duration: 0,
            ..kept("c")
        },
    );
    net.ask(
        &client,
        subscribe(1, Q2, TopicName::Name("a/#")),
        &[suback(0, 1, Q2, Accepted)],
    );
    (client, probe)
}

#[test]
fn one_register_at_a_time_and_messages_keep_their_order() {
    let mut net = Net::with(|settings| settings.max_inflight = 10, |_| {});
    let (client, mut probe) = wildcard(&mut net);
    for (topic, payload) in [("a/1", "1"), ("a/2", "2"), ("a/1", "3"), ("a/2", "4")] {
        probe.publish(&mut net.node, topic, payload, Q1);
    }
    net.expect(&client, &[register(1025, 2, "a/1")]);
    // Not its answer.
    net.ask(&client, regack(1025, 9, Accepted), &[]);
    net.ask(&client, regack(1026, 2, Accepted), &[]);
    let first = publish(normal(1025), Q1, 1, "1");
    net.ask(
        &client,
        regack(1025, 2, Accepted),
        &[first, register(1026, 3, "a/2")],
    );
    let rest = [
        publish(normal(1026), Q1, 2, "2"),
        publish(normal(1025), Q1, 3, "3"),
        publish(normal(1026), Q1, 4, "4"),
    ];
    net.ask(&client, regack(1026, 3, Accepted), &rest);
}

#[test]
fn what_is_not_answered_is_sent_again_and_in_the_end_the_client_is_lost() {
    let mut net = Net::new();
    let (client, mut probe) = wildcard(&mut net);
    probe.publish(&mut net.node, "a/b", "one", Q2);
    net.expect(&client, &[register(1025, 2, "a/b")]);
    net.pass(10);
    net.expect(&client, &[register(1025, 2, "a/b")]);
    let one = publish(normal(1025), Q2, 1, "one");
    net.ask(&client, regack(1025, 2, Accepted), &[one]);
    net.pass(20);
    net.expect(&client, &[dup(one), dup(one)]);
    let (rec, rel) = (Message::PubRec(MsgId(1)), Message::PubRel(MsgId(1)));
    net.ask(&client, rec, &[rel]);
    net.ask(&client, rec, &[rel]);
    net.pass(30);
    net.expect(&client, &[rel, rel, rel]);
    net.pass(10);
    net.expect(&client, &[Message::Disconnect(None)]);
    net.expect_gone(&client);
    net.send(&client, Message::Connect(kept("c")));
    net.expect(&client, &[Message::ConnAck(Accepted), rel]);
    net.ask(&client, Message::PubComp(MsgId(1)), &[]);
    net.pass(60);
    net.expect(&client, &[]);
}

#[test]
fn a_client_that_has_forgotten_an_id_is_told_it_again() {
    let mut net = Net::with(|settings| settings.max_inflight = 2, |_| {});
    let (client, mut probe) = wildcard(&mut net);
    probe.publish(&mut net.node, "a/b", "zero", Q0);
    net.expect(&client, &[register(1025, 2, "a/b")]);
    net.ask(
        &client,
        regack(1025, 2, Accepted),
        &[publish(normal(1025), Q0, 0, "zero")],
    );
    net.ask(&client, puback(1025, 0, InvalidTopicId), &[]);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    probe.publish(&mut net.node, "a/b", "two", Q2);
    net.expect(&client, &[register(1025, 3, "a/b")]);
    let (one, two) = (
        publish(normal(1025), Q1, 1, "one"),
        publish(normal(1025), Q2, 2, "two"),
    );
    net.ask(&client, regack(1025, 3, Accepted), &[one, two]);
    net.ask(
        &client,
        puback(1025, 2, InvalidTopicId),
        &[register(1025, 4, "a/b")],
    );
    net.ask(&client, puback(1025, 1, InvalidTopicId), &[]);
    net.ask(&client, regack(1025, 4, Accepted), &[dup(one), dup(two)]);
    // It accepts the id each time and never knows it: that ends.
    for msg_id in [5, 6] {
        net.ask(
            &client,
            puback(1025, 1, InvalidTopicId),
            &[register(1025, msg_id, "a/b")],
        );
        net.ask(&client, regack(1025, msg_id, Accepted), &[dup(one)]);
    }
    net.ask(&client, puback(1025, 1, InvalidTopicId), &[]);
    net.ask(&client, Message::PubRec(MsgId(2)), &[Message::PubRel(MsgId(2))]);
    net.ask(&client, Message::PubComp(MsgId(2)), &[]);
    net.pass(60);
    net.expect(&client, &[]);
}

#[test]
fn what_a_client_refuses_is_done_with() {
    let mut net = Net::new();
    let (client, mut probe) = wildcard(&mut net);
    for (qos, payload) in [(Q1, "1"), (Q2, "2"), (Q1, "3")] {
        probe.publish(&mut net.node, "a/b", payload, qos);
    }
    net.expect(&client, &[register(1025, 2, "a/b")]);
    net.ask(
        &client,
        regack(1025, 2, Accepted),
        &[publish(normal(1025), Q1, 1, "1")],
    );
    net.ask(
        &client,
        puback(1025, 1, NotSupported),
        &[publish(normal(1025), Q2, 2, "2")],
    );
    net.ask(
        &client,
        puback(1025, 2, NotSupported),
        &[publish(normal(1025), Q1, 3, "3")],
    );
    net.ask(&client, puback(1025, 3, Accepted), &[]);
    // A topic that it does not want to know takes its messages with it, and no others.
    probe.publish(&mut net.node, "a/c", "4", Q0);
    probe.publish(&mut net.node, "a/c", "5", Q1);
    probe.publish(&mut net.node, "a/b", "6", Q0);
    net.expect(&client, &[register(1026, 3, "a/c")]);
    net.ask(
        &client,
        regack(1026, 3, NotSupported),
        &[publish(normal(1025), Q0, 0, "6")],
    );
    net.pass(60);
    net.expect(&client, &[]);
}

#[test]
fn a_client_that_is_congested_is_left_alone_for_a_while() {
    let mut net = Net::new();
    let (client, mut probe) = wildcard(&mut net);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.expect(&client, &[register(1025, 2, "a/b")]);
    net.ask(&client, regack(1025, 2, Congestion), &[]);
    net.pass(299);
    net.expect(&client, &[]);
    net.pass(1);
    net.expect(&client, &[register(1025, 2, "a/b")]);
    let one = publish(normal(1025), Q1, 1, "one");
    net.ask(&client, regack(1025, 2, Accepted), &[one]);
    net.ask(&client, puback(1025, 1, Congestion), &[]);
    net.pass(299);
    net.expect(&client, &[]);
    net.pass(1);
    net.expect(&client, &[dup(one)]);
}

#[test]
fn qos_0_waits_for_topic_ids_up_to_a_bound() {
    let mut net = Net::with(|settings| settings.max_waiting = 3, |_| {});
    let (client, mut probe) = wildcard(&mut net);
    for n in 0..9 {
        probe.publish(&mut net.node, "a/b", &n.to_string(), Q0);
    }
    net.expect(&client, &[register(1025, 2, "a/b")]);
    let first = ["0", "1", "2"].map(|payload| publish(normal(1025), Q0, 0, payload));
    net.ask(&client, regack(1025, 2, Accepted), &first);
}

#[test]
fn retained_messages_say_so_and_what_is_too_long_is_not_sent() {
    let mut net = Net::new();
    let (_, mut probe) = wildcard(&mut net);
    probe.retain(&mut net.node, "r/1", "kept");
    let client = at(2);
    net.connect(&client, clean("d"));
    net.send(&client, subscribe(1, Q1, TopicName::Name("r/1")));
    let got = net.take(&client);
    assert_eq!(got[0], suback(1025, 1, Q1, Accepted));
    assert!(matches!(got[1], Message::Publish(publish) if publish.retain && publish.data == b"kept"));
    net.ask(&client, puback(1025, 1, Accepted), &[]);
    let (most, more) = (
        "x".repeat(mqtt_sn::peer::MESSAGE_BYTES_MAX - 9),
        "x".repeat(mqtt_sn::peer::MESSAGE_BYTES_MAX - 8),
    );
    probe.publish(&mut net.node, "r/1", &more, Q1);
    net.expect(&client, &[]);
    probe.publish(&mut net.node, "r/1", &most, Q1);
    net.expect(&client, &[publish(normal(1025), Q1, 3, &most)]);
}
