//! What a state does not allow, and what is no message.

use broker_core::{Message as Published, MessageParts};
use mqtt_sn::codec::{Connect, Message, MsgId, Topic, TopicId, TopicName, Will};

use crate::net::*;

const BYE: Message<'static> = Message::Disconnect(None);

/// One message of every type that a client sends, but CONNECT.
fn requests() -> Vec<Message<'static>> {
    let will = Will {
        qos: Q1,
        retain: false,
        topic: "w",
    };
    vec![
        Message::WillTopic(Some(will)),
        Message::WillTopic(None),
        Message::WillMsg(b"w"),
        register(0, 1, "a"),
        regack(1025, 1, Accepted),
        publish(normal(1025), Q0, 0, "x"),
        publish(normal(1025), Q1, 1, "x"),
        publish(normal(1025), Q2, 1, "x"),
        puback(1025, 1, Accepted),
        puback(1025, 1, InvalidTopicId),
        Message::PubRec(MsgId(1)),
        Message::PubRel(MsgId(1)),
        Message::PubRel(MsgId(0)),
        Message::PubComp(MsgId(1)),
        subscribe(1, Q1, TopicName::Name("a")),
        Message::Unsubscribe {
            msg_id: MsgId(1),
            topic: TopicName::Name("a"),
        },
        Message::PingReq(""),
        Message::PingReq("other"),
        Message::Disconnect(Some(10)),
        Message::WillTopicUpd(Some(will)),
        Message::WillMsgUpd(b"w"),
        // What gateways say.
        Message::ConnAck(Accepted),
        Message::PingResp,
        Message::WillTopicReq,
        suback(1, 1, Q0, Accepted),
        Message::UnsubAck(MsgId(1)),
        Message::WillTopicResp(Accepted),
        Message::WillMsgResp(Accepted),
    ]
}

#[test]
fn nothing_is_done_for_a_client_that_has_not_connected() {
    for message in requests() {
        let mut net = Net::new();
        let client = at(1);
        net.send(&client, message);
        let got = net.take(&client);
        assert!(got.is_empty() || got == [BYE], "{message:?}: {got:?}");
        net.expect_gone(&client);
        assert_eq!(
            net.node.shard(0).stats().sessions.get() + net.node.shard(1).stats().sessions.get(),
            0
        );
    }
}

#[test]
fn between_connect_and_connack_only_the_will_is_heard() {
    for message in requests() {
        let mut net = Net::new();
        let client = at(1);
        let connect = Connect {
            will: true,
            ..clean("c")
        };
        net.ask(&client, Message::Connect(connect), &[Message::WillTopicReq]);
        net.send(&client, message);
        let expected: &[Message<'_>] = match message {
            Message::WillTopic(Some(_)) => &[Message::WillMsgReq],
            Message::WillTopic(None) => &[Message::ConnAck(Accepted)],
            _ => &[],
        };
        net.expect(&client, expected);
        // It ends by itself.
        net.pass(100);
        assert!(net.take(&client).len() <= 3);
        if expected != [Message::ConnAck(Accepted)] {
            net.expect_gone(&client);
        }
    }
}

#[test]
fn a_broker_that_takes_its_time_is_asked_once() {
    let mut net = Net::new();
    let client = at(1);
    net.node.hold_commits(true);
    for message in requests().into_iter().chain([Message::Connect(kept("c")); 3]) {
        let mut other = Net::new();
        other.node.hold_commits(true);
        other.ask(&client, Message::Connect(kept("c")), &[]);
        other.send(&client, message);
        other.expect(&client, &[]);
        other.node.hold_commits(false);
        other.expect(&client, &[Message::ConnAck(Accepted)]);
    }
    net.ask(&client, Message::Connect(kept("c")), &[]);
    // It has changed its mind.
    net.ask(&client, Message::Connect(clean("d")), &[]);
    net.node.hold_commits(false);
    net.expect(&client, &[Message::ConnAck(Accepted)]);
    net.ask(&client, Message::PingReq("d"), &[Message::PingResp]);
    net.node.hold_commits(true);
    net.ask(&at(2), Message::Connect(kept("e")), &[]);
    net.ask(&at(2), BYE, &[BYE]);
    net.expect_gone(&at(2));
    net.node.hold_commits(false);
}

#[test]
fn a_sleeping_client_is_not_disturbed_by_what_makes_no_sense() {
    for message in requests() {
        let mut net = Net::new();
        let client = at(1);
        net.connect(&client, clean("c"));
        net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
        net.send(&client, message);
        net.take(&client);
        net.ask(&client, Message::PingReq("c"), &[Message::PingResp]);
    }
}

#[test]
fn more_requests_than_can_be_followed_are_refused() {
    let mut net = Net::new();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.ask(
        &client,
        subscribe(100, Q1, TopicName::Name("ab")),
        &[suback(1025, 100, Q1, Accepted)],
    );
    net.node.hold_commits(true);
    for msg_id in 1..=8 {
        net.ask(&client, publish(Topic::Short(*b"ab"), Q1, msg_id, "x"), &[]);
    }
    let ab = u16::from_be_bytes(*b"ab");
    net.ask(
        &client,
        publish(Topic::Short(*b"ab"), Q1, 9, "x"),
        &[puback(ab, 9, Congestion)],
    );
    net.ask(
        &client,
        publish(Topic::Short(*b"ab"), Q2, 9, "x"),
        &[puback(ab, 9, Congestion)],
    );
    net.ask(&client, publish(Topic::Short(*b"ab"), Q1, 8, "x"), &[]);
    net.ask(&client, register(0, 9, "new"), &[regack(0, 9, Congestion)]);
    net.ask(
        &client,
        subscribe(9, Q1, TopicName::Name("#")),
        &[suback(0, 9, Q0, Congestion)],
    );
    net.ask(&client, Message::PubRel(MsgId(9)), &[]);
    net.node.hold_commits(false);
    let acknowledged = net.take(&client);
    let expected: Vec<_> = (1..=8).map(|msg_id| puback(ab, msg_id, Accepted)).collect();
    let acks = acknowledged
        .into_iter()
        .filter(|message| matches!(message, Message::PubAck { .. }));
    assert_eq!(acks.collect::<Vec<_>>(), expected);
}

#[test]
fn a_message_of_qos_2_that_is_refused_leaves_its_number_free() {
    let mut net = Net::with(|_| {}, |common| common.config.mqtt.max_payload_size = 10);
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "ab");
    let client = at(1);
    net.connect(&client, clean("c"));
    let ab = u16::from_be_bytes(*b"ab");
    let large = publish(Topic::Short(*b"ab"), Q2, 5, "far too long");
    net.ask(&client, large, &[puback(ab, 5, Congestion)]);
    net.ask(
        &client,
        publish(Topic::Short(*b"ab"), Q2, 5, "short"),
        &[Message::PubRec(MsgId(5))],
    );
    assert_eq!(probe.take().len(), 1);
    net.ask(&client, Message::PubRel(MsgId(5)), &[Message::PubComp(MsgId(5))]);
}

#[test]
fn what_cannot_be_read_is_refused_where_there_are_words_for_it() {
    let mut net = Net::new();
    let client = at(1);
    // Protocol id 2.
    net.datagram(&client, None, &[7, 0x04, 0x04, 2, 0, 60, b'c']);
    net.expect(&client, &[Message::ConnAck(NotSupported)]);
    net.expect_gone(&client);
    net.connect(&client, clean("c"));
    // A reserved topic id type; a topic name that is a filter; reserved message types; wrong lengths.
    net.datagram(&client, None, &[8, 0x0C, 0x23, 0, 1, 0, 5, b'x']);
    net.expect(&client, &[puback(1, 5, NotSupported)]);
    net.datagram(&client, None, &[7, 0x0A, 0, 0, 0, 5, b'#']);
    net.expect(&client, &[regack(0, 5, NotSupported)]);
    for datagram in [
        &[2, 0x03][..],
        &[2, 0xFD],
        &[3, 0x16],
        &[1, 0, 5, 0x16],
        &[0],
        &[],
    ] {
        net.datagram(&client, None, datagram);
        net.expect(&client, &[]);
    }
    net.ask(&client, Message::PingReq(""), &[Message::PingResp]);
}

#[test]
fn qos_minus_1_of_a_connected_client_is_the_common_clients() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "ab");
    let client = at(1);
    net.connect(&client, clean("c"));
    // Behind the endpoint's back, it is nobody's.
    let link = net.link(&client).expect("connected");
    net.node
        .datagram(link, &encode(&without_connection(Topic::Short(*b"ab"), "x")));
    assert_eq!(probe.take(), []);
    net.send(&client, without_connection(Topic::Short(*b"ab"), "y"));
    assert_eq!(probe.take(), [("ab".to_owned(), "y".to_owned(), Q0, false)]);
}

#[test]
fn without_a_connection_only_topics_that_need_no_registration_are_published() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "#");
    for (topic, name) in [
        (Topic::Short(*b"ab"), Some("ab")),
        (Topic::Predefined(TopicId(7)), Some("predefined/seven")),
        (Topic::Predefined(TopicId(8)), None),
        (normal(7), None),
        (normal(1025), None),
    ] {
        net.send(&at(5), without_connection(topic, "x"));
        let got: Vec<String> = probe.take().into_iter().map(|got| got.0).collect();
        assert_eq!(got, Vec::from_iter(name.map(str::to_owned)), "{topic:?}");
    }
    net.expect(&at(5), &[]);
}

#[test]
fn the_common_client_comes_back_after_it_was_kicked_and_what_came_meanwhile_is_published() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "ab");
    net.send(&at(5), without_connection(Topic::Short(*b"ab"), "1"));
    // Another client under its id takes its session.
    let taker = crate::probe::Probe::new(&mut net.node, "NegQoS-Client");
    for n in 2..100 {
        net.send(&at(5), without_connection(Topic::Short(*b"ab"), &n.to_string()));
    }
    assert_eq!(probe.take().len(), 1);
    net.pass(2);
    assert_eq!(probe.take().len(), 64, "those that may wait");
    net.send(&at(5), without_connection(Topic::Short(*b"ab"), "last"));
    assert_eq!(probe.take().len(), 1);
    drop(taker);
}

#[test]
fn the_gateway_says_goodbye_to_who_is_kicked_or_taken_over() {
    let mut net = Net::new();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.connect(&at(2), kept("c"));
    net.expect(&client, &[BYE]);
    net.expect_gone(&client);
    for shard in 0..SHARDS {
        net.node.with_shard(shard, |shard, now| shard.shut_down(now));
    }
    net.expect(&at(2), &[BYE]);
    net.expect_gone(&at(2));
}

#[test]
fn a_message_outside_the_mountpoint_is_not_delivered() {
    let mut net = Net::with(|settings| settings.mountpoint = "m/".into(), |_| {});
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "#");
    let client = at(1);
    net.connect(&client, clean("c"));
    net.ask(
        &client,
        subscribe(1, Q1, TopicName::Name("#")),
        &[suback(0, 1, Q1, Accepted)],
    );
    net.ask(
        &client,
        publish(Topic::Short(*b"ab"), Q0, 0, "up"),
        &[publish(Topic::Short(*b"ab"), Q0, 0, "up")],
    );
    assert_eq!(probe.take(), [("m/ab".to_owned(), "up".to_owned(), Q0, false)]);
    for topic in ["m", "m/", "ab", "m/cd"] {
        let message = MessageParts::new(topic, b"down");
        let message: Published = message
            .publish(net.node.now(), broker_core::ClientInfo::system())
            .expect("a short topic");
        net.node.publish(0, message).expect("published");
    }
    net.expect(&client, &[publish(Topic::Short(*b"cd"), Q0, 0, "down")]);
}
