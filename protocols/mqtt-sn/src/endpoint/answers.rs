//! How often those are answered whom nobody knows.

use std::net::IpAddr;

use broker_core::{Remote, Timestamp, random::mix};

/// Answers to strangers, each a few bytes, that an endpoint gives in a second; as many at once after a pause.
const PER_SECOND: u64 = 1000;

/// Of them, those that go to the same host (IPv6: the same network of 64 bits), so that one that asks from all its ports
/// does not keep others from being answered.
const PER_HOST: u16 = 100;

/// A second, after which a host is answered anew.
const HOST_MS: u64 = 1000;

/// A stranger is answered again after this time. Two gateways that take each other's DISCONNECT for a client's fall
/// silent by it.
const PAUSE_MS: u64 = 1000;

/// The strangers answered last that are remembered. Two in the same place displace each other. As many hosts are counted;
/// two in the same place are counted together.
const PLACES: usize = 256;

/// Decides whether a stranger is answered.
#[derive(Debug)]
pub(super) struct Answers {
    /// Hash of the stranger, and when it was answered.
    last: Box<[Option<(u64, Timestamp)>; PLACES]>,
    /// Since when a host is counted, and its answers since then.
    hosts: Box<[(Timestamp, u16); PLACES]>,
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
            hosts: Box::new([(Timestamp::default(), 0); PLACES]),
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
        let place = place(hash);
        if let Some((who, when)) = self.last[place]
            && who == hash
            && now.since(when).as_millis() < u128::from(PAUSE_MS)
        {
            return Err(super::words::ANSWERED_BEFORE);
        }
        let (since, given) = &mut self.hosts[self::place(host(self.key, remote.address.ip()))];
        if now.since(*since).as_millis() >= u128::from(HOST_MS) {
            (*since, *given) = (now, 0);
        }
        if *given >= PER_HOST {
            return Err(super::words::TOO_MANY_ANSWERS);
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
        *given += 1;
        self.last[place] = Some((hash, now));
        Ok(())
    }
}

fn place(hash: u64) -> usize {
    usize::try_from(hash % PLACES as u64).expect("below PLACES")
}

/// Of a host, or of the network in which all addresses may be one host's.
fn host(key: u64, ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => mix(mix(key) ^ u64::from(ip.to_bits())),
        IpAddr::V6(ip) => mix(mix(key) ^ (ip.to_bits() >> 64) as u64),
    }
}

/// Not the same for any two strangers that are likely to meet.
pub(super) fn hash(key: u64, remote: &Remote) -> u64 {
    let mut hash = mix(key ^ u64::from(remote.address.port()));
    let mut add = |part: u64| hash = mix(hash ^ part).wrapping_add(part);
    match remote.address.ip() {
        IpAddr::V4(ip) => add(u64::from(ip.to_bits())),
        IpAddr::V6(ip) => {
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
