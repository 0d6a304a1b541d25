//! The fuzz targets of the peer on a stable toolchain: sequences of likely messages and events.
//!
//! `MQTT_SN_FUZZ_SECONDS=60 cargo test -p mqtt-sn --test fuzz_peer` runs for a minute, `MQTT_SN_FUZZ_SEED` picks the
//! sequence. Without them a fixed number of rounds runs from a fixed seed.

#[path = "../fuzz/peer.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz targets")]
mod hostile;

use std::time::{Duration, Instant};

use broker_core::QoS;
use bytes::BytesMut;
use mqtt_sn::codec::{
    Connect, Message, MsgId, Publish, PublishQoS, ReturnCode, Subscribe, Topic, TopicId, TopicName, Will,
};
use testkit::Random;

#[test]
fn peer() {
    repeat(1_500, |random| {
        let mut steps = Vec::new();
        for _ in 0..random.below(60) {
            let line = (random.below(3) << 3) as u8;
            let any = random.between(0, 255) as u8;
            match random.below(12) {
                0 => steps.extend([4, any]),
                1 | 2 => steps.extend([6 | (random.below(3) << 5) as u8, any]),
                3 if random.chance(30) => steps.push(5 | line | (any & 0x80)),
                4 if random.chance(50) => steps.push(7 | (any & 0x80)),
                _ => {
                    let datagram = datagram(random);
                    steps.extend([line, u8::try_from(datagram.len()).expect("short")]);
                    steps.extend(datagram);
                }
            }
        }
        hostile::run(&steps);
    });
}

#[test]
fn peer_alone() {
    repeat(20_000, |random| {
        let mut steps = Vec::new();
        for _ in 0..random.below(40) {
            if random.chance(50) {
                let datagram = datagram(random);
                steps.push(u8::try_from(datagram.len()).expect("short"));
                steps.extend(datagram);
            } else {
                // Mostly what does not end everything.
                let kind = if random.chance(95) {
                    [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15][random.below(14)]
                } else {
                    random.below(16) as u8
                };
                steps.extend([
                    0x80 | kind | (random.below(8) << 4) as u8,
                    random.between(0, 255) as u8,
                ]);
            }
        }
        hostile::run_alone(&steps);
    });
}

/// A message that a client may send, sometimes damaged.
fn datagram(random: &mut Random) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message(random).encode(&mut bytes);
    let mut bytes = bytes.to_vec();
    if random.chance(5) {
        let at = random.below(bytes.len());
        bytes[at] = random.between(0, 255) as u8;
    }
    bytes
}

fn message(random: &mut Random) -> Message<'static> {
    let msg_id = MsgId(random.between(1, 8) as u16);
    let topic_id = TopicId([7, 8, 1025, 1026, 1027][random.below(5)]);
    let name = random.pick(&["a", "ab", "a/b", "predefined/seven", "a/b/c"]);
    let client_id = random.pick(&["c", "c", "d", ""]);
    let qos = QoS::new(random.below(3) as u8).expect("below three");
    let return_code = ReturnCode::from([0, 0, 0, 1, 2, 3][random.below(6)]);
    let topic = match random.below(3) {
        0 => Topic::Short(*b"ab"),
        1 => Topic::Predefined(topic_id),
        _ => Topic::Normal(topic_id),
    };
    let will = random.chance(70).then_some(Will {
        qos,
        retain: random.chance(30),
        topic: name,
    });
    match random.below(22) {
        0..=2 => Message::Connect(Connect {
            will: random.chance(30),
            clean_session: random.chance(50),
            duration: [0, 1, 10, 60, 0xFFFF][random.below(5)],
            client_id,
        }),
        3 => Message::WillTopic(will),
        4 => Message::WillMsg(b"will"),
        5 => Message::Register {
            topic_id: TopicId::NONE,
            msg_id,
            topic_name: name,
        },
        6 => Message::RegAck {
            topic_id,
            msg_id,
            return_code,
        },
        7..=9 => Message::Publish(Publish {
            dup: random.chance(30),
            qos: PublishQoS::Level(qos),
            retain: random.chance(10),
            topic,
            msg_id,
            data: b"data",
        }),
        10 => Message::PubAck {
            topic_id,
            msg_id,
            return_code,
        },
        11 => Message::PubRec(msg_id),
        12 => Message::PubRel(msg_id),
        13 => Message::PubComp(msg_id),
        14 | 15 => Message::Subscribe(Subscribe {
            dup: random.chance(30),
            qos,
            msg_id,
            topic: TopicName::Name(random.pick(&["#", "a/#", "a", "ab", "$share/g/a"])),
        }),
        16 => Message::Unsubscribe {
            msg_id,
            topic: TopicName::Name("a/#"),
        },
        17 | 18 => Message::PingReq(client_id),
        19 => Message::Disconnect(
            random
                .chance(80)
                .then_some([0, 1, 10, 100, 0xFFFF][random.below(5)]),
        ),
        20 => Message::WillTopicUpd(will),
        _ => Message::WillMsgUpd(b"other"),
    }
}

fn repeat(rounds: u64, mut round: impl FnMut(&mut Random)) {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let seed = number("MQTT_SN_FUZZ_SEED").unwrap_or(1);
    let end = number("MQTT_SN_FUZZ_SECONDS").map(|seconds| now() + Duration::from_secs(seconds));
    let mut done = 0;
    while end.map_or(done < rounds, |end| now() < end) {
        let seed = seed.wrapping_add(done << 32);
        let mut random = Random::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(&mut random)));
        assert!(ran.is_ok(), "MQTT_SN_FUZZ_SEED={seed}");
        done += 1;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a fuzz run ends by the clock; what it does, does not depend on it"
)]
fn now() -> Instant {
    Instant::now()
}
