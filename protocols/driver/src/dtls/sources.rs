//! What one source may take of the handshakes. A cookie proves an address, but one machine has many ports, and a key
//! exchange and a signature cost far more than the hello that asks for them.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use broker_core::Timestamp;

/// Handshakes that begin within [`PERIOD`] for one source: a few per cent of a core. Clients behind one address that
/// all come at once get their turn when they send their hellos again.
const STARTS_MAX: u32 = 100;
const PERIOD: Duration = Duration::from_secs(1);
/// A source may have this part of all handshakes under way…
const SHARE: usize = 4;
/// … and always so many.
const SHARE_MIN: usize = 16;

/// An IPv4 address, or the 64 bits of an IPv6 address that say whose network it is (RFC 4291 §2.5.4).
type Source = u64;

/// Counts handshakes by source. There are at most as many entries as handshakes under way, and as began within a second.
#[derive(Debug, Default)]
pub(super) struct Sources {
    under_way: HashMap<Source, usize>,
    begun: HashMap<Source, u32>,
    since: Timestamp,
}

impl Sources {
    /// Why this address may not begin a handshake now, if `handshakes_max` is the limit for all. `replaces`: it gives
    /// another one up for it.
    pub(super) fn refusal(
        &mut self,
        now: Timestamp,
        ip: IpAddr,
        handshakes_max: usize,
        replaces: bool,
    ) -> Option<&'static str> {
        // A clock that was set back begins a new period too.
        if now < self.since || now.since(self.since) >= PERIOD {
            self.begun = HashMap::new();
            self.since = now;
        }
        let source = source(ip);
        let share = (handshakes_max / SHARE).max(SHARE_MIN);
        if !replaces && self.under_way.get(&source).is_some_and(|count| *count >= share) {
            return Some("source_handshakes_full");
        }
        (self.begun.get(&source).copied().unwrap_or(0) >= STARTS_MAX).then_some("source_too_fast")
    }

    /// A hello of this address is answered with a flight, or refused: either costs.
    pub(super) fn asked(&mut self, ip: IpAddr) {
        *self.begun.entry(source(ip)).or_default() += 1;
    }

    /// A handshake is under way.
    pub(super) fn began(&mut self, ip: IpAddr) {
        *self.under_way.entry(source(ip)).or_default() += 1;
    }

    /// A handshake has ended, however.
    pub(super) fn ended(&mut self, ip: IpAddr) {
        let source = source(ip);
        if let Some(count) = self.under_way.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&source);
            }
        }
    }
}

fn source(ip: IpAddr) -> Source {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u32::from(ip).into(),
        // A global address has more than 32 bits before the host's.
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_or_a_network_of_ipv6() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn nothing_is_kept_of_sources_that_are_gone() {
        let mut sources = Sources::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        sources.began(ip);
        sources.asked(ip);
        sources.ended(ip);
        assert!(sources.under_way.is_empty());
        assert_eq!(sources.refusal(Timestamp::from_millis(1_000), ip, 1, false), None);
        assert!(sources.begun.is_empty());
    }
}
