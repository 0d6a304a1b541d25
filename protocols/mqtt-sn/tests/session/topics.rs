//! Topic ids (§6.5, §6.7, §6.9, §6.10).

use std::sync::{Arc, Mutex};

use mqtt_sn::codec::{Message, MsgId, Publish, PublishQoS, Topic, TopicId, TopicName};

use crate::net::*;

fn by_id(id: u16) -> TopicName<'static> {
    TopicName::Predefined(TopicId(id))
}

#[test]
fn the_same_name_has_the_same_id_however_it_is_asked_for() {
    let mut net = Net::new();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.ask(&client, register(0, 1, "a"), &[regack(1025, 1, Accepted)]);
    net.ask(&client, register(0, 2, "b"), &[regack(1026, 2, Accepted)]);
    net.ask(&client, register(0, 3, "a"), &[regack(1025, 3, Accepted)]);
    net.ask(
        &client,
        subscribe(4, Q1, TopicName::Name("b")),
        &[suback(1026, 4, Q1, Accepted)],
    );
    net.ask(
        &client,
        subscribe(5, Q1, TopicName::Name("c")),
        &[suback(1027, 5, Q1, Accepted)],
    );
    for filter in ["a/+", "#", "$share/g/a"] {
        net.ask(
            &client,
            subscribe(6, Q1, TopicName::Name(filter)),
            &[suback(0, 6, Q1, Accepted)],
        );
    }
    net.ask(&client, register(0, 7, "d"), &[regack(1028, 7, Accepted)]);
    // Another session has ids of its own.
    net.connect(&at(2), clean("d"));
    net.ask(&at(2), register(0, 1, "b"), &[regack(1025, 1, Accepted)]);
}

#[test]
fn predefined_topics_need_no_registration_and_go_first() {
    for (client_id, name) in [("c", "predefined/seven"), ("own", "predefined/own")] {
        let mut net = Net::new();
        let mut probe = net.probe();
        probe.subscribe(&mut net.node, "predefined/#");
        let client = at(1);
        net.connect(&client, clean(client_id));
        net.ask(
            &client,
            publish(Topic::Predefined(TopicId(7)), Q1, 1, "up"),
            &[puback(7, 1, Accepted)],
        );
        net.ask(&client, register(0, 2, name), &[regack(7, 2, Accepted)]);
        net.ask(
            &client,
            publish(normal(7), Q1, 3, "up"),
            &[puback(7, 3, Accepted)],
        );
        assert!(probe.take().iter().all(|got| got.0 == name));
        net.ask(
            &client,
            subscribe(4, Q1, TopicName::Name(name)),
            &[suback(7, 4, Q1, Accepted)],
        );
        probe.publish(&mut net.node, name, "down", Q0);
        let down = publish(Topic::Predefined(TopicId(7)), Q0, 0, "down");
        net.expect(&client, &[down]);
        let unsubscribe = Message::Unsubscribe {
            msg_id: MsgId(5),
            topic: by_id(7),
        };
        net.ask(&client, unsubscribe, &[Message::UnsubAck(MsgId(5))]);
        probe.publish(&mut net.node, name, "down", Q0);
        net.expect(&client, &[]);
        net.ask(&client, subscribe(6, Q1, by_id(7)), &[suback(7, 6, Q1, Accepted)]);
        probe.publish(&mut net.node, name, "down", Q0);
        net.expect(&client, &[down]);
    }
}

#[test]
fn a_client_that_does_not_know_a_predefined_or_short_topic_is_told() {
    for (name, topic, wire) in [
        ("predefined/seven", Topic::Predefined(TopicId(7)), 7),
        ("ab", Topic::Short(*b"ab"), u16::from_be_bytes(*b"ab")),
    ] {
        let mut net = Net::new();
        let mut probe = net.probe();
        let client = at(1);
        net.connect(&client, clean("c"));
        net.ask(
            &client,
            subscribe(1, Q1, TopicName::Name("#")),
            &[suback(0, 1, Q1, Accepted)],
        );
        probe.publish(&mut net.node, name, "one", Q1);
        net.expect(&client, &[publish(topic, Q1, 1, "one")]);
        net.ask(
            &client,
            puback(wire, 1, InvalidTopicId),
            &[register(1025, 2, name)],
        );
        net.ask(
            &client,
            regack(1025, 2, Accepted),
            &[dup(publish(normal(1025), Q1, 1, "one"))],
        );
        net.ask(&client, puback(1025, 1, Accepted), &[]);
        probe.publish(&mut net.node, name, "two", Q1);
        net.expect(&client, &[publish(normal(1025), Q1, 2, "two")]);
    }
}

#[test]
fn ids_that_nobody_knows_are_refused() {
    let mut net = Net::new();
    let client = at(1);
    net.connect(&client, clean("c"));
    for topic in [
        normal(1025),
        normal(8),
        Topic::Predefined(TopicId(8)),
        Topic::Predefined(TopicId(1025)),
    ] {
        let id = topic.as_topic_id().0;
        for (qos, msg_id) in [(Q0, 0), (Q1, 1), (Q2, 2)] {
            net.ask(
                &client,
                publish(topic, qos, msg_id, "x"),
                &[puback(id, msg_id, InvalidTopicId)],
            );
        }
    }
    net.ask(
        &client,
        subscribe(3, Q1, by_id(8)),
        &[suback(0, 3, Q0, InvalidTopicId)],
    );
    let unsubscribe = Message::Unsubscribe {
        msg_id: MsgId(4),
        topic: by_id(8),
    };
    net.ask(&client, unsubscribe, &[Message::UnsubAck(MsgId(4))]);
}

#[test]
fn at_the_limit_of_ids_requests_are_refused_and_deliveries_dropped() {
    let mut net = Net::with(|settings| settings.max_topic_ids = 2, |_| {});
    let mut probe = net.probe();
    let client = at(1);
    net.connect(&client, clean("c"));
    net.ask(&client, register(0, 1, "a"), &[regack(1025, 1, Accepted)]);
    net.ask(
        &client,
        subscribe(2, Q1, TopicName::Name("b")),
        &[suback(1026, 2, Q1, Accepted)],
    );
    net.ask(&client, register(0, 3, "c"), &[regack(0, 3, Congestion)]);
    net.ask(
        &client,
        subscribe(4, Q1, TopicName::Name("c")),
        &[suback(0, 4, Q0, Congestion)],
    );
    net.ask(
        &client,
        subscribe(5, Q1, TopicName::Name("#")),
        &[suback(0, 5, Q1, Accepted)],
    );
    for qos in [Q0, Q1, Q2] {
        probe.publish(&mut net.node, "one/more", "lost", qos);
    }
    probe.publish(&mut net.node, "b", "found", Q1);
    let got = net.take(&client);
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(matches!(got[0], Message::Publish(publish) if publish.data == b"found"));
}

#[test]
fn no_id_is_promised_before_it_is_stored() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.ask(
        &client,
        subscribe(1, Q1, TopicName::Name("a/#")),
        &[suback(0, 1, Q1, Accepted)],
    );
    net.node.hold_commits(true);
    net.ask(&client, register(0, 2, "x"), &[]);
    net.ask(&client, register(0, 2, "x"), &[]);
    net.ask(&client, subscribe(3, Q1, TopicName::Name("y")), &[]);
    net.node.hold_commits(false);
    let mut got = net.take(&client);
    got.sort_by_key(|message| matches!(message, Message::SubAck { .. }));
    assert_eq!(got, [regack(1025, 2, Accepted), suback(1026, 3, Q1, Accepted)]);
    net.node.hold_commits(true);
    probe.publish(&mut net.node, "a/b", "zero", Q0);
    net.expect(&client, &[]);
    net.node.hold_commits(false);
    let got = net.take(&client);
    assert!(
        matches!(
            got[..],
            [Message::Register {
                topic_id: TopicId(1027),
                ..
            }]
        ),
        "{got:?}"
    );
}

#[test]
fn after_a_new_connection_ids_are_good_and_are_told_again_before_they_are_used() {
    for crashes in [false, true] {
        let mut net = Net::new();
        let mut probe = net.probe();
        let client = at(1);
        net.connect(&client, kept("c"));
        net.ask(
            &client,
            subscribe(1, Q1, TopicName::Name("a")),
            &[suback(1025, 1, Q1, Accepted)],
        );
        net.ask(&client, register(0, 2, "b"), &[regack(1026, 2, Accepted)]);
        if crashes {
            net.crash();
            probe = net.probe();
        } else {
            net.ask(&client, Message::Disconnect(None), &[Message::Disconnect(None)]);
        }
        net.connect(&client, kept("c"));
        net.ask(
            &client,
            publish(normal(1026), Q1, 3, "up"),
            &[puback(1026, 3, Accepted)],
        );
        probe.publish(&mut net.node, "a", "one", Q1);
        net.expect(&client, &[register(1025, 1, "a")]);
        net.ask(
            &client,
            regack(1025, 1, Accepted),
            &[publish(normal(1025), Q1, 1, "one")],
        );
        net.ask(&client, puback(1025, 1, Accepted), &[]);
        // With CleanSession, nothing is left of them.
        net.connect(&client, clean("c"));
        net.ask(
            &client,
            publish(normal(1026), Q1, 4, "up"),
            &[puback(1026, 4, InvalidTopicId)],
        );
    }
}

#[test]
fn predefined_topics_that_change_are_those_of_the_common_client_too() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "#");
    let current = Arc::new(Mutex::new(Arc::clone(&net.settings)));
    let now = Arc::clone(&current);
    let peer = mqtt_sn::Peer::common(
        Arc::new(move || Arc::clone(&now.lock().expect("one thread"))),
        "common",
        1,
    );
    let link = net.node.open(peer);
    let message = Message::Publish(Publish {
        dup: false,
        qos: PublishQoS::WithoutConnection,
        retain: false,
        topic: Topic::Predefined(TopicId(7)),
        msg_id: MsgId(0),
        data: b"x",
    });
    net.node.datagram(link, &encode(&message));
    let mut settings = settings();
    settings.predefined = Arc::new(mqtt_sn::Predefined {
        global: [(TopicId(7), Arc::from("another"))].into(),
        ..Default::default()
    });
    let counters = Arc::clone(&settings.counters);
    *current.lock().expect("one thread") = Arc::new(settings);
    net.node.datagram(link, &encode(&message));
    net.node.datagram(link, &encode(&Message::PingReq("")));
    let topics: Vec<String> = probe.take().into_iter().map(|got| got.0).collect();
    assert_eq!(topics, ["predefined/seven", "another"]);
    // Of this listener alone.
    assert_eq!(counters.received_unexpected.get(), 1);
}
