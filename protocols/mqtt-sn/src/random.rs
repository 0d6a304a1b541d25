//! Randomness as a value: a small generator that is seeded from outside (SplitMix64, Steele et al. 2014). Not for
//! secrets.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A time up to `longest`, in milliseconds.
    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        let bound = longest.as_millis() + 1;
        let millis = (u128::from(self.next()) * bound) >> 64;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// Spreads the bits of a number over all 64.
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
