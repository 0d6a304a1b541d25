//! The fuzz targets on a stable toolchain: the table of packets, damaged at random.
//!
//! `MQTT_FUZZ_SECONDS=60 cargo test -p mqtt --test fuzz` runs for a minute, `MQTT_FUZZ_SEED` picks the sequence.
//! Without them a fixed number of rounds runs from a fixed seed.

#[path = "../fuzz/bodies.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz targets")]
mod bodies;
#[path = "../fuzz/peer.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz target")]
mod hostile;
mod table;

use std::time::{Duration, Instant};

use mqtt::codec::ProtocolVersion;

use table::{V3, V4, V5};

const ROUNDS: u64 = 30_000;

#[test]
fn decode_v3() {
    run(V3);
}

#[test]
fn decode_v4() {
    run(V4);
}

#[test]
fn decode_v5() {
    run(V5);
}

/// Steps for [`hostile::run`]: whole packets, damaged ones, and time.
#[test]
fn peer() {
    let clients = clients();
    let broken = corpus();
    // A round is a node and up to forty steps.
    repeat(1_500, |random| {
        let mut steps = Vec::new();
        let version = [V3, V4, V5][random.below(3)];
        let packets = &clients[random.below(3)];
        let own = &clients[version as usize - 3];
        for at in 0..random.below(40) {
            let line = (random.below(3) << 3) as u8;
            let packet = match random.below(8) {
                0 => random.damage(&broken),
                1 => random.damage(own),
                2 => packets[random.below(packets.len())].clone(),
                3 => {
                    steps.extend([4, random.byte()]);
                    continue;
                }
                4 if at > 3 => {
                    steps.push(5 | line | (random.below(2) << 7) as u8 | random.below(3) as u8);
                    continue;
                }
                _ => own[random.below(own.len())].clone(),
            };
            let is_first = at < 3;
            let line = if is_first { (at << 3) as u8 } else { line };
            let packet = if is_first { connect(own, random) } else { packet };
            steps.push(line);
            steps.extend((packet.len() as u16 % 2048).to_be_bytes());
            steps.extend(packet);
        }
        hostile::run(&steps);
    });
}

/// What clients send, by version.
fn clients() -> [Vec<Vec<u8>>; 3] {
    let all = table::valid::all();
    [V3, V4, V5].map(|version| {
        all.iter()
            .filter(|one| one.version == version && one.sender == table::valid::C)
            .filter(|one| one.bytes.len() < 2048)
            .map(|one| one.bytes.clone())
            .collect()
    })
}

fn connect(packets: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let connects: Vec<_> = packets.iter().filter(|bytes| bytes[0] == 0x10).collect();
    connects[random.below(connects.len())].clone()
}

fn run(version: ProtocolVersion) {
    let corpus = corpus();
    repeat(ROUNDS, |random| bodies::decode(version, &random.damage(&corpus)));
}

fn repeat(rounds: u64, mut round: impl FnMut(&mut Random)) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seed = number("MQTT_FUZZ_SEED").unwrap_or(1);
    println!("MQTT_FUZZ_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    match number("MQTT_FUZZ_SECONDS") {
        None => (0..rounds).for_each(|_| round(&mut random)),
        Some(seconds) => {
            let end = now() + Duration::from_secs(seconds);
            while now() < end {
                (0..rounds).for_each(|_| round(&mut random));
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

fn corpus() -> Vec<Vec<u8>> {
    let valid = table::valid::all().into_iter().map(|one| one.bytes);
    let broken = table::broken::all().into_iter().map(|one| one.bytes);
    valid.chain(broken).collect()
}

/// Xorshift: repeatable, and random enough to damage packets.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        match self.below(4) {
            0 => [0, 1, 2, 0x0b, 0x23, 0x26, 0x7f, 0x80, 0xff][self.below(9)],
            _ => self.below(256) as u8,
        }
    }

    fn damage(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.byte(),
                2 => bytes.insert(at, self.byte()),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                4 => bytes.truncate(at),
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    bytes.splice(at..at, other[from..].iter().copied());
                }
            }
        }
        // Most damage is done for nothing if the remaining length does not follow it.
        if self.below(4) > 0 && (3..130).contains(&bytes.len()) {
            bytes[1] = (bytes.len() - 2) as u8;
        }
        bytes
    }
}

/// The corpus itself is part of every run.
#[test]
fn the_corpus_passes() {
    for bytes in corpus() {
        for version in [V3, V4, V5] {
            bodies::decode(version, &bytes);
        }
    }
}
