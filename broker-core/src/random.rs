//! Randomness as a value: a small generator that is seeded from outside (SplitMix64, Steele et al. 2014). Not for
//! secrets.

use std::time::Duration;

/// Numbers that nobody needs to be unable to guess.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).expect("less than bound")
    }

    /// A time up to `longest`, in milliseconds.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let bound = longest.as_millis() + 1;
        let millis = (u128::from(self.next()) * bound) >> 64;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// Spreads the bits of a number over all 64.
pub const fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
