//! The fuzz target on a stable toolchain: handshakes, damaged at random.
//!
//! `DRIVER_FUZZ_SECONDS=60 cargo test -p driver --test fuzz` runs for a minute, `DRIVER_FUZZ_SEED` picks the sequence.

#![expect(
    clippy::disallowed_methods,
    reason = "the time that it may take is of the real world"
)]

use std::time::{Duration, Instant};

use testkit::Random;

#[path = "../fuzz/dtls.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz target")]
mod dtls;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn arbitrary_datagrams_among_those_of_a_handshake() {
    // Hello, hello with cookie, the last flight, data.
    assert_eq!(dtls::handshakes(&[1, 1, 1, 7, 1]), 1);
    let mut random = Random::new(variable("DRIVER_FUZZ_SEED").unwrap_or(1));
    let end = variable("DRIVER_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for run in 0.. {
        if end.map_or(run == 2_000, |end| Instant::now() >= end) {
            return;
        }
        let mut data = Vec::new();
        for _ in 0..random.below(40) {
            // Steps of the client more often than others.
            match random.chance(40) {
                true => data.push(1),
                false => data.extend((0..1 + random.below(12)).map(|_| random.bits() as u8)),
            }
        }
        dtls::run(&data);
    }
}
