//! How often those are answered whom nobody knows.

use broker_core::{Remote, Timestamp, random::mix};

/// Answers to strangers, each a few bytes, that an endpoint gives in a second; as many at once after a pause.
const PER_SECOND: u64 = 1000;

/// A stranger is answered again after this time. Two gateways that take each other's DISCONNECT for a client's fall
/// silent by it.
const PAUSE_MS: u64 = 1000;

/// The strangers answered last that are remembered. Two in the same place displace each other.
const PLACES: usize = 256;

/// Decides whether a stranger is answered.
#[derive(Debug)]
pub(super) struct Answers {
    /// Hash of the stranger, and when it was answered.
    last: Box<[Option<(u64, Timestamp)>; PLACES]>,
    key: u64,
    /// What may still be answered, in thousandths of an answer.
    credit: u64,
    credit_at: Timestamp,
}

impl Answers {
    /// `key` makes the places of strangers hard to guess.
    pub(super) fn new(key: u64) -> Answers {
        Answers {
            last: Box::new([None; PLACES]),
            key,
            credit: PER_SECOND * 1000,
            credit_at: Timestamp::default(),
        }
    }

    /// Takes note of an answer that is about to be given.
    ///
    /// # Errors
    ///
    /// The word to count, if it must not be given.
    pub(super) fn allow(&mut self, now: Timestamp, remote: &Remote) -> Result<(), &'static str> {
        let hash = hash(self.key, remote);
        let place = usize::try_from(hash % PLACES as u64).expect("below PLACES");
        if let Some((who, when)) = self.last[place]
            && who == hash
            && now.since(when).as_millis() < u128::from(PAUSE_MS)
        {
            return Err(super::words::ANSWERED_BEFORE);
        }
        let elapsed = u64::try_from(now.since(self.credit_at).as_millis()).unwrap_or(u64::MAX);
        self.credit = self
            .credit
            .saturating_add(elapsed.saturating_mul(PER_SECOND))
            .min(PER_SECOND * 1000);
        self.credit_at = self.credit_at.max(now);
        self.credit = self
            .credit
            .checked_sub(1000)
            .ok_or(super::words::TOO_MANY_ANSWERS)?;
        self.last[place] = Some((hash, now));
        Ok(())
    }
}

/// Not the same for any two strangers that are likely to meet.
pub(super) fn hash(key: u64, remote: &Remote) -> u64 {
    let mut hash = mix(key ^ u64::from(remote.address.port()));
    let mut add = |part: u64| hash = mix(hash ^ part).wrapping_add(part);
    match remote.address.ip() {
        std::net::IpAddr::V4(ip) => add(u64::from(ip.to_bits())),
        std::net::IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            add((bits >> 64) as u64);
            add(bits as u64);
        }
    }
    if let Some(node) = &remote.node {
        add(node.len() as u64);
        node.iter().for_each(|&byte| add(u64::from(byte)));
    }
    hash
}
