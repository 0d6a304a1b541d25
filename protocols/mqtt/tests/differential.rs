//! The table of packets, as two published codecs see it: `rmqtt-codec` (3.1, 3.1.1, 5) and `mqttbytes` (3.1.1, 5).
//!
//! They agree on a valid packet if what they decode and encode again means the same to us, and on a broken one if
//! they refuse it too. Where they do not agree stands below, with the clause that decides it. A disagreement that
//! vanishes fails the test as well, so that the lists stay true.

mod table;

use table::known;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    num::NonZeroU16,
    panic::{AssertUnwindSafe, catch_unwind},
};

use broker_core::{Properties, PropertiesBuilder, Property};
use bytes::BytesMut;
use mqtt::codec::{Packet, ProtocolVersion, Sender};
use tokio_util::codec::{Decoder as _, Encoder as _};

use table::{V3, V4, V5, decoder};

/// Decodes and encodes again; `None` if the packet is refused (or its decoder panics).
type Other = fn(ProtocolVersion, &[u8]) -> Option<Vec<u8>>;

fn rmqtt(version: ProtocolVersion, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut out) = (BytesMut::from(bytes), BytesMut::new());
    if version == V5 {
        let mut codec = rmqtt_codec::v5::Codec::new(0, 0);
        let (packet, _) = codec.decode(&mut bytes).ok()??;
        // A fresh codec, since a CONNECT changes what the first one writes.
        rmqtt_codec::v5::Codec::new(0, 0).encode(packet, &mut out).ok()?;
    } else {
        let mut codec = rmqtt_codec::v3::Codec::new(0);
        let (packet, _) = codec.decode(&mut bytes).ok()??;
        codec.encode(packet, &mut out).ok()?;
    }
    Some(out.to_vec())
}

macro_rules! write_mqttbytes {
    ($module:ident, $packet:expr, $out:expr, [$($plain:ident)*], $disconnect:pat => $write:expr) => {
        match $packet {
            $(mqttbytes::$module::Packet::$plain(packet) => packet.write($out),)*
            mqttbytes::$module::Packet::PingReq => mqttbytes::$module::PingReq.write($out),
            mqttbytes::$module::Packet::PingResp => mqttbytes::$module::PingResp.write($out),
            $disconnect => $write,
        }
    };
}

fn mqttbytes(version: ProtocolVersion, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut out) = (BytesMut::from(bytes), BytesMut::new());
    let written = if version == V5 {
        let packet = mqttbytes::v5::read(&mut bytes, usize::MAX).ok()?;
        write_mqttbytes!(v5, packet, &mut out,
            [Connect ConnAck Publish PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck],
            mqttbytes::v5::Packet::Disconnect(packet) => packet.write(&mut out))
    } else {
        let packet = mqttbytes::v4::read(&mut bytes, usize::MAX).ok()?;
        write_mqttbytes!(v4, packet, &mut out,
            [Connect ConnAck Publish PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck],
            mqttbytes::v4::Packet::Disconnect => mqttbytes::v4::Disconnect.write(&mut out))
    };
    written.ok()?;
    Some(out.to_vec())
}

fn ask(other: Other, version: ProtocolVersion, bytes: &[u8]) -> Option<Vec<u8>> {
    catch_unwind(AssertUnwindSafe(|| other(version, bytes))).ok()?
}

fn read(version: ProtocolVersion, sender: Sender, bytes: &[u8]) -> Option<Packet<'_>> {
    let (packet, _) = decoder(version, sender).decode(bytes).ok()??;
    Some(normal(packet))
}

/// The order of message properties, but for user properties among themselves, means nothing; nor does a property
/// that states its default. Both codecs put their own order, and rmqtt-codec leaves defaults out.
fn normal(mut packet: Packet<'_>) -> Packet<'_> {
    let sorted = |properties: Properties<'_>| {
        let mut all: Vec<_> = properties.iter().collect();
        all.retain(|property| *property != Property::PayloadFormat(false));
        all.sort_by_key(|property| match property {
            Property::PayloadFormat(_) => 0,
            Property::ContentType(_) => 1,
            Property::ResponseTopic(_) => 2,
            Property::CorrelationData(_) => 3,
            Property::User(..) => 4,
        });
        let mut builder = PropertiesBuilder::new();
        assert!(all.into_iter().all(|property| builder.push(property)));
        Cow::Owned(builder.as_properties().encoded().to_vec())
    };
    match &mut packet {
        Packet::Publish(publish) => publish.properties = sorted(publish.message_properties()),
        Packet::Connect(connect) => {
            let properties = &mut connect.properties;
            leave_out(&mut properties.session_expiry_interval, 0);
            leave_out(&mut properties.receive_maximum, NonZeroU16::MAX);
            leave_out(&mut properties.topic_alias_maximum, 0);
            leave_out(&mut properties.request_response_information, false);
            leave_out(&mut properties.request_problem_information, true);
            if let Some(will) = &mut connect.will {
                will.properties = sorted(will.message_properties());
            }
        }
        Packet::ConnAck(connack) => {
            let properties = &mut connack.properties;
            leave_out(&mut properties.receive_maximum, NonZeroU16::MAX);
            leave_out(&mut properties.topic_alias_maximum, 0);
            leave_out(&mut properties.retain_available, true);
            leave_out(&mut properties.wildcard_subscription_available, true);
            leave_out(&mut properties.subscription_identifier_available, true);
            leave_out(&mut properties.shared_subscription_available, true);
        }
        _ => {}
    }
    packet
}

fn leave_out<T: PartialEq>(property: &mut Option<T>, default: T) {
    property.take_if(|value| *value == default);
}

/// Names of valid packets that `other` refuses or reads differently.
fn misread(other: Other, versions: &[ProtocolVersion]) -> BTreeSet<&'static str> {
    table::valid::all()
        .into_iter()
        .filter(|one| versions.contains(&one.version))
        .filter(|one| {
            let again = ask(other, one.version, &one.bytes).unwrap_or_default();
            read(one.version, one.sender, &again) != Some(normal(one.packet.clone()))
        })
        .map(|one| one.name)
        .collect()
}

/// Broken packets that `other` takes for valid.
fn tolerated(other: Other, versions: &[ProtocolVersion]) -> BTreeSet<&'static str> {
    table::broken::all()
        .into_iter()
        .filter(|one| versions.contains(&one.version) && one.clause != WRONG_DIRECTION)
        .filter(|one| ask(other, one.version, &one.bytes).is_some())
        .map(|one| one.notation)
        .collect()
}

/// Neither of the two knows who sends.
const WRONG_DIRECTION: &str = "MQTT 5 §2.1.2";

fn compare<'a>(found: &BTreeSet<&'static str>, known: impl Iterator<Item = &'a &'static str>) {
    let known: BTreeSet<&str> = known.copied().collect();
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}\ngone: {gone:#?}"
    );
}

#[test]
fn rmqtt_codec_on_valid_packets() {
    let known = known::RMQTT_MISREADS.iter().map(|(name, _)| name);
    compare(&misread(rmqtt, &[V3, V4, V5]), known);
}

#[test]
fn rmqtt_codec_on_broken_packets() {
    compare(&tolerated(rmqtt, &[V3, V4, V5]), known::RMQTT_TOLERATES.iter());
}

#[test]
fn mqttbytes_on_valid_packets() {
    let known = known::MQTTBYTES_MISREADS.iter().map(|(name, _)| name);
    compare(&misread(mqttbytes, &[V4, V5]), known);
}

#[test]
fn mqttbytes_on_broken_packets() {
    compare(
        &tolerated(mqttbytes, &[V4, V5]),
        known::MQTTBYTES_TOLERATES.iter(),
    );
}

/// Damaged packets that all take for valid mean the same to all.
#[test]
fn damaged_packets_are_read_alike() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    let codecs: [(Other, &[(&str, &str)]); 2] = [
        (rmqtt, known::RMQTT_MISREADS),
        (mqttbytes, known::MQTTBYTES_MISREADS),
    ];
    let mut compared = 0;
    for one in table::valid::all() {
        for _ in 0..300 {
            let mut bytes = one.bytes.clone();
            for _ in 0..=random(2) {
                let at = random(bytes.len());
                bytes[at] = [0, 1, 2, 0x7f, 0x80, bytes[at] ^ 1 << random(8)][random(6)];
            }
            let Some(ours) = read(one.version, one.sender, &bytes) else {
                continue;
            };
            for (other, misreads) in codecs {
                let excepted = misreads.iter().any(|(name, _)| *name == one.name);
                if one.version == V3 || excepted {
                    continue;
                }
                if let Some(theirs) = ask(other, one.version, &bytes) {
                    let theirs = read(one.version, one.sender, &theirs);
                    assert_eq!(theirs, Some(ours.clone()), "{}: {bytes:02x?}", one.name);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 1000, "only {compared} packets were compared");
}
