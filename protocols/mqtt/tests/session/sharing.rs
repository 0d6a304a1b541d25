//! Shared subscriptions (§4.8.2).

use broker_core::{ReasonCode, ShardId, SharedStrategy, shard::shard_of};
use mqtt::codec::{Connect, Packet};

use crate::net::*;

fn send(net: &mut Net, writer: Client, count: u16) {
    for at in 1..=count {
        net.send(writer, Packet::Publish(acked("t", "x", Q1, at)));
        net.expect(writer, puback(at));
    }
}

#[test]
fn one_member_gets_each_message() {
    for filter in ["$share/g/t", "$queue/t"] {
        let mut net = Net::with_shards(3, |_| {});
        let members = ["a", "b", "c"].map(|name| net.subscriber(V5, name, &[(filter, Q0)]));
        let apart = net.subscriber(V4, "other", &[("$share/h/t", Q0)]);
        let plain = net.subscriber(V4, "plain", &[("t", Q0)]);
        let writer = net.client(V4, "w");
        send(&mut net, writer, 9);
        for member in members {
            assert_eq!(net.publishes(member).len(), 3);
        }
        assert_eq!(net.publishes(apart).len(), 9);
        assert_eq!(net.publishes(plain).len(), 9);
    }
}

#[test]
fn a_member_gets_nothing_retained() {
    let mut net = Net::new();
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(retained(message("t", "x"))));
    net.subscriber(V5, "a", &[("$share/g/t", Q0)]);
}

#[test]
fn shared_and_plain_at_once_are_two_deliveries() {
    let mut net = Net::new();
    let reader = net.subscriber(V5, "r", &[("$share/g/t", Q0), ("t", Q0)]);
    let writer = net.client(V4, "w");
    send(&mut net, writer, 1);
    assert_eq!(net.publishes(reader).len(), 2);
}

#[test]
fn who_leaves_hands_on_what_it_has_not_acknowledged() {
    for version in [V4, V5] {
        let mut net = Net::with_shards(2, |config| {
            config.shared_strategy = SharedStrategy::RoundRobinPerGroup;
        });
        let first = net.connect(Connect::new(version, "first"));
        net.subscribe(first, &[("$share/g/t", Q1)]);
        let writer = net.client(V4, "w");
        send(&mut net, writer, 2);
        assert_eq!(net.publishes(first).len(), 2);
        let second = net.subscriber(version, "second", &[("$share/g/t", Q1)]);
        net.send(first, puback(1));
        net.cut(first);
        net.expect(second, Packet::Publish(acked("t", "x", Q1, 1)));
        send(&mut net, writer, 1);
        net.expect(second, Packet::Publish(acked("t", "x", Q1, 2)));
    }
}

/// [MQTT-4.8.2-4]: what is under way with quality of service 2 stays where it is.
#[test]
fn a_session_that_is_kept_finishes_what_it_began_with_quality_of_service_2() {
    let mut net = Net::new();
    let first = net.connect(kept(V5, "first"));
    net.subscribe(first, &[("$share/g/t", Q2)]);
    let writer = net.client(V4, "w");
    net.send(writer, Packet::Publish(acked("t", "x", Q2, 1)));
    net.expect(writer, pubrec(1));
    net.expect(first, Packet::Publish(acked("t", "x", Q2, 1)));
    let second = net.subscriber(V5, "second", &[("$share/g/t", Q2)]);
    net.cut(first);
    net.expect_nothing(second);
    let first = net.dial(kept(V5, "first"));
    let packets = net.take(first);
    assert_eq!(packets[1..], [Packet::Publish(dup(acked("t", "x", Q2, 1)))]);
}

/// [MQTT-4.8.2-6]
#[test]
fn a_refused_delivery_goes_to_nobody_else() {
    let mut net = Net::new();
    let members = ["a", "b"].map(|name| net.subscriber(V5, name, &[("$share/g/t", Q1)]));
    let writer = net.client(V4, "w");
    send(&mut net, writer, 1);
    let got: Vec<_> = members.map(|member| net.publishes(member).len()).to_vec();
    let holder = members[got.iter().position(|&count| count == 1).expect("one has it")];
    net.send(holder, because(puback(1), ReasonCode::UnspecifiedError));
    for member in members {
        net.expect_nothing(member);
    }
}

#[test]
fn a_group_that_is_away_keeps_its_messages() {
    let mut net = Net::with_shards(2, |_| {});
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("$share/g/t", Q1)]);
    net.cut(reader);
    let writer = net.client(V4, "w");
    send(&mut net, writer, 2);
    let reader = net.dial(kept(V5, "r"));
    let packets = net.take(reader);
    assert_eq!(
        packets[1..],
        [1, 2].map(|id| Packet::Publish(acked("t", "x", Q1, id)))
    );
}

#[test]
fn unsubscribing_hands_on_what_waits() {
    let mut net = Net::new();
    let mut connect = Connect::new(V5, "a");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let first = net.connect(connect);
    net.subscribe(first, &[("$share/g/t", Q1)]);
    let writer = net.client(V4, "w");
    send(&mut net, writer, 3);
    assert_eq!(net.publishes(first).len(), 1);
    let second = net.subscriber(V5, "b", &[("$share/g/t", Q1)]);
    net.send(first, unsubscribe(2, &["$share/g/t"]));
    net.expect(first, unsuback(2, &[ReasonCode::Success]));
    assert!(net.publishes(second).len() >= 2);
}

/// How many of `count` messages each member got.
fn shares(net: &mut Net, members: &[Client]) -> Vec<usize> {
    members
        .iter()
        .map(|&member| net.publishes(member).len())
        .collect()
}

/// What each of four members, somewhere on three shards, gets if `writers` publishers send `each` messages to the
/// topics that `topic` names.
fn spread(
    strategy: SharedStrategy,
    writers: usize,
    each: usize,
    topic: impl Fn(usize, usize) -> String,
) -> Vec<usize> {
    let mut net = Net::with_shards(3, |config| config.shared_strategy = strategy);
    let members: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| net.subscriber(V5, name, &[("$share/g/#", Q0)]))
        .to_vec();
    for writer in 0..writers {
        let name = format!("w{writer}");
        let client = net.client(V5, &name);
        for at in 0..each {
            net.send(client, Packet::Publish(message(&topic(writer, at), "x")));
        }
    }
    let shares = shares(&mut net, &members);
    assert_eq!(
        shares.iter().sum::<usize>(),
        writers * each,
        "each message goes to one member"
    );
    shares
}

#[test]
fn round_robin_takes_turns_for_each_publisher() {
    // One publisher: every member the same.
    assert_eq!(
        spread(SharedStrategy::RoundRobin, 1, 40, |_, _| "t".into()),
        [10; 4]
    );
    // Publishers that say one thing each, such as a command run again and again, do not all meet the same member.
    let shares = spread(SharedStrategy::RoundRobin, 60, 1, |_, _| "t".into());
    assert!(shares.iter().all(|share| (12..=18).contains(share)), "{shares:?}");
}

#[test]
fn round_robin_per_group_takes_turns_whoever_publishes() {
    let shares = spread(SharedStrategy::RoundRobinPerGroup, 20, 4, |_, _| "t".into());
    assert!(shares.iter().all(|share| (18..=22).contains(share)), "{shares:?}");
}

#[test]
fn random_reaches_everybody() {
    let shares = spread(SharedStrategy::Random, 1, 400, |_, _| "t".into());
    assert!(
        shares.iter().all(|share| (60..=140).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn hashes_keep_a_publisher_or_a_topic_with_one_member() {
    for at in 0..8 {
        let one = |_, _| format!("t{at}");
        let mut shares = spread(SharedStrategy::HashTopic, 6, 5, one);
        shares.sort_unstable();
        assert_eq!(shares, [0, 0, 0, 30], "one topic, whoever publishes");
    }
    let mut shares = spread(SharedStrategy::HashClientId, 1, 30, |_, at| format!("t{at}"));
    shares.sort_unstable();
    assert_eq!(shares, [0, 0, 0, 30], "one publisher, whatever the topic");
    let by_topic = spread(SharedStrategy::HashTopic, 1, 400, |_, at| format!("t{at}"));
    let by_client = spread(SharedStrategy::HashClientId, 400, 1, |_, _| "t".into());
    for shares in [by_topic, by_client] {
        assert!(
            shares.iter().all(|share| (60..=140).contains(share)),
            "{shares:?}"
        );
    }
}

#[test]
fn sticky_stays_with_a_member_until_it_leaves() {
    let mut net = Net::with(|config| config.shared_strategy = SharedStrategy::Sticky);
    let mut members: Vec<_> = ["a", "b", "c"]
        .map(|name| net.subscriber(V5, name, &[("$share/g/t", Q0)]))
        .to_vec();
    let writer = net.client(V4, "w");
    while !members.is_empty() {
        send(&mut net, writer, 20);
        let shares = shares(&mut net, &members);
        let chosen = shares.iter().position(|&share| share == 20);
        let chosen = chosen.unwrap_or_else(|| panic!("{shares:?}"));
        let member = members.remove(chosen);
        net.cut(member);
    }
}

/// A member on the shard of the publisher is preferred; without one, any member will do.
#[test]
fn local_stays_on_the_shard_of_the_publisher() {
    let mut net = Net::with_shards(2, |config| config.shared_strategy = SharedStrategy::Local);
    let named = |kind: &str, shard: u16| {
        let mut names = (0..).map(|n| format!("{kind}{n}"));
        let name = names.find(|name| shard_of(name, 2) == ShardId(shard));
        name.expect("a hash that reaches both shards")
    };
    let members = [0, 1].map(|shard| net.subscriber(V5, &named("m", shard), &[("$share/g/t", Q0)]));
    let writers = [0, 1].map(|shard| net.client(V4, &named("w", shard)));
    send(&mut net, writers[0], 20);
    assert_eq!(shares(&mut net, &members), [20, 0]);
    send(&mut net, writers[1], 20);
    assert_eq!(shares(&mut net, &members), [0, 20]);
    net.cut(members[0]);
    send(&mut net, writers[0], 5);
    assert_eq!(net.publishes(members[1]).len(), 5);
}

/// Members of every version, on whatever shard: nothing that was not acknowledged is lost when one goes.
#[test]
fn what_a_member_leaves_behind_reaches_the_others_whatever_their_version() {
    for strategy in [
        SharedStrategy::Random,
        SharedStrategy::RoundRobin,
        SharedStrategy::RoundRobinPerGroup,
        SharedStrategy::Sticky,
        SharedStrategy::Local,
        SharedStrategy::HashClientId,
        SharedStrategy::HashTopic,
    ] {
        let mut net = Net::with_shards(4, |config| config.shared_strategy = strategy);
        let writer = net.client(V4, "w");
        let names = ["a", "b", "c", "d", "e", "f"];
        let mut members: Vec<_> = names
            .iter()
            .zip([V3, V4, V5, V3, V4, V5])
            .map(|(name, version)| net.subscriber(version, name, &[("$share/g/t", Q1)]))
            .collect();
        send(&mut net, writer, 12);
        let mut held: Vec<_> = shares(&mut net, &members);
        while members.len() > 1 {
            assert_eq!(held.iter().sum::<usize>(), 12, "{strategy:?}");
            net.cut(members.remove(0));
            held.remove(0);
            for (held, more) in held.iter_mut().zip(shares(&mut net, &members)) {
                *held += more;
            }
        }
        assert_eq!(held, [12], "{strategy:?}");
    }
}
