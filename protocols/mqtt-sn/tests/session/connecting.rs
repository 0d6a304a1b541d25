//! CONNECT and the Will (§6.2 to §6.4), keep alive, DISCONNECT.

use mqtt_sn::codec::{Message, MsgId, Topic, TopicName, Will};

use crate::net::*;

#[test]
fn a_client_connects_publishes_subscribes_and_is_delivered_to() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "#");
    let client = at(1);
    net.connect(&client, clean("c"));
    net.ask(&client, register(0, 1, "a/b"), &[regack(1025, 1, Accepted)]);
    for (qos, msg_id) in [(Q0, 0), (Q1, 2), (Q2, 3)] {
        net.send(&client, publish(normal(1025), qos, msg_id, "hello"));
    }
    net.expect(&client, &[puback(1025, 2, Accepted), Message::PubRec(MsgId(3))]);
    net.ask(&client, Message::PubRel(MsgId(3)), &[Message::PubComp(MsgId(3))]);
    let got = |qos| ("a/b".to_owned(), "hello".to_owned(), qos, false);
    assert_eq!(probe.take(), [got(Q0), got(Q1), got(Q2)]);

    net.ask(
        &client,
        subscribe(4, Q2, TopicName::Name("c/d")),
        &[suback(1026, 4, Q2, Accepted)],
    );
    probe.publish(&mut net.node, "c/d", "zero", Q0);
    net.expect(&client, &[publish(normal(1026), Q0, 0, "zero")]);
    probe.publish(&mut net.node, "c/d", "one", Q1);
    net.expect(&client, &[publish(normal(1026), Q1, 1, "one")]);
    net.ask(&client, puback(1026, 1, Accepted), &[]);
    probe.publish(&mut net.node, "c/d", "two", Q2);
    net.expect(&client, &[publish(normal(1026), Q2, 2, "two")]);
    net.ask(&client, Message::PubRec(MsgId(2)), &[Message::PubRel(MsgId(2))]);
    net.ask(&client, Message::PubComp(MsgId(2)), &[]);
    net.ask(&client, Message::PingReq(""), &[Message::PingResp]);
    net.ask(&client, Message::Disconnect(None), &[Message::Disconnect(None)]);
    net.expect_gone(&client);
}

#[test]
fn a_wildcard_subscriber_is_told_the_topic_before_the_message() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = at(1);
    net.connect(&client, clean("c"));
    net.ask(
        &client,
        subscribe(1, Q1, TopicName::Name("a/#")),
        &[suback(0, 1, Q1, Accepted)],
    );
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.expect(&client, &[register(1025, 2, "a/b")]);
    net.ask(
        &client,
        regack(1025, 2, Accepted),
        &[publish(normal(1025), Q1, 1, "one")],
    );
    net.ask(&client, puback(1025, 1, Accepted), &[]);
    probe.publish(&mut net.node, "a/b", "zero", Q0);
    net.expect(&client, &[publish(normal(1025), Q0, 0, "zero")]);
    probe.publish(&mut net.node, "predefined/seven", "nobody", Q0);
    net.ask(
        &client,
        subscribe(2, Q1, TopicName::Name("+")),
        &[suback(0, 2, Q1, Accepted)],
    );
    probe.publish(&mut net.node, "ab", "short", Q0);
    net.expect(&client, &[publish(Topic::Short(*b"ab"), Q0, 0, "short")]);
}

#[test]
fn the_will_is_asked_for_and_fires_when_the_client_is_silent() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "#");
    let client = at(1);
    let mut connect = clean("c");
    connect.will = true;
    net.ask(&client, Message::Connect(connect), &[Message::WillTopicReq]);
    let topic = Will {
        qos: Q1,
        retain: true,
        topic: "will",
    };
    net.ask(&client, Message::WillTopic(Some(topic)), &[Message::WillMsgReq]);
    net.ask(&client, Message::WillMsg(b"gone"), &[Message::ConnAck(Accepted)]);
    net.pass(89);
    assert_eq!(probe.take(), []);
    net.expect(&client, &[]);
    net.pass(2);
    assert_eq!(probe.take(), [("will".to_owned(), "gone".to_owned(), Q1, false)]);
    net.expect(&client, &[Message::Disconnect(None)]);
    net.expect_gone(&client);
}
