//! Clients that ask for as much as the protocol lets them.

use mqtt::codec::{Packet, Publish};
use testkit::Node;

use crate::net::*;

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
