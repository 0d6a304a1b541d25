//! SUBSCRIBE and UNSUBSCRIBE: filters, options, identifiers, prefixes.

use std::sync::Arc;

use broker_core::{
    ReasonCode, SubscribeOptions,
    hooks::{AutoSubscribe, AutoSubscribeTopic, Rewrite, RewriteAction, RewriteRule},
};
use mqtt::codec::{Packet, Publish, Subscribe};

use crate::net::*;

fn with_id<'a>(
    packet_id: u16,
    subscription_id: u32,
    filters: &'a [mqtt::codec::Subscription<'a>],
) -> Packet<'a> {
    Packet::Subscribe(Subscribe {
        subscription_id: Some(subscription_id),
        ..Subscribe::new(id(packet_id), filters)
    })
}

#[test]
fn each_filter_has_its_code() {
    let mut net = Net::with_shards(2, |config| {
        config.mqtt.max_qos_allowed = Q1;
        config.mqtt.max_topic_levels = 3;
    });
    let client = net.client(V5, "a");
    let filters = [
        sub("a", Q0),
        sub("b", Q1),
        sub("c", Q2),
        sub("a/#/b", Q0),
        sub("$share/g", Q0),
        sub("a/b/c/d", Q0),
        sub("$exclusive/+", Q0),
        sub("$exclusive/e", Q0),
    ];
    net.send(client, subscribe(1, &filters));
    use ReasonCode::*;
    let codes = [
        Success,
        GrantedQoS1,
        GrantedQoS1,
        TopicFilterInvalid,
        TopicFilterInvalid,
        TopicFilterInvalid,
        TopicFilterInvalid,
        Success,
    ];
    net.expect(client, suback(1, &codes));
    net.send(client, unsubscribe(2, &["a", "a", "x", "a/#/b"]));
    let codes = [
        Success,
        NoSubscriptionExisted,
        NoSubscriptionExisted,
        TopicFilterInvalid,
    ];
    net.expect(client, unsuback(2, &codes));
}

#[test]
fn what_the_server_does_not_support_is_refused() {
    let mut net = Net::with(|config| {
        config.mqtt.wildcard_subscription = false;
        config.mqtt.shared_subscription = false;
        config.mqtt.exclusive_subscription = false;
    });
    let client = net.client(V5, "a");
    let filters = [
        sub("a/+", Q0),
        sub("$share/g/a", Q0),
        sub("$queue/a", Q0),
        sub("$exclusive/a", Q0),
    ];
    net.send(client, subscribe(1, &filters));
    let codes = [
        ReasonCode::WildcardSubscriptionsNotSupported,
        ReasonCode::SharedSubscriptionsNotSupported,
        ReasonCode::SharedSubscriptionsNotSupported,
        ReasonCode::TopicFilterInvalid,
    ];
    net.expect(client, suback(1, &codes));
}

#[test]
fn a_session_has_a_number_of_subscriptions() {
    let mut net = Net::with(|config| config.mqtt.max_subscriptions = 2);
    let client = net.client(V5, "a");
    let filters = [sub("a", Q0), sub("b", Q0), sub("c", Q0), sub("a", Q1)];
    net.send(client, subscribe(1, &filters));
    let codes = [
        ReasonCode::Success,
        ReasonCode::Success,
        ReasonCode::QuotaExceeded,
        ReasonCode::GrantedQoS1,
    ];
    net.expect(client, suback(1, &codes));
}

/// [MQTT-3.8.4-3]
#[test]
fn the_same_filter_again_replaces_the_subscription() {
    let mut net = Net::new();
    let reader = net.subscriber(V5, "r", &[("t", Q2)]);
    net.send(reader, with_id(2, 9, &[sub("t", Q0)]));
    net.expect(reader, suback(2, &[ReasonCode::Success]));
    let writer = net.client(V5, "w");
    net.send(writer, Packet::Publish(acked("t", "x", Q1, 1)));
    net.expect(writer, puback(1));
    let expected = Publish {
        subscription_ids: [9].into_iter().collect(),
        ..message("t", "x")
    };
    net.expect(reader, Packet::Publish(expected));
}

/// [MQTT-3.3.4-2..5]: one delivery, at the highest quality of service, with all identifiers.
#[test]
fn overlapping_subscriptions_are_one_delivery() {
    let mut net = Net::with_shards(2, |_| {});
    let reader = net.client(V5, "r");
    for (at, (filter, qos, subscription_id)) in [("a/b", Q1, 2), ("a/#", Q2, 268_435_455), ("+/b", Q0, 2)]
        .into_iter()
        .enumerate()
    {
        net.send(
            reader,
            with_id(at as u16 + 1, subscription_id, &[sub(filter, qos)]),
        );
        net.expect(reader, suback(at as u16 + 1, &[ReasonCode::granted(qos)]));
    }
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(acked("a/b", "x", Q2, 1)));
    net.expect(writer, pubrec(1));
    let mut publishes = net.publishes(reader);
    assert_eq!(publishes.len(), 1);
    let publish = publishes.remove(0);
    let mut ids = publish.subscription_ids.to_vec();
    ids.sort_unstable();
    assert_eq!((publish.qos, ids), (Q2, vec![2, 2, 268_435_455]));
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_a_clients_own_messages_away() {
    let mut net = Net::with_shards(2, |_| {});
    let client = net.client(V5, "a");
    let mut filter = sub("t", Q0);
    filter.options.no_local = true;
    net.send(client, subscribe(1, &[filter]));
    net.expect(client, suback(1, &[ReasonCode::Success]));
    let other = net.client(V4, "b");
    for from in [client, other] {
        net.send(from, Packet::Publish(message("t", "x")));
        net.send(from, Packet::Publish(message("$delayed/1/t", "y")));
    }
    net.expect(client, Packet::Publish(message("t", "x")));
    net.pass(1);
    net.pass_slot();
    net.expect(client, Packet::Publish(message("t", "y")));
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_with_a_shared_subscription_is_a_protocol_error() {
    let mut net = Net::new();
    let client = net.client(V5, "a");
    let mut filter = sub("$share/g/t", Q0);
    filter.options.no_local = true;
    net.send(client, subscribe(1, &[filter]));
    net.expect_end(client, ReasonCode::ProtocolError);
}

/// [MQTT-4.7.2-1]
#[test]
fn wildcards_do_not_see_topics_of_the_server() {
    let mut net = Net::new();
    let reader = net.subscriber(V4, "r", &[("#", Q0), ("+/x", Q0), ("$a/#", Q0)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(message("$a/x", "1")));
    net.send(writer, Packet::Publish(message("$b/x", "2")));
    net.expect(reader, Packet::Publish(message("$a/x", "1")));
}

#[test]
fn an_exclusive_topic_has_one_subscriber() {
    let mut net = Net::with_shards(3, |_| {});
    let first = net.subscriber(V5, "first", &[("$exclusive/t", Q1)]);
    let second = net.client(V5, "second");
    net.send(second, subscribe(1, &[sub("$exclusive/t", Q1), sub("t", Q0)]));
    net.expect(
        second,
        suback(1, &[ReasonCode::QuotaExceeded, ReasonCode::Success]),
    );
    net.send(second, Packet::Publish(message("t", "x")));
    net.expect(first, Packet::Publish(message("t", "x")));
    net.expect(second, Packet::Publish(message("t", "x")));
    net.send(first, unsubscribe(2, &["$exclusive/t"]));
    net.expect(first, unsuback(2, &[ReasonCode::Success]));
    net.subscribe(second, &[("$exclusive/t", Q1)]);
    net.disconnect(second);
    net.subscribe(first, &[("$exclusive/t", Q0)]);
}

#[test]
fn a_local_subscription_is_one_like_others_on_one_node() {
    let mut net = Net::with_shards(2, |_| {});
    let reader = net.subscriber(V5, "r", &[("$local/t", Q0)]);
    let writer = net.client(V5, "w");
    net.send(writer, Packet::Publish(message("t", "x")));
    net.expect(reader, Packet::Publish(message("t", "x")));
    net.send(reader, unsubscribe(2, &["$local/t"]));
    net.expect(reader, unsuback(2, &[ReasonCode::Success]));
    net.send(writer, Packet::Publish(message("t", "x")));
    net.expect_nothing(reader);
}

#[test]
fn a_mountpoint_is_invisible_and_cannot_be_left() {
    let mut net = Net::with_common(2, anonymous(), "m/${clientid}/");
    let client = net.subscriber(V5, "a", &[("#", Q0), ("$share/g/s", Q0)]);
    let other = net.subscriber(V4, "b", &[("#", Q0)]);
    net.send(client, Packet::Publish(message("t", "x")));
    net.expect(client, Packet::Publish(message("t", "x")));
    net.expect_nothing(other);
    let system = broker_core::ClientInfo::system();
    for (topic, seen) in [
        ("m/a/s", 2),
        // `m/a/#` matches its own parent, and a topic of which nothing is left without the mountpoint: neither has
        // a name that this client could be told.
        ("m/a", 0),
        ("m/a/", 0),
        ("t", 0),
    ] {
        let parts = broker_core::MessageParts::new(topic, b"y");
        let sent = parts.publish_absolute(net.node.now(), system).expect("short");
        net.node.publish(0, sent).expect("no limit");
        assert_eq!(net.publishes(client).len(), seen, "{topic}");
    }
    net.send(client, unsubscribe(2, &["#", "$share/g/s"]));
    net.expect(client, unsuback(2, &[ReasonCode::Success, ReasonCode::Success]));
}

#[test]
fn a_will_stays_within_the_mountpoint() {
    let mut net = Net::with_common(1, anonymous(), "m/");
    let watcher = net.subscriber(V5, "w", &[("will", Q0)]);
    let client = net.connect(with_will(mqtt::codec::Connect::new(V5, "a"), "will"));
    net.cut(client);
    net.expect(watcher, Packet::Publish(message("will", "will")));
}

#[test]
fn a_mountpoint_that_cannot_be_filled_in_refuses_the_client() {
    let mut net = Net::with_common(1, anonymous(), "m/${clientid}/");
    for id in ["+", "a/b", "#"] {
        let client = net.dial(mqtt::codec::Connect::new(V5, id));
        assert_eq!(net.connack(client).reason, ReasonCode::NotAuthorized);
        net.expect_closed(client);
    }
}

#[test]
fn topics_are_rewritten_and_clients_subscribed_by_hooks() {
    let mut common = anonymous();
    let rule = RewriteRule::new(RewriteAction::All, "old/#", "^old/(.+)$", "new/$1").expect("a valid rule");
    common.hooks.register(0, Arc::new(Rewrite::new(vec![rule])));
    let options = SubscribeOptions {
        qos: Q1,
        ..SubscribeOptions::default()
    };
    let topic = AutoSubscribeTopic::new("inbox/${clientid}", options).expect("a valid topic");
    common
        .hooks
        .register(0, Arc::new(AutoSubscribe::new(vec![topic])));
    let mut net = Net::with_common(2, common, "");
    let reader = net.subscriber(V5, "r", &[("old/t", Q0)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(message("new/t", "1")));
    net.send(writer, Packet::Publish(message("old/t", "2")));
    net.send(writer, Packet::Publish(acked("inbox/r", "3", Q1, 1)));
    net.expect(writer, puback(1));
    net.expect_all(
        reader,
        &[
            Packet::Publish(message("new/t", "1")),
            Packet::Publish(message("new/t", "2")),
            Packet::Publish(acked("inbox/r", "3", Q1, 1)),
        ],
    );
    net.send(reader, unsubscribe(2, &["old/t"]));
    net.expect(reader, unsuback(2, &[ReasonCode::Success]));
}
