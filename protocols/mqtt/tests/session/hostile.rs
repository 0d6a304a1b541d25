//! Clients that ask for as much as the protocol lets them. Sizes are such that work which grows with the square of a
//! packet's length would not end in the time that a test has.

use std::time::Duration;

use broker_core::Timestamp;
use mqtt::codec::{Connect, Packet, Publish};
use testkit::Node;

use crate::net::*;

/// As many short filters as fit into one SUBSCRIBE of less than a megabyte.
const MANY: usize = 60_000;

fn take_all(net: &mut Net, clients: &[Client]) {
    for &client in clients {
        net.take(client);
    }
}

fn subscribe_all<'a>(net: &mut Net, client: Client, filters: impl Iterator<Item = &'a String>) {
    let filters: Vec<_> = filters.map(|filter| sub(filter, Q1)).collect();
    net.send(client, subscribe(1, &filters));
}

fn filters(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(name).collect()
}

#[test]
fn subscriptions_come_and_go_in_any_order() {
    let mut net = Net::with_shards(2, |_| {});
    let names = filters(MANY, |n| format!("t/{n}"));
    let up = net.client(V5, "up");
    subscribe_all(&mut net, up, names.iter());
    let down = net.client(V5, "down");
    subscribe_all(&mut net, down, names.iter().rev());
    take_all(&mut net, &[up, down]);
    net.disconnect(up);
    net.disconnect(down);
    // Slice by slice, without waiting for anything.
    net.node.advance(Duration::ZERO);
    assert_eq!(net.node.shard(0).census().filters, 0);
    assert_eq!(net.node.shard(1).census().filters, 0);
}

#[test]
fn one_filter_may_have_many_groups() {
    let mut net = Net::with_shards(2, |_| {});
    let names = filters(MANY, |n| format!("$share/{n}/t"));
    let client = net.connect(kept(V5, "c"));
    subscribe_all(&mut net, client, names.iter());
    take_all(&mut net, &[client]);
    net.cut(client);
    let client = net.resume(kept(V5, "c"));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    net.send(client, unsubscribe(2, &names));
    take_all(&mut net, &[client]);
    assert_eq!(net.node.shard(0).census().filters, 0);
    assert_eq!(net.node.shard(1).census().filters, 0);
}

#[test]
fn a_session_in_many_groups_leaves_what_waits_to_others_at_once() {
    let mut net = Net::new();
    let names = filters(MANY, |n| format!("$share/g/{n}"));
    let mut connect = kept(V5, "a");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let first = net.connect(connect);
    subscribe_all(&mut net, first, names.iter());
    let writer = net.client(V4, "w");
    for at in 0..1000 {
        net.send(writer, Packet::Publish(acked(&at.to_string(), "x", Q1, at + 1)));
    }
    let second = net.client(V5, "b");
    subscribe_all(&mut net, second, names.iter());
    take_all(&mut net, &[first, writer, second]);
    net.cut(first);
    let mut count = 0;
    loop {
        let publishes = net.publishes(second);
        if publishes.is_empty() {
            break;
        }
        count += publishes.len();
        for publish in publishes {
            net.send(second, puback(publish.packet_id.expect("QoS 1").get()));
        }
    }
    assert_eq!(count, 1000);
}

/// The client's window is closed, so nothing of what is retained goes out, and it subscribes again and again.
#[test]
fn subscribing_again_while_retained_messages_wait() {
    let mut net = Net::new();
    let writer = net.client(V4, "w");
    for at in 1..=2 {
        let topic = format!("a/{at}");
        net.send(writer, Packet::Publish(retained(acked(&topic, "x", Q1, at))));
    }
    let mut connect = Connect::new(V5, "c");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let client = net.connect(connect);
    net.send(client, subscribe(1, &[sub("a/+", Q1)]));
    let names = filters(MANY, |n| format!("b/{n}"));
    for _ in 0..3 {
        subscribe_all(&mut net, client, names.iter());
        take_all(&mut net, &[writer, client]);
    }
    let plain = names.iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(net.node.shard(0).census().replays, 1 + MANY);
    net.send(client, unsubscribe(2, &plain));
    assert_eq!(net.node.shard(0).census().replays, 1);
    take_all(&mut net, &[client]);
    net.send(client, puback(1));
    assert_eq!(net.publishes(client).len(), 1);
    net.send(client, puback(2));
    assert_eq!(net.node.shard(0).census().replays, 0);
}

/// Work is due on some shard.
fn is_busy(net: &Net, shards: u16) -> bool {
    let now: Timestamp = net.node.now();
    (0..shards).any(|at| net.node.shard(at).poll_timeout().is_some_and(|due| due <= now))
}

/// Filters that match nothing, in a store that has to be looked through for each.
#[test]
fn a_search_in_vain_lets_others_have_their_turn() {
    for shards in [1, 2] {
        let mut net = Net::with_shards(shards, |_| {});
        let writer = net.client(V4, "w");
        for at in 0..20_000 {
            net.send(
                writer,
                Packet::Publish(retained(message(&format!("{at}/x"), "x"))),
            );
        }
        net.send(writer, Packet::Publish(retained(message("last", "x"))));
        let client = net.client(V4, "c");
        let names = filters(20, |n| format!("+/{n}/#"));
        subscribe_all(&mut net, client, names.iter().chain(&["last".to_owned()]));
        assert!(is_busy(&net, shards), "the shard has done all of it in one go");
        assert_eq!(net.take(client).len(), 1);
        let mut turns = 0;
        while net.node.output_len(client.link) == 0 {
            net.pass_ms(1);
            turns += 1;
            assert!(turns < 1000);
        }
        assert_eq!(net.publishes(client), [retained(message("last", "x"))]);
        assert!(!is_busy(&net, shards));
        assert_eq!(net.node.shard(0).census().replays, 0);
    }
}

fn large(topic: &str) -> Publish<'_> {
    Publish::new(topic, &[0; 1000])
}

fn home(net: &Net, of: u16, names: impl Iterator<Item = String>) -> String {
    let shard = broker_core::ShardId(of);
    let mut names = names.filter(|name| net.node.shard(0).place(name) == shard);
    names.next().expect("names enough")
}

/// What other shards send is handed out piece by piece, so that a reader that does not keep up is seen in time.
#[test]
fn a_batch_does_not_become_events_all_at_once() {
    let mut net = Net::with_shards(2, |_| {});
    let (w, r) = (
        home(&net, 0, (0..).map(|n| format!("w{n}"))),
        home(&net, 1, (0..).map(|n| format!("r{n}"))),
    );
    let writer = net.client(V4, &w);
    let reader = net.subscriber(V4, &r, &[("t", Q0)]);
    let packet = encode(V4, &Packet::Publish(large("t")));
    net.send_bytes(writer, &packet.repeat(900));
    let waiting = net.node.output_len(reader.link);
    assert!(waiting < 2 * Node::HIGH_WATER_BYTES, "{waiting} bytes");
    assert_eq!(net.publishes(reader).len(), 900);
}

/// Thousands of delayed messages for one moment.
#[test]
fn delayed_messages_do_not_become_events_all_at_once() {
    let mut net = Net::new();
    let writer = net.client(V4, "w");
    let reader = net.subscriber(V4, "r", &[("t", Q0)]);
    for _ in 0..900 {
        net.send(writer, Packet::Publish(large("$delayed/1/t")));
    }
    net.pass(2);
    let waiting = net.node.output_len(reader.link);
    assert!(waiting < 2 * Node::HIGH_WATER_BYTES, "{waiting} bytes");
    assert_eq!(net.publishes(reader).len(), 900);
}

/// A client that goes before its claims are answered, comes back and claims the same.
#[test]
fn claims_on_many_exclusive_topics_are_given_up_at_once() {
    let mut net = Net::with_shards(2, |_| {});
    let many = MANY / 2;
    let names = filters(many, |n| format!("$exclusive/{n}"));
    let client = net.client(V5, "c");
    net.node.hold_batches(true);
    subscribe_all(&mut net, client, names.iter());
    net.cut(client);
    let client = net.client(V5, "c");
    subscribe_all(&mut net, client, names.iter());
    net.node.hold_batches(false);
    assert_eq!(net.take(client).len(), 1);
    let held = |net: &Net| {
        (0..2)
            .map(|at| net.node.shard(at).census().exclusive)
            .sum::<usize>()
    };
    assert_eq!(held(&net), many);
    net.disconnect(client);
    net.node.advance(Duration::ZERO);
    assert_eq!(held(&net), 0);
}

/// The subscriptions of a session that ends go slice by slice: others are served meanwhile, its client is admitted
/// again after the last one, and nothing is left in the store.
#[test]
fn a_clean_start_waits_for_the_end_of_very_many_subscriptions() {
    let mut net = Net::with_shards(2, |_| {});
    let names = filters(MANY, |n| format!("t/{n}"));
    let first = net.connect(kept(V5, "c"));
    subscribe_all(&mut net, first, names.iter());
    assert_eq!(net.take(first).len(), 1);
    let other = net.subscriber(V5, "other", &[("x", Q0)]);
    let second = net.dial(Connect::new(V5, "c"));
    net.expect_nothing(second);
    let writer = net.client(V5, "writer");
    net.send(writer, Packet::Publish(message("x", "meanwhile")));
    assert_eq!(net.publishes(other).len(), 1);
    net.node.advance(Duration::ZERO);
    assert!(!net.connack(second).session_present);
    net.take(first);
    net.node.crash(0);
    net.node.restart(2);
    assert_eq!(net.node.shard(0).census().filters, 0);
    assert_eq!(net.node.shard(1).census().filters, 0);
}
