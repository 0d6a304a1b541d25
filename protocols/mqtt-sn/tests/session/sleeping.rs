//! Sleep (§6.14).

use broker_core::Identity;
use mqtt_sn::{
    Roaming,
    codec::{Message, MsgId, TopicName, Will},
};

use crate::net::*;

const BYE: Message<'static> = Message::Disconnect(None);

/// A client with a subscription to `a/#`, and the id 1025 for `a/b`.
fn sensor(net: &mut Net, is_clean: bool) -> broker_core::Remote {
    let client = at(1);
    net.connect(&client, if is_clean { clean("c") } else { kept("c") });
    net.ask(
        &client,
        subscribe(1, Q2, TopicName::Name("a/#")),
        &[suback(0, 1, Q2, Accepted)],
    );
    net.ask(&client, register(0, 2, "a/b"), &[regack(1025, 2, Accepted)]);
    client
}

fn asleep(net: &mut Net, is_clean: bool, seconds: u16) -> broker_core::Remote {
    let client = sensor(net, is_clean);
    net.ask(&client, Message::Disconnect(Some(seconds)), &[BYE]);
    client
}

#[test]
fn a_sleeping_client_gets_its_messages_when_it_wakes_then_pingresp() {
    for is_clean in [true, false] {
        let mut net = Net::new();
        let mut probe = net.probe();
        let client = asleep(&mut net, is_clean, 100);
        for round in 0..3 {
            net.pass(90);
            for (payload, qos) in [("0", Q0), ("1", Q1), ("2", Q2)] {
                probe.publish(&mut net.node, "a/b", payload, qos);
            }
            net.expect(&client, &[]);
            let id = |n: u16| round * 2 + n;
            net.send(&client, Message::PingReq("c"));
            let mut got = net.take(&client);
            // QoS 0 does not wait for what is acknowledged.
            got.sort_by_key(|message| matches!(message, Message::Publish(publish) if publish.msg_id.0 > 0));
            let first = [
                publish(normal(1025), Q0, 0, "0"),
                publish(normal(1025), Q1, id(1), "1"),
            ];
            assert_eq!(got, first);
            let second = publish(normal(1025), Q2, id(2), "2");
            net.ask(&client, puback(1025, id(1), Accepted), &[second]);
            let msg_id = MsgId(id(2));
            net.ask(&client, Message::PubRec(msg_id), &[Message::PubRel(msg_id)]);
            net.ask(&client, Message::PubComp(msg_id), &[Message::PingResp]);
        }
        net.ask(&client, Message::PingReq("c"), &[Message::PingResp]);
    }
}

#[test]
fn the_end_of_a_connection_that_slept_publishes_the_will_once_its_time_is_over() {
    let mut net = Net::new();
    let mut probe = net.probe();
    probe.subscribe(&mut net.node, "will");
    let client = at(1);
    let connect = mqtt_sn::codec::Connect {
        will: true,
        ..clean("c")
    };
    net.ask(&client, Message::Connect(connect), &[Message::WillTopicReq]);
    let topic = Will {
        qos: Q1,
        retain: false,
        topic: "will",
    };
    net.ask(&client, Message::WillTopic(Some(topic)), &[Message::WillMsgReq]);
    net.ask(&client, Message::WillMsg(b"lost"), &[Message::ConnAck(Accepted)]);
    net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
    net.pass(140);
    net.ask(&client, Message::PingReq("c"), &[Message::PingResp]);
    net.pass(149);
    assert_eq!(probe.take(), []);
    net.pass(3);
    assert_eq!(probe.take(), [("will".to_owned(), "lost".to_owned(), Q1, false)]);
    net.expect_gone(&client);
    net.ask(&client, Message::PingReq("c"), &[BYE]);
}

#[test]
fn a_sleeping_client_never_learns_of_a_restart() {
    for is_clean in [true, false] {
        let mut net = Net::new();
        let mut probe = net.probe();
        let client = asleep(&mut net, is_clean, 1000);
        probe.publish(&mut net.node, "a/b", "before", Q1);
        net.crash();
        let mut probe = net.probe();
        probe.publish(&mut net.node, "a/b", "after", Q1);
        // Its port may have changed as well.
        for (client, round) in [(client, 0), (at(2), 2)] {
            let (one, two) = (1 + round, 2 + round);
            net.ask(
                &client,
                Message::PingReq("c"),
                &[publish(normal(1025), Q1, one, "before")],
            );
            net.ask(
                &client,
                puback(1025, one, Accepted),
                &[publish(normal(1025), Q1, two, "after")],
            );
            net.ask(&client, puback(1025, two, Accepted), &[Message::PingResp]);
            net.crash();
            let mut probe = net.probe();
            probe.publish(&mut net.node, "a/b", "before", Q1);
            probe.publish(&mut net.node, "a/b", "after", Q1);
        }
        // A client that connects instead is told its topic ids again; if it asks for one first, that will do.
        let again = at(3);
        net.send(&again, Message::Connect(kept("c")));
        let present = [Message::ConnAck(Accepted), register(1025, 1, "a/b")];
        net.expect(&again, &present);
        let got = [regack(1025, 9, Accepted), publish(normal(1025), Q1, 5, "before")];
        net.ask(&again, register(0, 9, "a/b"), &got);
    }
}

#[test]
fn a_client_that_is_killed_with_the_gateway_while_awake_is_still_asleep() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 1000);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.ask(
        &client,
        Message::PingReq("c"),
        &[publish(normal(1025), Q1, 1, "one")],
    );
    net.crash();
    net.ask(
        &client,
        Message::PingReq("c"),
        &[dup(publish(normal(1025), Q1, 1, "one"))],
    );
    net.ask(&client, puback(1025, 1, Accepted), &[Message::PingResp]);
}

#[test]
fn disconnect_waits_until_the_sleep_is_stored() {
    let mut net = Net::new();
    let client = sensor(&mut net, true);
    net.node.hold_commits(true);
    net.ask(&client, Message::Disconnect(Some(100)), &[]);
    net.ask(&client, Message::Disconnect(Some(100)), &[]);
    net.node.hold_commits(false);
    net.expect(&client, &[BYE]);
}

#[test]
fn pingresp_comes_after_messages_that_wait_for_their_topic_id() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    for (payload, qos) in [("0", Q0), ("1", Q1)] {
        probe.publish(&mut net.node, "a/new", payload, qos);
    }
    net.ask(&client, Message::PingReq("c"), &[register(1026, 1, "a/new")]);
    net.send(&client, regack(1026, 1, Accepted));
    let mut got = net.take(&client);
    got.sort_by_key(|message| matches!(message, Message::Publish(publish) if publish.msg_id.0 > 0));
    assert_eq!(
        got,
        [
            publish(normal(1026), Q0, 0, "0"),
            publish(normal(1026), Q1, 1, "1")
        ]
    );
    net.ask(&client, puback(1026, 1, Accepted), &[Message::PingResp]);
    probe.publish(&mut net.node, "a/newer", "2", Q0);
    net.ask(&client, Message::PingReq("c"), &[register(1027, 1, "a/newer")]);
    net.ask(
        &client,
        regack(1027, 1, Accepted),
        &[publish(normal(1027), Q0, 0, "2"), Message::PingResp],
    );
    // Without it there is nothing to wait for any longer than the repetitions take.
    probe.publish(&mut net.node, "a/newest", "3", Q0);
    net.ask(&client, Message::PingReq("c"), &[register(1028, 1, "a/newest")]);
    net.pass(41);
    net.expect(&client, &[register(1028, 1, "a/newest"); 3]);
    net.ask(&client, Message::PingReq("c"), &[Message::PingResp]);
}

#[test]
fn a_client_that_is_congested_while_awake_sleeps_on() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    let one = publish(normal(1025), Q1, 1, "one");
    net.ask(&client, Message::PingReq("c"), &[one]);
    net.ask(&client, puback(1025, 1, Congestion), &[Message::PingResp]);
    net.ask(&client, Message::PingReq("c"), &[dup(one)]);
    net.ask(&client, puback(1025, 1, Accepted), &[Message::PingResp]);
    probe.publish(&mut net.node, "a/c", "two", Q1);
    net.ask(&client, Message::PingReq("c"), &[register(1026, 1, "a/c")]);
    net.ask(&client, regack(1026, 1, Congestion), &[Message::PingResp]);
    net.ask(&client, Message::PingReq("c"), &[register(1026, 1, "a/c")]);
    // The broker has handed it out before.
    let two = dup(publish(normal(1026), Q1, 2, "two"));
    net.ask(&client, regack(1026, 1, Accepted), &[two]);
    net.ask(&client, puback(1026, 2, Accepted), &[Message::PingResp]);
}

#[test]
fn a_client_that_has_slept_for_too_long_is_lost_and_has_to_connect() {
    let mut net = Net::new();
    let client = asleep(&mut net, true, 100);
    net.pass(152);
    net.expect_gone(&client);
    net.ask(&client, Message::PingReq("c"), &[BYE]);
    net.connect(&client, kept("c"));
    net.ask(
        &client,
        publish(normal(1025), Q1, 1, "x"),
        &[puback(1025, 1, InvalidTopicId)],
    );
}

#[test]
fn a_client_may_connect_when_it_has_just_fallen_asleep() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    net.connect(&client, clean("c"));
    net.ask(&client, Message::PingReq(""), &[Message::PingResp]);
    probe.publish(&mut net.node, "a/b", "one", Q0);
    net.expect(&client, &[register(1025, 1, "a/b")]);
}

#[test]
fn the_time_of_a_sleep_begins_with_pingresp() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.send(&client, Message::PingReq("c"));
    net.pass(35);
    net.take(&client);
    net.ask(&client, puback(1025, 1, Accepted), &[Message::PingResp]);
    net.pass(149);
    net.ask(&client, Message::PingReq("c"), &[Message::PingResp]);
}

#[test]
fn a_client_does_not_fall_asleep_over_its_own_messages() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.ask(
        &client,
        Message::PingReq("c"),
        &[publish(normal(1025), Q1, 1, "one")],
    );
    net.node.hold_commits(true);
    net.ask(&client, register(0, 5, "up"), &[]);
    net.ask(&client, puback(1025, 1, Accepted), &[]);
    net.node.hold_commits(false);
    net.expect(&client, &[regack(1026, 5, Accepted), Message::PingResp]);
}

#[test]
fn a_sleep_that_was_not_stored_is_asked_for_again() {
    for again in [Message::Disconnect(Some(100)), BYE, Message::Connect(clean("c"))] {
        let mut net = Net::new();
        let client = sensor(&mut net, true);
        net.node.hold_commits(true);
        net.ask(&client, Message::Disconnect(Some(100)), &[]);
        // Another one has come in its place before the broker knew of the sleep; or its commit failed.
        net.node.store().fail(Some(broker_core::store::Fault::Full));
        net.node.hold_commits(false);
        net.expect(&client, &[]);
        net.node.store().fail(None);
        net.pass(10);
        net.send(&client, again);
        let got = net.take(&client);
        assert_eq!(got.len(), 1, "{again:?}: {got:?}");
    }
}

#[test]
fn qos_0_waits_through_a_change_of_the_duration() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    probe.publish(&mut net.node, "a/b", "zero", Q0);
    net.ask(&client, Message::Disconnect(Some(1000)), &[BYE]);
    net.ask(
        &client,
        Message::PingReq("c"),
        &[publish(normal(1025), Q0, 0, "zero"), Message::PingResp],
    );
}

#[test]
fn a_client_that_does_not_answer_while_awake_sleeps_on_and_misses_nothing() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    let one = publish(normal(1025), Q1, 1, "one");
    net.ask(&client, Message::PingReq("c"), &[one]);
    net.pass(41);
    net.expect(&client, &[dup(one); 3]);
    net.ask(&client, Message::PingReq("c"), &[dup(one)]);
    net.ask(&client, puback(1025, 1, Accepted), &[Message::PingResp]);
    probe.publish(&mut net.node, "a/b", "two", Q1);
    net.ask(
        &client,
        Message::PingReq("c"),
        &[publish(normal(1025), Q1, 2, "two")],
    );
    net.pass(160);
    net.take(&client);
    net.ask(&client, Message::PingReq("c"), &[BYE]);
}

#[test]
fn a_repeated_pingreq_does_not_start_again() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, true, 100);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.ask(
        &client,
        Message::PingReq("c"),
        &[publish(normal(1025), Q1, 1, "one")],
    );
    net.ask(&client, Message::PingReq("c"), &[]);
    net.ask(&client, puback(1025, 1, Accepted), &[Message::PingResp]);
}

#[test]
fn a_sleeping_client_may_change_its_time_or_leave() {
    let mut net = Net::new();
    let client = asleep(&mut net, false, 100);
    net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
    net.ask(&client, Message::Disconnect(Some(1000)), &[BYE]);
    net.pass(1400);
    net.ask(&client, Message::PingReq("c"), &[Message::PingResp]);
    net.ask(&client, BYE, &[BYE]);
    net.expect_gone(&client);
    net.ask(&client, Message::PingReq("c"), &[BYE]);
    // It has left, and not lost its session.
    net.connect(&client, kept("c"));
    net.ask(&client, register(0, 9, "a/b"), &[regack(1025, 9, Accepted)]);
}

#[test]
fn connect_from_sleep_goes_on_or_starts_over() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let client = asleep(&mut net, false, 100);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.pass(3);
    net.send(&client, Message::Connect(kept("c")));
    net.expect(&client, &[Message::ConnAck(Accepted), register(1025, 1, "a/b")]);
    net.ask(
        &client,
        regack(1025, 1, Accepted),
        &[publish(normal(1025), Q1, 1, "one")],
    );
    net.ask(&client, puback(1025, 1, Accepted), &[]);
    net.ask(&client, Message::Disconnect(Some(100)), &[BYE]);
    probe.publish(&mut net.node, "a/b", "two", Q1);
    net.connect(&client, clean("c"));
    probe.publish(&mut net.node, "a/b", "three", Q1);
    net.expect(&client, &[]);
    net.ask(&client, register(0, 9, "x"), &[regack(1025, 9, Accepted)]);
}

#[test]
fn a_client_that_is_awake_may_connect_and_publish() {
    let mut net = Net::new();
    let mut probe = net.probe();
    let mut other = crate::probe::Probe::new(&mut net.node, "other");
    other.subscribe(&mut net.node, "x/#");
    let client = asleep(&mut net, true, 100);
    probe.publish(&mut net.node, "a/b", "one", Q1);
    net.ask(
        &client,
        Message::PingReq("c"),
        &[publish(normal(1025), Q1, 1, "one")],
    );
    net.ask(&client, register(0, 5, "x/y"), &[regack(1026, 5, Accepted)]);
    net.ask(
        &client,
        publish(normal(1026), Q1, 6, "up"),
        &[puback(1026, 6, Accepted)],
    );
    assert_eq!(other.take().len(), 1);
    net.send(&client, Message::Connect(kept("c")));
    let got = net.take(&client);
    assert_eq!(got, [Message::ConnAck(Accepted), register(1025, 1, "a/b")]);
    net.ask(
        &client,
        regack(1025, 1, Accepted),
        &[dup(publish(normal(1025), Q1, 1, "one"))],
    );
    net.ask(&client, puback(1025, 1, Accepted), &[]);
    net.ask(&client, Message::PingReq("c"), &[Message::PingResp]);
}

#[test]
fn who_is_connected_cannot_be_woken_from_elsewhere() {
    let mut net = Net::new();
    let client = sensor(&mut net, true);
    net.ask(&at(2), Message::PingReq("c"), &[BYE]);
    net.ask(&client, Message::PingReq(""), &[Message::PingResp]);
    net.ask(&client, Message::PingReq("d"), &[BYE]);
    net.ask(&at(2), Message::PingReq("nobody"), &[BYE]);
}

#[test]
fn from_where_a_client_may_wake() {
    let elsewhere = broker_core::Remote {
        address: ([10, 0, 0, 2], 1).into(),
        node: None,
    };
    for (roaming, other_port, other_host) in [
        (Roaming::Any, true, true),
        (Roaming::Host, true, false),
        (Roaming::Never, false, false),
    ] {
        for (from, may) in [
            (at(1), true),
            (at(2), other_port),
            (elsewhere.clone(), other_host),
        ] {
            let mut net = Net::with(|settings| settings.roaming = roaming, |_| {});
            asleep(&mut net, true, 100);
            let answer = if may { Message::PingResp } else { BYE };
            net.ask(&from, Message::PingReq("c"), &[answer]);
            // Whoever was refused has done no harm.
            let back = if may { from } else { at(1) };
            net.ask(&back, Message::PingReq("c"), &[Message::PingResp]);
        }
    }
}

#[test]
fn a_client_is_woken_on_its_own_listener_only() {
    let mut net = Net::new();
    asleep(&mut net, true, 100);
    net.listen_as("mqttsn:udp:other");
    net.ask(&at(2), Message::PingReq("c"), &[BYE]);
    net.listen_as("udp:default");
    net.ask(&at(3), Message::PingReq("c"), &[Message::PingResp]);
}

#[test]
fn who_has_overslept_has_to_connect() {
    let mut net = Net::new();
    asleep(&mut net, false, 100);
    net.pass(151);
    net.ask(&at(2), Message::PingReq("c"), &[BYE]);
    let mut connect = clean("c");
    connect.clean_session = false;
    net.ask(&at(3), Message::Connect(connect), &[Message::ConnAck(Accepted)]);
}

#[test]
fn a_secured_client_is_woken_by_its_own_identity_only() {
    let psk = |name: &str| Identity::Psk(name.into());
    let certificate = |subject: &str| {
        Identity::Certificate(std::sync::Arc::new(broker_core::CertificateInfo {
            common_name: None,
            subject: subject.to_owned(),
        }))
    };
    for (owner, other) in [
        (psk("a"), Some(psk("b"))),
        (psk("a"), None),
        (certificate("CN=a"), Some(certificate("CN=b"))),
        (certificate("a"), Some(psk("a"))),
    ] {
        let mut net = Net::new();
        net.datagram(&at(1), Some(&owner), &encode(&Message::Connect(clean("c"))));
        net.expect(&at(1), &[Message::ConnAck(Accepted)]);
        net.ask(&at(1), Message::Disconnect(Some(100)), &[BYE]);
        net.datagram(&at(2), other.as_ref(), &encode(&Message::PingReq("c")));
        net.expect(&at(2), &[BYE]);
        net.datagram(&at(3), Some(&owner), &encode(&Message::PingReq("c")));
        net.expect(&at(3), &[Message::PingResp]);
    }
}

#[test]
fn a_client_whose_id_was_chosen_for_it_wakes_where_it_fell_asleep() {
    let mut net = Net::new();
    net.connect(&at(1), kept(""));
    net.ask(&at(1), Message::Disconnect(Some(100)), &[BYE]);
    for _ in 0..2 {
        net.ask(&at(1), Message::PingReq(""), &[Message::PingResp]);
        net.ask(&at(1), Message::PingReq("c"), &[BYE]);
    }
}
