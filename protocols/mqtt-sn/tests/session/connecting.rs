//! CONNECT and the Will (§6.2 to §6.4), keep alive, DISCONNECT.

use mqtt_sn::codec::{Connect, Message, MsgId, Node, Topic, TopicName, Will};

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

/// Nobody is sent more than it has asked for before it has shown that it hears.
#[test]
fn the_will_is_asked_for_once_for_each_question() {
    let mut net = Net::new();
    let client = at(1);
    let mut connect = clean("c");
    connect.will = true;
    net.ask(&client, Message::Connect(connect), &[Message::WillTopicReq]);
    net.pass(20);
    net.expect(&client, &[]);
    net.ask(&client, Message::Connect(connect), &[Message::WillTopicReq]);
    let topic = Message::WillTopic(Some(Will {
        qos: Q1,
        retain: false,
        topic: "gone",
    }));
    net.ask(&client, topic, &[Message::WillMsgReq]);
    net.pass(5);
    net.expect(&client, &[]);
    net.ask(&client, topic, &[Message::WillMsgReq]);
    net.ask(&client, Message::WillMsg(b"c"), &[Message::ConnAck(Accepted)]);
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

/// CONNECT with a Will, and the Will.
fn connect_with_will(
    net: &mut Net,
    client: &broker_core::Remote,
    connect: Connect<'_>,
    topic: &str,
    message: &str,
) {
    let connect = Connect {
        will: true,
        ..connect
    };
    net.ask(client, Message::Connect(connect), &[Message::WillTopicReq]);
    let will = Will {
        qos: Q1,
        retain: false,
        topic,
    };
    net.ask(client, Message::WillTopic(Some(will)), &[Message::WillMsgReq]);
    net.ask(
        client,
        Message::WillMsg(message.as_bytes()),
        &[Message::ConnAck(Accepted)],
    );
}

fn got(topic: &str, payload: &str) -> crate::probe::Got {
    (topic.to_owned(), payload.to_owned(), Q1, false)
}

#[test]
fn clean_session_and_will_flag_decide_about_subscriptions_and_will() {
    // §6.3: (CleanSession, Will) and whether the subscription and which Will are there afterwards.
    for (is_clean, will, keeps, expected) in [
        (true, true, false, Some("new")),
        (true, false, false, None),
        (false, true, true, Some("new")),
        (false, false, true, Some("old")),
    ] {
        let mut net = Net::new();
        let mut probe = net.probe();
        probe.subscribe(&mut net.node, "will/#");
        let client = at(1);
        connect_with_will(&mut net, &client, kept("c"), "will/old", "old");
        net.ask(
            &client,
            subscribe(1, Q1, TopicName::Name("ab")),
            &[suback(1025, 1, Q1, Accepted)],
        );
        // From sleep, so that the old Will has not been published.
        net.ask(
            &client,
            Message::Disconnect(Some(100)),
            &[Message::Disconnect(None)],
        );
        net.pass(5);
        let connect = Connect {
            clean_session: is_clean,
            ..clean("c")
        };
        if will {
            connect_with_will(&mut net, &client, connect, "will/new", "new");
        } else {
            net.connect(&client, connect);
        }
        assert_eq!(probe.take(), []);
        probe.publish(&mut net.node, "ab", "x", Q0);
        assert_eq!(net.take(&client).len(), usize::from(keeps));
        net.pass(100);
        let expected = expected.map(|will| got(&format!("will/{will}"), will));
        assert_eq!(probe.take(), Vec::from_iter(expected));
        net.take(&client);
    }
}

#[test]
fn the_will_can_be_changed_and_deleted_while_connected() {
    let will = |topic| Will {
        qos: Q1,
        retain: false,
        topic,
    };
    let responses = [Message::WillTopicResp(Accepted)];
    for (updates, expected) in [
        (
            vec![Message::WillTopicUpd(Some(will("will/b")))],
            Some(got("will/b", "one")),
        ),
        (vec![Message::WillMsgUpd(b"two")], Some(got("will/a", "two"))),
        (vec![Message::WillTopicUpd(None)], None),
        (
            vec![
                Message::WillTopicUpd(None),
                Message::WillTopicUpd(Some(will("will/c"))),
                Message::WillMsgUpd(b"3"),
            ],
            Some(got("will/c", "3")),
        ),
    ] {
        let mut net = Net::new();
        let mut probe = net.probe();
        probe.subscribe(&mut net.node, "will/#");
        let client = at(1);
        connect_with_will(&mut net, &client, clean("c"), "will/a", "one");
        for update in updates {
            match update {
                Message::WillMsgUpd(_) => net.ask(&client, update, &[Message::WillMsgResp(Accepted)]),
                update => net.ask(&client, update, &responses),
            }
        }
        net.pass(100);
        assert_eq!(probe.take(), Vec::from_iter(expected));
        net.take(&client);
    }
    let mut net = Net::new();
    net.connect(&at(1), clean("c"));
    net.ask(
        &at(1),
        Message::WillMsgUpd(b"of what"),
        &[Message::WillMsgResp(NotSupported)],
    );
}

#[test]
fn the_same_connect_again_is_answered_again_and_another_one_begins_anew() {
    let mut net = Net::new();
    let client = at(1);
    net.connect(&client, clean("c"));
    net.pass(15);
    net.connect(&client, clean("c"));
    net.ask(&client, register(0, 1, "a"), &[regack(1025, 1, Accepted)]);
    // It has gone on: this is a client that has started again.
    net.connect(&client, clean("c"));
    net.ask(
        &client,
        publish(normal(1025), Q1, 2, "x"),
        &[puback(1025, 2, InvalidTopicId)],
    );
    net.connect(&client, clean("d"));
    net.ask(&client, Message::PingReq("d"), &[Message::PingResp]);
    net.connect(&at(2), clean("c"));
}

#[test]
fn a_client_that_starts_again_has_not_lost_its_connection() {
    // §6.3: what becomes of the old Will is said by the new CONNECT.
    for (connect, expected) in [(kept("c"), Some(got("will/a", "one"))), (clean("c"), None)] {
        let mut net = Net::new();
        let mut probe = net.probe();
        probe.subscribe(&mut net.node, "will/#");
        let client = at(1);
        connect_with_will(&mut net, &client, kept("c"), "will/a", "one");
        net.ask(&client, Message::PingReq(""), &[Message::PingResp]);
        net.pass(40);
        net.connect(&client, connect);
        net.pass(60);
        assert_eq!(probe.take(), []);
        net.pass(40);
        assert_eq!(probe.take(), Vec::from_iter(expected));
        net.take(&client);
    }
    // Another client in its place, or one that does not come to the end of its CONNECT.
    for is_other in [true, false] {
        let mut net = Net::new();
        let mut probe = net.probe();
        probe.subscribe(&mut net.node, "will/#");
        let client = at(1);
        connect_with_will(&mut net, &client, kept("c"), "will/a", "one");
        net.pass(41);
        let client_id = if is_other { "d" } else { "c" };
        let connect = Connect {
            will: true,
            ..clean(client_id)
        };
        net.ask(&client, Message::Connect(connect), &[Message::WillTopicReq]);
        assert_eq!(probe.take().len(), usize::from(is_other));
        net.pass(60);
        assert_eq!(probe.take().len(), usize::from(!is_other));
        net.take(&client);
    }
}

#[test]
fn refusals_have_a_return_code() {
    let long = "x".repeat(200);
    for (client_id, code) in [
        (&*long, NotSupported),
        ("banned", mqtt_sn::codec::ReturnCode::Other(0x80)),
    ] {
        let mut net = Net::with(|_| {}, |common| common.config.mqtt.max_clientid_len = 100);
        if client_id == "banned" {
            let mut common = anonymous();
            common.admission.authentication = broker_core::admission::AuthenticationChain::new(false);
            net.node.reconfigure(common);
        }
        net.ask(
            &at(1),
            Message::Connect(clean(client_id)),
            &[Message::ConnAck(code)],
        );
        net.expect_gone(&at(1));
    }
}

#[test]
fn silence_ends_a_connection_after_half_as_much_again() {
    for (duration, seconds) in [(60, 90), (3601, 5402), (0, 86_400)] {
        let mut net = Net::new();
        net.connect(
            &at(1),
            Connect {
                duration,
                ..clean("c")
            },
        );
        net.pass(seconds - 1);
        net.ask(&at(1), Message::PingReq(""), &[Message::PingResp]);
        net.pass(seconds - 1);
        net.expect(&at(1), &[]);
        net.pass(1);
        net.expect(&at(1), &[Message::Disconnect(None)]);
        net.expect_gone(&at(1));
    }
}

#[test]
fn a_node_behind_a_forwarder_has_a_connection_of_its_own() {
    let mut net = Net::new();
    let forwarder = at(1);
    net.connect(&forwarder, clean("forwarder"));
    let node = |id: &[u8]| broker_core::Remote {
        node: Some(id.into()),
        ..at(1)
    };
    for (id, client_id) in [(&b"\x01"[..], "one"), (b"\x02\x03", "two")] {
        let mut envelope = bytes::BytesMut::new();
        Node {
            radius: 0,
            id,
            inner: &encode(&Message::Connect(clean(client_id))),
        }
        .encode(&mut envelope);
        net.datagram(&forwarder, None, &envelope);
        let out = net.take_all();
        let [(remote, datagram)] = &out[..] else {
            panic!("one answer, not {out:?}");
        };
        assert_eq!(*remote, node(id));
        let opened = Node::decode(datagram).expect("an envelope");
        assert_eq!(
            (opened.id, Message::decode(opened.inner)),
            (id, Ok(Message::ConnAck(Accepted)))
        );
    }
}

#[test]
fn what_a_client_cannot_say_stands_in_the_configuration() {
    let mut net = Net::with(
        |settings| {
            settings.clientinfo_override.clientid = Some("sn-${Packet.headers.clientid}".to_owned());
            settings.clientinfo_override.username =
                Some("${ConnInfo.identity}@${ConnInfo.peerhost}".to_owned());
            settings.mountpoint = "${username}/".into();
        },
        |_| {},
    );
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "#");
    let identity = broker_core::Identity::Psk("key".into());
    net.datagram(&at(1), Some(&identity), &encode(&Message::Connect(clean("c"))));
    net.expect(&at(1), &[Message::ConnAck(Accepted)]);
    net.send(&at(1), publish(Topic::Short(*b"ab"), Q0, 0, "x"));
    assert_eq!(probe.take()[0].0, "key@10.0.0.1/ab");
    net.ask(&at(1), Message::PingReq("c"), &[Message::PingResp]);
    net.ask(
        &at(1),
        Message::Disconnect(Some(100)),
        &[Message::Disconnect(None)],
    );
    net.datagram(&at(2), Some(&identity), &encode(&Message::PingReq("c")));
    net.expect(&at(2), &[Message::PingResp]);
    net.ask(&at(2), Message::PingReq("sn-c"), &[Message::Disconnect(None)]);
}

#[test]
fn without_a_client_id_nothing_is_kept() {
    let mut net = Net::new();
    net.connect(&at(1), kept(""));
    net.ask(&at(1), register(0, 1, "a"), &[regack(1025, 1, Accepted)]);
    net.pass(3);
    net.connect(&at(1), kept(""));
    net.ask(
        &at(1),
        publish(normal(1025), Q1, 2, "x"),
        &[puback(1025, 2, InvalidTopicId)],
    );
    net.ask(&at(1), Message::Disconnect(None), &[Message::Disconnect(None)]);
    let sessions = |net: &Net| {
        (0..SHARDS)
            .map(|shard| net.node.shard(shard).stats().sessions.get())
            .sum::<u64>()
    };
    assert_eq!(sessions(&net), 0);
}
