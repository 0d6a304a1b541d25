//! Crashes at any moment, chosen by a seed: what was acknowledged arrives, in order, and QoS 2 once.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use broker_core::QoS;
use mqtt::codec::{Packet, Publish};
use testkit::Random;

use super::{SHARDS, durable};
use crate::net::*;

/// How far a message of the writer's has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Published,
    Released,
}

/// Sends numbers, and again what was not acknowledged.
#[derive(Default)]
struct Writer {
    client: Option<Client>,
    last: u16,
    under_way: BTreeMap<u16, Sent>,
}

/// Takes numbers, and knows which packet identifiers it has not seen released.
#[derive(Default)]
struct Reader {
    client: Option<Client>,
    unanswered: Vec<Packet<'static>>,
    received: BTreeSet<u16>,
    /// In the order in which they came, without what QoS 2 tells as a repetition.
    got: Vec<u16>,
}

fn qos_of(number: u16) -> QoS {
    if number.is_multiple_of(2) { Q2 } else { Q1 }
}

fn number_of(publish: &Publish<'_>) -> u16 {
    let text = std::str::from_utf8(publish.payload).expect("the writer sends digits");
    text.parse().expect("the writer sends numbers")
}

fn packet_id_of(publish: &Publish<'_>) -> u16 {
    publish.packet_id.expect("none is of QoS 0").get()
}

fn publish(net: &mut Net, client: Client, number: u16, is_again: bool) {
    let text = number.to_string();
    let mut publish = acked("t", &text, qos_of(number), number);
    publish.dup = is_again;
    net.send(client, Packet::Publish(publish));
}

impl Writer {
    fn connect(&mut self, net: &mut Net) {
        let client = net.resume(kept(V5, "w"));
        for (number, sent) in &self.under_way {
            match sent {
                Sent::Published => publish(net, client, *number, true),
                Sent::Released => net.send(client, pubrel(*number)),
            }
        }
        self.client = Some(client);
    }

    fn send(&mut self, net: &mut Net) {
        if let Some(client) = self.client
            && self.under_way.len() < 8
        {
            self.last += 1;
            self.under_way.insert(self.last, Sent::Published);
            publish(net, client, self.last, false);
        }
    }

    fn take(&mut self, net: &mut Net) {
        let Some(client) = self.client else { return };
        for packet in net.take(client) {
            match packet {
                Packet::PubAck(ack) => {
                    assert!(!ack.reason.is_error(), "{ack:?}");
                    assert_eq!(self.under_way.remove(&ack.packet_id.get()), Some(Sent::Published));
                }
                Packet::PubRec(ack) => {
                    assert!(!ack.reason.is_error(), "{ack:?}");
                    let number = ack.packet_id.get();
                    if self.under_way.contains_key(&number) {
                        self.under_way.insert(number, Sent::Released);
                    }
                    net.send(client, pubrel(number));
                }
                Packet::PubComp(ack) => {
                    self.under_way.remove(&ack.packet_id.get());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Reader {
    fn connect(&mut self, net: &mut Net, random: &mut Random) {
        self.unanswered.clear();
        let mut connect = kept(V5, "r");
        let window = u16::try_from(random.below(9)).expect("a digit");
        connect.properties.receive_maximum = NonZeroU16::new(window);
        let client = net.dial(connect);
        self.client = Some(client);
        let mut packets = net.take(client);
        assert!(
            matches!(&packets[0], Packet::ConnAck(connack) if connack.session_present),
            "{packets:?}"
        );
        packets.remove(0);
        self.look_at(packets);
    }

    fn take(&mut self, net: &mut Net) {
        if let Some(client) = self.client {
            let packets = net.take(client);
            self.look_at(packets);
        }
    }

    fn look_at(&mut self, packets: Vec<Packet<'static>>) {
        for packet in packets {
            match &packet {
                Packet::Publish(publish) => {
                    let packet_id = packet_id_of(publish);
                    if publish.qos == Q1 || self.received.insert(packet_id) {
                        self.got.push(number_of(publish));
                    }
                }
                Packet::PubRel(ack) => {
                    self.received.remove(&ack.packet_id.get());
                }
                other => panic!("{other:?}"),
            }
            self.unanswered.push(packet);
        }
    }

    /// Answers one packet: the oldest of its kind, as the specification wants.
    fn answer(&mut self, net: &mut Net, random: &mut Random) {
        let Some(client) = self.client else { return };
        if self.unanswered.is_empty() {
            return;
        }
        let at = random.below(self.unanswered.len());
        let kind = |packet: &Packet<'_>| match packet {
            Packet::Publish(publish) => publish.qos as u8,
            _ => 3,
        };
        let wanted = kind(&self.unanswered[at]);
        let at = self
            .unanswered
            .iter()
            .position(|packet| kind(packet) == wanted)
            .expect("there is at least the one that was chosen");
        match self.unanswered.remove(at) {
            Packet::Publish(publish) => {
                let packet_id = packet_id_of(&publish);
                net.send(
                    client,
                    if publish.qos == Q2 {
                        pubrec(packet_id)
                    } else {
                        puback(packet_id)
                    },
                );
            }
            Packet::PubRel(ack) => net.send(client, pubcomp(ack.packet_id.get())),
            _ => {}
        }
    }

    fn cut(&mut self, net: &mut Net) {
        if let Some(client) = self.client.take() {
            net.cut(client);
            // What was on its way may still arrive.
            let packets = net.take(client);
            self.look_at(packets);
        }
    }
}

fn history(seed: u64) {
    let mut random = Random::new(seed);
    let mut net = durable();
    let reader = net.connect(kept(V5, "r"));
    net.subscribe(reader, &[("t", Q2)]);
    let writer = net.connect(kept(V5, "w"));
    let (mut reader, mut writer) = (
        Reader {
            client: Some(reader),
            ..Reader::default()
        },
        Writer {
            client: Some(writer),
            ..Writer::default()
        },
    );
    for _ in 0..400 {
        match random.below(100) {
            0..30 => writer.send(&mut net),
            30..45 => writer.take(&mut net),
            45..70 => {
                reader.take(&mut net);
                reader.answer(&mut net, &mut random);
            }
            70..74 => net.hold_commits(),
            74..85 => {
                net.node.complete_commit();
            }
            85..90 => net.commit(),
            90..94 => net.pass_ms(random.below(600) as u64),
            94..96 => reader.cut(&mut net),
            96..98 if reader.client.is_none() => {
                net.commit();
                reader.connect(&mut net, &mut random);
            }
            98 => {
                net.node.crash_anywhere(&mut random);
                net.node.restart(SHARDS);
                (reader.client, writer.client) = (None, None);
                writer.connect(&mut net);
                if random.chance(50) {
                    reader.connect(&mut net, &mut random);
                }
            }
            _ => {}
        }
    }
    net.commit();
    if reader.client.is_none() {
        reader.connect(&mut net, &mut random);
    }
    for _ in 0..2000 {
        writer.take(&mut net);
        reader.take(&mut net);
        if reader.unanswered.is_empty() && writer.under_way.is_empty() {
            break;
        }
        reader.answer(&mut net, &mut random);
    }
    assert!(writer.under_way.is_empty(), "seed {seed}: {:?}", writer.under_way);
    check(seed, &reader.got, writer.last);
}

fn check(seed: u64, got: &[u16], last: u16) {
    for qos in [Q1, Q2] {
        let of_this: Vec<u16> = got
            .iter()
            .copied()
            .filter(|number| qos_of(*number) == qos)
            .collect();
        let mut seen = BTreeSet::new();
        let first: Vec<u16> = of_this
            .iter()
            .copied()
            .filter(|number| seen.insert(*number))
            .collect();
        let expected: Vec<u16> = (1..=last).filter(|number| qos_of(*number) == qos).collect();
        assert_eq!(first, expected, "seed {seed}: each, in order: {of_this:?}");
        assert!(
            qos == Q1 || of_this.len() == expected.len(),
            "seed {seed}: once: {of_this:?}"
        );
    }
}

#[test]
fn whatever_is_acknowledged_arrives_in_order_and_once() {
    for seed in 0..200 {
        history(seed);
    }
}
