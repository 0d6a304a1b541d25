//! Clients that are turned away before anything is asked.

use std::{net::IpAddr, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use thiserror::Error;

use crate::{ClientId, Timestamp};

/// What a client is banned by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BannedBy {
    /// Its client id.
    ClientId(Arc<str>),
    /// Its user name.
    Username(Arc<str>),
    /// The address it comes from. An IPv4 address also covers its IPv4-mapped IPv6 form (RFC 4291 §2.5.5.2).
    PeerHost(IpAddr),
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// From this time on the ban has no effect; [`Timestamp::NEVER`]: it stays.
    pub until: Timestamp,
    /// For operators.
    pub reason: Arc<str>,
    /// Who imposed it, such as `flapping detector` or the name of an administrator.
    pub by: Arc<str>,
}

/// The list is full, and none of its bans has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the list of banned clients is full: {} entries", Banned::MAX)]
pub struct BannedFull;

/// The list of banned clients. Checked before authentication; a banned client is told Banned (0x8A).
#[derive(Clone, Debug, Default)]
pub struct Banned {
    client_ids: HashMap<Arc<str>, Ban, RandomState>,
    usernames: HashMap<Arc<str>, Ban, RandomState>,
    hosts: HashMap<IpAddr, Ban, RandomState>,
}

impl Banned {
    /// Most entries. At the bound, ended bans make room; if there are none, a new ban is refused.
    pub const MAX: usize = 1_000_000;

    /// Nobody is banned.
    pub fn new() -> Banned {
        Banned::default()
    }

    /// Bans, or replaces the ban that is there.
    ///
    /// # Errors
    ///
    /// [`BannedFull`] if there are [`Banned::MAX`] bans in force.
    pub fn insert(&mut self, now: Timestamp, who: BannedBy, ban: Ban) -> Result<(), BannedFull> {
        if self.len() >= Banned::MAX {
            self.expire(now);
            if self.len() >= Banned::MAX {
                return Err(BannedFull);
            }
        }
        match who {
            BannedBy::ClientId(id) => self.client_ids.insert(id, ban),
            BannedBy::Username(name) => self.usernames.insert(name, ban),
            BannedBy::PeerHost(host) => self.hosts.insert(host.to_canonical(), ban),
        };
        Ok(())
    }

    /// Lifts a ban; returns it if there was one.
    pub fn remove(&mut self, who: &BannedBy) -> Option<Ban> {
        match who {
            BannedBy::ClientId(id) => self.client_ids.remove(id),
            BannedBy::Username(name) => self.usernames.remove(name),
            BannedBy::PeerHost(host) => self.hosts.remove(&host.to_canonical()),
        }
    }

    /// The ban in force on a client, if any: by client id, then user name, then address.
    pub fn check(
        &self,
        now: Timestamp,
        client_id: &ClientId,
        username: Option<&str>,
        host: Option<IpAddr>,
    ) -> Option<&Ban> {
        let in_force = |ban: &&Ban| now < ban.until;
        let by_id = self.client_ids.get(client_id.as_str()).filter(in_force);
        by_id
            .or_else(|| self.usernames.get(username?).filter(in_force))
            .or_else(|| self.check_host(now, host?))
    }

    /// The ban in force on an address, if any.
    pub fn check_host(&self, now: Timestamp, host: IpAddr) -> Option<&Ban> {
        self.hosts.get(&host.to_canonical()).filter(|ban| now < ban.until)
    }

    /// Forgets the bans that have ended. Looks at every ban: for housekeeping.
    pub fn expire(&mut self, now: Timestamp) {
        self.client_ids.retain(|_, ban| now < ban.until);
        self.usernames.retain(|_, ban| now < ban.until);
        self.hosts.retain(|_, ban| now < ban.until);
    }

    /// Entries, ended ones included until [`Banned::expire`] is called.
    pub fn len(&self) -> usize {
        self.client_ids.len() + self.usernames.len() + self.hosts.len()
    }

    /// True if nobody is on the list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(until: u64) -> Ban {
        Ban {
            until: Timestamp::from_millis(until),
            reason: "test".into(),
            by: "test".into(),
        }
    }

    #[test]
    fn each_key_bans_until_its_time() {
        let now = Timestamp::from_millis(0);
        let mut banned = Banned::new();
        banned
            .insert(now, BannedBy::ClientId("c".into()), ban(10))
            .unwrap();
        banned
            .insert(now, BannedBy::Username("u".into()), ban(20))
            .unwrap();
        banned
            .insert(now, BannedBy::PeerHost("10.0.0.1".parse().unwrap()), ban(30))
            .unwrap();
        let (c, d) = (ClientId::new("c"), ClientId::new("d"));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        for (millis, id, username, host, expected) in [
            (9, &c, None, None, true),
            (10, &c, None, None, false),
            (10, &c, Some("u"), None, true),
            (19, &d, Some("u"), None, true),
            (20, &d, Some("u"), None, false),
            (20, &d, Some("u"), Some(mapped), true),
            (29, &d, None, Some(mapped), true),
            (30, &d, None, Some(mapped), false),
            (0, &d, Some("c"), Some("10.0.0.2".parse().unwrap()), false),
        ] {
            let found = banned.check(Timestamp::from_millis(millis), id, username, host);
            assert_eq!(found.is_some(), expected, "{millis} {id} {username:?} {host:?}");
        }
    }

    #[test]
    fn ended_bans_are_forgotten_and_bans_can_be_lifted() {
        let now = Timestamp::from_millis(0);
        let mut banned = Banned::new();
        for (name, until) in [("a", 10), ("b", 20), ("c", u64::MAX)] {
            banned
                .insert(now, BannedBy::Username(name.into()), ban(until))
                .unwrap();
        }
        banned.expire(Timestamp::from_millis(9));
        assert_eq!(banned.len(), 3);
        banned.expire(Timestamp::from_millis(20));
        assert_eq!(banned.len(), 1);
        assert_eq!(
            banned.remove(&BannedBy::Username("c".into())),
            Some(ban(u64::MAX))
        );
        assert_eq!(banned.remove(&BannedBy::Username("c".into())), None);
        assert!(banned.is_empty());
    }
}
