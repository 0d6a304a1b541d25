//! Nanoseconds per packet: `cargo run --release -p mqtt --example codec_speed`.
//!
//! Each figure is the fastest of several runs, since everything that disturbs a run only makes it longer.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{hint::black_box, time::Instant};

use broker_core::{
    ClientInfo, Delivery, MessageParts, Outbox, PacketId, PropertiesBuilder, Property, QoS, SubscriptionIds,
    Timestamp,
};
use bytes::BytesMut;
use mqtt::codec::{Connect, Decoder, Hop, OutgoingPublish, Packet, ProtocolVersion, Publish, Sender, Will};

use ProtocolVersion::{V4, V5};

const RUNS: usize = 20;
const PACKETS: usize = 100_000;

fn main() {
    let mut properties = PropertiesBuilder::new();
    properties.push(Property::ContentType("application/json"));
    properties.push(Property::User("source", "sensor-17"));
    let small = Publish::new("site/7/sensor/17/temperature", b"{\"value\":21.5}");
    let with_id = Publish {
        qos: QoS::AtLeastOnce,
        packet_id: PacketId::new(7),
        ..small.clone()
    };
    let with_properties = Publish {
        expiry_interval: Some(60),
        properties: properties.as_properties().encoded().into(),
        ..small.clone()
    };
    let connect = Connect {
        will: Some(Will::new("site/7/sensor/17/status", b"gone")),
        username: Some("sensor-17"),
        password: Some(b"secret"),
        ..Connect::new(V5, "sensor-17")
    };
    for (name, version, packet) in [
        ("PUBLISH 3.1.1 QoS 0", V4, Packet::Publish(small.clone())),
        ("PUBLISH 3.1.1 QoS 1", V4, Packet::Publish(with_id)),
        ("PUBLISH 5", V5, Packet::Publish(small)),
        ("PUBLISH 5 with properties", V5, Packet::Publish(with_properties)),
        ("CONNECT 5", V5, Packet::Connect(Box::new(connect))),
        ("PINGREQ", V5, Packet::PingReq),
    ] {
        decode(name, version, &packet);
    }
    for version in [V4, V5] {
        deliver(version, &properties);
    }
}

fn decode(name: &str, version: ProtocolVersion, packet: &Packet<'_>) {
    let mut wire = BytesMut::new();
    packet
        .encode(version, u32::MAX, &mut wire)
        .expect("a short packet");
    let decoder = Decoder {
        version,
        sender: Sender::Client,
        max_packet_size: 1 << 20,
    };
    let nanoseconds = measure(|| {
        black_box(decoder.decode(black_box(&wire))).expect("valid");
    });
    println!("decode {name:<28} {:>4} bytes {nanoseconds:>7.1} ns", wire.len());

    let mut out = BytesMut::with_capacity(4096);
    let nanoseconds = measure(|| {
        out.clear();
        black_box(packet)
            .encode(version, u32::MAX, &mut out)
            .expect("a short packet");
    });
    println!("encode {name:<28} {:>4} bytes {nanoseconds:>7.1} ns", wire.len());
}

/// As a fan-out does it: many packets into one outbox, which is emptied now and then.
fn deliver(version: ProtocolVersion, properties: &PropertiesBuilder) {
    let parts = MessageParts {
        properties: properties.as_properties(),
        ..MessageParts::new("site/7/sensor/17/temperature", b"{\"value\":21.5}")
    };
    let message = parts
        .publish(Timestamp::from_millis(0), ClientInfo::system())
        .expect("a short topic");
    let delivery = Delivery {
        message,
        packet_id: PacketId::new(7),
        qos: QoS::AtLeastOnce,
        dup: false,
        retain: false,
        subscription_ids: SubscriptionIds::from_slice(&[1]),
    };
    let mut outbox = Outbox::new();
    let mut len = 0;
    let nanoseconds = measure(|| {
        let delivery = black_box(&delivery);
        let hop = Hop {
            topic: delivery.message.topic_bytes(),
            topic_alias: None,
            expiry_interval: None,
        };
        let outgoing = OutgoingPublish::new(version, delivery, hop).expect("a short packet");
        len = outgoing.encoded_len();
        outgoing.write(&mut outbox);
        if outbox.len() > 1 << 16 {
            outbox.advance(outbox.len());
        }
    });
    println!(
        "deliver as {version:?} {:<20} {len:>4} bytes {nanoseconds:>7.1} ns",
        ""
    );
}

fn measure(mut work: impl FnMut()) -> f64 {
    let run = |_| {
        let start = Instant::now();
        (0..PACKETS).for_each(|_| work());
        start.elapsed().as_secs_f64() * 1e9 / PACKETS as f64
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}
