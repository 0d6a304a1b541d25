//! What the session keeps: topic ids that cannot be noted, the guard, the Will over goodbyes and over other CONNECTs.

use broker_core::store::Fault;
use mqtt_sn::codec::{Connect, Message, TopicName, Will};

use crate::net::*;

const BYE: Message<'static> = Message::Disconnect(None);

/// The client is asked for its Will and names it.
fn connect_with_will(net: &mut Net, client: &broker_core::Remote, connect: Connect<'_>) {
    net.ask(
        client,
        Message::Connect(Connect {
            will: true,
            ..connect
        }),
        &[Message::WillTopicReq],
    );
    let topic = Will {
        qos: Q0,
        retain: false,
        topic: "will",
    };
    net.ask(client, Message::WillTopic(Some(topic)), &[Message::WillMsgReq]);
    net.send(client, Message::WillMsg(b"w"));
}

#[test]
fn a_topic_id_that_cannot_be_stored_is_tried_again_after_a_while() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.ask(
        &client,
        subscribe(1, Q0, TopicName::Name("a/#")),
        &[suback(0, 1, Q0, Accepted)],
    );
    net.node.store().fail(Some(Fault::Full));
    probe.publish(&mut net.node, "a/b", "1", Q0);
    for round in 0..3 {
        net.expect(&client, &[]);
        net.ask(
            &client,
            register(0, 2 + round, "x"),
            &[regack(0, 2 + round, Congestion)],
        );
        net.pass(10);
    }
    net.node.store().fail(None);
    net.pass(10);
    let got = net.take(&client);
    assert!(
        matches!(got[..], [Message::Register { topic_id, .. }] if topic_id.0 == 1025),
        "{got:?}"
    );
}

#[test]
fn topic_names_leave_room_for_the_sleep() {
    let mut net = Net::new();
    let client = at(1);
    net.connect(&client, kept("c"));
    let mut msg_id = 0;
    for len in [30_000, 1_000, 30] {
        let mut is_full = false;
        while !is_full {
            msg_id += 1;
            let name = format!("{msg_id:0>len$}");
            net.send(&client, register(0, msg_id, &name));
            is_full = net.take(&client) == [regack(0, msg_id, Congestion)];
            assert!(is_full || msg_id < 100, "more than a session may note");
        }
    }
    net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
    net.pass(50);
    net.ask(&at(2), Message::PingReq("c"), &[Message::PingResp]);
}

#[test]
fn who_said_goodbye_cannot_be_woken() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.ask(
        &client,
        subscribe(1, Q1, TopicName::Short(*b"ab")),
        &[suback(0, 1, Q1, Accepted)],
    );
    net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
    probe.publish(&mut net.node, "ab", "1", Q1);
    net.send(&client, Message::PingReq("c"));
    assert_eq!(net.take(&client).len(), 1, "it is awake and has got the message");
    net.ask(&client, BYE, &[BYE]);
    net.ask(&at(2), Message::PingReq("c"), &[BYE]);
}

#[test]
fn a_client_that_is_cut_off_after_a_copy_of_its_connect_can_be_woken() {
    let mut net = Net::new();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
    net.connect(&client, kept("c"));
    let link = net.link(&client).expect("it is connected");
    net.node.cut(link);
    net.pass(50);
    net.ask(&at(2), Message::PingReq("c"), &[Message::PingResp]);
}

#[test]
fn a_will_outlives_a_goodbye_with_its_session() {
    for is_clean in [true, false] {
        for is_killed in [true, false] {
            let mut net = Net::new();
            let client = at(1);
            connect_with_will(&mut net, &client, if is_clean { clean("c") } else { kept("c") });
            net.expect(&client, &[Message::ConnAck(Accepted)]);
            net.ask(&client, BYE, &[BYE]);
            if is_killed {
                net.crash();
            }
            let mut probe = net.probe();
            probe.subscribe(&mut net.node, "will");
            net.pass(1000);
            net.connect(&client, kept("c"));
            assert_eq!(probe.take(), [], "a goodbye is no loss");
            net.pass(1000);
            assert_eq!(
                probe.take().len(),
                usize::from(!is_clean),
                "{is_clean} {is_killed}"
            );
        }
    }
}

#[test]
fn a_connect_while_the_one_before_is_decided_about_publishes_no_will() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "will");
    let client = at(1);
    net.node.hold_commits(true);
    connect_with_will(&mut net, &client, kept("c"));
    net.ask(&client, Message::Connect(kept("c")), &[]);
    net.node.hold_commits(false);
    net.expect(&client, &[Message::ConnAck(Accepted)]);
    assert_eq!(probe.take(), [], "it is there");
    net.pass(1000);
    assert_eq!(
        probe.take().len(),
        1,
        "the second CONNECT has kept the Will of the first"
    );
}

#[test]
fn a_client_that_is_awake_does_not_wait_for_a_store_that_is_full() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = at(1);
    net.connect(&client, kept("c"));
    net.ask(
        &client,
        subscribe(1, Q1, TopicName::Name("a/#")),
        &[suback(0, 1, Q1, Accepted)],
    );
    net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
    probe.publish(&mut net.node, "a/b", "1", Q1);
    net.node.hold_commits(true);
    net.send(&client, Message::PingReq("c"));
    assert!(net.node.complete_commit(), "it is awake");
    net.node.store().fail(Some(Fault::Full));
    net.node.hold_commits(false);
    net.node.store().fail(None);
    net.pass(5);
    // Nobody has stored that it sleeps again, so that it asks once more.
    net.send(&client, Message::PingReq("c"));
    let got = net.take(&client);
    assert!(matches!(got[..], [Message::Register { .. }]), "{got:?}");
}
