//! One direction of a datagram network: loses, doubles, delays and thereby reorders.

use std::{collections::BTreeMap, time::Duration};

use broker_core::Timestamp;

use crate::Random;

/// How bad the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Datagrams that never arrive, percent.
    pub loss_percent: u8,
    /// Datagrams that arrive a second time, percent of those that arrive.
    pub duplicate_percent: u8,
    /// Shortest time on the way.
    pub delay_min: Duration,
    /// Longest time on the way. Datagrams sent closer to each other than the difference may change their order.
    pub delay_max: Duration,
}

impl Weather {
    /// Everything arrives at once, in order.
    pub const CALM: Weather = Weather {
        loss_percent: 0,
        duplicate_percent: 0,
        delay_min: Duration::ZERO,
        delay_max: Duration::ZERO,
    };
}

/// One direction of a datagram network between two places, in virtual time.
#[derive(Clone, Debug)]
pub struct LossyLink {
    weather: Weather,
    random: Random,
    /// By time of arrival, then in the order of sending.
    under_way: BTreeMap<(Timestamp, u64), Vec<u8>>,
    sent: u64,
}

impl LossyLink {
    /// Datagrams that may be under way at once; more are lost, as in a router whose queue is full.
    pub const UNDER_WAY_MAX: usize = 4096;

    /// A network of this weather; equal seeds lose the same datagrams.
    pub fn new(weather: Weather, seed: u64) -> LossyLink {
        LossyLink {
            weather,
            random: Random::new(seed),
            under_way: BTreeMap::new(),
            sent: 0,
        }
    }

    /// The weather changes for what is sent from now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// A datagram goes on its way.
    pub fn send(&mut self, now: Timestamp, datagram: &[u8]) {
        if self.random.chance(self.weather.loss_percent.into()) {
            return;
        }
        self.put(now, datagram);
        if self.random.chance(self.weather.duplicate_percent.into()) {
            self.put(now, datagram);
        }
    }

    fn put(&mut self, now: Timestamp, datagram: &[u8]) {
        if self.under_way.len() >= LossyLink::UNDER_WAY_MAX {
            return;
        }
        let Weather {
            delay_min, delay_max, ..
        } = self.weather;
        let spread = u32::try_from(delay_max.saturating_sub(delay_min).as_millis()).unwrap_or(u32::MAX);
        let extra = self.random.between(0, spread);
        let arrival = now.after(delay_min).after(Duration::from_millis(extra.into()));
        self.sent += 1;
        self.under_way.insert((arrival, self.sent), datagram.to_vec());
    }

    /// The next datagram that has arrived by `now`.
    pub fn receive(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When the next datagram arrives, if one is under way.
    pub fn next_arrival(&self) -> Option<Timestamp> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000);
    const STORM: Weather = Weather {
        loss_percent: 20,
        duplicate_percent: 10,
        delay_min: Duration::from_millis(5),
        delay_max: Duration::from_millis(50),
    };

    /// Sends 0, 1, 2 … a millisecond apart and returns what arrives, with its time.
    fn run(weather: Weather, seed: u64, count: u16) -> Vec<(u64, u16)> {
        let mut link = LossyLink::new(weather, seed);
        for n in 0..count {
            link.send(START.after(Duration::from_millis(u64::from(n))), &n.to_be_bytes());
        }
        let mut arrived = Vec::new();
        while let Some(at) = link.next_arrival() {
            assert_eq!(link.receive(Timestamp::from_millis(at.as_millis() - 1)), None);
            let datagram = link.receive(at).expect("it has arrived");
            arrived.push((at.as_millis(), u16::from_be_bytes([datagram[0], datagram[1]])));
        }
        arrived
    }

    #[test]
    fn in_calm_weather_everything_arrives_at_once_and_in_order() {
        let expected: Vec<(u64, u16)> = (0..200).map(|n| (1_000 + u64::from(n), n)).collect();
        assert_eq!(run(Weather::CALM, 1, 200), expected);
    }

    #[test]
    fn a_storm_loses_doubles_and_reorders_within_its_bounds() {
        let arrived = run(STORM, 1, 1000);
        let mut times = [0u8; 1000];
        for &(at, n) in &arrived {
            times[usize::from(n)] += 1;
            let delay = at - 1_000 - u64::from(n);
            assert!((5..=50).contains(&delay), "{n} took {delay} ms");
        }
        let lost = times.iter().filter(|&&times| times == 0).count();
        let doubled = times.iter().filter(|&&times| times == 2).count();
        assert!((150..250).contains(&lost), "{lost} of 1000 lost");
        assert!((50..120).contains(&doubled), "{doubled} of 800 doubled");
        assert!(arrived.windows(2).any(|pair| pair[0].1 > pair[1].1), "reordered");
    }

    #[test]
    fn equal_seeds_are_equal_runs() {
        assert_eq!(run(STORM, 7, 100), run(STORM, 7, 100));
        assert_ne!(run(STORM, 7, 100), run(STORM, 8, 100));
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let slow = Weather {
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_secs(1),
            ..Weather::CALM
        };
        assert_eq!(run(slow, 1, 5000).len(), LossyLink::UNDER_WAY_MAX);
    }
}
