//! The fuzz targets on a stable toolchain: the tables of messages, damaged at random.
//!
//! `MQTT_SN_FUZZ_SECONDS=60 cargo test -p mqtt-sn --test fuzz` runs for a minute, `MQTT_SN_FUZZ_SEED` picks the sequence.
//! Without them a fixed number of rounds runs from a fixed seed.

#[path = "../fuzz/bodies.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz target")]
mod bodies;
#[path = "../fuzz/strangers.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz target")]
mod strangers;
mod table;

use std::time::{Duration, Instant};

use testkit::Random;

#[test]
fn decode() {
    let corpus = corpus();
    repeat(100_000, |random| bodies::decode(&damage(random, &corpus)));
}

/// Steps for [`strangers::run`]: whole datagrams, damaged ones, some in envelopes, and time.
#[test]
fn endpoint() {
    let corpus = corpus();
    repeat(5_000, |random| {
        let mut steps = vec![random.between(0, 255) as u8];
        for _ in 0..random.below(60) {
            if random.chance(15) {
                steps.extend([3, random.between(0, 255) as u8]);
                continue;
            }
            let mut datagram = match random.below(3) {
                0 => damage(random, &corpus),
                _ => corpus[random.below(corpus.len())].clone(),
            };
            if random.chance(20) {
                let mut envelope = vec![0x05, 0xFE, 0x00, 0xAA, random.between(0, 2) as u8];
                envelope.append(&mut datagram);
                datagram = envelope;
            }
            let Ok(len) = u8::try_from(datagram.len()) else {
                continue;
            };
            steps.push(random.between(0, 2) as u8 | (random.below(64) << 2) as u8);
            steps.push(len);
            steps.extend(datagram);
        }
        strangers::run(&steps);
    });
}

/// The corpus itself is part of every run.
#[test]
fn the_corpus_passes() {
    for bytes in corpus() {
        bodies::decode(&bytes);
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let valid = table::valid::all().into_iter().map(|one| one.bytes());
    let broken = table::broken::all()
        .into_iter()
        .map(|one| table::wire(one.notation));
    let nodes = [
        "05 FE 00 01 02 16",
        "06 FE 01 02 03 04 03 01 00",
        "04 FE 03 01 02 18",
    ];
    valid
        .chain(broken)
        .chain(nodes.into_iter().map(table::wire))
        .collect()
}

fn repeat(rounds: u64, mut round: impl FnMut(&mut Random)) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seed = number("MQTT_SN_FUZZ_SEED").unwrap_or(1);
    println!("MQTT_SN_FUZZ_SEED={seed}");
    let mut random = Random::new(seed);
    match number("MQTT_SN_FUZZ_SECONDS") {
        None => (0..rounds).for_each(|_| round(&mut random)),
        Some(seconds) => {
            let end = now() + Duration::from_secs(seconds);
            while now() < end {
                (0..rounds.min(1_000)).for_each(|_| round(&mut random));
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a fuzz run ends by the clock; what it does, does not depend on it"
)]
fn now() -> Instant {
    Instant::now()
}

fn byte(random: &mut Random) -> u8 {
    const TELLING: [u8; 10] = [0, 1, 2, 3, 0x0C, 0x61, 0x7F, 0x80, 0xFE, 0xFF];
    match random.below(4) {
        0 => TELLING[random.below(TELLING.len())],
        _ => random.between(0, 255) as u8,
    }
}

fn damage(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = byte(random),
            2 => bytes.insert(at, byte(random)),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len().max(1)).min(other.len());
                bytes.splice(
                    at.min(bytes.len())..at.min(bytes.len()),
                    other[from..].iter().copied(),
                );
            }
        }
    }
    // Most damage is done for nothing if the length does not follow it.
    if random.chance(75) && (2..256).contains(&bytes.len()) {
        bytes[0] = bytes.len() as u8;
    }
    bytes
}
